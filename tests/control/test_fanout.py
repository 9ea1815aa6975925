"""Map streams without a network: what is sent when, what is shared, and what a client without room costs."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import pytest
from tests.support.nouns import node_key
from tests.support.waiting import until
from tests.support.world import CAPVER, World

from doorward.control import fanout as module
from doorward.control.fanout import Fanout, MapStream
from doorward.protocol.mapstream import MapReader
from doorward.protocol.tailcfg.map import MapRequest

OWN = '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}'


class Client:
    """One end of a map stream, with as much room as the test wants."""

    def __init__(self) -> None:
        self.pushed: list[bytes] = []
        self.awaited: list[bytes] = []  # sent by the way that waits
        self.room = 1 << 20
        self.broken = False
        self._roomy = asyncio.Event()

    def push(self, data: bytes) -> bool:
        if self.broken:
            raise RuntimeError("a mistake in the transport")
        if len(data) > self.room:
            return False
        self.pushed.append(data)
        return True

    def writable(self) -> bool:
        return self.room > 0

    async def drained(self) -> None:
        await asyncio.sleep(0)
        while not self.writable():
            await self._roomy.wait()

    def read(self) -> None:
        self.room = 1 << 20
        self._roomy.set()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.awaited.append(message["body"])

    def heard(self) -> list[dict[str, Any]]:
        """What was pushed, in order."""
        reader = MapReader(compressed=True)
        return [msgspec.json.decode(text) for data in self.pushed for text in reader.receive(data)]


@pytest.fixture
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as made:
        yield made


@pytest.fixture
async def fanout(world: World, group: asyncio.TaskGroup) -> AsyncIterator[Fanout]:
    made = Fanout(world.registry)
    task = group.create_task(made.run())
    yield made
    world.registry.writer.changes.end_all()
    await until(lambda: len(made) == 0)
    task.cancel()


Open = Callable[..., Awaitable[Client]]


@pytest.fixture
def opened(world: World, fanout: Fanout, group: asyncio.TaskGroup) -> Open:
    """Opens the stream of the node with a number, which is let in first, and takes its first map."""

    async def open_stream(number: int, user: str = "ann") -> Client:
        _, key = await world.registry.create_auth_key("test", user=user)
        node = (await world.ask(number, f"host{number}", key)).node
        assert node is not None
        client = Client()
        wanted = MapRequest(Version=CAPVER, NodeKey=node_key(number), Stream=True, Compress="zstd")
        group.create_task(MapStream(fanout, node, wanted).run(client, client.send))
        await until(lambda: len(client.awaited) == 1)
        return client

    return open_stream


async def settled(fanout: Fanout) -> None:
    """Until every round is over."""
    for _ in range(3):
        await asyncio.sleep(module.MERGE)
    assert not fanout.busy


def report(world: World, number: int, port: int) -> Awaitable[None]:
    request = MapRequest(Version=CAPVER, NodeKey=node_key(number), Endpoints=[f"192.0.2.1:{port}"])
    node = world.registry.snapshot.node_by_key(node_key(number))
    assert node is not None
    return world.registry.observations.report(node.id, request)


def patch(port: int) -> dict[str, Any]:
    return {"PeersChangedPatch": [{"NodeID": 1, "Endpoints": [f"192.0.2.1:{port}"]}]}


async def test_viewers_that_see_the_same_are_sent_the_same_bytes(
    world: World, fanout: Fanout, opened: Open
) -> None:
    clients = [await opened(number) for number in (1, 2, 3, 4)]
    await settled(fanout)
    await report(world, 1, 7)
    await settled(fanout)
    assert clients[1].heard()[-1] == patch(7)
    assert clients[1].pushed[-1] is clients[2].pushed[-1]
    assert clients[1].pushed[-1] is clients[3].pushed[-1]
    assert "Node" in clients[0].heard()[-1]


async def test_a_client_without_room_gets_one_larger_difference(
    world: World, fanout: Fanout, opened: Open
) -> None:
    await opened(1)
    slow, quick = await opened(2), await opened(3)
    await settled(fanout)
    slow.room, before = 0, len(slow.pushed)
    for port in (7, 8, 9):
        await report(world, 1, port)
        await settled(fanout)
    assert [message for message in quick.heard() if message == patch(8)]
    assert len(slow.pushed) == before
    slow.read()
    await until(lambda: len(slow.pushed) > before)
    await settled(fanout)
    assert slow.heard()[-1] == patch(9)
    assert len(slow.pushed) == before + 1
    await report(world, 1, 10)
    await settled(fanout)
    assert slow.heard()[-1] == patch(10)


async def test_what_is_larger_than_the_room_is_sent_by_the_way_that_waits(
    world: World, fanout: Fanout, opened: Open
) -> None:
    await opened(1)
    small = await opened(2)
    await settled(fanout)
    small.room = 5
    before = len(small.pushed)
    await report(world, 1, 7)
    await until(lambda: len(small.awaited) == 2)
    assert [msgspec.json.decode(text) for text in MapReader(compressed=True).receive(small.awaited[1])] == [
        patch(7)
    ]
    assert len(small.pushed) == before


async def test_one_streams_trouble_ends_that_one_alone(world: World, fanout: Fanout, opened: Open) -> None:
    await opened(1)
    bad, good = await opened(2), await opened(3)
    await settled(fanout)
    bad.broken = True
    await report(world, 1, 7)
    await until(lambda: len(fanout) == 2)
    await settled(fanout)
    assert good.heard()[-1] == patch(7)


async def test_others_have_their_turn_within_a_round(
    world: World, fanout: Fanout, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    clients = [await opened(number) for number in range(1, 8)]
    await settled(fanout)
    before = [len(client.pushed) for client in clients]
    told: list[int] = []
    await report(world, 1, 7)
    while sum(told[-1:]) < len(clients):
        await asyncio.sleep(0)
        told.append(sum(len(client.pushed) - old for client, old in zip(clients, before, strict=True)))
    assert {2, 4, 6} <= set(told)


async def test_quiet_streams_let_go_of_old_policies(world: World, fanout: Fanout, opened: Open) -> None:
    await world.registry.set_policy("test", OWN)
    ann = await opened(1, "ann")
    await settled(fanout)
    heard = len(ann.pushed)
    old = weakref.ref(world.registry.snapshot.policy)
    await opened(2, "bob")
    await settled(fanout)
    gc.collect()
    assert old() is not None
    fanout.look_at_clock(0.0)
    await settled(fanout)
    await world.registry.create_auth_key("test", user="ann")  # the store's thread lets go of the unit before
    gc.collect()
    assert old() is None
    assert len(ann.pushed) == heard
    await opened(3, "ann")
    await settled(fanout)
    assert [peer["ID"] for peer in ann.heard()[heard]["PeersChanged"]] == [3]


async def test_a_stream_whose_task_is_cancelled_is_forgotten(world: World, fanout: Fanout) -> None:
    _, key = await world.registry.create_auth_key("test", user="ann")
    node = (await world.ask(1, "host1", key)).node
    assert node is not None
    client = Client()
    stream = MapStream(fanout, node, MapRequest(Version=CAPVER, NodeKey=node_key(1), Stream=True))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await stream.run(client, client.send)
    assert len(fanout) == 0
    assert not world.registry.writer.changes.connected(node.id)
    stream.tell()
    assert client.pushed == []
