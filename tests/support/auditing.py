"""Events for an audit log, and what somebody does to it who owns the database."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection
from tests.support.nouns import NOW

from doorward.api.audit import answer
from doorward.api.audit_types import Event
from doorward.store import Database, audit


def add(connection: Connection, /, number: int, **fields: Any) -> None:
    values: dict[str, Any] = {
        "actor": f"user:{number % 2}",
        "action": "node.register",
        "target": f"node:n{number}",
        "details": {"number": number},
        "at": NOW + timedelta(seconds=number),
    }
    audit.append(connection, **{**values, **fields})


def add_many(connection: Connection, count: int) -> None:
    for number in range(count):
        add(connection, number)


def tamper(connection: Connection, statement: str) -> None:
    """What somebody does who owns the database: the guards go first."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP TRIGGER audit_no_update")
        connection.exec_driver_sql("DROP TRIGGER audit_no_delete")
    else:
        connection.exec_driver_sql("DROP TRIGGER audit_append_only ON audit")
    connection.exec_driver_sql(statement)


async def events_of(database: Database, count: int) -> list[Event]:
    """So many new events, as destinations get them."""
    await database.run(add_many, count)
    found = await database.read(audit.load, limit=count)
    return [answer(event) for event in reversed(found)]
