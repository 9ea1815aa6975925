"""Pairs of nodes that are kept apart."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import Cut
from doorward.store import rows
from doorward.store.tables import cuts


def insert(connection: Connection, draft: Cut) -> Cut:
    """Store a new cut. Raises Conflict with ``place`` "cuts.first, cuts.second" where the two are kept apart already."""
    return rows.add(connection, cuts, draft)


def update(connection: Connection, cut: Cut) -> Cut:
    """Store every field. Raises NotFound for one that was lifted."""
    rows.change(connection, cuts, cut)
    return cut


def delete(connection: Connection, cut_id: int) -> None:
    """Lift one. Raises NotFound."""
    rows.remove(connection, cuts, cut_id)


def delete_of(connection: Connection, node_ids: Iterable[int]) -> list[int]:
    """Forget those of nodes that are deleted; returns their ids, sorted."""
    wanted = list(node_ids)
    theirs = sa.or_(cuts.c.first.in_(wanted), cuts.c.second.in_(wanted))
    found = sorted(connection.execute(sa.select(cuts.c.id).where(theirs)).scalars())
    if found:
        connection.execute(sa.delete(cuts).where(cuts.c.id.in_(found)))
    return found


def by_pair(connection: Connection, first: int, second: int) -> Cut | None:
    """The one between two nodes, the smaller id first."""
    return rows.one(connection, cuts, Cut, cuts.c.first == first, cuts.c.second == second)


def by_ids(connection: Connection, ids: Iterable[int]) -> list[Cut]:
    """Those of these ids that there are, by id."""
    wanted = list(ids)
    return rows.load(connection, cuts, Cut, cuts.c.id.in_(wanted)) if wanted else []


def over(connection: Connection, now: datetime) -> list[Cut]:
    """Those whose time is over, by id."""
    return rows.load(connection, cuts, Cut, cuts.c.expires <= now)


def load_all(connection: Connection) -> list[Cut]:
    """Every one, by id."""
    return rows.load(connection, cuts, Cut)
