"""Asking again about nodes that are connected: when, how often, and what an answer does."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.clock import FakeClock
from tests.support.relay import node_key
from tests.support.waiting import until

from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePublic
from doorward.relay import Relay, recheck
from doorward.relay.recheck import AGAIN_SECONDS, AT_ONCE, MOST, Recheck
from doorward.relay.session import Session

KEY = DERPPrivate(b"\x11" * 32)
EVERY = 300.0
MESH = "ab" * 32


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Wire(asyncio.Transport):
    """Notes whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def write(self, data: object) -> None:
        return

    def abort(self) -> None:
        self.cut = True

    close = abort

    def is_closing(self) -> bool:
        return self.cut


class Control:
    """What control says of a node, and who was asked about."""

    def __init__(self) -> None:
        self.answers: dict[NodePublic, bool | None] = {}
        self.asked: list[tuple[NodePublic, str]] = []
        self.hold: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0

    async def still(self, key: NodePublic, source: str) -> bool | None:
        self.asked.append((key, source))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.hold is not None:
            await self.hold.wait()
        self.at_once -= 1
        return self.answers.get(key, True)


class House:
    """A relay whose clock stands still, and control behind it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.control = Control()
        self.relay = Relay(KEY, lambda *_: True, self.clock, bytes, mesh_key=MESH)
        self.recheck = Recheck(self.relay, self.control.still, bytes, seconds=EVERY)

    def comes(self, number: int, source: str = "192.0.2.1", mesh_key: str = "") -> Wire:
        """A node connects."""
        session, wire = Session(self.relay, source=source), Wire()
        session.connection_made(wire)
        info = derp.ClientInfo(version=2, mesh_key=mesh_key)
        session.data_received(derp.client_info(info, node_key(number), KEY.public(), bytes(24)))
        assert session.connection is not None
        return wire

    async def after(self, seconds: float) -> list[NodePublic]:
        """Let time pass, look, and say who was asked about."""
        self.clock.advance(seconds)
        self.control.asked.clear()
        await self.recheck.look()
        return [key for key, _ in self.control.asked]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    made = House()
    yield made
    made.relay.close()


def public(number: int) -> NodePublic:
    return node_key(number).public()


async def test_each_node_is_asked_about_every_few_minutes(house: House) -> None:
    wire = house.comes(1, "192.0.2.7")
    assert await house.after(0) == []
    assert await house.after(0.8 * EVERY) == []
    assert await house.after(0.1 * EVERY) == [public(1)]
    assert house.control.asked == [(public(1), "192.0.2.7")]
    assert await house.after(0.8 * EVERY) == []
    assert await house.after(0.1 * EVERY) == [public(1)]
    assert not wire.cut


async def test_one_that_is_refused_is_thrown_out_with_all_its_connections(house: House) -> None:
    first, second, other = house.comes(1), house.comes(1, "192.0.2.2"), house.comes(2)
    await house.after(0)
    house.control.answers[public(1)] = False
    assert len(await house.after(EVERY)) == 2
    assert (first.cut, second.cut, other.cut) == (True, True, False)
    assert set(house.relay.guests()) == {public(2)}
    assert await house.after(EVERY) == [public(2)]


async def test_no_answer_throws_nobody_out_and_is_asked_for_again_sooner(house: House) -> None:
    wire = house.comes(1)
    await house.after(0)
    house.control.answers[public(1)] = None
    assert await house.after(EVERY) == [public(1)]
    assert not wire.cut
    assert await house.after(AGAIN_SECONDS / 2) == []
    house.control.answers[public(1)] = False
    assert await house.after(AGAIN_SECONDS / 2) == [public(1)]
    assert wire.cut


async def test_a_fault_is_no_answer(house: House) -> None:
    async def broken(_key: NodePublic, _source: str) -> bool | None:
        raise OSError("broken")

    wire = house.comes(1)
    house.recheck = Recheck(house.relay, broken, bytes, seconds=EVERY)
    await house.after(0)
    await house.after(EVERY)
    assert not wire.cut


async def test_other_relays_are_not_asked_about(house: House) -> None:
    house.comes(1, mesh_key=MESH)
    await house.after(0)
    assert await house.after(2 * EVERY) == []


async def test_few_questions_run_at_once_and_not_too_many_in_one_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "MOST", 3 * AT_ONCE)
    assert MOST > AT_ONCE
    for number in range(1, 5 * AT_ONCE + 1):
        house.comes(number)
    await house.after(0)
    house.control.hold = asyncio.Event()
    house.clock.advance(EVERY)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(house.recheck.look())
        await until(lambda: house.control.at_once == AT_ONCE)
        house.control.hold.set()
        await looking
    assert house.control.most_at_once == AT_ONCE
    assert len(house.control.asked) == 3 * AT_ONCE
    rest = await house.after(0)
    assert len(rest) == 2 * AT_ONCE  # those that had waited longest were first; none is forgotten
    assert await house.after(0) == []


async def test_questions_are_spread(house: House) -> None:
    count = iter(range(256))
    house.recheck = Recheck(
        house.relay, house.control.still, lambda _: bytes((next(count) * 25 % 256,)), seconds=EVERY
    )
    for number in range(1, 11):
        house.comes(number)
    await house.after(0)
    assert await house.after(0.89 * EVERY) == []
    early = len(await house.after(0.11 * EVERY))
    assert 3 <= early <= 7
    assert early + len(await house.after(0.1 * EVERY)) == 10


async def test_it_runs_by_itself(house: House) -> None:
    house.recheck = Recheck(house.relay, house.control.still, bytes, seconds=0.02)
    wire = house.comes(1)
    house.control.answers[public(1)] = False
    async with asyncio.TaskGroup() as group:
        running = group.create_task(house.recheck.run())
        await until(lambda: house.recheck._due != {})
        house.clock.advance(1)
        await until(lambda: wire.cut)
        running.cancel()
