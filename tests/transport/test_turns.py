"""Turns: at once while there are few, fairly when there are many, and never more than the rate."""

import asyncio
from collections import Counter

from tests.support.waiting import until

from doorward.transport.turns import Turns


async def test_what_comes_slowly_is_done_at_once() -> None:
    turns, done = Turns(rate=100, burst=3), list[str]()
    for name in "abc":
        turns.ask("192.0.2.1", lambda name=name: done.append(name))  # type: ignore[misc]
    assert done == ["a", "b", "c"]
    assert turns.waiting == 0


async def test_a_source_that_asks_once_is_next_however_much_another_asks() -> None:
    turns, done = Turns(rate=500, burst=8), list[str]()
    for _ in range(200):
        turns.ask("flood", lambda: done.append("flood"))
    turns.ask("single", lambda: done.append("single"))
    assert turns.waiting > 150
    at_once = len(done)
    await until(lambda: "single" in done, seconds=30)
    assert done.index("single") <= at_once + 2
    await until(lambda: not turns.waiting, seconds=30)
    assert Counter(done) == {"flood": 200, "single": 1}


async def test_the_rate_holds() -> None:
    turns, done = Turns(rate=1000, burst=10), list[float]()
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(300):
        turns.ask(f"source {number}", lambda: done.append(loop.time() - began))
    await until(lambda: len(done) == 300, seconds=30)
    # A machine that is busy makes it later, never sooner.
    assert done[-1] >= (300 - 10 - 2) / 1000


async def test_a_dear_one_counts_for_several() -> None:
    turns, done = Turns(rate=0.001, burst=4), list[int]()
    for number in range(4):
        turns.ask("a", lambda number=number: done.append(number), cost=2.0)  # type: ignore[misc]
    await asyncio.sleep(0.03)
    assert done == [0, 1]
    assert turns.waiting == 2


async def test_who_leaves_costs_nothing_and_holds_nobody_up() -> None:
    turns, done = Turns(rate=1000, burst=1, crowd=100), list[str]()
    turns.ask("a", lambda: done.append("first"))
    left = [turns.ask("a", lambda: done.append("left")) for _ in range(100)]
    assert turns.crowded
    for turn in left:
        turn.cancel()
    turns.ask("a", lambda: done.append("last"))
    await until(lambda: len(done) == 2)
    assert done == ["first", "last"]
    assert turns.waiting == 0
    assert not turns.crowded
