"""What people do with a tailnet once it is there: send files, publish ports, ask who somebody is, look at its health."""

import asyncio
import json
import time

import pytest
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

EVERYBODY = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    await writer.drain()
    writer.close()


async def test_files_go_between_the_devices_of_one_person(server: Server) -> None:
    await server.user("bob")
    async with machines(server, "laptop", "server") as (laptop, other), StockClient("bobs") as bobs:
        await bobs.up(server.url, await server.key("--user", "bob"))
        await server.set_policy(EVERYBODY)
        content = bytes(range(256)) * 2000
        (laptop.folder / "holiday.jpg").write_bytes(content)

        async def is_target() -> bool:
            return "server" in (await laptop.cli("file", "cp", "--targets")).stdout

        await eventually(is_target)
        # Taildrop is between one's own devices: bob's is no target although the policy lets packets through.
        assert "bobs" not in (await laptop.cli("file", "cp", "--targets")).stdout
        await laptop.cli("file", "cp", str(laptop.folder / "holiday.jpg"), "server:")
        got = other.folder / "got"
        got.mkdir()
        await other.cli("file", "get", "--wait", str(got))
        assert (got / "holiday.jpg").read_bytes() == content


async def test_ports_and_pages_are_published_within_the_tailnet(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        greeter = await asyncio.start_server(_greet, "127.0.0.1", 0)
        port = greeter.sockets[0].getsockname()[1]
        async with greeter:
            await other.cli("serve", "--bg", "--tcp=7000", f"tcp://127.0.0.1:{port}")
            await other.cli("serve", "--bg", "--http=80", "text:published")
            stream = await laptop.api.dial("server.tailnet.internal", 7000)
            async with asyncio.timeout(30):
                assert await stream.reader.readline() == b"hello\n"
            stream.writer.close()
            proxy = f"socks5h://localhost:{laptop.socks_port}"
            page = await fetch("http://server.tailnet.internal/", "--proxy", proxy)
            assert (page.status, page.text) == (200, "published")
        # Certificates for such names would need a public zone: the client says so at once, and does not hang.
        refused = await other.cli("cert", "server.tailnet.internal", check=False)
        assert refused.returncode != 0


async def test_whois_knows_people_and_machines(server: Server) -> None:
    await server.user("bob", "--email", "bob@example.com")
    async with machines(server, "laptop") as (laptop,), StockClient("web") as web:
        await server.set_policy(f'{EVERYBODY[:-1]}, "tagOwners": {{"tag:web": ["bob"]}}}}')
        await web.up(server.url, await server.key("--tag", "tag:web"))
        address = (await web.cli("ip", "-4")).stdout.strip()

        async def is_known() -> bool:
            return (await laptop.cli("whois", address, check=False)).returncode == 0

        await eventually(is_known)
        known = json.loads((await laptop.cli("whois", "--json", address)).stdout)
        assert known["Node"]["Tags"] == ["tag:web"]
        assert known["UserProfile"]["LoginName"] == "tagged-devices"
        mine = (await laptop.cli("whois", (await laptop.cli("ip", "-4")).stdout.strip())).stdout
        assert "alice" in mine
        assert "laptop.tailnet.internal" in mine


async def test_the_client_finds_its_network_and_its_relay_in_order(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        report = json.loads((await laptop.cli("netcheck", "--format=json")).stdout)
        assert report["UDP"]
        assert report["PreferredDERP"] == 900
        assert set(report["RegionLatency"]) == {"900"}
        shown = (await laptop.cli("netcheck")).stdout
        assert "Nearest DERP: doorward" in shown
        said = json.loads((await laptop.cli("debug", "derp", "900")).stdout)
        # This command alone takes the "none" that stands for "no IPv6 here" for a host's name.
        assert not [error for error in said["Errors"] or () if '"none:' not in error], said
        assert any("Successfully established a DERP connection" in info for info in said["Info"]), said
        await eventually(laptop.is_well)


async def test_what_waits_for_an_administrator_is_said_at_the_client(server: Server) -> None:
    async with machines(server, "router") as (router,):
        await router.cli("set", "--advertise-routes=10.77.0.0/24")

        async def is_said() -> bool:
            return "Routes wait for approval" in (await router.cli("status")).stdout

        await eventually(is_said)
        assert "doorward nodes routes router --approve 10.77.0.0/24" in (await router.cli("status")).stdout
        await server.run("nodes", "routes", "router", "--approve", "10.77.0.0/24")

        async def is_settled() -> bool:
            return not await is_said()

        await eventually(is_settled)


async def test_a_node_comes_back_after_its_daemon_was_started_again(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        before = (await other.status())["Self"]
        await other.restart()
        began = time.monotonic()
        after = (await other.wait_until("Running"))["Self"]
        assert time.monotonic() - began < 5
        assert (after["ID"], after["TailscaleIPs"]) == (before["ID"], before["TailscaleIPs"])
        assert "pong from server" in await laptop.ping("server")


async def test_doorward_asks_its_nodes_whether_they_are_there(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, _):
        assert "laptop answered in " in (await server.run("nodes", "ping", "laptop")).stdout
        found = await server.json("nodes", "ping", "server", "--from", "laptop")
        assert (found["node"], found["source"]) == ("server", "laptop")
        assert 0 < found["seconds"] < 5
        assert found["endpoint"] or found["relay"] == "home"
        assert (
            "laptop reaches server "
            in (await server.run("nodes", "ping", "server", "--from", "laptop")).stdout
        )
        await laptop.cli("down")

        async def is_gone() -> bool:
            done = await server.run("nodes", "ping", "laptop", check=False)
            return done.returncode == 1 and "laptop is not connected" in done.stderr

        await eventually(is_gone)
