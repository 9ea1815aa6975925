"""Who is calling, as a program finds it in its ASGI scope."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

KEY = "doorward.identity"  # in the scope

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling. By a token or by a tailnet connection; what the other kind would say is empty."""

    subject: str  # never given to anybody else: the token's ``sub``, or the node's stable id
    login: str = ""  # the person's name; empty for a tagged node and for an app's own token
    node: str = ""  # by connection: the node's full name, without a dot at its end
    tags: tuple[str, ...] = ()  # by connection: a tagged node is nobody's
    capabilities: Mapping[str, Any] = {}  # by connection: what the policy's grants give it towards this node
    scopes: frozenset[str] = frozenset()  # by token
    claims: Mapping[str, Any] = {}  # by token: all that it says, all of it checked

    def capability(self, name: str) -> list[Any]:
        """The values of an application capability, one for each grant; empty where it has none."""
        found = self.capabilities.get(name)
        return list(found) if isinstance(found, list) else []

    @property
    def actors(self) -> tuple[str, ...]:
        """By token: who acts for the subject, the nearest first (``act``, RFC 8693 section 4.1).

        Only the first may decide anything; those behind it are for the record.
        """
        found: list[str] = []
        at = self.claims.get("act")
        while isinstance(at, Mapping) and isinstance(at.get("sub"), str):
            found.append(at["sub"])
            at = at.get("act")
        return tuple(found)


def caller(scope: Scope) -> Identity | None:
    """Who is calling; None for a stranger. Raises KeyError where no IdentityMiddleware stands in front."""
    found = scope[KEY]
    assert found is None or isinstance(found, Identity)
    return found


def token_of(scope: Scope) -> str:
    """The token that the caller showed, for ``Client.exchange`` alone; empty for who is known by the connection.

    It is not part of ``Identity``, which programs write into logs. Raises KeyError as ``caller`` does.
    """
    who = caller(scope)
    if who is None or not who.claims:
        return ""
    (said,) = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    return str(said.decode("latin-1").partition(" ")[2].strip())
