"""Whatever is good once is used once: by many at the same moment, by two processes, and by one that is killed in the middle."""

import asyncio
import signal
import subprocess
import sys

import pytest
from tests.support.once import MOMENTS, USES, number_of, store

from doorward.clock import SystemClock
from doorward.engine.processes import tied_to_us
from doorward.store import Database


async def test_of_many_in_two_processes_one_has_it(location: str) -> None:
    clock = SystemClock()
    async with (
        await Database.open(location, clock=clock) as database,
        await Database.open(location, clock=clock) as other,
    ):
        await database.run(store, 5, clock.now())
        for kind, use in USES.items():
            for number in range(1, 6):
                tries = [use(each, number, clock.now()) for each in (database, other) * 4]
                assert sum(await asyncio.gather(*tries)) == 1, kind


@pytest.mark.timeout(120)  # fifteen processes, which a machine with much else to do takes long for
async def test_one_that_is_killed_has_used_it_or_not(location: str) -> None:
    """Killed before the commit, nothing has happened; after it, nobody has it any more: never do two have it."""
    clock = SystemClock()
    async with await Database.open(location, clock=clock) as database:
        await database.run(store, len(MOMENTS), clock.now())
    process = await asyncio.create_subprocess_exec(
        *tied_to_us([sys.executable, "-m", "tests.support.once", location]), stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    killed = [f"{kind} {moment} {-signal.SIGKILL}" for kind in USES for moment in MOMENTS]
    assert said.decode().splitlines() == killed
    async with await Database.open(location, clock=clock) as database:
        for kind, use in USES.items():
            for moment in MOMENTS:
                uses = [await use(database, number_of(moment), clock.now()) for _ in range(2)]
                assert uses == [moment != "committed", False], (kind, moment)
