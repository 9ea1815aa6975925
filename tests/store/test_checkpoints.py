"""Checkpoints and cursors, on both engines."""

from datetime import timedelta
from functools import partial

import msgspec
from tests.support.auditing import add_many, tamper
from tests.support.nouns import NOW

from doorward.protocol.auditlog import AuditPrivate, Checkpoint, Fault
from doorward.store import Connection, Database, audit, checkpoints

KEY, OTHER = AuditPrivate(bytes(32)), AuditPrivate(b"1" * 32)


def sign(connection: Connection, key: AuditPrivate = KEY) -> Checkpoint:
    """A checkpoint of the log as it is."""
    seq, digest = audit.head(connection)
    return key.sign(seq, digest, NOW + timedelta(seconds=seq))


def spoil(connection: Connection, text: str) -> None:
    connection.exec_driver_sql(text)


async def test_the_head_of_the_log(database: Database) -> None:
    assert await database.read(audit.head) == (0, bytes(32))
    await database.run(add_many, 3)
    (last, *_) = await database.read(audit.load)
    assert await database.read(audit.head) == (3, last.digest)
    assert [event.seq for event in await database.read(lambda c: list(audit.sealed(c, after=1)))] == [2, 3]


async def test_checkpoints_are_kept_in_order_and_each_event_is_signed_once(database: Database) -> None:
    assert await database.read(checkpoints.latest) is None
    await database.run(add_many, 3)
    first = await database.read(sign)
    assert await database.run(checkpoints.add, first)
    assert not await database.run(checkpoints.add, await database.read(sign, OTHER))
    await database.run(add_many, 2)
    second = await database.read(sign, OTHER)
    assert await database.run(checkpoints.add, second)
    assert not await database.run(checkpoints.add, first)
    assert await database.read(checkpoints.latest) == second
    assert await database.read(checkpoints.load) == [first, second]
    assert await database.read(checkpoints.load, key=KEY.public()) == [first]
    assert await database.read(checkpoints.load, after=3) == [second]
    assert await database.read(checkpoints.load, limit=1) == [first]
    verdict = await database.read(checkpoints.verify)
    assert (verdict.problems, verdict.confirmed) == ((), 5)
    assert set(verdict.keys) == {KEY.public(), OTHER.public()}


async def test_an_end_that_was_cut_off_the_database_shows(database: Database) -> None:
    await database.run(add_many, 5)
    await database.run(checkpoints.add, await database.read(sign))
    await database.run(tamper, "DELETE FROM audit WHERE seq > 3")
    (problem,) = (await database.read(checkpoints.verify)).problems
    assert (problem.seq, problem.fault) == (4, Fault.TRUNCATED)
    assert "2 events are missing at its end" in problem.text


async def test_two_events_whose_places_were_exchanged_are_both_named(database: Database) -> None:
    await database.run(add_many, 5)
    await database.run(tamper, "UPDATE audit SET seq = 99 WHERE seq = 2")
    for text in ("UPDATE audit SET seq = 2 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = 99"):
        await database.run(partial(spoil, text=text))
    found = (await database.read(checkpoints.verify)).problems
    assert {problem.seq for problem in found if problem.fault is Fault.ALTERED} == {2, 4}


async def test_checkpoints_kept_elsewhere_count_beside_those_in_the_database(database: Database) -> None:
    await database.run(add_many, 4)
    elsewhere = await database.read(sign)
    await database.run(checkpoints.add, elsewhere)
    assert (await database.read(checkpoints.verify, [elsewhere])).confirmed == 4
    # Whoever owns the database takes the end of the log and its checkpoint out of it.
    await database.run(tamper, "DELETE FROM audit WHERE seq = 4")
    await database.run(lambda connection: connection.exec_driver_sql("DELETE FROM audit_checkpoints").close())
    assert (await database.read(checkpoints.verify)).problems == ()
    (problem,) = (await database.read(checkpoints.verify, [elsewhere])).problems
    assert (problem.seq, problem.fault) == (4, Fault.TRUNCATED)
    forged = msgspec.structs.replace(elsewhere, seq=3)
    (problem,) = (await database.read(checkpoints.verify, [forged])).problems
    assert problem.fault is Fault.CHECKPOINT


async def test_one_process_has_a_destination_until_it_says_so_no_more(database: Database) -> None:
    assert await database.run(checkpoints.hold, "file:a", 1, 60.0) == 0
    assert await database.run(checkpoints.hold, "file:a", 1, 60.0) == 0
    assert await database.run(checkpoints.hold, "file:a", 2, 60.0) is None
    assert await database.run(checkpoints.hold, "file:b", 2, 60.0) == 0
    await database.run(checkpoints.note_delivered, "file:a", 7, NOW)
    await database.run(checkpoints.let_go, 1)
    assert await database.run(checkpoints.hold, "file:a", 2, -1.0) == 7
    assert (
        await database.run(checkpoints.hold, "file:a", 3, 60.0) == 7
    )  # the time of the other was over at once
    assert await database.run(checkpoints.hold, "file:a", 2, 60.0) is None


async def test_a_cursor_never_goes_back(database: Database) -> None:
    await database.run(checkpoints.hold, "file:a", 0, 60.0)
    for seq in (5, 9, 7):
        await database.run(checkpoints.note_delivered, "file:a", seq, NOW)
    (sink,) = await database.read(checkpoints.sinks)
    assert (sink.name, sink.seq, sink.delivered, sink.trouble, sink.since) == ("file:a", 9, NOW, "", None)


async def test_trouble_has_the_time_it_began_at(database: Database) -> None:
    await database.run(checkpoints.hold, "file:a", 0, 60.0)
    await database.run(checkpoints.note_trouble, "file:a", "no room", NOW)
    await database.run(checkpoints.note_trouble, "file:a", "gone", NOW + timedelta(hours=1))
    (sink,) = await database.read(checkpoints.sinks)
    assert (sink.trouble, sink.since) == ("gone", NOW)
    await database.run(checkpoints.note_delivered, "file:a", 1, NOW + timedelta(hours=2))
    (sink,) = await database.read(checkpoints.sinks)
    assert (sink.trouble, sink.since) == ("", None)
