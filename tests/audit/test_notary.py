"""When the log is signed, and when it is not."""

import contextlib
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.auditing import add_many, tamper
from tests.support.clock import FakeClock

from doorward.audit.notary import CHECKPOINTS_FILE, PUBLIC_FILE, Notary
from doorward.protocol.auditlog import AuditPrivate, Fault, read_checkpoint
from doorward.store import Connection, Database, audit, checkpoints

KEY = AuditPrivate(bytes(range(32)))


@pytest.fixture
def notary(database: Database, clock: FakeClock, tmp_path: Path) -> Notary:
    return Notary(database, KEY, tmp_path, clock, events=10, interval=timedelta(minutes=15))


async def signed(database: Database) -> list[int]:
    return [checkpoint.seq for checkpoint in await database.read(checkpoints.load)]


def lines(folder: Path) -> list[int]:
    content = (folder / CHECKPOINTS_FILE).read_bytes()
    return [read_checkpoint(line).seq for line in content.splitlines()]


async def test_it_signs_after_so_many_events_and_after_so_much_time(
    database: Database, clock: FakeClock, notary: Notary, tmp_path: Path
) -> None:
    await notary.look()
    assert await signed(database) == []
    await database.run(add_many, 3)
    await notary.look()
    assert await signed(database) == [3]  # the first at once
    await database.run(add_many, 9)
    await notary.look()
    assert await signed(database) == [3]
    await database.run(add_many, 1)
    await notary.look()
    assert await signed(database) == [3, 13]
    await database.run(add_many, 1)
    clock.advance(timedelta(minutes=14))
    await notary.look()
    assert await signed(database) == [3, 13]
    clock.advance(timedelta(minutes=1))
    await notary.look()
    await notary.look()
    assert await signed(database) == [3, 13, 14]
    clock.advance(timedelta(days=1))
    await notary.look(now=True)
    assert await signed(database) == [3, 13, 14]  # nothing is new
    assert lines(tmp_path) == [3, 13, 14]
    assert stat.S_IMODE((tmp_path / CHECKPOINTS_FILE).stat().st_mode) == 0o600
    assert (tmp_path / PUBLIC_FILE).read_text() == f"{KEY.public()}\n"
    (last,) = await database.read(checkpoints.load, after=13)
    assert (last.at, last.key, last.holds()) == (clock.now() - timedelta(days=1), KEY.public(), True)


async def test_asked_to_it_signs_at_once(database: Database, notary: Notary) -> None:
    await database.run(add_many, 3)
    await notary.look()
    await database.run(add_many, 1)
    await notary.look(now=True)
    assert await signed(database) == [3, 4]


async def test_a_clock_that_was_set_back_does_not_keep_it_from_signing(
    database: Database, clock: FakeClock, notary: Notary
) -> None:
    await database.run(add_many, 1)
    await notary.look()
    clock.jump(timedelta(days=-900))
    await database.run(add_many, 1)
    await notary.look()
    assert await signed(database) == [1, 2]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 7", "event 7 was altered"),
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 5", "event 5 was altered"),
        ("DELETE FROM audit WHERE seq = 6", "event 6 is missing"),
        ("DELETE FROM audit WHERE seq > 3", "ends with event 3"),
    ],
)
async def test_what_was_changed_since_is_not_signed_over(
    database: Database, notary: Notary, statement: str, words: str
) -> None:
    await database.run(add_many, 5)
    await notary.look()
    await database.run(add_many, 4)
    await database.run(tamper, statement)
    await notary.look(now=True)
    assert await signed(database) == [5]
    assert words in notary.trouble
    assert (await notary.verify()).problems


async def test_a_log_that_was_cut_off_and_grew_again_is_not_signed(
    database: Database, notary: Notary
) -> None:
    await database.run(add_many, 5)
    await notary.look()
    await database.run(tamper, "DELETE FROM audit WHERE seq > 3")
    await database.run(lambda connection: audit.append_all(connection, [_other()] * 20))
    await notary.look(now=True)
    assert await signed(database) == [5]
    assert "event 5 is not the one that was signed" in notary.trouble


def _other() -> audit.Entry:
    return audit.Entry("nobody", "node.delete", "node:n1", {}, FakeClock().now())


async def test_the_copies_in_the_file_show_what_was_done_to_the_database(
    database: Database, notary: Notary
) -> None:
    await database.run(add_many, 5)
    await notary.look()
    await database.run(tamper, "DELETE FROM audit WHERE seq > 3")

    def forget(connection: Connection) -> None:
        connection.exec_driver_sql("DELETE FROM audit_checkpoints")

    await database.run(forget)
    assert (await database.read(checkpoints.verify)).problems == ()
    (problem,) = (await notary.verify()).problems
    assert (problem.seq, problem.fault) == (4, Fault.TRUNCATED)


async def test_a_checkpoint_that_a_crash_kept_out_of_the_file_gets_there(
    database: Database, notary: Notary, tmp_path: Path
) -> None:
    await database.run(add_many, 3)
    await notary.look()
    await database.run(add_many, 1)
    seq, digest = await database.read(audit.head)
    await database.run(checkpoints.add, KEY.sign(seq, digest, FakeClock().now()))
    file = tmp_path / CHECKPOINTS_FILE
    file.write_bytes(file.read_bytes() + b'{"checkpoint":4,"dig')  # and died in the middle
    await notary._catch_up()
    assert lines(tmp_path) == [3, 4]
    await notary._catch_up()
    assert lines(tmp_path) == [3, 4]
    assert (await notary.verify()).confirmed == 4


async def test_a_file_that_cannot_be_written_leaves_the_checkpoint_in_the_store(
    database: Database, notary: Notary, tmp_path: Path
) -> None:
    (tmp_path / CHECKPOINTS_FILE).mkdir()
    await database.run(add_many, 3)
    await notary.look()
    assert await signed(database) == [3]
    (tmp_path / CHECKPOINTS_FILE).rmdir()
    await notary.look()  # nothing is new, and it is not forgotten
    await notary.look()
    assert lines(tmp_path) == [3]


async def test_lines_that_are_no_checkpoints_are_passed_over(
    database: Database, notary: Notary, tmp_path: Path
) -> None:
    await database.run(add_many, 3)
    await notary.look()
    file = tmp_path / CHECKPOINTS_FILE
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    assert (await notary.verify()).problems == ()


async def test_two_processes_sign_each_event_once_and_trust_each_other(
    database: Database, clock: FakeClock, notary: Notary, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    other = Notary(database, AuditPrivate(b"1" * 32), folder, clock, events=10)
    await database.run(add_many, 3)
    await notary.look()
    await other.look()
    await database.run(add_many, 10)
    await other.look()
    await notary.look()
    found = await database.read(checkpoints.load)
    assert [(each.seq, each.key) for each in found] == [(3, notary.public), (13, other.public)]
    assert (lines(tmp_path), lines(folder)) == ([3], [13])
    assert (await notary.verify()).problems == ()


async def test_while_the_store_takes_no_writes_nothing_is_signed_and_nothing_breaks(
    database: Database, notary: Notary, tmp_path: Path
) -> None:
    await database.run(add_many, 3)
    with contextlib.closing(sqlite3.connect(tmp_path / "doorward.db")) as other:
        other.execute("PRAGMA query_only = OFF")
        other.execute("DROP TABLE audit_checkpoints")
        other.commit()
    await notary.look()
    assert notary.trouble == ""
