import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.support.nouns import NOW

from doorward.errors import Conflict
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


def test_the_digest_is_what_the_description_says() -> None:
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    digest = audit.digest_of(
        previous=bytes(32), seq=1, at=at, actor="cli", action="policy.set", target="polic\xe9", details="{}"
    )
    expected = hashlib.sha256(
        b"doorward audit event 1"
        + bytes(32)
        + b"\0\0\0\0\0\0\0\x01"
        + b"\0\0\0\0\0\x0f\x42\x40"
        + b"\0\0\0\0\0\0\0\x03cli"
        + b"\0\0\0\0\0\0\0\x0apolicy.set"
        + b"\0\0\0\0\0\0\0\x07polic\xc3\xa9"
        + b"\0\0\0\0\0\0\0\x02{}"
    )
    assert digest == expected.digest()


async def test_events_are_chained(database: Database) -> None:
    first = await database.run(audit.append, "cli", "policy.set", "policy", {"b": [1, None], "a": "é\0"}, NOW)
    second = await database.run(audit.append, "system", "node.expire", "node:n1", {}, NOW)
    assert (first.seq, first.previous, second.seq, second.previous) == (1, audit.FIRST, 2, first.digest)
    assert first.details == {"b": [1, None], "a": "é\0"}
    assert await database.read(audit.load) == [second, first]
    assert await database.read(audit.verify) is None


async def test_several_events_at_once_are_chained_in_their_order(database: Database) -> None:
    await database.run(add, 1)
    entries = [audit.Entry("cli", "user.create", f"user:{n}", {"n": n}, NOW) for n in (7, 3, 5)]
    rows = await database.run(audit.append_all, entries)
    assert [row["seq"] for row in rows] == [2, 3, 4]
    found = await database.read(audit.load, after=1)
    assert [(event.target, event.details) for event in found] == [
        (entry.target, entry.details) for entry in entries
    ]
    assert await database.run(audit.append_all, ()) == []
    assert await database.read(audit.verify) is None


async def test_an_empty_log_is_sound(database: Database) -> None:
    assert await database.read(audit.verify) is None
    assert await database.read(audit.load) == []


async def test_a_unit_that_is_undone_leaves_no_gap(database: Database) -> None:
    def fail(connection: Connection) -> None:
        add(connection, 1)
        raise Conflict("no")

    await database.run(add, 0)
    with pytest.raises(Conflict):
        await database.run(fail)
    await database.run(add, 2)
    assert [event.seq for event in await database.read(audit.load)] == [2, 1]
    assert await database.read(audit.verify) is None


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE seq = 1"]
)
async def test_nothing_in_the_log_can_be_changed_or_deleted(database: Database, statement: str) -> None:
    await database.run(add_many, 2)
    with pytest.raises(Conflict, match="append-only"):
        await database.run(lambda connection: connection.exec_driver_sql(statement).close())
    assert len(await database.read(audit.load)) == 2


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 3", 3),
        ("UPDATE audit SET action = action || 'n', target = substr(target, 2) WHERE seq = 2", 2),
        ("UPDATE audit SET details = '{}' WHERE seq = 1", 1),
        ("UPDATE audit SET at = at + 1 WHERE seq = 5", 5),
        ("UPDATE audit SET previous = digest WHERE seq = 4", 4),
        ("UPDATE audit SET digest = previous WHERE seq = 4", 4),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("UPDATE audit SET seq = 99 WHERE seq = 5", 5),
    ],
)
async def test_what_was_changed_behind_our_back_is_found(
    database: Database, statement: str, bad: int
) -> None:
    await database.run(add_many, 5)
    await database.run(tamper, statement)
    assert await database.read(audit.verify) == bad


async def test_a_long_log_is_checked_in_pieces(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_CHUNK", 7)
    await database.run(add_many, 50)
    assert await database.read(audit.verify) is None
    await database.run(tamper, "UPDATE audit SET target = '' WHERE seq = 50")
    assert await database.read(audit.verify) == 50


async def test_the_log_can_be_filtered_and_paged(database: Database) -> None:
    await database.run(add_many, 10)
    await database.run(lambda connection: add(connection, 10, action="policy.set"))

    async def numbers(**filters: Any) -> list[int]:
        return [event.seq for event in await database.read(audit.load, **filters)]

    assert await numbers(limit=3) == [11, 10, 9]
    assert await numbers(limit=3, before=9) == [8, 7, 6]
    assert await numbers(after=9) == [10, 11]
    assert await numbers(actor="user:1") == [10, 8, 6, 4, 2]
    assert await numbers(target="node:n4") == [5]
    assert await numbers(action="policy.set") == [11]
    assert await numbers(action="policy.") == [11]
    assert await numbers(action="node.", actor="user:1", limit=2) == [10, 8]
    assert await numbers(action="node") == []
    assert await numbers(since=NOW + timedelta(seconds=9)) == [11, 10]
