"""What apps have yet to be told: that a session is over. A notice is a row, written in the transaction that ends the session.

Who delivers takes a notice for a while; one who dies over it leaves it to whoever comes when that is over.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import LogoutNotice
from doorward.store import rows
from doorward.store.tables import logout_notices


def queue(connection: Connection, drafts: Iterable[LogoutNotice]) -> None:
    """Store notices. One of the same session that still waits is replaced: being told once is enough, but not before this."""
    for draft in drafts:
        same = sa.and_(
            logout_notices.c.client_id == draft.client_id,
            logout_notices.c.user_id == draft.user_id,
            logout_notices.c.sid == draft.sid,
        )
        connection.execute(sa.delete(logout_notices).where(same))
        rows.add(connection, logout_notices, draft)


def is_due(connection: Connection, now: datetime) -> bool:
    """True if there is something to deliver."""
    statement = sa.select(logout_notices.c.id).where(logout_notices.c.due <= now).limit(1)
    return connection.execute(statement).first() is not None


def take(connection: Connection, now: datetime, lease: timedelta, limit: int) -> list[LogoutNotice]:
    """The notices that have waited longest; for so long nobody else gets them. Writers take turns, so each goes to one."""
    order = (logout_notices.c.due, logout_notices.c.id)
    found = rows.load(
        connection, logout_notices, LogoutNotice, logout_notices.c.due <= now, order=order, limit=limit
    )
    taken = sa.update(logout_notices).where(logout_notices.c.id.in_([one.id for one in found]))
    if found:
        connection.execute(taken.values(due=now + lease, tries=logout_notices.c.tries + 1))
    return found


def settle(connection: Connection, notice_id: int) -> bool:
    """Forget a notice that arrived, or is given up. False where another one of the same session has taken its place."""
    statement = sa.delete(logout_notices).where(logout_notices.c.id == notice_id)
    return connection.execute(statement).rowcount == 1


def put_off(connection: Connection, notice_id: int, due: datetime) -> None:
    """Try a notice again later."""
    connection.execute(sa.update(logout_notices).where(logout_notices.c.id == notice_id).values(due=due))


def waiting(connection: Connection) -> int:
    """How many notices there are."""
    return int(connection.execute(sa.select(sa.func.count()).select_from(logout_notices)).scalar_one())
