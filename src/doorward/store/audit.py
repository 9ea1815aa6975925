"""The audit log: append-only, each event sealed together with the one before it.

``digest`` of an event is SHA-256 over, in this order:

- the 22 bytes ``doorward audit event 1`` (the form's name, so that a later form can never be taken for this one),
- ``previous``: the 32 bytes of the digest before, zeros for the first event,
- ``seq`` and ``at`` (microseconds since 1970, UTC), each as 8 bytes, signed, big-endian,
- actor, action, target and details, each as its length in bytes (8 bytes, big-endian) and its UTF-8 bytes.

The lengths make the encoding unambiguous. Details are hashed as the very JSON text that is stored, so that checking
needs no second opinion on how JSON is written. The numbers are dense: 1, 2, 3 and so on. Whoever can write to the
database can still cut off its end or seal a new chain; keeping the last digest elsewhere (an export) shows both.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from doorward.model import AuditEvent
from doorward.store.columns import to_microseconds
from doorward.store.tables import audit

FORM = b"doorward audit event 1"
FIRST = bytes(32)  # what the first event has in place of a digest before it
_LAST = sa.select(audit.c.seq, audit.c.digest).order_by(audit.c.seq.desc()).limit(1)
_INSERT = sa.insert(audit)
_CHUNK = 1000  # rows that verify() holds at a time


def digest_of(
    *, previous: bytes, seq: int, at: datetime, actor: str, action: str, target: str, details: str
) -> bytes:
    """The digest of an event whose details are this JSON text; see the top of this module."""
    seal = hashlib.sha256(FORM)
    seal.update(previous)
    seal.update(seq.to_bytes(8, signed=True))
    seal.update(to_microseconds(at).to_bytes(8, signed=True))
    for text in (actor, action, target, details):
        raw = text.encode()
        seal.update(len(raw).to_bytes(8))
        seal.update(raw)
    return seal.digest()


class Entry(NamedTuple):
    """An event before it has its place in the log; the fields are those of ``AuditEvent``."""

    actor: str
    action: str
    target: str
    details: Mapping[str, Any]
    at: datetime


def append(
    connection: Connection, actor: str, action: str, target: str, details: Mapping[str, Any], at: datetime
) -> AuditEvent:
    """Add one event at the end. Writers take turns, so the end stays where it is until this unit is committed."""
    (row,) = append_all(connection, (Entry(actor, action, target, details, at),))
    return AuditEvent(**{**row, "details": msgspec.json.decode(row["details"], type=dict[str, Any])})


def append_all(connection: Connection, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Add events at the end, in this order, with two statements for all of them; returns the rows."""
    last = connection.execute(_LAST).first()
    seq, digest = (last.seq, last.digest) if last else (0, FIRST)
    rows: list[dict[str, Any]] = []
    for entry in entries:
        row: dict[str, Any] = entry._asdict()
        row["details"] = msgspec.json.encode(entry.details, order="deterministic").decode()
        seq += 1
        row["seq"], row["previous"] = seq, digest
        row["digest"] = digest = digest_of(**row)
        rows.append(row)
    if rows:
        connection.execute(_INSERT, rows)
    return rows


def verify(connection: Connection) -> int | None:
    """Check the whole chain; the number of the first event that is not what was sealed, or None when all are.

    An event that is missing is reported by the number it should have. Holds a thousand events at a time.
    """
    expected, previous = 1, FIRST
    with connection.execution_options(yield_per=_CHUNK).execute(
        sa.select(audit).order_by(audit.c.seq)
    ) as found:
        for row in found:
            values = row._asdict()
            digest = values.pop("digest")
            if row.seq != expected or row.previous != previous or digest != digest_of(**values):
                return expected
            expected, previous = expected + 1, digest
    return None


def load(
    connection: Connection,
    *,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
    before: int | None = None,
    after: int | None = None,
    limit: int = 100,
) -> list[AuditEvent]:
    """At most ``limit`` events that match everything given, newest first; oldest first with ``after``.

    ``before`` and ``after`` are numbers of events, themselves not included: the last of one page asks for the next.
    ``action`` ending in a dot matches every action that starts with it.
    """
    conditions: list[ColumnElement[bool]] = []
    if actor is not None:
        conditions.append(audit.c.actor == actor)
    if action is not None and action.endswith("."):
        conditions.append(audit.c.action.startswith(action, autoescape=True))
    elif action is not None:
        conditions.append(audit.c.action == action)
    if target is not None:
        conditions.append(audit.c.target == target)
    if since is not None:
        conditions.append(audit.c.at >= since)
    if before is not None:
        conditions.append(audit.c.seq < before)
    if after is not None:
        conditions.append(audit.c.seq > after)
    order = audit.c.seq.desc() if after is None else audit.c.seq.asc()
    found = connection.execute(sa.select(audit).where(*conditions).order_by(order).limit(limit))
    return [
        AuditEvent(**{**row._asdict(), "details": msgspec.json.decode(row.details, type=dict[str, Any])})
        for row in found
    ]
