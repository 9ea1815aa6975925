import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from tests.support import nouns
from tests.support.clock import FakeClock
from tests.support.postgres import Cluster
from tests.support.small_disk import needs_root, small_disk

from doorward.clock import SystemClock
from doorward.errors import Conflict, DoorwardError, TooMany, Unavailable
from doorward.store import Database, audit, checkpoints, engines, nodes, users
from doorward.store import database as module
from doorward.store.engines import damage
from doorward.store.faults import CommitFailed

ROOT = Path(__file__).parents[2]


def add_user(connection: Connection, number: int) -> str:
    return users.insert(connection, nouns.user(number)).name


def add_then_fail(connection: Connection, number: int, error: Exception) -> None:
    add_user(connection, number)
    raise error


async def names(database: Database) -> list[str]:
    return [user.name for user in await database.read(users.load_all)]


class Gate:
    """A unit of work that holds the writer thread until it is opened, so that others gather behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, _connection: Connection) -> None:
        self.entered.set()
        assert self._open.wait(10)

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def gathered(
    database: Database, *calls: Callable[[Connection], Any]
) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """The calls, waiting behind a gate that opens at the end of the block: so they share one batch."""
    gate = Gate()
    async with asyncio.TaskGroup() as group:
        holding = group.create_task(settled(database, gate))
        await asyncio.to_thread(gate.entered.wait, 10)
        tasks = [group.create_task(settled(database, call)) for call in calls]
        for _ in range(3):  # each task runs up to where it waits for its unit
            await asyncio.sleep(0)
        assert database._queue.qsize() == len(calls)
        try:
            yield tasks
        finally:
            gate.open()
        await asyncio.wait([holding, *tasks])


async def settled(database: Database, call: Callable[[Connection], Any]) -> Any:
    """What the call returned or raised."""
    try:
        return await database.run(call)
    except (DoorwardError, ArithmeticError) as error:
        return error


@contextmanager
def commits(database: Database) -> Iterator[list[int]]:
    """A list that grows by one at each commit of the writer."""
    seen: list[int] = []

    def note(_connection: Connection) -> None:
        seen.append(1)

    sa.event.listen(database._engines.writer, "commit", note)
    yield seen
    sa.event.remove(database._engines.writer, "commit", note)


async def test_units_that_wait_together_share_one_commit(location: str) -> None:
    async with await Database.open(location, clock=FakeClock()) as database:
        with commits(database) as seen:
            async with gathered(database, *(lambda c, n=n: add_user(c, n) for n in range(20))) as tasks:
                pass
        assert [task.result() for task in tasks] == [nouns.user(n).name for n in range(20)]
        assert len(seen) == 1
        assert await names(database) == [nouns.user(n).name for n in range(20)]


async def test_a_batch_is_bounded_in_units(location: str) -> None:
    async with await Database.open(location, clock=FakeClock()) as database:
        with commits(database) as seen:
            async with gathered(database, *(lambda _: None for _ in range(129))):
                pass
        assert len(seen) == 3  # 130 units with the one that held the gate


async def test_a_batch_is_bounded_in_time(location: str) -> None:
    clock = FakeClock()
    async with await Database.open(location, clock=clock) as database:
        with commits(database) as seen:
            async with gathered(database, *(lambda _: clock.advance(module.BATCH_SECONDS) for _ in range(3))):
                pass
        assert len(seen) == 3  # the first of them still fits behind the gate


async def test_nobody_learns_anything_before_the_commit(database: Database) -> None:
    committing, may_commit = threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        committing.set()
        assert may_commit.wait(10)

    async with asyncio.TaskGroup() as group:
        sa.event.listen(database._engines.writer, "commit", hold)
        done = group.create_task(database.run(add_user, 1))
        failed = group.create_task(settled(database, lambda c: add_then_fail(c, 2, Conflict("no"))))
        await asyncio.to_thread(committing.wait, 10)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not done.done()
        assert (
            await names(database) == []
        )  # a reader neither waits for the commit nor sees what is not committed
        may_commit.set()
        await asyncio.wait([done, failed])
        sa.event.remove(database._engines.writer, "commit", hold)
    assert await names(database) == [done.result()]


async def test_results_arrive_in_the_order_of_the_commit(database: Database) -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        await database.run(lambda c: add_user(c, number))
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(note(number))
    assert order == list(range(200))
    assert await names(database) == [nouns.user(number).name for number in order]


async def test_a_unit_that_raises_undoes_only_itself(database: Database) -> None:
    fault = Conflict("the name is taken")
    async with gathered(
        database,
        lambda c: add_user(c, 1),
        lambda c: add_then_fail(c, 2, fault),
        lambda c: add_then_fail(c, 3, ZeroDivisionError()),
        lambda c: add_user(c, 1),
        lambda c: c.exec_driver_sql("SELECT nonsense FROM nowhere").close(),
        lambda c: add_user(c, 4),
    ) as tasks:
        pass
    first, second, third, double, nonsense, last = (task.result() for task in tasks)
    assert (first, last) == (nouns.user(1).name, nouns.user(4).name)
    assert second is fault
    assert isinstance(third, ZeroDivisionError)
    assert isinstance(double, Conflict)
    assert type(nonsense) is DoorwardError
    assert "nowhere" not in str(nonsense)
    assert await names(database) == [first, last]


async def test_a_unit_sees_what_those_before_it_did(database: Database) -> None:
    async with gathered(
        database, lambda c: add_user(c, 1), lambda c: add_then_fail(c, 2, Conflict("")), users.load_all
    ) as tasks:
        pass
    assert [user.name for user in tasks[2].result()] == [tasks[0].result()]


async def test_a_commit_that_fails_fails_every_unit_and_changes_nothing(database: Database) -> None:
    await database.run(
        lambda c: [
            c.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)"),
            c.exec_driver_sql(
                "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
            ),
        ].clear()
    )
    async with gathered(
        database,
        lambda c: add_user(c, 1),
        lambda c: c.exec_driver_sql(
            "INSERT INTO child VALUES (5)"
        ).close(),  # seen to be wrong at the commit only
        lambda c: add_user(c, 1),  # a conflict, with a row that never came to be
        lambda c: add_user(c, 2),
    ) as tasks:
        pass
    results = [task.result() for task in tasks]
    assert [type(result) for result in results] == [CommitFailed] * 4
    assert len({id(result) for result in results}) == 4
    assert await names(database) == []
    assert await database.run(add_user, 1) == nouns.user(1).name


async def test_a_caller_who_left_before_the_unit_began_changes_nothing(database: Database) -> None:
    async with gathered(database, lambda c: add_user(c, 1), lambda c: add_user(c, 2)) as tasks:
        tasks[0].cancel()
        await asyncio.sleep(0)
    assert tasks[0].cancelled()
    assert await names(database) == [tasks[1].result()]


async def test_stop_iteration_reaches_the_caller_as_an_error(database: Database) -> None:
    def careless(_connection: Connection) -> int:
        return next(iter([]))

    for door in (database.run, database.read):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await door(careless)


async def test_close_finishes_what_waits_and_refuses_what_comes_later(location: str) -> None:
    database = await Database.open(location, clock=FakeClock())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(database.run(add_user, number)) for number in range(200)]
        await asyncio.sleep(0)
        await database.close()
    assert len({task.result() for task in tasks}) == 200
    for door in (database.run, database.read):
        with pytest.raises(Unavailable, match="closed"):
            await door(users.load_all)
    await database.close()
    assert not database._writer.is_alive()
    async with await Database.open(location, clock=FakeClock()) as again:
        assert len(await names(again)) == 200


async def test_too_many_waiting_units_are_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_UNITS", 2)
    async with gathered(database, lambda c: add_user(c, 1), lambda c: add_user(c, 2)):
        with pytest.raises(TooMany):
            await database.run(add_user, 3)
    assert len(await names(database)) == 2


async def test_a_reader_can_change_nothing(database: Database) -> None:
    with pytest.raises(Unavailable, match="cannot be written"):
        await database.read(add_user, 1)
    assert await names(database) == []


async def test_a_reader_sees_one_moment(database: Database) -> None:
    begun, changed = threading.Event(), threading.Event()

    def look_twice(connection: Connection) -> tuple[int, int]:
        before = len(users.load_all(connection))
        begun.set()
        assert changed.wait(10)
        return before, len(users.load_all(connection))

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(database.read(look_twice))
        await asyncio.to_thread(begun.wait, 10)
        await database.run(add_user, 1)
        changed.set()
    assert looking.result() == (0, 0)
    assert len(await names(database)) == 1


async def test_a_reader_does_not_wait_for_the_writer(database: Database) -> None:
    await database.run(add_user, 1)
    async with gathered(database):
        assert len(await asyncio.wait_for(names(database), 5)) == 1


async def test_writers_of_two_processes_take_turns(database: Database, location: str) -> None:
    """Each adds one to what it read: none is lost, because what a unit read is still true when it is committed."""

    def count_up(connection: Connection) -> None:
        events = audit.load(connection, limit=1)
        number = events[0].details["count"] + 1 if events else 1
        audit.append(connection, "cli", "count", "x", {"count": number}, nouns.NOW)

    async with await Database.open(location, clock=SystemClock()) as other:
        await asyncio.gather(*(door.run(count_up) for _ in range(100) for door in (database, other)))
    events = await database.read(audit.load, limit=1)
    assert events[0].details == {"count": 200}
    assert (await database.read(checkpoints.verify)).problems == ()


async def test_a_lock_that_another_program_holds_is_named(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if location.startswith("postgresql"):
        location += "&options=-c lock_timeout=50ms"
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.05)
    async with (
        await Database.open(location, clock=SystemClock()) as database,
        await Database.open(location, clock=SystemClock()) as other,
        gathered(other),
    ):
        with pytest.raises(Unavailable, match="locked") as caught:
            await database.run(add_user, 1)
        assert caught.value.cure
    # open again: the lock is gone
    async with await Database.open(location, clock=SystemClock()) as database:
        assert await database.run(add_user, 1)


@pytest.mark.parametrize("rounds", [3])
def test_kill_9_while_it_commits_loses_nothing_that_was_acknowledged(location: str, rounds: int) -> None:
    acknowledged: set[str] = set()
    for attempt in range(rounds):
        with subprocess.Popen(
            [sys.executable, "tests/support/crashing_writer.py", location, str(attempt)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout
            for _ in range(20 + 37 * attempt):
                acknowledged.add(child.stdout.readline().strip())
            child.send_signal(signal.SIGKILL)
            acknowledged |= {line.strip() for line in child.stdout if line.endswith("\n")}
        assert child.returncode == -signal.SIGKILL

    async def check() -> None:
        async with await Database.open(location, clock=SystemClock()) as database:
            assert await database.read(damage) == []
            assert (await database.read(checkpoints.verify)).problems == ()
            stored = await database.read(nodes.load_all)
            people = await database.read(users.load_all)
            events = await database.read(audit.load, limit=100_000)
        assert "" not in acknowledged
        assert acknowledged <= {node.stable_id for node in stored}
        assert [person.id for person in people] == [node.user_id for node in stored]
        assert [event.target for event in reversed(events)] == [f"node:{node.stable_id}" for node in stored]

    asyncio.run(check())


@pytest.mark.root
@needs_root
async def test_a_full_disk_is_named_and_forgotten_once_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder, 2) as disk:
        async with await Database.open(folder / "doorward.db", clock=SystemClock()) as database:
            disk.fill()
            stored, fault = 0, None
            while fault is None:
                big = nouns.user(stored, display_name="x" * 50_000)
                result = await settled(database, partial(users.insert, draft=big))
                stored, fault = (stored, result) if isinstance(result, DoorwardError) else (stored + 1, None)
            assert isinstance(fault, Unavailable)
            assert "full" in fault.message
            assert "Free space" in fault.cure
            assert len(await names(database)) == stored
            disk.free()
            assert await database.run(add_user, 5000)
            assert len(await names(database)) == stored + 1
            assert await database.read(damage) == []


def terminate(cluster: Cluster, database: Database) -> None:
    """End every connection to the database, as an administrator or a failing network does."""
    name = database.where.rpartition("/")[2]
    cluster.execute(
        "postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )


@pytest.fixture
async def remote(postgres: Cluster) -> AsyncIterator[Database]:
    address = postgres.create_database()
    # Its time stands still, so that a batch ends by its units alone, however slow the machine is.
    async with await Database.open(address, clock=FakeClock()) as database:
        yield database
    postgres.drop_database(address)


async def test_a_connection_lost_between_two_batches_is_not_noticed(
    remote: Database, postgres: Cluster
) -> None:
    await remote.run(add_user, 1)
    assert len(await names(remote)) == 1
    terminate(postgres, remote)
    assert await remote.run(add_user, 2)
    assert len(await names(remote)) == 2


async def test_a_connection_lost_in_a_batch_fails_all_of_it(remote: Database, postgres: Cluster) -> None:
    def cut_off(connection: Connection) -> str:
        terminate(postgres, remote)
        return add_user(connection, 2)

    async with gathered(remote, lambda c: add_user(c, 1), cut_off) as tasks:
        pass
    assert [type(task.result()) for task in tasks] == [Unavailable] * 2
    assert all("reached" in str(task.result()) and task.result().cure for task in tasks)
    assert await names(remote) == []
    assert await remote.run(add_user, 1)


async def test_a_commit_whose_answer_is_lost_says_so(remote: Database, postgres: Cluster) -> None:
    def cut(_connection: Connection) -> None:
        terminate(postgres, remote)

    sa.event.listen(remote._engines.writer, "commit", cut)
    with pytest.raises(Unavailable, match="while a change was being committed"):
        await remote.run(add_user, 1)
    sa.event.remove(remote._engines.writer, "commit", cut)
    assert await remote.run(add_user, 2)


async def test_a_server_that_was_away_is_found_again(remote: Database, postgres: Cluster) -> None:
    await remote.run(add_user, 1)
    postgres.stop()
    try:
        for door in (remote.run, remote.read):
            with pytest.raises(Unavailable, match="cannot be reached") as caught:
                await door(users.load_all)
            assert "PostgreSQL" in caught.value.cure
        many = await asyncio.gather(*(settled(remote, users.load_all) for _ in range(50)))
        assert {type(result) for result in many} == {Unavailable}
    finally:
        postgres.start()
    assert await remote.run(add_user, 2)
    assert len(await names(remote)) == 2


def file_modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with await Database.open(tmp_path / "doorward.db", clock=SystemClock()) as database:
            await database.run(add_user, 1)
            modes = file_modes(tmp_path)
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("doorward.db", "doorward.db-wal", "doorward.db-shm"), 0o600)
    assert list(file_modes(tmp_path)) == ["doorward.db"]


async def test_a_file_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "doorward.db"
    sqlite3.connect(path).close()
    path.touch()
    path.chmod(0o644)
    async with await Database.open(path, clock=SystemClock()):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    async with await Database.open(tmp_path / "doorward.db", clock=SystemClock()) as database:

        def pragmas(connection: Connection) -> list[Any]:
            asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]

        assert await database.run(pragmas) == ["wal", 2, 1, 5000]
        tables = await database.read(lambda c: c.exec_driver_sql("PRAGMA table_list").mappings().all())
        loose = [row["name"] for row in tables if not row["strict"] and not row["name"].startswith("sqlite_")]
        assert loose == []


def find_users(connection: Connection, wanted: Sequence[str]) -> dict[str, int]:
    asked_of.append(list(wanted))
    return {one.name: one.id for one in users.load_all(connection) if one.name in wanted}


def add_all(connection: Connection, numbers: Sequence[int]) -> list[str]:
    asked_of.append(list(numbers))
    made = [add_user(connection, number) for number in numbers]
    if 13 in numbers:
        raise Conflict("thirteen")
    return made


asked_of: list[list[Any]] = []


async def test_those_who_look_at_the_same_moment_share_a_statement(database: Database) -> None:
    name = await database.run(add_user, 1)
    asked_of.clear()
    found = await asyncio.gather(*(database.find(find_users, one) for one in (name, "nobody", name)))
    assert found[0] == found[2] is not None
    assert found[1] is None
    assert asked_of == [[name, "nobody"]]
    # What was committed before is seen, however many look.
    later = await database.run(add_user, 2)
    assert await database.find(find_users, later) is not None


async def test_those_who_write_the_same_at_the_same_moment_share_a_unit(database: Database) -> None:
    asked_of.clear()
    made = await asyncio.gather(*(database.share(add_all, number) for number in (1, 2, 3)))
    assert made == await names(database)
    assert asked_of == [[1, 2, 3]]


async def test_one_that_cannot_be_written_undoes_nobody_elses(database: Database) -> None:
    told = await asyncio.gather(
        *(database.share(add_all, number) for number in (1, 13, 3)), return_exceptions=True
    )
    assert isinstance(told[1], Conflict)
    assert [told[0], told[2]] == await names(database)


async def test_a_text_that_cannot_be_looked_for_costs_nobody_else(database: Database) -> None:
    def by_name(connection: Connection, wanted: Sequence[str]) -> dict[str, int]:
        return {one: found.id for one in wanted if (found := users.by_name(connection, one)) is not None}

    name = await database.run(add_user, 1)
    told = await asyncio.gather(
        database.find(by_name, name), database.find(by_name, "\0"), return_exceptions=True
    )
    assert told[0] is not None
    assert isinstance(told[1], DoorwardError)
