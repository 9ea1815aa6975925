"""The storage conformance suite: every test here that asks for ``location`` or ``database`` runs on both engines."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.clock import FakeClock
from tests.support.postgres import Cluster, postgres

from doorward.store import Database

__all__ = ["postgres"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a new, empty database may be made: a path, or the address of one on the throw-away server."""
    if request.param == "sqlite":
        yield str(tmp_path / "doorward.db")
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    address = cluster.create_database()
    yield address
    cluster.drop_database(address)


@pytest.fixture
async def database(location: str) -> AsyncIterator[Database]:
    async with await Database.open(location, clock=FakeClock()) as opened:
        yield opened
