"""Who serves: an installation is one process over all its runs, and lives while it says so. PostgreSQL only."""

from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from tests.support.neighbours import process
from tests.support.postgres import Cluster

from doorward.clock import SystemClock
from doorward.store import Database, processes, tables


@pytest.fixture
def address(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


@pytest.fixture
async def shared(address: str) -> AsyncIterator[Database]:
    async with await Database.open(address, clock=SystemClock()) as opened:
        yield opened


def grow_old(connection: Connection, number: int, seconds: int) -> None:
    table = tables.processes
    aged = sa.update(table).where(table.c.id == number).values(seen=table.c.seen - seconds * 1_000_000)
    connection.execute(aged)


async def test_a_process_is_kept_whole(shared: Database) -> None:
    one = await shared.run(processes.join, process("one", 901))
    two = await shared.run(processes.join, process("two", 902, region=None))
    assert one.id != two.id
    assert await shared.read(processes.load_all) == [one, two]
    assert await shared.read(processes.by_installation, "two") == two
    assert await shared.read(processes.by_installation, "three") is None
    changed = msgspec.structs.replace(one, own_key=5, own_node=7, door_port=1)
    await shared.run(processes.update, changed)
    assert await shared.read(processes.by_own_key, 5) == changed
    assert await shared.read(processes.by_own_key, 6) is None
    assert await shared.read(processes.load_all) == [changed, two]


async def test_the_same_installation_is_the_same_process_and_keeps_its_own_node(shared: Database) -> None:
    first = await shared.run(processes.join, process("one", 901))
    await shared.run(processes.update, msgspec.structs.replace(first, own_key=5, own_node=7))
    draft = process("one", 903)
    again = await shared.run(processes.join, draft)
    assert again == msgspec.structs.replace(draft, id=first.id, own_key=5, own_node=7)
    assert await shared.read(processes.load_all) == [again]
    # The run before is over, and can say nothing any more.
    assert not await shared.run(processes.say_alive, first)
    await shared.run(processes.say_ended, first)
    assert await shared.read(processes.alive, 10.0) == [again]


async def test_a_process_lives_for_as_long_as_it_says_so(shared: Database) -> None:
    one = await shared.run(processes.join, process("one", 901))
    two = await shared.run(processes.join, process("two", 902))
    await shared.run(grow_old, one.id, 9)
    assert await shared.read(processes.alive, 10.0) == [one, two]
    await shared.run(grow_old, one.id, 2)
    assert await shared.read(processes.alive, 10.0) == [two]
    assert await shared.run(processes.say_alive, one)
    assert await shared.read(processes.alive, 10.0) == [one, two]
    await shared.run(processes.say_ended, two)
    assert await shared.read(processes.alive, 10.0) == [one]
    assert len(await shared.read(processes.load_all)) == 2


async def test_the_workers_of_one_serve_are_several_processes_with_one_own_node(shared: Database) -> None:
    first = await shared.run(processes.join, process("x", 901))
    second = await shared.run(processes.join, process("x/2", 901))
    other = await shared.run(processes.join, process("xy", 902))
    assert [first.worker, second.worker, other.worker] == [1, 2, 1]
    assert [one.id for one in await shared.read(processes.of_serve, "x")] == [first.id, second.id]
    await shared.run(processes.give_own_node, "x", 7)
    assert [one.own_node for one in await shared.read(processes.load_all)] == [7, 7, None]
    third = await shared.run(processes.join, process("x/3", 901))
    assert third.own_node == 7


async def test_who_is_away_for_a_day_is_gone_whether_or_not_it_said_so(shared: Database) -> None:
    hour = 3600
    said = await shared.run(processes.join, process("said", 901))
    silent = await shared.run(processes.join, process("silent", 902))
    lives = await shared.run(processes.join, process("lives", 903))
    await shared.run(processes.say_ended, said)
    await shared.run(ended_for, said.id, 23 * hour)
    await shared.run(grow_old, silent.id, 23 * hour)
    await shared.run(processes.prune)
    assert await shared.read(processes.load_all) == [said, silent, lives]
    assert await shared.read(processes.alive, 10.0) == [lives]
    await shared.run(ended_for, said.id, 2 * hour)
    await shared.run(grow_old, silent.id, 2 * hour)
    await shared.run(processes.prune)
    assert await shared.read(processes.load_all) == [lives]


def ended_for(connection: Connection, number: int, seconds: int) -> None:
    grow_old(connection, number, -seconds)  # the time of an end is kept with a minus


async def test_one_that_was_taken_for_gone_and_is_not_keeps_its_number(shared: Database) -> None:
    one = await shared.run(processes.join, process("one", 901))
    await shared.run(grow_old, one.id, 25 * 3600)
    await shared.run(processes.prune)
    assert await shared.read(processes.load_all) == []
    assert await shared.run(processes.say_alive, one)
    assert await shared.read(processes.alive, 10.0) == [one]
    # Not so where another run of it has come meanwhile.
    await shared.run(processes.join, process("one", 901))
    assert not await shared.run(processes.say_alive, one)
