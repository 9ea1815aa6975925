"""Checks of ssh: those that wait for somebody, and what was decided while it still counts."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import Check, CheckState
from doorward.store import rows
from doorward.store.tables import ssh_checks


def insert(connection: Connection, draft: Check) -> Check:
    """Store a new check. Raises Conflict with ``place`` "ssh_checks.link" for a link used before."""
    return rows.add(connection, ssh_checks, draft)


def decide(
    connection: Connection,
    check_id: int,
    state: CheckState,
    actor: str,
    now: datetime,
    until: datetime | None,
) -> bool:
    """Note a decision. Of several who decide exactly one is told true; false too once the check is over."""
    statement = sa.update(ssh_checks).where(
        ssh_checks.c.id == check_id,
        ssh_checks.c.state == CheckState.WAITING,
        ssh_checks.c.expires > now,
    )
    values = {"state": state, "decided": now, "decided_by": actor, "until": until}
    return connection.execute(statement.values(**values)).rowcount == 1


def by_id(connection: Connection, check_id: int) -> Check | None:
    """The check with this id, over or not."""
    return rows.one(connection, ssh_checks, Check, ssh_checks.c.id == check_id)


def by_ids(connection: Connection, ids: Iterable[int]) -> list[Check]:
    """Those of these ids that there are, by id."""
    wanted = list(ids)
    return rows.load(connection, ssh_checks, Check, ssh_checks.c.id.in_(wanted)) if wanted else []


def of_source(connection: Connection, source_id: int, now: datetime) -> list[Check]:
    """Those of a source that wait now, by id."""
    return rows.load(
        connection,
        ssh_checks,
        Check,
        ssh_checks.c.source_id == source_id,
        ssh_checks.c.state == CheckState.WAITING,
        ssh_checks.c.expires > now,
    )


def load_all(connection: Connection) -> list[Check]:
    """Every check that is kept, by id."""
    return rows.load(connection, ssh_checks, Check)


def delete_over(connection: Connection, now: datetime) -> list[int]:
    """Forget those that nobody waits for and that count no longer; returns their ids."""
    over = sa.and_(
        ssh_checks.c.expires <= now, sa.func.coalesce(ssh_checks.c.until, ssh_checks.c.expires) <= now
    )
    found = list(
        connection.execute(sa.select(ssh_checks.c.id).where(over).order_by(ssh_checks.c.id)).scalars()
    )
    if found:
        connection.execute(sa.delete(ssh_checks).where(ssh_checks.c.id.in_(found)))
    return found
