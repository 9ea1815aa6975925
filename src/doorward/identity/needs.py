"""What an operation takes: scopes, and how well and how lately a person has shown who they are (RFC 6750, RFC 9470)."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from doorward.clock import Clock
from doorward.errors import BadInput, DoorwardError, Unauthenticated
from doorward.identity.caller import Identity, Scope, caller
from doorward.identity.refusals import ScopeError, StrengthError

SLOT = "doorward.demands"  # in the scope: where ``demand`` leaves its refusal
_LEEWAY = 60  # seconds between the issuer's clock and ours
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3


class Needs(NamedTuple):
    """What it takes at some place. All that fit a request count together.

    A caller who is known by the connection has no scopes: for them the policy decides (``Identity.capability``). They are held
    to ``levels`` and ``max_age`` all the same, and a connection says neither.
    """

    path: str = "/"  # this path and all below it, as the ASGI scope has it
    scopes: Sequence[str] = ()  # all of them
    methods: Sequence[str] = ()  # none: all
    levels: Sequence[str] = ()  # values of ``acr``, one of them
    max_age: int | None = None  # seconds since the person last showed who they are

    def fits(self, method: str, path: str) -> bool:
        """True where a request has to have this."""
        base = self.path.rstrip("/")
        return (path == base or path.startswith(f"{base}/")) and (not self.methods or method in self.methods)


class Slot:
    """Where ``demand`` leaves its refusal, for the middleware to find."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.error: DoorwardError | None = None


def demand(scope: Scope, *scopes: str, levels: Sequence[str] = (), max_age: int | None = None) -> Identity:
    """Ask more of the caller from inside a program: all that the operation takes, in one call. What fails ends the request.

    Whatever the program answers after that, the middleware answers in its place, with the challenge that tells the caller's
    program what to ask its issuer for, as long as nothing was sent yet.

    Args:
        scope: ASGI's, of an HTTP request.
        scopes: what a token must allow.
        levels: values of ``acr``, of which the token must have one.
        max_age: seconds since the person last showed who they are.

    Raises ScopeError, StrengthError, and Unauthenticated for a stranger.
    """
    slot: Slot = scope[SLOT]
    who = caller(scope)
    try:
        if who is None:
            raise Unauthenticated("it is not known who is asking")
        check(who, [Needs(scopes=scopes, levels=levels, max_age=max_age)], slot.clock.now())
    except DoorwardError as error:
        slot.error = error
        raise
    return who


def check(who: Identity, needs: Iterable[Needs], now: datetime) -> None:
    """Raise ScopeError or StrengthError for a caller who has not all that it takes."""
    wanted = list(needs)
    by_token = bool(who.claims)
    scopes = names_of(wanted)
    missing = [name for name in scopes if name not in who.scopes]
    if by_token and missing:
        raise ScopeError(
            f"the token does not allow {missing[0]}", scopes, cure="Ask the issuer for these scopes."
        )
    for each in wanted:
        if each.levels and who.claims.get("acr") not in each.levels:
            raise StrengthError("this takes a better proof of who is asking", each.levels, each.max_age)
        shown = who.claims.get("auth_time")
        if each.max_age is not None and not (
            isinstance(shown, int | float) and now.timestamp() - shown <= each.max_age + _LEEWAY
        ):
            raise StrengthError("this takes a newer proof of who is asking", each.levels, each.max_age)


def names_of(needs: Iterable[Needs]) -> list[str]:
    """All their scopes, each once, in their order."""
    return list(dict.fromkeys(name for each in needs for name in each.scopes))


def check_scopes(scopes: Sequence[str]) -> None:
    """Raise BadInput for what is no scope, and for one that is no server's to ask for."""
    for each in scopes:
        if not _SCOPE.fullmatch(each):
            raise BadInput(f"{each[:60]!r} is no scope")
        if each == "offline_access":
            # MCP: whether a program stays signed in is between it and the issuer.
            raise BadInput("offline_access is not for a server to ask for")
