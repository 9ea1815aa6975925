"""Real programs on this machine. Every test has its own server and its own clients, and leaves nothing behind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.postgres import postgres
from tests.support.programs import require_client
from tests.support.server import Server

__all__ = ["postgres"]

# A minute is short for several daemons that start, where a slow machine runs all else at the same time; what waits for ever
# still ends.
SECONDS = 180


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test of this folder that names no time of its own has that many seconds."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    require_client()
    async with Server() as started:
        yield started
