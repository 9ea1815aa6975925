"""The audit log: append-only, each event sealed together with the one before it (``protocol.auditlog``), and found again.

The numbers are dense: 1, 2, 3 and so on. What every event has in its details, besides what its action says:

- ``origin``: the address or socket of whoever asked for it, and the number of their request (``telemetry.originating``);
  nothing where doorward acted by itself,
- ``before``: what the fields that were changed held until then.

Every question is answered from an index that is in the order of the numbers, so that a page costs the same in a log of a
hundred and of ten million events: by subject (who did it, or to whom), else by kind, else by time, else the whole log.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from doorward.model import AuditEvent
from doorward.protocol.auditlog import FIRST, Sealed, canonical, digest_of
from doorward.store.tables import audit
from doorward.telemetry import ORIGIN, Origin

_LAST = sa.select(audit.c.seq, audit.c.digest).order_by(audit.c.seq.desc()).limit(1)
_FIRST_KIND = sa.select(sa.func.min(audit.c.action))
_NEXT_KIND = _FIRST_KIND.where(audit.c.action > sa.bindparam("known"))
_INSERT = sa.insert(audit)
_CHUNK = 1000  # rows that are held at a time where the whole log is read


class Entry(NamedTuple):
    """An event before it has its place in the log; the fields are those of ``AuditEvent``.

    ``origin`` is whose request it is of, where that is another than that of the unit that runs.
    """

    actor: str
    action: str
    target: str
    details: Mapping[str, Any]
    at: datetime
    origin: Origin | None = None


def append(
    connection: Connection, actor: str, action: str, target: str, details: Mapping[str, Any], at: datetime
) -> AuditEvent:
    """Add one event at the end. Writers take turns, so the end stays where it is until this unit is committed."""
    (row,) = append_all(connection, (Entry(actor, action, target, details, at),))
    return AuditEvent(**{**row, "details": msgspec.json.decode(row["details"], type=dict[str, Any])})


def append_all(connection: Connection, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Add events at the end, in this order, with two statements for all of them; returns the rows."""
    seq, digest = head(connection)
    rows: list[dict[str, Any]] = []
    for entry in entries:
        row: dict[str, Any] = entry._asdict()
        origin = row.pop("origin") or ORIGIN.get()
        details = entry.details if origin is None else {**entry.details, "origin": origin._asdict()}
        row["details"] = canonical(details)
        seq += 1
        row["seq"], row["previous"] = seq, digest
        row["digest"] = digest = digest_of(**row)
        rows.append(row)
    if rows:
        connection.execute(_INSERT, rows)
    return rows


def head(connection: Connection) -> tuple[int, bytes]:
    """Number and digest of the last event; 0 and zeros while there is none."""
    last = connection.execute(_LAST).first()
    return (last.seq, last.digest) if last else (0, FIRST)


def sealed(connection: Connection, *, after: int = 0, limit: int | None = None) -> Iterator[Sealed]:
    """Every event behind this number, in order, a thousand at a time; ``limit`` of them at most."""
    statement = sa.select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(limit)
    with connection.execution_options(yield_per=_CHUNK).execute(statement) as found:
        for row in found:
            yield Sealed(**row._asdict())


def kinds(connection: Connection) -> list[str]:
    """Every action that there is in the log, sorted as the database sorts. One look at the index for each."""
    found: list[str] = []
    kind = connection.execute(_FIRST_KIND).scalar()
    while kind is not None:
        found.append(kind)
        kind = connection.execute(_NEXT_KIND, {"known": kind}).scalar()
    return found


class Search(NamedTuple):
    """Which events are wanted; every condition that is given must hold.

    ``subjects`` are written like actors and targets (``user:NAME``, ``node:STABLEID``): an event that was done by, or to, each
    of them. ``action`` ending in a dot means every action that starts with it. ``since`` counts, ``until`` does not.
    ``before`` and ``after`` are numbers of events, themselves not included: the last of one page asks for the next.
    """

    subjects: Sequence[str] = ()
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    after: int | None = None
    limit: int = 100


def load(connection: Connection, /, **conditions: Any) -> list[AuditEvent]:
    """At most ``limit`` events, newest first; oldest first with ``after``. The conditions are the fields of Search."""
    search = Search(**conditions)
    ascending = search.after is not None
    pages = [connection.execute(statement).all() for statement in statements(connection, search)]
    merged = heapq.merge(*pages, key=lambda row: row.seq, reverse=not ascending)
    return [
        AuditEvent(**{**row._asdict(), "details": msgspec.json.decode(row.details, type=dict[str, Any])})
        for row in islice(merged, search.limit)
    ]


def statements(connection: Connection, search: Search) -> list[sa.Select[Any]]:
    """The questions that ``load`` puts, no two of which have an answer in common."""
    must = list(_conditions(search))
    order = audit.c.seq.desc() if search.after is None else audit.c.seq.asc()
    arms: list[list[ColumnElement[bool]]] = [[]]
    if search.actor is None and search.target is None and search.subjects:
        first, *others = search.subjects
        arms = [[audit.c.actor == first], [audit.c.target == first, audit.c.actor != first]]
    else:
        others = list(search.subjects)
    must += [(audit.c.actor == each) | (audit.c.target == each) for each in others]
    if search.action is not None:
        indexed = search.actor is not None or search.target is not None or bool(search.subjects)
        if not search.action.endswith("."):
            must.append(audit.c.action == search.action)
        elif indexed:
            must.append(audit.c.action.startswith(search.action, autoescape=True))
        else:
            arms = [[audit.c.action == kind] for kind in kinds(connection) if kind.startswith(search.action)]
    return [sa.select(audit).where(*arm, *must).order_by(order).limit(search.limit) for arm in arms]


def _conditions(search: Search) -> Iterator[ColumnElement[bool]]:
    if search.actor is not None:
        yield audit.c.actor == search.actor
    if search.target is not None:
        yield audit.c.target == search.target
    if search.since is not None:
        yield audit.c.at >= search.since
    if search.until is not None:
        yield audit.c.at < search.until
    if search.before is not None:
        yield audit.c.seq < search.before
    if search.after is not None:
        yield audit.c.seq > search.after
