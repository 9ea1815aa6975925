"""A registry over a real database for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.postgres import postgres
from tests.support.world import World, open_world

__all__ = ["postgres"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made
