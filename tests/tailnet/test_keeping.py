"""What falls due is done, while the registry runs."""

import asyncio
from datetime import timedelta

import pytest
from tests.support.joining import admitted, in_memory
from tests.support.waiting import until
from tests.support.world import World

from doorward.tailnet import keeping as module


async def test_an_ephemeral_node_that_stays_away_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.registry.create_user("cli", "ann")
    there = await admitted(world, 1, Ephemeral=True)
    away = await admitted(world, 2, machine=2, Ephemeral=True)
    kept = await admitted(world, 3, machine=3)
    world.registry.observations.connected(there.id)
    world.registry.writer.changes.subscribe(there.id)
    world.clock.advance(timedelta(minutes=5))
    monkeypatch.setattr(module, "LOOK", 0.005)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.registry.run())
        await until(lambda: away.id not in world.registry.snapshot.nodes)
        running.cancel()
    assert {node.id for node in in_memory(world)} == {there.id, kept.id}
    event = (await world.registry.audit(limit=1))[0]
    assert (event.actor, event.details["reason"]) == ("system", "ephemeral node away")


async def test_the_end_of_a_key_is_announced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.registry.create_user("cli", "ann")
    node = await admitted(world, 1)
    seen: list[frozenset[int] | None] = []
    world.registry.writer.watch(lambda _, __, touched: seen.append(touched))
    world.clock.advance(timedelta(days=180))
    monkeypatch.setattr(module, "LOOK", 0.005)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.registry.run())
        await until(lambda: bool(seen))
        await asyncio.sleep(0.03)
        running.cancel()
    assert seen == [frozenset((node.id,))]


async def test_a_suspended_ephemeral_node_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.registry.create_user("cli", "ann")
    shut = await admitted(world, 1, Ephemeral=True)
    away = await admitted(world, 2, machine=2, Ephemeral=True)
    await world.registry.access.suspend_node("cli", shut.id, suspended=True)
    world.clock.advance(timedelta(minutes=5))
    monkeypatch.setattr(module, "LOOK", 0.005)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.registry.run())
        await until(lambda: away.id not in world.registry.snapshot.nodes)
        running.cancel()
    assert [node.id for node in in_memory(world)] == [shut.id]


async def test_a_cut_ends_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.registry.create_user("cli", "ann")
    one, other = await admitted(world, 1), await admitted(world, 2, machine=2)
    access = world.registry.access
    await access.cut("cli", one.id, other.id, lasts=timedelta(hours=1))
    assert access.next_end() == world.clock.now() + timedelta(hours=1)
    monkeypatch.setattr(module, "LOOK", 0.005)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.registry.run())
        await asyncio.sleep(0.05)
        assert world.registry.snapshot.cuts
        world.clock.advance(timedelta(hours=1))
        await until(lambda: not world.registry.snapshot.cuts)
        running.cancel()
    assert world.registry.snapshot.policy.can_see(one.id, other.id)
    (event,) = await world.registry.audit(limit=1)
    assert (event.actor, event.action, event.details["reason"]) == ("system", "node.uncut", "over")
