"""The feed: lines in the order of the commits, exactly those that were committed, and a way to notice a gap. PostgreSQL only."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Connection
from tests.support.postgres import Cluster
from tests.support.waiting import until

from doorward.clock import SystemClock
from doorward.errors import Unavailable
from doorward.model import Change, ChangeKind
from doorward.store import Database, feed


@pytest.fixture
def address(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


@pytest.fixture
async def shared(address: str) -> AsyncIterator[Database]:
    async with await Database.open(address, clock=SystemClock()) as opened:
        yield opened


def said(connection: Connection, boot: int, *ids: int) -> None:
    feed.append(connection, boot, {ChangeKind.NODES: ids})


def said_and_undone(connection: Connection) -> None:
    said(connection, 1, 99)
    raise Unavailable("undone")


async def test_lines_come_back_in_order_and_once(shared: Database) -> None:
    assert await shared.read(feed.newest) == 0
    assert await shared.read(feed.since, 0) == []
    await shared.run(said, 1, 3, 1, 2)
    await shared.run(feed.append, 2, {ChangeKind.POLICY: (), ChangeKind.OBSERVED: {7}})
    lines = await shared.read(feed.since, 0)
    assert lines == [
        Change(id=1, boot=1, kind=ChangeKind.NODES, ids=(1, 2, 3)),
        Change(id=2, boot=2, kind=ChangeKind.POLICY),
        Change(id=3, boot=2, kind=ChangeKind.OBSERVED, ids=(7,)),
    ]
    assert await shared.read(feed.since, 2) == lines[2:]
    assert await shared.read(feed.since, 3) == []
    assert await shared.read(feed.newest) == 3


async def test_nothing_said_is_no_line(shared: Database) -> None:
    await shared.run(feed.append, 1, {})
    assert await shared.read(feed.newest) == 0


async def test_what_was_undone_was_never_said(shared: Database) -> None:
    await shared.run(said, 1, 1)
    with pytest.raises(Unavailable):
        await shared.run(said_and_undone)
    await shared.run(said, 1, 2)
    lines = await shared.read(feed.since, 1)
    assert lines is not None
    assert [line.ids for line in lines] == [(2,)]


async def test_writers_of_two_processes_leave_no_line_behind_one_that_was_read(
    shared: Database, address: str
) -> None:
    """A reader goes on from the highest number it saw: no lower one may be committed after it."""
    seen: list[int] = []
    async with await Database.open(address, clock=SystemClock()) as other:

        async def write(database: Database, boot: int) -> None:
            for number in range(40):
                await database.run(said, boot, number)

        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write(shared, 1)), group.create_task(write(other, 2))]
            while not all(writer.done() for writer in writers):
                lines = await shared.read(feed.since, seen[-1] if seen else 0)
                assert lines is not None
                seen += [line.id for line in lines]
        seen += [line.id for line in await shared.read(feed.since, seen[-1]) or []]
        every = await shared.read(feed.since, 0)
    assert every is not None
    assert seen == [line.id for line in every]
    assert len(seen) == 80


async def test_who_is_behind_what_was_forgotten_is_told(shared: Database) -> None:
    for number in range(10):
        await shared.run(said, 1, number)
    await shared.run(feed.prune, 3)
    assert await shared.read(feed.since, 6) is None
    lines = await shared.read(feed.since, 7)
    assert lines is not None
    assert [line.ids for line in lines] == [(7,), (8,), (9,)]
    assert await shared.read(feed.since, 10) == []


async def test_a_commit_is_heard_and_an_undoing_is_not(shared: Database, postgres: Cluster) -> None:
    heard = 0

    async def listen() -> None:
        nonlocal heard
        async for _ in shared.heard():
            heard += 1

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        await until(lambda: heard == 1)  # it has begun
        await shared.run(said, 1, 1)
        await until(lambda: heard == 2)
        with pytest.raises(Unavailable):
            await shared.run(said_and_undone)
        await shared.run(said, 1, 2)
        await until(lambda: heard == 3)
        listening.cancel()
    left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    await until(lambda: postgres.execute("postgres", left) == [(0,)])


async def test_a_listener_that_is_cut_off_says_so(shared: Database, postgres: Cluster) -> None:
    listening = shared.heard()
    await anext(listening)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
    postgres.execute("postgres", cut)
    with pytest.raises(Unavailable, match="other processes' changes"):
        await anext(listening)
    postgres.stop()
    try:
        with pytest.raises(Unavailable):
            await anext(shared.heard())
    finally:
        postgres.start()
