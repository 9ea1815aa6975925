"""One server and one device for all tests of a module: clients do not disturb each other."""

from collections.abc import AsyncIterator

import pytest
from tests.support.house import House, open_house
from tests.support.programs import require_client
from tests.support.server import Server


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    require_client()
    async with Server() as server, open_house(server) as opened:
        yield opened
