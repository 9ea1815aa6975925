import asyncio
from collections.abc import Sequence

import pytest

from doorward.errors import BadInput, Unavailable
from doorward.store.gathering import MOST, Gathering
from doorward.telemetry import ORIGIN, originating


class Carrier:
    """Doubles numbers, all that wait together; 13 is refused, and with it everybody who came along."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.called = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        self.called.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if 13 in numbers:
            raise BadInput("thirteen")
        return [2 * number for number in numbers]


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
def gathering(carrier: Carrier) -> Gathering[int, int]:
    return Gathering(carrier)


async def test_who_is_alone_is_served_at_once(carrier: Carrier, gathering: Gathering[int, int]) -> None:
    assert [await gathering.ask(1), await gathering.ask(2)] == [2, 4]
    assert carrier.calls == [[1], [2]]


async def test_those_who_come_meanwhile_go_together(carrier: Carrier, gathering: Gathering[int, int]) -> None:
    carrier.go.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(gathering.ask(1))
        await carrier.called.wait()
        others = [group.create_task(gathering.ask(number)) for number in range(100, 100 + MOST + 1)]
        await asyncio.sleep(0)
        carrier.go.set()
    assert first.result() == 2
    assert [one.result() for one in others] == [2 * number for number in range(100, 100 + MOST + 1)]
    assert [len(call) for call in carrier.calls] == [1, MOST, 1]


async def test_what_one_of_them_wants_costs_nobody_else(
    carrier: Carrier, gathering: Gathering[int, int]
) -> None:
    async with asyncio.TaskGroup() as group:
        good = [group.create_task(gathering.ask(number)) for number in (1, 2)]
        with pytest.raises(BadInput, match="thirteen"):
            await gathering.ask(13)
    assert [one.result() for one in good] == [2, 4]
    assert carrier.calls == [[13, 1, 2], [13], [1], [2]]


async def test_in_trouble_all_fail_and_nothing_is_tried_again(
    carrier: Carrier, gathering: Gathering[int, int]
) -> None:
    carrier.error = Unavailable("it may have been committed")
    told = await asyncio.gather(*(gathering.ask(number) for number in range(3)), return_exceptions=True)
    assert [str(error) for error in told] == ["it may have been committed"] * 3
    assert len({id(error) for error in told}) == 3
    assert carrier.calls == [[0, 1, 2]]
    carrier.error = None
    assert await gathering.ask(4) == 8


async def test_who_goes_away_leaves_the_others_as_they_are(
    carrier: Carrier, gathering: Gathering[int, int]
) -> None:
    carrier.go.clear()
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(gathering.ask(1)), group.create_task(gathering.ask(2))
        await carrier.called.wait()
        third, fourth = group.create_task(gathering.ask(3)), group.create_task(gathering.ask(4))
        await asyncio.sleep(0)
        first.cancel()
        third.cancel()
        await asyncio.sleep(0)
        carrier.go.set()
    assert first.cancelled()
    assert third.cancelled()
    assert (second.result(), fourth.result()) == (4, 8)
    assert carrier.calls == [[1, 2], [4]]  # of those who left before their turn nothing is done


async def test_it_runs_on_nobodys_behalf() -> None:
    seen = []

    async def carry(numbers: Sequence[int]) -> Sequence[int]:
        seen.append(ORIGIN.get())
        return numbers

    with originating("192.0.2.1") as origin:
        assert await Gathering(carry).ask(1) == 1
        assert ORIGIN.get() is origin
    assert seen == [None]


async def test_nobody_waits_for_a_call_that_was_given_up() -> None:
    gathering: Gathering[int, int]

    async def carry(_: Sequence[int]) -> list[int]:
        raise asyncio.CancelledError

    gathering = Gathering(carry)
    with pytest.raises(asyncio.CancelledError):
        await gathering.ask(1)
