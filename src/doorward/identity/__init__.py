"""For other people's programs: who is calling, and a node of its own for any ASGI app.

::

    app = IdentityMiddleware(app, tailnet=Tailnet(), verifier=Verifier("https://door...", "my-app"))
    ...
    who = caller(scope)             # Identity, or None where ``required=False`` let a stranger in

    async with node("wiki") as n:   # a private tailscaled, a name of its own
        await n.serve(app)

``verifier`` checks access tokens of an issuer (RFC 9068), ``connection`` asks a stock daemon whose a tailnet connection is,
``middleware`` puts either answer into the scope, and ``own_node`` is the node. Identity comes from a token or from the
connection, never from a header. Nothing of doorward's server is imported here: no database, no web framework; what serves
requests (uvicorn) is loaded by the first ``node``. It works on any tailnet, whoever runs it.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from doorward.identity.caller import Identity, caller
from doorward.identity.connection import Tailnet
from doorward.identity.middleware import IdentityMiddleware
from doorward.identity.verifier import ScopeError, TokenError, Verifier

if TYPE_CHECKING:
    from doorward.identity.own_node import OwnNode

__all__ = [
    "Identity",
    "IdentityMiddleware",
    "ScopeError",
    "Tailnet",
    "TokenError",
    "Verifier",
    "caller",
    "node",
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
