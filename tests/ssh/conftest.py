"""Two devices of ann's, one of bob's, a tagged machine that asks, and a tagged server, under rules that ask."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.checking import POLICY, Scene
from tests.support.postgres import postgres
from tests.support.world import open_world

__all__ = ["postgres"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_world(tmp_path) as world:
        for name in ("ann", "bob"):
            await world.registry.create_user("test", name)
        await world.registry.set_policy("test", POLICY)
        laptop = await world.join(1, "laptop", "ann")
        other = await world.join(2, "other", "bob")
        runner = await world.join(3, "runner", None, "tag:ci")
        server = await world.join(4, "server", None, "tag:server")
        yield Scene(world, laptop, other, runner, server)
