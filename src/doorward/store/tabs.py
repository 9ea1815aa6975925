"""Tabs that are over, as their pages ask about them, and the host keys of nodes that publish none."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import HostKey, TabEnd
from doorward.store import rows
from doorward.store.tables import host_keys, tab_ends


def end(connection: Connection, ended: TabEnd) -> None:
    """Note that a tab is over. Said again it stays as it was."""
    if by_id(connection, ended.id) is None:
        connection.execute(sa.insert(tab_ends).values(**rows.fields(tab_ends, ended), id=ended.id))


def by_id(connection: Connection, tab_id: int) -> TabEnd | None:
    """How the tab that was this node ended; None for one that is not over, or has been for long."""
    return rows.one(connection, tab_ends, TabEnd, tab_ends.c.id == tab_id)


def by_ids(connection: Connection, tab_ids: Iterable[int]) -> list[TabEnd]:
    """The same of several, by id."""
    wanted = list(tab_ids)
    return rows.load(connection, tab_ends, TabEnd, tab_ends.c.id.in_(wanted)) if wanted else []


def forget_ends(connection: Connection, before: datetime) -> int:
    """Delete those that ended before a moment; returns how many."""
    return connection.execute(sa.delete(tab_ends).where(tab_ends.c.at < before)).rowcount


def keys_of(connection: Connection, node_id: int, user_id: int | None = None) -> list[HostKey]:
    """The keys of a node that are pinned, and those that this person, if any, has said yes to, by id."""
    mine = sa.or_(host_keys.c.user_id.is_(None), host_keys.c.user_id == user_id)
    return rows.load(connection, host_keys, HostKey, host_keys.c.node_id == node_id, mine)


def add_key(connection: Connection, draft: HostKey) -> HostKey:
    """Store a key."""
    return rows.add(connection, host_keys, draft)


def delete_keys(connection: Connection, ids: Iterable[int]) -> None:
    """Forget these."""
    connection.execute(sa.delete(host_keys).where(host_keys.c.id.in_(list(ids))))


def delete_keys_of(connection: Connection, *, node_id: int | None = None, user_id: int | None = None) -> int:
    """Forget those of a node that is deleted, or of a person who is; returns how many. Raises ValueError for neither."""
    if (node_id is None) == (user_id is None):
        raise ValueError("of a node, or of a person")
    theirs = host_keys.c.node_id == node_id if user_id is None else host_keys.c.user_id == user_id
    return connection.execute(sa.delete(host_keys).where(theirs)).rowcount
