"""``device_code``: a program asks again and again whether somebody has said yes elsewhere (RFC 8628 sections 3.4 and 3.5)."""

from datetime import datetime, timedelta
from typing import Any

from doorward.issuer.desk import REFRESH, Desk, one
from doorward.issuer.dpop import Binding
from doorward.issuer.errors import TokenError
from doorward.issuer.grants.answer import still_stands, tokens_of
from doorward.issuer.grants.authorization_code import end, keep_refresh_token
from doorward.issuer.request import Pairs
from doorward.model import App
from doorward.store import Connection, apps
from doorward.tailnet import secrets

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER = 5  # seconds that one who asks too often waits longer (RFC 8628 section 3.5)
_SLACK = timedelta(seconds=1)  # one who waits as long as told may arrive a little sooner

_WORDS = {
    "authorization_pending": "nobody has said yes yet",
    "slow_down": "the program asks too often",
    "access_denied": "the person said no, or may not use this app",
    "expired_token": "nobody has said yes in time",
    "invalid_grant": "the device code is unknown, or was used",
}


async def ask_again(desk: Desk, app: App, pairs: Pairs, binding: Binding) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    if not app.device:
        raise TokenError("unauthorized_client", "people do not sign in to this app from other devices")
    code = one(pairs, "device_code")
    if not code:
        raise TokenError("invalid_request", "the parameter device_code is missing")
    said, grant_id = await desk.database.run(_look, app.id, secrets.digest(code), desk.now())
    if said:
        raise _told(said)
    grant = await desk.database.read(apps.grant_by_id, grant_id)
    if grant is None or grant.app_id != app.id:
        raise _told("invalid_grant")
    who = still_stands(desk, app, grant)
    if who is None:
        await desk.database.run(end, app, grant, "app.end", "no longer allowed", desk.now())
        raise _told("access_denied")
    refresh = desk.secret(REFRESH) if "offline_access" in grant.scopes else None
    if not await desk.database.run(_take, app, secrets.digest(code), grant_id, refresh, binding, desk.now()):
        raise _told("invalid_grant")
    return await tokens_of(
        desk,
        app,
        grant,
        who,
        binding,
        scopes=grant.scopes,
        resources=grant.resources,
        refresh="" if refresh is None else refresh.text,
    )


def _told(code: str) -> TokenError:
    return TokenError(code, _WORDS[code])


def _look(connection: Connection, app_id: int, digest: bytes, now: datetime) -> tuple[str, int]:
    """What to say now, or the grant that somebody gave. Raising would undo what is noted."""
    found = apps.device_request(connection, digest)
    if found is None or found.app_id != app_id:
        return "invalid_grant", 0
    if found.denied:
        return "access_denied", 0
    if found.expires <= now:
        return "expired_token", 0
    if found.grant_id is not None:
        return "", found.grant_id
    soon = found.polled is not None and now - found.polled < timedelta(seconds=found.interval) - _SLACK
    apps.device_polled(connection, found.id, now, found.interval + (_SLOWER if soon else 0))
    return ("slow_down" if soon else "authorization_pending"), 0


def _take(
    connection: Connection,
    app: App,
    digest: bytes,
    grant_id: int,
    refresh: secrets.Secret | None,
    binding: Binding,
    now: datetime,
) -> bool:
    """Use the yes up: true once. Two who ask at the same moment are one program that asked twice, so nothing ends."""
    found, grant = apps.device_request(connection, digest), apps.grant_by_id(connection, grant_id)
    if found is None or grant is None or not apps.redeem(connection, grant_id, now):
        return False
    apps.delete_device_request(connection, found.id)
    if refresh is not None:
        keep_refresh_token(connection, app, grant, refresh, binding, now)
    return True
