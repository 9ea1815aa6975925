"""The oldest client that doorward promises to serve beside the newest: joining, direct, by relay, and ssh each way."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from tests.support.clients import StockClient
from tests.support.machines import all_ready
from tests.support.netns import Host, switch
from tests.support.programs import OLDEST_CLIENT, require_client
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.interop, pytest.mark.root]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host, Host]]:
    with switch() as net, net.host("server") as server, net.host("old") as old, net.host("new") as new:
        yield server, old, new


async def _ssh(source: StockClient, target: str, said: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *source.ssh_command(f"root@{target}", f"echo {said} $((6 * 7))"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    assert out == f"{said} 42\n".encode(), err


async def _pings(source: StockClient, target: str, way: str) -> None:
    """Until the path is the expected one: a client keeps a path that worked for some seconds."""

    async def does() -> bool:
        result = await source.cli(
            "ping", "-c", "1", "--until-direct=false", "--timeout=2s", target, check=False
        )
        return f"via {way}" in result.stdout

    await eventually(does, within=25)


async def test_the_oldest_and_the_newest_client_together(hosts: tuple[Host, Host, Host]) -> None:
    host, there, here = hosts
    oldest = require_client(OLDEST_CLIENT)
    async with Server(host=host.address, namespace=host.name) as server:
        # 1.80.3 knows no pins: it trusts the relay because it trusts the authority.
        trust = {"SSL_CERT_FILE": str(server.folder / "tls" / "authority.pem")}
        async with (
            StockClient("old", client=oldest, namespace=there.name, environ=trust) as old,
            StockClient("new", namespace=here.name) as new,
        ):
            await server.user("alice")
            for client in (old, new):
                await client.up(server.url, await server.key("--user", "alice"), ssh=True)
            await all_ready([old, new])
            assert (await old.status())["Version"].startswith("1.80.3")
            assert not (await new.status())["Version"].startswith("1.80")
            async with asyncio.TaskGroup() as group:
                group.create_task(_pings(old, "new", here.address))
                group.create_task(_pings(new, "old", there.address))
            await _ssh(old, "new", "direct")
            await _ssh(new, "old", "direct")
            with contextlib.ExitStack() as blocked:
                for one in (there, here):
                    blocked.enter_context(one.without_udp())
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pings(old, "new", "DERP(home)"))
                    group.create_task(_pings(new, "old", "DERP(home)"))
                await _ssh(old, "new", "relayed")
                await _ssh(new, "old", "relayed")
            findings = await server.json("doctor")
            assert any("old" in finding["message"] for finding in findings if finding["subject"] == "clients")


async def test_the_oldest_client_without_the_authority_is_told_what_is_wrong(
    hosts: tuple[Host, Host, Host],
) -> None:
    host, there, _ = hosts
    async with (
        Server(host=host.address, namespace=host.name) as server,
        StockClient("old", client=require_client(OLDEST_CLIENT), namespace=there.name) as old,
    ):
        await server.user("alice")
        await old.up(server.url, await server.key("--user", "alice"))

        async def is_told() -> bool:
            return "cannot check the relay by its pin" in str((await old.status())["Health"])

        await eventually(is_told)
