"""A real server, real machines and Chromium, started once for all tests of a module; each test brings its own tabs."""

from collections.abc import AsyncIterator

import pytest
from tests.support.devtools import PlainChromium, plain_chromium


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlainChromium]:
    """One Chromium for the tests of a module."""
    async with plain_chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started
