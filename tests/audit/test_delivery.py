"""Every event gets there, in order, whatever dies meanwhile, and nobody waits for it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.support.auditing import add_many
from tests.support.clock import FakeClock
from tests.support.postgres import Cluster
from tests.support.waiting import until

from doorward.api.audit_types import Event
from doorward.audit.delivery import AGAIN_MAX, HOLD, LOOK, Delivery
from doorward.audit.destinations import Deferred, FileDestination
from doorward.errors import Unavailable
from doorward.protocol.auditlog import Walk, read_event
from doorward.store import Database, checkpoints

ROOT = Path(__file__).parent.parent.parent


class Place:
    """A destination that remembers, and fails when told to."""

    kind = "file"
    most = 10
    shown = "the place"
    name = "file:place"

    def __init__(self) -> None:
        self.got: list[int] = []
        self.fails: Exception | None = None
        self.waits = False
        self.opened = asyncio.Event()
        self.opened.set()

    async def deliver(self, events: Sequence[Event]) -> None:
        self.waits = True
        await self.opened.wait()
        if self.fails is not None:
            raise self.fails
        self.got += [event.seq for event in events]

    async def close(self) -> None:
        pass


@pytest.fixture
def place() -> Place:
    return Place()


def delivery_to(place: Place, database: Database, clock: FakeClock, process: int = 0) -> Delivery:
    return Delivery(database, place, clock, lambda: process)


async def sink(database: Database) -> checkpoints.Sink:
    (found,) = await database.read(checkpoints.sinks)
    return found


async def test_everything_is_delivered_in_order_and_a_restart_goes_on(
    database: Database, clock: FakeClock, place: Place
) -> None:
    await database.run(add_many, 25)
    delivery = delivery_to(place, database, clock)
    assert [await delivery.step() for _ in range(4)] == [0.0, 0.0, LOOK, LOOK]
    assert place.got == list(range(1, 26))
    assert (await sink(database)).seq == 25
    await database.run(add_many, 3)
    await delivery_to(place, database, clock).step()
    assert place.got == list(range(1, 29))


async def test_what_failed_comes_again_later_and_later_and_is_on_record(
    database: Database, clock: FakeClock, place: Place
) -> None:
    await database.run(add_many, 5)
    delivery = delivery_to(place, database, clock)
    place.fails = Unavailable("nobody there", cure="Start it.")
    waits = [await delivery.step() for _ in range(9)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, AGAIN_MAX, AGAIN_MAX, AGAIN_MAX]
    found = await sink(database)
    assert (found.seq, found.trouble, found.since) == (0, "nobody there. Start it.", clock.now())
    place.fails = Deferred("not now", 300)
    assert await delivery.step() == 300
    place.fails = None
    await delivery.step()
    assert place.got == [1, 2, 3, 4, 5]
    assert (await sink(database)).trouble == ""
    await database.run(add_many, 1)
    place.fails = Unavailable("nobody there")
    assert await delivery.step() == 1.0  # counted from the beginning


async def test_a_destination_that_hangs_keeps_nobody_from_writing(
    database: Database, clock: FakeClock, place: Place
) -> None:
    await database.run(add_many, 5)
    place.opened.clear()
    async with asyncio.TaskGroup() as group:
        stuck = group.create_task(delivery_to(place, database, clock).step())
        await until(lambda: place.waits)
        for _ in range(20):
            await database.run(add_many, 10)
        assert not stuck.done()
        assert place.got == []
        place.opened.set()
    assert place.got == [1, 2, 3, 4, 5]


async def test_one_process_delivers_and_another_takes_over(
    database: Database, clock: FakeClock, place: Place
) -> None:
    one, two = (delivery_to(place, database, clock, process) for process in (1, 2))
    await database.run(add_many, 5)
    await one.step()
    assert await two.step() == HOLD / 3
    await database.run(add_many, 5)
    assert await two.step() == HOLD / 3
    assert place.got == [1, 2, 3, 4, 5]
    await database.run(checkpoints.let_go, 1)
    await two.step()
    assert place.got == list(range(1, 11))
    # The first finds out when it has to say again that it has it.
    clock.advance(HOLD)
    await database.run(add_many, 1)
    assert await one.step() == HOLD / 3
    await two.step()
    assert place.got == list(range(1, 12))


async def test_what_was_delivered_and_not_noted_is_not_delivered_again(
    database: Database, clock: FakeClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = delivery_to(place, database, clock)
    await database.run(add_many, 5)

    def broken(*_: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "note_delivered", broken)
        await delivery.step()
        assert await delivery.step() == LOOK
    assert (await sink(database)).seq == 0
    await delivery.step()
    assert (place.got, (await sink(database)).seq) == ([1, 2, 3, 4, 5], 5)


@pytest.fixture
async def shared(postgres: Cluster) -> AsyncIterator[tuple[str, Database]]:
    address = postgres.create_database()
    async with await Database.open(address, clock=FakeClock()) as opened:
        yield address, opened
    postgres.drop_database(address)


async def test_of_two_on_one_postgresql_one_delivers(shared: tuple[str, Database], clock: FakeClock) -> None:
    address, database = shared
    await database.run(add_many, 50)
    places = [Place(), Place()]
    async with await Database.open(address, clock=clock) as other:
        both = [
            delivery_to(places[0], database, clock, 1),
            delivery_to(places[1], other, clock, 2),
        ]
        for _ in range(6):
            await asyncio.gather(*(each.step() for each in both))
    assert sorted([places[0].got, places[1].got]) == [[], list(range(1, 51))]


def test_kill_9_in_the_midst_of_it_loses_nothing(tmp_path: Path) -> None:
    """A writer adds events without end and a delivery takes them to a file; both are killed again and again."""
    location, file = tmp_path / "doorward.db", tmp_path / "audit.jsonl"
    acknowledged = 0
    for attempt in range(3):
        with subprocess.Popen(
            [sys.executable, "tests/support/crashing_delivery.py", str(location), str(file)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout
            for _ in range(40 + 57 * attempt):
                line = child.stdout.readline()
                assert line, "it ended by itself"
                acknowledged = int(line)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL

    async def finish() -> int:
        clock = FakeClock()
        async with await Database.open(location, clock=clock) as database:
            delivery = Delivery(database, FileDestination(file), clock, lambda: 0)
            while await delivery.step() == 0.0:
                pass
            verdict = await database.read(checkpoints.verify)
            assert verdict.problems == ()
            return verdict.last

    last = asyncio.run(finish())
    assert last >= acknowledged
    walk, count = Walk(), 0
    for written in file.read_bytes().splitlines():
        walk.step(read_event(written))
        count += 1
    verdict = walk.finish()
    assert (verdict.problems, verdict.last, count) == ((), last, last)  # each of them, and each once
