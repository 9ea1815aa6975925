"""Since when apps know somebody, and by which number (``auth_time``, ``sid``).

A connection has neither beginning nor end, so what it says gets both here: an app that asks twice hears the same time, and
one that wants a newer one is told when somebody did something on purpose.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from doorward.issuer.desk import Desk
from doorward.model import AppGrant, AppSession, User
from doorward.store import Connection, apps, audit

IDLE = timedelta(hours=12)
LONGEST = timedelta(days=7)
_SEEN = timedelta(minutes=5)  # how exactly it is known when one was last used


class Knowledge(NamedTuple):
    """What apps may know of how somebody is known."""

    key: str
    sid: str
    acted: datetime


async def known_since(desk: Desk, key: str, user: User, signed_in: datetime | None) -> Knowledge:
    """How long somebody has been known; from now on where they were not.

    Args:
        desk: the issuer's.
        key: by what: a device or a session.
        user: who.
        signed_in: when they last showed it, where they signed in.
    """
    now = desk.now()
    found = await desk.database.read(apps.session, key)
    if found is None or not _counts(found, now) or now - found.seen > _SEEN:
        found = await desk.database.run(_see, key, user.id, desk.random(15), signed_in, now)
    acted = found.acted if signed_in is None else max(signed_in, found.acted)
    return Knowledge(key, found.sid, acted)


def _counts(session: AppSession, now: datetime) -> bool:
    return now - session.seen <= IDLE and now - session.created <= LONGEST


def _see(
    connection: Connection, key: str, user_id: int, sid: str, signed_in: datetime | None, now: datetime
) -> AppSession:
    found = apps.session(connection, key)
    if found is not None and _counts(found, now):
        return apps.put_session(connection, msgspec.structs.replace(found, seen=now))
    draft = AppSession(id=0, key=key, sid=sid, user_id=user_id, created=now, seen=now, acted=signed_in or now)
    return apps.put_session(connection, draft)


def keep_grant(
    connection: Connection,
    draft: AppGrant,
    knowledge: Knowledge,
    acted: datetime,
    actor: str,
    app: str,
    details: dict[str, Any],
) -> AppGrant:
    """Store what a person gave, since when they are known, and the line in the audit log."""
    found = apps.session(connection, knowledge.key)
    if found is not None and found.acted < acted:
        apps.put_session(connection, msgspec.structs.replace(found, acted=acted))
    grant = apps.insert_grant(connection, draft)
    audit.append(connection, actor, "app.signin", f"app:{app}", {"grant": grant.id, **details}, draft.created)
    return grant
