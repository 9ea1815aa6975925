"""Checkpoints of the audit log as they are kept beside it, and how far each of its destinations has come."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.protocol.auditlog import AuditPublic, Checkpoint, Verdict, Walk
from doorward.store import audit
from doorward.store.tables import audit_checkpoints, audit_sinks

# Microseconds since 1970 by the database's clock: those of several machines may differ.
_NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
}


class Sink(NamedTuple):
    """A destination: the last event that it has, and why it does not get the next, where that is so."""

    name: str
    seq: int
    delivered: datetime | None
    trouble: str
    since: datetime | None


def add(connection: Connection, checkpoint: Checkpoint) -> bool:
    """Keep a checkpoint. False where one about this event, or a later one, is kept already: another process was first."""
    last = latest(connection)
    if last is not None and last.seq >= checkpoint.seq:
        return False
    values = {name: getattr(checkpoint, name) for name in checkpoint.__struct_fields__}
    connection.execute(sa.insert(audit_checkpoints), values)
    return True


def latest(connection: Connection) -> Checkpoint | None:
    """The newest, whoever signed it."""
    statement = sa.select(audit_checkpoints).order_by(audit_checkpoints.c.seq.desc()).limit(1)
    row = connection.execute(statement).first()
    return None if row is None else Checkpoint(**row._asdict())


def load(
    connection: Connection, *, after: int = 0, key: AuditPublic | None = None, limit: int | None = None
) -> list[Checkpoint]:
    """Those about later events than this one, in order; of one key only, if it is given."""
    statement = sa.select(audit_checkpoints).where(audit_checkpoints.c.seq > after)
    if key is not None:
        statement = statement.where(audit_checkpoints.c.key == key)
    rows = connection.execute(statement.order_by(audit_checkpoints.c.seq).limit(limit))
    return [Checkpoint(**row._asdict()) for row in rows]


def verify(connection: Connection, kept_elsewhere: Iterable[Checkpoint] = ()) -> Verdict:
    """Look at the whole log, and at every checkpoint: those kept beside it and those that the caller has."""
    known = dict.fromkeys((*load(connection), *kept_elsewhere))
    walk = Walk(known)
    for event in audit.sealed(connection):
        walk.step(event)
    return walk.finish()


def hold(connection: Connection, name: str, process: int, seconds: float) -> int | None:
    """Take a destination for so many seconds, or go on having it; the last event that it has.

    None while another process has it. ``process`` is its number. Writers take turns, so only one gets it.
    """
    known = connection.execute(sa.select(audit_sinks).where(audit_sinks.c.name == name)).first()
    now = int(connection.exec_driver_sql(f"SELECT {_NOW[connection.dialect.name]}").scalar_one())
    until = now + int(seconds * 1_000_000)
    if known is None:
        values = {"name": name, "seq": 0, "trouble": "", "holder": process, "until": until}
        connection.execute(sa.insert(audit_sinks), values)
        return 0
    if known.holder not in {None, process} and known.until > now:
        return None
    connection.execute(_of(name).values(holder=process, until=until))
    return int(known.seq)


def note_delivered(connection: Connection, name: str, seq: int, now: datetime) -> None:
    """The destination has everything up to this event. It never goes back: who was slower than another says nothing new."""
    values = {"seq": seq, "delivered": now, "trouble": "", "since": None}
    connection.execute(_of(name).where(audit_sinks.c.seq <= seq).values(**values))


def note_trouble(connection: Connection, name: str, trouble: str, now: datetime) -> None:
    """The destination cannot be served. Since when, is kept from the first time on."""
    since = sa.func.coalesce(audit_sinks.c.since, sa.bindparam("now", now, audit_sinks.c.since.type))
    connection.execute(_of(name).values(trouble=trouble, since=since))


def let_go(connection: Connection, process: int) -> None:
    """Give up every destination that this process has, so that nobody has to wait to find out that it has ended."""
    connection.execute(
        sa.update(audit_sinks).where(audit_sinks.c.holder == process).values(holder=None, until=0)
    )


def sinks(connection: Connection) -> list[Sink]:
    """Every destination that there ever was, by name."""
    columns = [audit_sinks.c[name] for name in Sink._fields]
    return [
        Sink(**row._asdict()) for row in connection.execute(sa.select(*columns).order_by(audit_sinks.c.name))
    ]


def _of(name: str) -> sa.Update:
    return sa.update(audit_sinks).where(audit_sinks.c.name == name)
