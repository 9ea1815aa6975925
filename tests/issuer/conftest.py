from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest
from joserfc.jwk import Key
from tests.support.office import Office
from tests.support.world import World, open_world

from doorward.issuer import keys


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


@cache
def _one_rsa_key() -> Key:
    return keys._rsa()


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second each: one is enough for all tests that are not about keys."""
    monkeypatch.setitem(keys._KINDS, "RS256", _one_rsa_key)


@pytest.fixture
def office(world: World) -> Office:
    return Office(world)
