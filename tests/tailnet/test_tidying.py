"""What ended long ago is forgotten, and nothing else."""

import asyncio
from datetime import timedelta

import pytest
from tests.support.joining import admitted, register
from tests.support.waiting import eventually
from tests.support.world import World

from doorward.store import Connection
from doorward.tailnet import tidying
from doorward.tailnet.tidying import KEPT, keep_tidy, tidy


async def _keys(world: World) -> list[int]:
    return [key.id for key in await world.registry.list_auth_keys()]


async def test_keys_and_tokens_are_kept_for_a_while_after_they_ended(world: World) -> None:
    registry, database = world.registry, world.registry.writer.database
    await registry.create_user("test", "ann")
    day = timedelta(days=1)
    node = await admitted(world, 1)  # by a key that is spent with it
    expired, _ = await registry.create_auth_key("test", user="ann", expires_in=day)
    revoked, _ = await registry.create_auth_key("test", user="ann", expires_in=400 * day)
    await registry.revoke_auth_key("test", revoked.id)
    good, _ = await registry.create_auth_key("test", user="ann", reusable=True, expires_in=400 * day)
    ended, _ = await registry.create_api_token("test", description="ended", expires_in=day)
    for_good, _ = await registry.create_api_token("test", description="for good")
    world.clock.advance(KEPT)
    assert await database.run(tidy, world.clock.now()) == 0
    assert len(await _keys(world)) == 4
    world.clock.advance(timedelta(seconds=1))
    assert await database.run(tidy, world.clock.now()) == 2  # the spent one and the revoked one
    assert await _keys(world) == [expired.id, good.id]
    world.clock.advance(day)
    assert await database.run(tidy, world.clock.now()) == 2
    assert await _keys(world) == [good.id]
    assert [token.id for token in await registry.list_api_tokens()] == [for_good.id]
    assert ended.id != for_good.id
    assert world.registry.snapshot.nodes[node.id] == node
    assert await registry.verify_audit() is None
    assert len(await registry.audit(action="key.create")) == 4


async def test_links_that_ended_go_even_if_nobody_asks_for_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "FIRST", 0.0)
    monkeypatch.setattr(tidying, "EVERY", 0.01)
    await register(world, 1)
    (waiting,) = await world.registry.list_registrations()
    async with asyncio.TaskGroup() as group:
        tidying_up = group.create_task(keep_tidy(world.registry.writer))
        await asyncio.sleep(0.05)
        assert [one.id for one in await world.registry.list_registrations()] == [waiting.id]
        tidying_up.cancel()
    await world.registry.writer.database.run(
        _count
    )  # whatever was under way is over: time may not jump in its middle
    world.clock.advance(timedelta(minutes=16))
    async with asyncio.TaskGroup() as group:
        tidying_up = group.create_task(keep_tidy(world.registry.writer))

        async def is_gone() -> bool:
            return await world.registry.writer.database.read(_count) == 0

        await eventually(is_gone)
        tidying_up.cancel()


def _count(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM registrations").scalar_one())
