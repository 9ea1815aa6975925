"""What the processes on one PostgreSQL tell each other: which rows changed, in the order of the commits.

A unit that changes something appends a line in its own transaction, so there is a line exactly when there is a change.
Writers take turns, so the numbers of the lines follow the order of the commits; a line that was rolled back leaves a gap
and nothing else. Who missed a notice, or was away, reads on from the last number it has seen, and loses nothing.

The notices themselves carry nothing. They wake whoever listens.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from doorward.errors import Unavailable
from doorward.model import Change, ChangeKind
from doorward.store import rows
from doorward.store.tables import changes

CHANNEL = "doorward_changes"
KEPT = 10_000  # lines; a process that is further behind reads everything anew


def append(connection: Connection, boot: int, said: Mapping[ChangeKind, Iterable[int]]) -> None:
    """Add a line for each kind, and wake the others when it is committed. Without a kind nothing happens."""
    if not said:
        return
    lines = [{"boot": boot, "kind": kind, "ids": tuple(sorted(ids))} for kind, ids in said.items()]
    connection.execute(sa.insert(changes), lines)
    # A notice that is the same as another of its transaction is sent once.
    connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


def newest(connection: Connection) -> int:
    """The number of the last line; 0 before the first."""
    return connection.execute(sa.select(sa.func.max(changes.c.id))).scalar() or 0


def since(connection: Connection, last: int) -> list[Change] | None:
    """The lines after this number, in order. None when some of them may be gone: then only reading everything helps."""
    oldest = connection.execute(sa.select(sa.func.min(changes.c.id))).scalar()
    if oldest is None:
        return None if last else []
    if oldest > last + 1:
        return None
    return rows.load(connection, changes, Change, changes.c.id > last)


def prune(connection: Connection, kept: int = KEPT) -> None:
    """Forget all but the newest lines."""
    connection.execute(sa.delete(changes).where(changes.c.id <= newest(connection) - kept))


async def heard(address: URL) -> AsyncGenerator[None]:
    """Yield once when listening has begun, and then after each commit that appended something.

    Raises Unavailable when the connection cannot be made, or breaks.
    """
    import psycopg  # noqa: PLC0415 - with SQLite nobody listens, and nobody should wait until it is loaded

    _, arguments = address.get_dialect()().create_connect_args(address)
    try:
        connection = await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}".encode())
            yield
            async for _ in connection.notifies():
                yield
    except psycopg.Error as error:
        raise Unavailable(
            "the connection on which other processes' changes are heard broke",
            cure="Check that PostgreSQL runs; doorward tries again by itself.",
            detail=str(error),
        ) from None
