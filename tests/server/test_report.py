"""What people are told of a whole worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.locking import locked
from tests.support.waiting import eventually
from tests.support.workers import Working, data_folder, settings_in, working

from doorward.protocol.tailcfg.capability import CAPVER_RELAY_PIN
from doorward.server import report
from doorward.store import engines


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


async def _found(running: Working) -> dict[str, dict[str, Any]]:
    return {finding["subject"]: finding for finding in await running.ask("GET", "/doctor")}


async def test_the_doctor_names_what_is_wrong(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")
        found = await _found(running)
        assert (found["audit"]["level"], found["certificates"]["level"]) == ("ok", "ok")
        assert found["own node"]["level"] == "warning"
        assert "tailscaled" in found["own node"]["cure"]
        async with running.node("laptop"):
            assert "clients" not in await _found(running)
        async with running.node("attic", version=CAPVER_RELAY_PIN - 1):
            finding = (await _found(running))["clients"]
            assert (finding["level"], finding["message"][:6]) == ("warning", "attic:")
            assert "doorward ca" in finding["cure"]


async def test_little_room_is_said_while_there_is_some(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with working(settings_in(folder)) as running:
        monkeypatch.setattr(report, "LITTLE_ROOM", 0)
        assert "disk" not in await _found(running)
        monkeypatch.setattr(report, "LITTLE_ROOM", 1 << 60)
        assert (await _found(running))["disk"]["level"] == "warning"


async def test_a_database_that_takes_no_writes_is_said_and_what_it_has_is_still_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.02)  # for which a lock is waited for
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")

        async def state() -> tuple[str, str, int]:
            status = await running.ask("GET", "/status")
            (part,) = (part for part in status["parts"] if part["name"] == "database")
            return part["state"], part.get("cure", ""), status["users"]

        assert (await state())[0] == "running"
        with locked(folder):
            async with running.admin() as client:
                refused = await client.post("/api/v1/users", json={"name": "bob"})
            assert refused.status_code == 503
            failing, cure, users = await state()
            assert (failing, users) == ("failing", 1)
            assert "Stop the other program" in cure
            assert (await _found(running))["database"]["level"] == "error"

        async def is_well() -> bool:
            return (await state())[0] == "running"

        await eventually(is_well)


async def test_devices_that_wait_for_an_administrator_are_counted(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")
        assert (await running.ask("GET", "/status"))["waiting"] == 0
        await running.ask("PATCH", "/joining", approval=True)
        async with running.node("tablet"):
            assert (await running.ask("GET", "/status"))["waiting"] == 1
            await running.ask("POST", "/nodes/tablet/approve")
            assert (await running.ask("GET", "/status"))["waiting"] == 0
