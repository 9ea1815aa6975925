"""Small things that must outlive the process, one JSON value under one key: cursors of the allocators, the schema.

No secrets: those live in files (``store.secrets``).
"""

from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from doorward.store.tables import settings

T = TypeVar("T")

_GET = select(settings.c.value).where(settings.c.key == bindparam("wanted"))
_CHANGE = update(settings).where(settings.c.key == bindparam("wanted"))


def get(connection: Connection, key: str, kind: type[T]) -> T | None:
    """The value as ``kind``, or None when there is none. Raises msgspec.ValidationError for another kind of value."""
    text = connection.execute(_GET, {"wanted": key}).scalar()
    return None if text is None else msgspec.json.decode(text, type=kind)


def put(connection: Connection, key: str, value: Any) -> None:
    """Set the value, whether or not there was one. Writers take turns, so two statements are as good as one."""
    text = msgspec.json.encode(value, order="deterministic").decode()
    changed = connection.execute(_CHANGE, {"wanted": key, "value": text})
    if not changed.rowcount:
        connection.execute(insert(settings), {"key": key, "value": text})


def remove(connection: Connection, key: str) -> None:
    """Forget the value, if there is one."""
    connection.execute(delete(settings).where(settings.c.key == key))


def load_all(connection: Connection) -> dict[str, Any]:
    """Every key with its value as plain JSON."""
    rows = connection.execute(select(settings.c.key, settings.c.value))
    return {key: msgspec.json.decode(text) for key, text in rows}
