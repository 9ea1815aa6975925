"""Memory that nobody uses, in a process of its own: one that has run other tests has holes to fill first."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from doorward.server import memory

# It leaves behind what a burst does: many pieces freed below one that is used.
BURST = """
import asyncio
from doorward.server import memory

memory.EVERY = 0.02
BLOCK, COUNT = 64 << 10, 512  # below what the C library maps by itself


async def main():
    async with asyncio.TaskGroup() as group:
        giving = group.create_task(memory.give_back())
        await asyncio.sleep(0)
        before = memory._resident()
        burst = [bytearray(b"x" * BLOCK) for _ in range(COUNT)]
        top = bytearray(b"x" * BLOCK)  # keeps the heap from shrinking by itself
        full = memory._resident()
        burst.clear()
        async with asyncio.timeout(20):
            while memory._resident() - before >= (full - before) / 4:
                await asyncio.sleep(0.01)
        giving.cancel()
    assert full - before > BLOCK * COUNT / 2
    assert top


asyncio.run(main())
"""


def test_what_a_burst_left_behind_goes_back_to_the_system() -> None:
    if memory._trimmer() is None:
        pytest.skip("this system's C library has no malloc_trim")
    source = Path(memory.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", BURST],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_without_such_a_library_it_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trimmer", lambda: None)
    async with asyncio.timeout(1):
        await memory.give_back()
