"""Memory that nobody uses, in a real process."""

import asyncio

import pytest
from tests.support.waiting import until

from doorward.server import memory

BLOCK = 64 << 10  # below what the C library maps by itself
COUNT = 512


async def test_what_a_burst_left_behind_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    if memory._trimmer() is None:
        pytest.skip("this system's C library has no malloc_trim")
    monkeypatch.setattr(memory, "EVERY", 0.02)
    async with asyncio.TaskGroup() as group:
        giving = group.create_task(memory.give_back())
        await asyncio.sleep(0)
        before = memory._resident()
        burst = [bytearray(b"x" * BLOCK) for _ in range(COUNT)]
        top = bytearray(b"x" * BLOCK)  # keeps the heap from shrinking by itself
        full = memory._resident()
        burst.clear()
        await until(lambda: memory._resident() - before < (full - before) / 4)
        giving.cancel()
    assert full - before > BLOCK * COUNT / 2
    assert top


async def test_without_such_a_library_it_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trimmer", lambda: None)
    async with asyncio.timeout(1):
        await memory.give_back()
