"""``refresh_token``: a refresh token becomes new tokens, and another refresh token, once (RFC 6749 section 6, RFC 9700 section 4.14).

The person and the policy are looked at each time as they are now. A token that comes a second time was stolen or is a thief's:
nobody can tell which, so all of its family ends.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from doorward.issuer.desk import REFRESH, Desk, one
from doorward.issuer.dpop import UNBOUND, Binding
from doorward.issuer.errors import AuthorizeError, TokenError
from doorward.issuer.grants.answer import narrowed, still_stands, tokens_of
from doorward.issuer.grants.authorization_code import end, keep_refresh_tokens
from doorward.issuer.request import Pairs, resources_of
from doorward.model import App
from doorward.store import Connection, apps, audit
from doorward.tailnet import secrets
from doorward.telemetry import ORIGIN, Origin


class Outcome(Enum):
    """What became of a refresh token."""

    GOOD = 1
    REPLAYED = 2
    OVER = 3


async def refresh(desk: Desk, app: App, pairs: Pairs, binding: Binding) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    text = one(pairs, "refresh_token")
    if not text:
        raise TokenError("invalid_request", "the parameter refresh_token is missing")
    found = await desk.database.find(apps.grants_by_refresh_token, secrets.digest(text))
    if found is None or found[1].app_id != app.id:
        raise _bad()
    token_id, grant, jkt, node = found
    if not binding.holds(Binding(jkt, node)):
        why = "another key" if jkt != binding.jkt else "another node"
        await desk.note(None, app, "app.refuse", why=why, grant=grant.id, node=binding.node)
        raise TokenError(
            "invalid_grant", "the refresh token is bound to a key or a node, and it is another's"
        )
    scopes = narrowed(tuple(one(pairs, "scope").split()), grant.scopes)
    if scopes is None:
        raise TokenError("invalid_scope", "a refresh token gives no more scopes than it was made with")
    try:
        resources = narrowed(resources_of(pairs, desk.resources(app)), grant.resources)
    except AuthorizeError as error:
        raise TokenError(error.code, error.message) from None
    if resources is None:
        raise TokenError("invalid_target", "the refresh token is not for this resource")
    who = still_stands(desk, app, grant)
    if who is None or ("offline_access" not in _allowed(who.entitlement.scopes, grant.scopes)):
        await desk.database.run(end, app, grant, "app.end", "no longer allowed", desk.now())
        raise TokenError("invalid_grant", "this person may not use this app any more")
    fresh = desk.secret(REFRESH)
    rotation = Rotation(
        app, token_id, grant.id, fresh, who.user.name, desk.now(), ORIGIN.get(), binding.of_refresh(app)
    )
    outcome = await desk.database.share(rotate_all, rotation)
    if outcome is not Outcome.GOOD:
        raise _bad()
    return await tokens_of(
        desk, app, grant, who, binding, scopes=scopes, resources=resources, refresh=fresh.text
    )


def _allowed(limit: frozenset[str] | None, scopes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one for one in scopes if limit is None or one in limit)


def _bad() -> TokenError:
    return TokenError("invalid_grant", "the refresh token is unknown, was used, or is over")


class Rotation(NamedTuple):
    """A refresh token that is to be used up, and the one that takes its place."""

    app: App
    token_id: int
    grant_id: int
    fresh: secrets.Secret
    person: str
    now: datetime
    origin: Origin | None = None
    bound: Binding = UNBOUND  # what the next one is bound to


def rotate_all(connection: Connection, asked: Sequence[Rotation]) -> list[Outcome]:
    """Use tokens up and store the next ones, or end the family of one that was used before. Raising would undo that."""
    outcomes: list[Outcome] = [Outcome.OVER] * len(asked)
    left = list(range(len(asked)))
    while left:
        # Of one family one at a time, in their order: what becomes of the second depends on the first.
        first: dict[int, int] = {}
        for place in left:
            first.setdefault(asked[place].grant_id, place)
        for place, outcome in zip(
            first.values(), _rotate(connection, [asked[at] for at in first.values()]), strict=True
        ):
            outcomes[place] = outcome
        left = [place for place in left if place not in first.values()]
    return outcomes


def _rotate(connection: Connection, asked: Sequence[Rotation]) -> Iterator[Outcome]:
    """The same for tokens of as many grants."""
    now = max(ask.now for ask in asked)
    grants = apps.grants_by_id(connection, [ask.grant_id for ask in asked])
    alive = {grant.id for grant in grants.values() if grant.ended is None and grant.expires > now}
    taken = apps.take_refresh_tokens(
        connection, [ask.token_id for ask in asked if ask.grant_id in alive], now
    )
    good = [ask for ask in asked if ask.token_id in taken]
    keep_refresh_tokens(connection, [(grants[ask.grant_id], ask.fresh, ask.bound) for ask in good], now)
    audit.append_all(
        connection,
        (
            audit.Entry(
                f"user:{ask.person}",
                "app.refresh",
                f"app:{ask.app.name}",
                {"grant": ask.grant_id},
                ask.now,
                ask.origin,
            )
            for ask in good
        ),
    )
    for ask in asked:
        if ask.token_id in taken:
            yield Outcome.GOOD
        elif ask.grant_id in alive and apps.refresh_token_used(connection, ask.token_id):
            end(
                connection,
                ask.app,
                grants[ask.grant_id],
                "app.replay",
                "a refresh token was used twice",
                now,
                ask.origin,
            )
            yield Outcome.REPLAYED
        else:
            yield Outcome.OVER
