"""Registrations: nodes that wait for a person to follow a link."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import Registration
from doorward.protocol.keys import NodePublic
from doorward.store import rows
from doorward.store.tables import registrations


def insert(connection: Connection, draft: Registration) -> Registration:
    """Store a new registration. Raises Conflict with ``place`` "registrations.code_hash" for a code used before."""
    return rows.add(connection, registrations, draft)


def approve(connection: Connection, registration_id: int, node_id: int, now: datetime) -> bool:
    """Note the node it became. Of several who approve exactly one is told true; false too once it has expired."""
    statement = sa.update(registrations).where(
        registrations.c.id == registration_id,
        registrations.c.node_id.is_(None),
        registrations.c.denied.is_(None),
        registrations.c.expires > now,
    )
    return connection.execute(statement.values(node_id=node_id)).rowcount == 1


def deny(connection: Connection, registration_id: int, now: datetime) -> bool:
    """Note that it was refused. Of several who decide exactly one is told true; false too once it has expired."""
    statement = sa.update(registrations).where(
        registrations.c.id == registration_id,
        registrations.c.node_id.is_(None),
        registrations.c.denied.is_(None),
        registrations.c.expires > now,
    )
    return connection.execute(statement.values(denied=now)).rowcount == 1


def delete(connection: Connection, registration_id: int) -> None:
    """Forget one. Raises NotFound."""
    rows.remove(connection, registrations, registration_id)


def delete_expired(connection: Connection, now: datetime) -> int:
    """Forget every one whose time is over, decided or not; return how many."""
    return connection.execute(sa.delete(registrations).where(registrations.c.expires <= now)).rowcount


def by_id(connection: Connection, registration_id: int) -> Registration | None:
    """The registration with this id, expired or not."""
    return rows.one(connection, registrations, Registration, registrations.c.id == registration_id)


def by_code_hash(connection: Connection, code_hash: bytes) -> Registration | None:
    """The registration whose link's code has this SHA-256, expired or not."""
    return rows.one(connection, registrations, Registration, registrations.c.code_hash == code_hash)


def by_node_key(connection: Connection, key: NodePublic) -> list[Registration]:
    """Every registration that asked for this node key, by id, expired or not."""
    return rows.load(connection, registrations, Registration, registrations.c.node_key == key)


def waiting(connection: Connection, now: datetime) -> list[Registration]:
    """Those that nobody decided about yet and whose time is not over, by id."""
    return rows.load(
        connection,
        registrations,
        Registration,
        registrations.c.node_id.is_(None),
        registrations.c.denied.is_(None),
        registrations.c.expires > now,
    )


def count(connection: Connection) -> int:
    """How many there are, decided or not."""
    return connection.execute(sa.select(sa.func.count()).select_from(registrations)).scalar_one()


def decided(connection: Connection) -> list[int]:
    """The ids of those that became a node, or were denied, by id."""
    answered = sa.or_(registrations.c.node_id.is_not(None), registrations.c.denied.is_not(None))
    statement = sa.select(registrations.c.id).where(answered)
    return list(connection.execute(statement.order_by(registrations.c.id)).scalars())
