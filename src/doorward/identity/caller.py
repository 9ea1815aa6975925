"""Who is calling, as a program finds it in its ASGI scope."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec

KEY = "doorward.identity"  # in the scope


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


def caller(scope: MutableMapping[str, Any]) -> Identity | None:
    """Who is calling; None for a stranger. Raises KeyError where no IdentityMiddleware stands in front."""
    found = scope[KEY]
    assert found is None or isinstance(found, Identity)
    return found
