"""``refresh_token``: a refresh token becomes new tokens, and another refresh token, once (RFC 6749 section 6, RFC 9700 section 4.14).

The person and the policy are looked at each time as they are now. A token that comes a second time was stolen or is a thief's:
nobody can tell which, so all of its family ends.
"""

from datetime import datetime
from enum import Enum
from typing import Any

from doorward.issuer.desk import REFRESH, Desk, one
from doorward.issuer.errors import AuthorizeError, TokenError
from doorward.issuer.grants.answer import narrowed, still_stands, tokens_of
from doorward.issuer.grants.authorization_code import end, keep_refresh_token
from doorward.issuer.request import Pairs, resources_of
from doorward.model import App, AppGrant
from doorward.store import Connection, apps, audit
from doorward.tailnet import secrets


class _Outcome(Enum):
    GOOD = 1
    REPLAYED = 2
    OVER = 3


async def refresh(desk: Desk, app: App, pairs: Pairs) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    text = one(pairs, "refresh_token")
    if not text:
        raise TokenError("invalid_request", "the parameter refresh_token is missing")
    found = await desk.database.read(_find, secrets.digest(text))
    if found is None or found[1].app_id != app.id:
        raise _bad()
    token_id, grant = found
    scopes = narrowed(tuple(one(pairs, "scope").split()), grant.scopes)
    if scopes is None:
        raise TokenError("invalid_scope", "a refresh token gives no more scopes than it was made with")
    try:
        resources = narrowed(resources_of(pairs, app.resources), grant.resources)
    except AuthorizeError as error:
        raise TokenError(error.code, error.message) from None
    if resources is None:
        raise TokenError("invalid_target", "the refresh token is not for this resource")
    who = still_stands(desk, app, grant)
    if who is None or ("offline_access" not in _allowed(who.entitlement.scopes, grant.scopes)):
        await desk.database.run(end, app, grant, "app.end", "no longer allowed", desk.now())
        raise TokenError("invalid_grant", "this person may not use this app any more")
    fresh = desk.secret(REFRESH)
    outcome = await desk.database.run(_rotate, app, token_id, grant.id, fresh, who.user.name, desk.now())
    if outcome is not _Outcome.GOOD:
        raise _bad()
    return await tokens_of(desk, app, grant, who, scopes=scopes, resources=resources, refresh=fresh.text)


def _allowed(limit: frozenset[str] | None, scopes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one for one in scopes if limit is None or one in limit)


def _bad() -> TokenError:
    return TokenError("invalid_grant", "the refresh token is unknown, was used, or is over")


def _find(connection: Connection, digest: bytes) -> tuple[int, AppGrant] | None:
    token = apps.refresh_token(connection, digest)
    grant = None if token is None else apps.grant_by_id(connection, token.grant_id)
    return None if token is None or grant is None else (token.id, grant)


def _rotate(
    connection: Connection,
    app: App,
    token_id: int,
    grant_id: int,
    fresh: secrets.Secret,
    person: str,
    now: datetime,
) -> _Outcome:
    """Use the token up and store the next, or end the family of one that was used before. Raising would undo that."""
    grant = apps.grant_by_id(connection, grant_id)
    if grant is None or grant.ended is not None or grant.expires <= now:
        return _Outcome.OVER
    if not apps.take_refresh_token(connection, token_id, now):
        if apps.refresh_token_used(connection, token_id):
            end(connection, app, grant, "app.replay", "a refresh token was used twice", now)
            return _Outcome.REPLAYED
        return _Outcome.OVER
    keep_refresh_token(connection, grant, fresh, now)
    audit.append(connection, f"user:{person}", "app.refresh", f"app:{app.name}", {"grant": grant.id}, now)
    return _Outcome.GOOD
