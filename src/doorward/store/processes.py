"""The processes that serve one database: who they are, and which of them live. PostgreSQL only.

A process lives for as long as it says so often enough. Its row stays for a day when it ends, so that the same installation
is the same process again after a restart. All times are those of the database: the clocks of several machines may differ.
``seen`` is when a process last said that it lives; negative once it has said that it ends.
"""

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import Process
from doorward.store.tables import processes

_NOW: sa.ColumnElement[int] = sa.literal_column(
    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint", sa.BigInteger()
)
_KEPT_FOR = 24 * 3600 * 1_000_000  # microseconds that a process may be away until it is gone for good
_KEPT = [column.name for column in processes.columns if column.name != "seen"]


def join(connection: Connection, draft: Process) -> Process:
    """Store a process that starts, in place of the one of the same installation, whose number and own node it keeps."""
    there = by_installation(connection, draft.installation)
    if there is None:
        # Another worker of the same serve may have its node already.
        own = next((one.own_node for one in of_serve(connection, draft.serve) if one.own_node), None)
        draft = msgspec.structs.replace(draft, own_node=own)
        values = {name: getattr(draft, name) for name in _KEPT if name != "id"}
        key = connection.execute(sa.insert(processes).values(**values, seen=_NOW)).inserted_primary_key
        assert key is not None
        return msgspec.structs.replace(draft, id=key[0])
    joined = msgspec.structs.replace(draft, id=there.id, own_key=there.own_key, own_node=there.own_node)
    update(connection, joined)
    say_alive(connection, joined)
    return joined


def update(connection: Connection, process: Process) -> None:
    """Store every field."""
    values = {name: getattr(process, name) for name in _KEPT if name != "id"}
    connection.execute(sa.update(processes).where(processes.c.id == process.id).values(values))


def say_alive(connection: Connection, process: Process) -> bool:
    """Say that this run of the process lives. False when another run took its place."""
    mine = (processes.c.id == process.id) & (processes.c.boot == process.boot)
    if connection.execute(sa.update(processes).where(mine).values(seen=_NOW)).rowcount == 1:
        return True
    if by_installation(connection, process.installation) is not None:
        return False
    # It was cut off for so long that it was taken for gone. Nodes know it by its number, which nobody else got.
    values = {name: getattr(process, name) for name in _KEPT}
    connection.execute(sa.insert(processes).values(**values, seen=_NOW))
    return True


def say_ended(connection: Connection, process: Process) -> None:
    """Say that this run is over, so that nobody has to wait to find out."""
    mine = (processes.c.id == process.id) & (processes.c.boot == process.boot)
    connection.execute(sa.update(processes).where(mine).values(seen=-_NOW))


def prune(connection: Connection) -> None:
    """Forget those that are gone for good, such as the workers that a ``serve`` has fewer than it had."""
    connection.execute(sa.delete(processes).where(sa.func.abs(processes.c.seen) < _NOW - _KEPT_FOR))


def give_own_node(connection: Connection, serve: str, node_id: int) -> None:
    """Store which node is the own one of a ``serve``, with each of its workers."""
    for one in of_serve(connection, serve):
        if one.own_node != node_id:
            update(connection, msgspec.structs.replace(one, own_node=node_id))


def load_all(connection: Connection) -> list[Process]:
    """Every process that served in the last day, by id."""
    return _load(connection)


def of_serve(connection: Connection, serve: str) -> list[Process]:
    """The workers of one ``serve``, by id, whether or not they live."""
    return [one for one in _load(connection) if one.serve == serve]


def alive(connection: Connection, lease: float) -> list[Process]:
    """Those that said so in the last ``lease`` seconds, by id."""
    return _load(connection, processes.c.seen > _NOW - int(lease * 1_000_000))


def by_installation(connection: Connection, installation: str) -> Process | None:
    """The process of this data directory and this number."""
    found = _load(connection, processes.c.installation == installation)
    return found[0] if found else None


def by_own_key(connection: Connection, key_id: int) -> Process | None:
    """The process that made this auth key for its own node."""
    found = _load(connection, processes.c.own_key == key_id)
    return found[0] if found else None


def _load(connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[Process]:
    columns = [processes.c[name] for name in _KEPT]
    statement = sa.select(*columns).where(*conditions).order_by(processes.c.id)
    return [Process(**row._asdict()) for row in connection.execute(statement)]
