"""A coordination server with one person, for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.served_control import Served, serving_control
from tests.support.world import World, open_world

ALL = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        await made.registry.create_user("test", "ann")
        await made.registry.create_user("test", "bob")
        await made.registry.set_policy("test", ALL)
        yield made


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    async with serving_control(world) as made:
        yield made
