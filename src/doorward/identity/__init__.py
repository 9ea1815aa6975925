"""For other people's programs: who is calling, what they may, a token for the next server, and a node of its own.

::

    app = IdentityMiddleware(app, tailnet=Tailnet(), verifier=Verifier("https://door...", "my-app"))
    ...
    who = caller(scope)             # Identity, or None where ``required=False`` let a stranger in
    demand(scope, "wiki:write")     # more than the token allows? The caller's program is told what to ask for

    async with node("wiki") as n:   # a private tailscaled, a name of its own
        await n.serve(app)

``verifier`` checks access tokens of an issuer (RFC 9068), ``introspector`` has the issuer check them, ``connection`` asks a stock
daemon whose a tailnet connection is, ``middleware`` puts the answer into the scope. ``resource`` is what a server says of itself
to programs that want in, ``needs`` what its operations take (``tools``: those of an MCP server), ``possession`` looks at proofs that go with tokens. ``client`` is the
program towards its issuer, ``local`` a guard for servers on a person's own computer, ``own_node`` the node. Identity comes from a
token or from the connection, never from a header. Nothing of doorward's server is imported here: no database, no web framework;
what serves requests (uvicorn) is loaded by the first ``node``. It works on any tailnet, whoever runs it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.identity.caller import Identity, caller, token_of
from doorward.identity.client import Client, GrantRefused, Token
from doorward.identity.connection import Tailnet
from doorward.identity.introspector import Introspector
from doorward.identity.local import LocalOnly
from doorward.identity.middleware import IdentityMiddleware
from doorward.identity.needs import Needs, demand
from doorward.identity.possession import Proofs
from doorward.identity.refusals import ScopeError, StrengthError, TokenError
from doorward.identity.resource import Resource
from doorward.identity.tools import ToolScopes
from doorward.identity.verifier import Verifier

if TYPE_CHECKING:
    from doorward.identity.own_node import OwnNode

__all__ = [
    "Client",
    "GrantRefused",
    "Identity",
    "IdentityMiddleware",
    "Introspector",
    "LocalOnly",
    "Needs",
    "Proofs",
    "Resource",
    "ScopeError",
    "StrengthError",
    "Tailnet",
    "Token",
    "TokenError",
    "ToolScopes",
    "Verifier",
    "caller",
    "demand",
    "node",
    "token_of",
]


def node(
    name: str,
    *,
    control: str = "",
    auth_key: str = "",
    port: int | None = None,
    folder: Path | None = None,
    on_link: Callable[[str], Awaitable[None]] | None = None,
    share_loopback: bool = False,
    within: float = 60.0,
) -> "AbstractAsyncContextManager[OwnNode]":
    """A node of a tailnet that is one program; enter it with ``async with``, then call its ``serve(app)``.

    Args:
        name: what it calls itself, and its state's folder unless ``folder`` says otherwise.
        control: the control server's address; else ``TS_CONTROL_URL``, else Tailscale's own.
        auth_key: logs it in the first time; else ``TS_AUTHKEY``; without either a link is shown.
        port: where the app is; else 443 with a certificate, 80 without.
        folder: keeps the node's key between starts; else ``${XDG_STATE_HOME:-~/.local/state}/doorward/nodes/NAME``.
        on_link: told the link that a person must open; else it is written to the standard error.
        share_loopback: let the tailnet reach whatever else listens on this computer's 127.0.0.1, as far as the policy allows.
        within: seconds to be on the tailnet. Nothing limits the wait for a person who is to open a link or to approve.

    Raises, on entering: EngineError when the node does not come up, ProgramError without a stock client.
    """
    # Here and not above: a program that only checks tokens needs no web server.
    from doorward.identity.own_node import open_node  # noqa: PLC0415

    return open_node(
        name,
        control=control,
        auth_key=auth_key,
        port=port,
        folder=folder,
        on_link=on_link,
        share_loopback=share_loopback,
        within=within,
    )
