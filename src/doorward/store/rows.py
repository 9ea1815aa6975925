"""Between the values of the model and the rows of a table, where columns and fields have the same names."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table

from doorward.errors import NotFound

T = TypeVar("T", bound=msgspec.Struct)


def fields(table: Table, value: msgspec.Struct) -> dict[str, Any]:
    """A value's fields that are columns of the table, without its id."""
    return {column.name: getattr(value, column.name) for column in table.columns if column.name != "id"}


def add(connection: Connection, table: Table, draft: T) -> T:
    """Insert a draft, whose id is 0; return it with the id it was given. Raises Conflict (see ``faults``)."""
    if getattr(draft, "id", None) != 0:
        raise ValueError(f"a draft for {table.name} has id 0: ids are given by the database")
    key = connection.execute(sa.insert(table), fields(table, draft)).inserted_primary_key
    assert key is not None
    return msgspec.structs.replace(draft, id=key[0])


def change(connection: Connection, table: Table, value: Any) -> None:
    """Store every field of a value that is there by its id. Raises NotFound, and Conflict (see ``faults``)."""
    statement = sa.update(table).where(table.c.id == sa.bindparam("of"))
    if not connection.execute(statement, {"of": value.id, **fields(table, value)}).rowcount:
        raise NotFound(f"there is no {value.id} in {table.name}")


def remove(connection: Connection, table: Table, number: int) -> None:
    """Delete the row with this id. Raises NotFound, and Conflict while another row refers to it."""
    if not connection.execute(sa.delete(table).where(table.c.id == number)).rowcount:
        raise NotFound(f"there is no {number} in {table.name}")


def load(
    connection: Connection,
    table: Table,
    kind: type[T],
    *conditions: ColumnElement[bool],
    order: Iterable[ColumnElement[Any]] = (),
    limit: int | None = None,
) -> list[T]:
    """The rows that meet every condition as values of ``kind``, in order of their id unless told otherwise."""
    statement = sa.select(table).where(*conditions).order_by(*(order or (table.c.id,))).limit(limit)
    names = [column.name for column in table.columns]
    return [kind(**dict(zip(names, row, strict=True))) for row in connection.execute(statement)]


def run(connection: Connection, statement: sa.Select[Any], kind: type[T], **parameters: Any) -> list[T]:
    """The rows of a statement that was made before, as values of ``kind``: it selects exactly its fields."""
    result = connection.execute(statement, parameters)
    names = list(result.keys())
    return [kind(**dict(zip(names, row, strict=True))) for row in result]


def one(connection: Connection, table: Table, kind: type[T], *conditions: ColumnElement[bool]) -> T | None:
    """The one row that meets the conditions, or None."""
    found = load(connection, table, kind, *conditions, limit=1)
    return found[0] if found else None
