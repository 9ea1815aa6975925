"""Nothing on doorward's host is reached through its node but the door, and nobody gets an identity but through the tailnet."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.support.clients import StockClient
from tests.support.machines import all_ready, machines
from tests.support.netns import switch
from tests.support.programs import require
from tests.support.server import Server

pytestmark = pytest.mark.interop

EVERYTHING = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
FORGED = (
    "X-Forwarded-For: 100.64.0.2",
    "X-Real-IP: 100.64.0.2",
    "Forwarded: for=100.64.0.2",
    "Tailscale-User-Login: alice",
    "Tailscale-User-Name: alice",
    "X-Webauth-User: alice",
    "Remote-User: alice",
)


class Database:
    """Some other service on doorward's host: it greets whoever connects, and counts them."""

    def __init__(self) -> None:
        self.port = 0
        self.visits = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Database"]:
        async with await asyncio.start_server(self._greet, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _greet(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.write(b"the crown jewels\n")
        await writer.drain()
        writer.close()


async def _reaches(client: StockClient, host: str, port: int, *, within: float = 40) -> bool:
    """Whether a TCP connection through the tailnet is made: ``tailscale nc`` ends by itself once it is."""
    try:
        return (await client.cli("nc", host, str(port), within=within, check=False)).returncode == 0
    except TimeoutError:
        return False


async def _whoami(
    client: StockClient | None, server: Server, *extra: str
) -> subprocess.CompletedProcess[bytes]:
    """``curl`` of the door's ``/whoami``, through a client's SOCKS proxy, or straight from this machine."""
    url = f"https://door.tailnet.internal:{server.door_port}/whoami"
    arguments = [
        "--silent",
        "--show-error",
        "--max-time",
        "40",
        "--cacert",
        str(server.folder / "tls/authority.pem"),
    ]
    if client is not None:
        arguments += ["--socks5-hostname", f"localhost:{client.socks_port}"]
    else:
        arguments += ["--resolve", f"door.tailnet.internal:{server.door_port}:127.0.0.1"]
    process = await asyncio.create_subprocess_exec(
        require("curl"), *arguments, *extra, url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return subprocess.CompletedProcess(url, process.returncode or 0, out, err)


async def test_nothing_but_the_door_is_reached_through_doorwards_node(server: Server) -> None:
    async with Database().running() as database, machines(server, "laptop", "other") as (laptop, other):
        # A policy cannot open it either: not one that allows everything to everybody.
        await server.set_policy(EVERYTHING)
        node = await server.own_node()
        peer = (await other.cli("ip", "-4")).stdout.strip()
        # The same daemon on an ordinary node does let it through: what holds it back below is the packet filter.
        assert await _reaches(laptop, peer, database.port)
        visits = database.visits
        assert visits == 1
        six = await server.json("status")
        addresses = next(part["text"] for part in six["parts"] if part["name"] == "own node").split(", ")
        public = int(server.url.rpartition(":")[2])
        async with asyncio.TaskGroup() as group:
            closed = {
                (host, port): group.create_task(_reaches(laptop, host, port, within=4))
                for host in addresses
                for port in (database.port, public, server.relay_port, 22)
            }
        assert {where: task.result() for where, task in closed.items()} == dict.fromkeys(closed, False)
        assert database.visits == visits
        for host in addresses:
            assert await _reaches(laptop, host, server.door_port)
        assert node in addresses
        answer = await _whoami(laptop, server)
        assert json.loads(answer.stdout)["user"]["login_name"] == "alice", answer
        assert json.loads(answer.stdout)["node"]["name"] == "laptop"
        assert json.loads((await _whoami(other, server)).stdout)["node"]["name"] == "other"


async def test_a_local_process_does_not_pass_for_a_tailnet_caller(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        await server.own_node()
        for _ in range(3):
            refused = await _whoami(
                None, server, *(part for header in FORGED for part in ("--header", header))
            )
            assert refused.returncode in {35, 52, 56}, (
                refused
            )  # closed in the handshake, or without an answer
            assert refused.stdout == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.door_port)
        writer.write(b"GET /whoami HTTP/1.1\r\nHost: door.tailnet.internal\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"alice" not in await reader.read()
        writer.close()
        # From a loopback address that looks like a tailnet's, too: only the daemon's own table counts.
        refused = await _whoami(None, server, "--interface", "127.64.0.2")
        assert refused.returncode in {35, 52, 56}, refused
        assert refused.stdout == b""
        # And what a tailnet caller's headers say of somebody else is not heard.
        told = await _whoami(
            laptop,
            server,
            "--header",
            "Tailscale-User-Login: mallory",
            "--header",
            "X-Forwarded-For: 100.64.0.9",
        )
        assert json.loads(told.stdout)["user"]["login_name"] == "alice"
        # The public listener identifies nobody, whatever the headers say.
        async with httpx2.AsyncClient() as outside:
            answer = await outside.get(
                f"{server.url}/whoami", headers=dict(header.split(": ") for header in FORGED)
            )
        assert answer.status_code == 403
        assert answer.json()["type"] == "not-in-tailnet"


@pytest.mark.root
async def test_a_packet_with_a_tailnet_source_from_outside_is_nobody() -> None:
    with switch() as net, net.host("server") as host, net.host("laptop") as inside, net.host("liar") as liar:
        async with Server(host="0.0.0.0", shown=host.address, namespace=host.name) as server:
            await server.user("alice")
            async with StockClient("laptop", namespace=inside.name) as laptop:
                await laptop.up(server.url, await server.key("--user", "alice"))
                await all_ready([laptop])
                address = (await laptop.cli("ip", "-4")).stdout.strip()
                # A machine on the LAN calls itself by the laptop's tailnet address, and the server even answers it there.
                liar.run("ip", "addr", "add", f"{address}/32", "dev", "eth0")
                host.run("ip", "route", "add", f"{address}/32", "via", liar.address)
                said = liar.run(
                    "curl", "-sS", "--max-time", "40", "--interface", address, f"{server.url}/whoami"
                )
                assert json.loads(said.stdout)["type"] == "not-in-tailnet", said
                # The door is not even there for it.
                door = liar.run(
                    "curl",
                    "-sSk",
                    "--max-time",
                    "40",
                    "--interface",
                    address,
                    f"https://{host.address}:{server.door_port}/whoami",
                    check=False,
                )
                assert door.returncode == 7, door
