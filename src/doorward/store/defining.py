"""How a table is written down, for both engines; ``tables`` says what all of them have in common."""

from typing import Any

from sqlalchemy import Column, Identity, MetaData, Table

from doorward.store.columns import whole

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_unique",
        "fk": "%(table_name)s_%(column_0_name)s_exists",
        "ix": "%(table_name)s_%(column_0_N_name)s",
    }
)


def table(name: str, *parts: Any, numbered: bool = False) -> Table:
    """A STRICT table; ``numbered`` gives it an ``id`` that is never used again."""
    if numbered:
        parts = (Column("id", whole(), Identity(), primary_key=True), *parts)
    return Table(name, metadata, *parts, sqlite_strict=True, sqlite_autoincrement=numbered)


def must(name: str, kind: Any, *parts: Any) -> Column[Any]:
    """A column that has a value in every row."""
    return Column(name, kind, *parts, nullable=False)


def may(name: str, kind: Any, *parts: Any) -> Column[Any]:
    """A column that may be empty."""
    return Column(name, kind, *parts, nullable=True)
