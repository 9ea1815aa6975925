"""Since when apps know somebody, and by which number (``auth_time``, ``sid``).

A connection has neither beginning nor end, so what it says gets both here: an app that asks twice hears the same time, and
one that wants a newer one is told when somebody did something on purpose.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from doorward.issuer.desk import Desk
from doorward.model import AppGrant, AppSession, User
from doorward.store import Connection, apps, audit
from doorward.telemetry import Origin

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
    found = await desk.database.find(apps.sessions_by_key, key)
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


class Given(NamedTuple):
    """What a person gave to an app, before it is stored."""

    draft: AppGrant
    knowledge: Knowledge
    acted: datetime
    actor: str
    app: str
    details: dict[str, Any]
    origin: Origin | None = None


def keep_grants(connection: Connection, given: Sequence[Given]) -> list[AppGrant]:
    """Store what people gave, since when they are known, and the lines in the audit log."""
    known = apps.sessions_by_key(connection, [one.knowledge.key for one in given])
    for one in given:
        found = known.get(one.knowledge.key)
        if found is not None and found.acted < one.acted:
            known[found.key] = apps.put_session(connection, msgspec.structs.replace(found, acted=one.acted))
    grants = apps.insert_grants(connection, [one.draft for one in given])
    audit.append_all(
        connection,
        (
            audit.Entry(
                one.actor,
                "app.signin",
                f"app:{one.app}",
                {"grant": grant.id, **one.details},
                grant.created,
                one.origin,
            )
            for one, grant in zip(given, grants, strict=True)
        ),
    )
    return grants
