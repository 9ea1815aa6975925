from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.support.auditing import add, add_many, tamper
from tests.support.clock import FakeClock
from tests.support.nouns import NOW

from doorward.errors import Conflict
from doorward.protocol.auditlog import FIRST, Fault
from doorward.store import Database, audit, checkpoints
from doorward.telemetry import Origin, originating


async def test_events_are_chained(database: Database) -> None:
    first = await database.run(audit.append, "cli", "policy.set", "policy", {"b": [1, None], "a": "é\0"}, NOW)
    second = await database.run(audit.append, "system", "node.expire", "node:n1", {}, NOW)
    assert (first.seq, first.previous, second.seq, second.previous) == (1, FIRST, 2, first.digest)
    assert first.details == {"b": [1, None], "a": "é\0"}
    assert await database.read(audit.load) == [second, first]
    assert (await database.read(checkpoints.verify)).problems == ()


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
    assert (await database.read(checkpoints.verify)).problems == ()


async def test_an_event_says_whose_request_it_is_of(database: Database) -> None:
    with originating("192.0.2.7") as origin:
        await database.run(add, 1)
        await database.run(
            audit.append_all, [audit.Entry("cli", "a.b", "c", {}, NOW, Origin("192.0.2.8", "x"))]
        )
    await database.run(add, 2)
    of_nobody, of_another, of_ours = await database.read(audit.load)
    assert of_ours.details == {"number": 1, "origin": {"source": "192.0.2.7", "request": origin.request}}
    assert of_another.details == {"origin": {"source": "192.0.2.8", "request": "x"}}
    assert of_nobody.details == {"number": 2}
    assert (await database.read(checkpoints.verify)).problems == ()


async def test_an_empty_log_is_sound(database: Database) -> None:
    assert (await database.read(checkpoints.verify)).problems == ()
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
    assert (await database.read(checkpoints.verify)).problems == ()


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
    assert (await database.read(checkpoints.verify)).problems[0].seq == bad


async def test_a_long_log_is_checked_in_pieces(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_CHUNK", 7)
    await database.run(add_many, 50)
    assert (await database.read(checkpoints.verify)).problems == ()
    await database.run(tamper, "UPDATE audit SET target = '' WHERE seq = 50")
    (problem,) = (await database.read(checkpoints.verify)).problems
    assert (problem.seq, problem.fault) == (50, Fault.ALTERED)


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


async def test_a_person_or_a_node_is_found_on_either_side(database: Database) -> None:
    await database.run(add_many, 6)
    await database.run(lambda connection: add(connection, 6, actor="node:n4", target="user:1"))
    await database.run(lambda connection: add(connection, 7, actor="node:n4", target="node:n4"))
    await database.run(lambda connection: add(connection, 8, actor="cli", action="node_x", target="x"))

    async def numbers(*subjects: str, **filters: Any) -> list[int]:
        found = await database.read(audit.load, subjects=subjects, **filters)
        return [event.seq for event in found]

    assert await numbers("user:1") == [7, 6, 4, 2]
    assert await numbers("node:n4") == [8, 7, 5]
    assert await numbers("user:1", "node:n4") == [7]
    assert await numbers("node:n4", limit=2) == [8, 7]
    assert await numbers("node:n4", limit=2, before=7) == [5]
    assert await numbers("node:n4", after=5, limit=1) == [7]
    assert await numbers("node:n4", action="node.") == [8, 7, 5]
    assert await numbers("user:0", actor="user:0", target="node:n2") == [3]
    assert await numbers("nobody") == []
    assert await numbers(until=NOW + timedelta(seconds=2)) == [2, 1]
    assert await numbers(action="node.", limit=2) == [8, 7]
    assert await database.read(audit.kinds) == ["node.register", "node_x"]


async def test_every_question_is_answered_from_an_index_in_the_order_of_the_log(location: str) -> None:
    """So that a page costs the same however long the log is: nothing is scanned, and nothing but times is sorted."""
    if location.startswith("postgresql"):
        return  # its planner chooses by statistics; the indexes are the same, which test_schema compares
    asked: list[tuple[dict[str, Any], set[str], bool]] = [
        ({}, {"SCAN audit"}, False),
        ({"before": 5}, {"SEARCH audit USING INTEGER PRIMARY KEY"}, False),
        ({"after": 5}, {"SEARCH audit USING INTEGER PRIMARY KEY"}, False),
        ({"subjects": ["user:1"]}, {"audit_actor_seq (actor=?)", "audit_target_seq (target=?)"}, False),
        ({"subjects": ["node:n1"], "before": 9}, {"audit_actor_seq (actor=? AND seq<?)"}, False),
        ({"subjects": ["node:n1"], "action": "node."}, {"audit_actor_seq", "audit_target_seq"}, False),
        ({"action": "node."}, {"audit_action_seq (action=?)"}, False),
        ({"action": "node.register", "before": 9}, {"audit_action_seq (action=? AND seq<?)"}, False),
        ({"actor": "user:1", "since": NOW}, {"audit_actor_seq (actor=?)"}, False),
        ({"since": NOW, "until": NOW + timedelta(seconds=5)}, {"audit_at (at>? AND at<?)"}, True),
    ]

    def plans(connection: Connection, filters: dict[str, Any]) -> list[str]:
        found: list[str] = []
        for statement in audit.statements(connection, audit.Search(**filters)):
            text = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
            found += [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
        return found

    async with await Database.open(location, clock=FakeClock()) as database:
        await database.run(add_many, 200)
        for filters, expected, sorts in asked:
            found = await database.read(plans, filters)
            text = "\n".join(found)
            assert all(part in text for part in expected), (filters, found)
            assert ("TEMP B-TREE" in text) is sorts, (filters, found)
        kinds = "EXPLAIN QUERY PLAN SELECT min(action) FROM audit WHERE action > 'a'"
        (plan,) = await database.read(lambda connection: connection.exec_driver_sql(kinds).all())
        assert "SEARCH audit USING COVERING INDEX audit_action_seq" in plan[3]
