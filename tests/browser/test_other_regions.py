"""A machine whose relay is another's, from a page of the console: Chromium, the stock relay and a stock client, each as people have them.

Too long for every run: `make stands` runs it.
"""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.support.bundle import built
from tests.support.chromium import pin
from tests.support.clients import StockClient
from tests.support.derper import Derper, running_derper
from tests.support.desk import Desk, ssh_to
from tests.support.devtools import PlainChromium, plain_chromium
from tests.support.programs import require_root
from tests.support.relay import HOST, make_leaf
from tests.support.server import Server
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(300), pytest.mark.heavy]

OURS, THEIRS = 900, 901


@pytest.fixture
async def trusting(tmp_path: Path) -> AsyncIterator[PlainChromium]:
    """A browser to which the other relay's certificate is as good as a public one."""
    trusted = pin(make_leaf().pem)
    async with plain_chromium(tmp_path, [f"--ignore-certificate-errors-spki-list={trusted}"]) as browser:
        yield browser


async def test_a_shell_on_a_machine_of_another_region_goes_over_both_relays_and_along_when_it_moves(
    trusting: PlainChromium, tmp_path: Path
) -> None:
    require_root()
    built()
    (tmp_path / "leaf.pem").write_bytes(make_leaf().pem)
    maps = tmp_path / "derp.json"
    environ = {"TS_DEBUG_ALWAYS_USE_DERP": "1", "SSL_CERT_FILE": str(tmp_path / "leaf.pem")}
    async with running_derper() as derper:
        maps.write_text(json.dumps({"Regions": {str(THEIRS): _region(derper)}}))
        async with (
            Server(environ={"DOORWARD_RELAY_MAPS": str(maps)}) as server,
            StockClient("server", environ=environ) as machine,
        ):
            await server.user("alice")
            await server.set_policy(ssh_to("root"))
            await machine.up(server.url, await server.key("--user", "alice"), ssh=True)
            desk = Desk(server)
            await desk.knows("server")
            await _move(machine, THEIRS, "second")
            before = await _passed(derper)
            terminal = await Terminal.at(desk, trusting, "server", "root")
            await terminal.opened()
            await terminal.run("stty -echo; PS1='$ '; clear; kept=42")
            assert await _passed(derper) > before
            # It moves to ours, and theirs goes away: the shell is still the same.
            await _move(machine, OURS, "home")
            await terminal.run("echo moved with $kept")
            await terminal.shows("moved with 42")
            await _move(machine, THEIRS, "second")
            await terminal.run("echo and back with $kept")
            await terminal.shows("and back with 42")
            await terminal.tab.close()


def _region(derper: Derper) -> dict[str, object]:
    node = {
        "Name": f"{THEIRS}a",
        "RegionID": THEIRS,
        "HostName": HOST,
        "IPv4": HOST,
        "IPv6": "none",
        "DERPPort": derper.port,
        "STUNPort": derper.stun_port,
    }
    return {"RegionID": THEIRS, "RegionCode": "second", "RegionName": "Second", "Nodes": [node]}


async def _move(machine: StockClient, region: int, code: str) -> None:
    """Have a machine be at the relay of a region."""
    await machine.cli("debug", "force-prefer-derp", str(region))
    await machine.cli("debug", "restun")

    async def is_there() -> bool:
        return bool((await machine.status())["Self"]["Relay"] == code)

    await eventually(is_there, 30)


async def _passed(derper: Derper) -> int:
    """How many packets the relay has passed on."""
    context = ssl.create_default_context(cadata=make_leaf().pem.decode())
    async with httpx2.AsyncClient(trust_env=False, verify=context) as client:
        told = (await client.get(f"https://{HOST}:{derper.port}/debug/vars")).json()
    return int(told["derp"]["packets_sent"])
