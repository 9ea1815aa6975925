"""What nodes and people are told while the store cannot be written, and that it stops by itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.support.locking import locked
from tests.support.waiting import until
from tests.support.world import World, open_world

from doorward.errors import Unavailable
from doorward.protocol.tailcfg.map import MapRequest
from doorward.store import engines, settings
from doorward.store.database import STUCK
from doorward.tailnet import netmap
from doorward.tailnet.troubles import CALM, TELL_AFTER, Troubles


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.02)  # for which a lock is waited for
    async with open_world(tmp_path) as made:
        yield made


def _in_trouble(world: World) -> bool:
    return world.registry.writer.database.trouble is not None


def _told(world: World) -> str:
    """What a node is told of it."""
    snapshot = world.registry.snapshot
    node = next(iter(snapshot.nodes.values()))
    message = netmap.messages(snapshot, node).get("store-trouble")
    return message.Text if message else ""


async def test_nodes_are_told_after_a_while_and_told_again_when_it_is_over(world: World) -> None:
    await world.registry.create_user("test", "ann")
    await world.join(1, "laptop", "ann")
    registry, troubles = world.registry, Troubles(world.registry.writer)
    await troubles.look()
    with locked(world.folder):
        with pytest.raises(Unavailable, match="locked") as refused:
            await registry.create_user("test", "bob")
        assert refused.value.cure
        await troubles.look()
        assert _told(world) == ""  # a moment's trouble is no news
        world.clock.advance(TELL_AFTER)
        await troubles.look()
        assert _told(world).startswith("Another program holds the database locked. What is set up goes on")
        assert _in_trouble(world)
    await troubles.look()
    assert not _in_trouble(world)
    assert _told(world)  # it may come back at once
    world.clock.advance(CALM)
    await troubles.look()
    assert _told(world) == ""
    await registry.create_user("test", "bob")
    # What was told was never stored, and nothing that failed was audited.
    assert await registry.verify_audit() is None
    assert [event.target for event in await registry.audit(action="user.create")] == ["user:bob", "user:ann"]


async def test_a_short_trouble_is_never_told(world: World) -> None:
    await world.registry.create_user("test", "ann")
    await world.join(1, "laptop", "ann")
    troubles = Troubles(world.registry.writer)
    before = world.registry.snapshot
    with locked(world.folder), pytest.raises(Unavailable):
        await world.registry.create_user("test", "bob")
    await troubles.look()  # notices, and finds that it is over
    world.clock.advance(TELL_AFTER + CALM)
    await troubles.look()
    assert world.registry.snapshot is before


async def test_reports_meanwhile_are_kept_once_for_each_node_and_written_later(world: World) -> None:
    await world.registry.create_user("test", "ann")
    node = await world.join(1, "laptop", "ann")
    observations, writer = world.registry.observations, world.registry.writer
    with locked(world.folder):
        for port in range(1, 200):
            report = MapRequest(
                Version=140,
                NodeKey=node.node_key,
                Endpoints=[f"192.0.2.1:{port}"],
                Hostinfo=node.observed.hostinfo,
            )
            await observations.report(node.id, report)
            await observations.stored(node.id)  # does not wait: the first one noticed the trouble
        assert writer.unwritten == {node.id}
        assert world.registry.snapshot.nodes[node.id].observed.endpoints == ("192.0.2.1:199",)
    await Troubles(writer).look()
    await observations.flush()
    assert writer.unwritten == set()
    stored = (await writer.database.read(_observed))[node.id]
    assert "192.0.2.1:199" in stored


def _observed(connection: Connection) -> dict[int, str]:
    rows = connection.exec_driver_sql("SELECT node_id, endpoints FROM node_observations")
    return {row[0]: row[1] for row in rows}


async def test_behind_a_batch_that_does_not_end_nobody_waits(world: World) -> None:
    database = world.registry.writer.database
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Connection) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    async with asyncio.TaskGroup() as group:
        hanging = group.create_task(database.run(hang))
        await until(lambda: database._batch_began is not None)
        world.clock.advance(STUCK - 1)
        waiting = group.create_task(database.run(settings.put, "a", 1))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        world.clock.advance(1)
        for refused in (database.run(settings.put, "a", 2), database.read(settings.load_all)):
            with pytest.raises(Unavailable, match="does not answer"):
                await refused
        assert _in_trouble(world)
        release.set()
        await hanging
    await Troubles(world.registry.writer).look()
    assert not _in_trouble(world)
    assert await database.read(settings.get, "a", int) == 1
