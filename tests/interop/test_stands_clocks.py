"""Clocks that are wrong, on either side, and clocks that jump while everything runs."""

import asyncio
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.support.clients import StockClient
from tests.support.machines import all_ready
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.waiting import eventually, until

from doorward.clock import SystemClock

pytestmark = pytest.mark.interop

DAY = 86400


class Shift:
    """How far doorward's clock is from everybody else's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.to(0)

    def to(self, days: float) -> None:
        """So many days ahead (negative: behind), from now on."""
        part = self._file.with_suffix(".new")
        part.write_text(str(days * DAY), encoding="ascii")
        part.replace(self._file)

    def environ(self) -> dict[str, str]:
        """For a server whose clock this is."""
        folder = Path(__file__).parent.parent / "support" / "shifted"
        return {"PYTHONPATH": str(folder), "CLOCK_SHIFT_FILE": str(self._file)}


@pytest.fixture
def shift(tmp_path: Path) -> Shift:
    return Shift(tmp_path / "shift")


@pytest.mark.parametrize("days", [360, -150], ids=["clients-behind", "clients-ahead"])
async def test_clients_whose_clock_is_wrong(shift: Shift, days: float) -> None:
    """Those that are behind for as long as they like; ahead by more than a key's half year, no stock client takes its key."""
    shift.to(days)
    async with (
        Server(environ=shift.environ()) as server,
        StockClient("laptop") as laptop,
        StockClient("other") as other,
    ):
        assert abs(_ahead(await server.json("status")) - timedelta(days=days)) < timedelta(minutes=1)
        await server.user("alice")
        for client in (laptop, other):
            await client.up(server.url, await server.key("--user", "alice"))
        await all_ready([laptop, other])
        assert "pong from other" in await laptop.ping("other")
        assert "pong from laptop" in await other.ping("laptop")
        # The relay as well, whose certificate they hold against their own clock.
        relay = json.loads((await laptop.cli("debug", "derp", "900")).stdout)
        assert any("Successfully established a DERP connection" in line for line in relay["Info"]), relay
        # And over a restart of either side.
        await laptop.restart()
        await laptop.wait_until("Running")
        await all_ready([laptop, other])
        await eventually(laptop.is_well)
        await eventually(other.is_well)


def _expired(server: Server, name: str) -> int:
    """How often it was said that this node's key has ended."""
    return len(re.findall(rf"node key expired.*name={name}", server.log.read_text()))


def _ahead(status: dict[str, str]) -> timedelta:
    return datetime.fromisoformat(status["started"]) - SystemClock().now()


async def test_a_jump_ahead_and_back_loses_nothing(shift: Shift) -> None:
    async with (
        Server(environ=shift.environ()) as server,
        administrator(server) as api,
        StockClient("laptop") as laptop,
    ):
        await server.user("alice")
        await laptop.up(server.url, await server.key("--user", "alice"))
        key = (await laptop.status())["Self"]["PublicKey"]
        reusable = await server.key("--user", "alice", "--reusable")
        async with simulated(server.url, "brief", ephemeral=True) as brief, asyncio.TaskGroup() as group:
            await brief.join(auth_key=reusable)
            async with simulated(server.url, "idle") as idle:
                await idle.join(auth_key=reusable)
            following = group.create_task(brief.follow())
            await brief.until(lambda netmap: netmap.node)
            # Set wrong by an hour while it runs: an ephemeral node that is there is not one that has been away for an hour.
            for days in (1 / 24, -1 / 24):
                shift.to(days)
                await asyncio.sleep(1.5)  # what falls due is looked at every second
                names = [node["name"] for node in (await api.get("/nodes")).json()]
                assert {"brief", "laptop"} <= set(names), names
                assert (await laptop.status())["BackendState"] == "Running"
            # By two hundred days: every key has ended, new nodes' auth keys too, and that is said.
            shift.to(200)
            await until(lambda: _expired(server, "idle") == 1)
            assert (await api.get("/nodes/laptop")).json()["expired"] is True
            # Set right again, everything is as before.
            shift.to(0)
            await asyncio.sleep(
                8
            )  # in which it is seen that the clock was set back, also by a machine that does much else
            assert (await api.get("/nodes/laptop")).json()["expired"] is False
            async with simulated(server.url, "late") as late:
                await late.join(auth_key=reusable)
            following.cancel()
            # And what has been called over once, too early, falls due again.
            shift.to(200)
            await until(lambda: _expired(server, "idle") == 2)
            shift.to(0)

        async def is_as_before() -> bool:
            status = await laptop.status()
            return status["BackendState"] == "Running" and "late" in str(status["Peer"])

        await eventually(is_as_before)
        assert (await laptop.status())["Self"]["PublicKey"] == key
        assert (await server.run("audit", "verify")).returncode == 0
