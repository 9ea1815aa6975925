"""Since when apps know somebody, and by which number (``auth_time``, ``sid``).

A connection has neither beginning nor end, so what it says gets both here: an app that asks twice hears the same time, and
one that wants a newer one is told when somebody did something on purpose.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from doorward.errors import Conflict
from doorward.issuer.desk import Desk
from doorward.model import AppGrant, AppSession, User
from doorward.store import Connection, apps, audit, signin
from doorward.telemetry import Origin

IDLE = timedelta(hours=12)
LONGEST = timedelta(days=7)
_SEEN = timedelta(minutes=5)  # how exactly it is known when one was last used


class Knowledge(NamedTuple):
    """What apps may know of how somebody is known."""

    key: str
    sid: str
    acted: datetime
    signed_out: bool = (
        False  # they left, and have not said since that they are back; then the rest is what begins with it
    )


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
    if found is not None and found.signed_out is not None:
        return Knowledge(key, found.sid, now, signed_out=True)
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


def keep_grants(connection: Connection, given: Sequence[Given]) -> list[AppGrant | None]:
    """Store what people gave, since when they are known, and the lines in the audit log.

    None for who has signed out meanwhile: nothing is given in a session that is over.
    """
    known = apps.sessions_by_key(connection, [one.knowledge.key for one in given])
    good = []
    for one in given:
        found = known.get(one.knowledge.key)
        if found is None or not _is_open(connection, found, one.knowledge):
            continue
        good.append(one)
        if found.signed_out is not None:
            # They are back: what they left stays ended, and this is another session, from now on.
            since = one.acted
            back = msgspec.structs.replace(found, created=since, seen=since, acted=since, signed_out=None)
            known[found.key] = apps.put_session(connection, back)
        elif found.acted < one.acted:
            known[found.key] = apps.put_session(connection, msgspec.structs.replace(found, acted=one.acted))
    grants = apps.insert_grants(connection, [one.draft for one in good]) if good else []
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
            for one, grant in zip(good, grants, strict=True)
        ),
    )
    stored = {grant.code_hash: grant for grant in grants}
    return [stored.get(one.draft.code_hash) for one in given]


def _is_open(connection: Connection, found: AppSession, knowledge: Knowledge) -> bool:
    """Whether a session is the one that was looked at, and has not ended since."""
    if found.sid != knowledge.sid or (found.signed_out is not None and not knowledge.signed_out):
        return False
    number = apps.browser_of(found.key)
    if number is None:
        return True
    browser = signin.session_by_id(connection, number)
    return browser is not None and browser.ended is None


def ended(app: str) -> Conflict:
    """What somebody is told whose session has ended while they signed in."""
    return Conflict("this session has just ended", cure=f"Go back to {app} and sign in once more.")
