"""Real programs on this machine. Every test has its own server and its own clients, and leaves nothing behind."""

from collections.abc import AsyncIterator

import pytest
from tests.support.postgres import postgres
from tests.support.programs import require_client
from tests.support.server import Server

__all__ = ["postgres"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    require_client()
    async with Server() as started:
        yield started
