"""Single claims that an app asks for (the parameter ``claims``, OpenID Connect Core section 5.5), read and judged. Pure.

A claim asked for by name is told under the same conditions as the scope that it belongs to: the policy allows that scope, and whoever
is asked is asked about it. What is not known here is left out, as section 5.5 has it, and so are wishes of what a claim should say; but
for two that decide who may be signed in at all: ``sub``, and an essential ``acr``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from doorward.issuer.errors import AuthorizeError

SCOPE_OF = {
    "name": "profile",
    "preferred_username": "profile",
    "email": "email",
    "groups": "groups",
    "node": "device",
    "nid": "device",
    "addresses": "device",
    "tailnet": "device",
}
_MOST_VALUES = 50


class Wanted(msgspec.Struct, frozen=True):
    """What is asked for.

    Attributes:
        id_token: names of claims that the ID token is to have.
        userinfo: those that userinfo is to tell.
        subjects: who alone may be signed in, by ``sub``; empty for whoever is there.
        levels: values of ``acr``, the best first.
        essential: one of ``levels`` it has to be.
    """

    id_token: tuple[str, ...] = ()
    userinfo: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    essential: bool = False

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that the claims belong to, each once."""
        return scopes_of((*self.id_token, *self.userinfo))


class _Wish(msgspec.Struct, frozen=True):
    """Section 5.5.1."""

    essential: bool = False
    value: Any = None
    values: tuple[Any, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What it may be; values that are no text are none of ours."""
        listed = (*self.values, *(() if self.value is None else (self.value,)))
        return tuple(one if isinstance(one, str) else "" for one in listed)


class _Claims(msgspec.Struct, frozen=True):
    id_token: dict[str, _Wish | None] | None = None
    userinfo: dict[str, _Wish | None] | None = None


def read(text: str) -> Wanted:
    """The parameter; nothing is wanted where it is empty. Raises AuthorizeError for what is no such object."""
    if not text:
        return Wanted()
    try:
        said = msgspec.json.decode(text, type=_Claims)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise AuthorizeError("invalid_request", "claims is no JSON object as OpenID Connect has it") from None
    of_token, of_userinfo = said.id_token or {}, said.userinfo or {}
    subjects = (*_texts(of_token.get("sub")), *_texts(of_userinfo.get("sub")))
    acr = of_token.get("acr")
    levels = _texts(acr)
    if len(subjects) > _MOST_VALUES or len(levels) > _MOST_VALUES:
        raise AuthorizeError("invalid_request", f"a claim has {_MOST_VALUES} values at most")
    return Wanted(
        id_token=_known(of_token),
        userinfo=_known(of_userinfo),
        subjects=subjects,
        levels=levels,
        essential=acr is not None and acr.essential and bool(levels),
    )


def scopes_of(names: Iterable[str]) -> tuple[str, ...]:
    """The scopes that claims belong to, each once."""
    return tuple(dict.fromkeys(SCOPE_OF[one] for one in names))


def _known(said: Mapping[str, _Wish | None]) -> tuple[str, ...]:
    return tuple(one for one in said if one in SCOPE_OF)


def _texts(wish: _Wish | None) -> tuple[str, ...]:
    return () if wish is None else wish.texts
