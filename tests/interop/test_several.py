"""Two ``doorward serve`` on one PostgreSQL, with stock clients at each: one tailnet, whoever of the two is killed."""

import asyncio
import contextlib
import getpass
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from tests.support.balancer import Balancer
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.machines import all_ready
from tests.support.openssh import OpenSSH
from tests.support.postgres import Cluster
from tests.support.programs import require_client
from tests.support.server import Server
from tests.support.waiting import eventually, promptly

pytestmark = [pytest.mark.interop]

OPEN = """{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
           "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"],
                    "users": ["autogroup:nonroot", "root"]}]}"""
CLOSED = '{"grants": []}'


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    require_client()
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


def server_at(database: str, region: int, **options: Any) -> Server:
    environ = {"DOORWARD_DATABASE_URL": database, "DOORWARD_RELAY_REGION": str(region)}
    return Server(environ=environ, **options)


def share_keys(first: Server, second: Server) -> None:
    """What an operator copies before the second one starts: control's key, and the authority of the door."""
    shutil.copy(first.folder / "noise.key", second.folder / "noise.key")
    shutil.copytree(first.folder / "tls", second.folder / "tls")


@contextlib.asynccontextmanager
async def two_servers(database: str, **options: Any) -> AsyncIterator[tuple[Server, Server]]:
    async with server_at(database, 901, **options) as first:
        await first.own_node()  # so that it is the older of the two
        second = server_at(database, 902, **options)
        share_keys(first, second)
        async with second:
            yield first, second


async def peer_names(client: StockClient) -> set[str]:
    return {peer["DNSName"].partition(".")[0] for peer in ((await client.status())["Peer"] or {}).values()}


async def online_at(server: Server) -> set[str]:
    return {node["name"] for node in await server.json("nodes", "list") if node["online"]}


async def leads_to(client: StockClient, address: str) -> bool:
    """Whether the door's name is this address, as the client sees it."""
    return address in (await client.cli("dns", "query", "door.tailnet.internal", "A", check=False)).stdout


async def test_a_second_with_another_control_key_says_what_to_do(database: str) -> None:
    async with server_at(database, 901):
        second = server_at(database, 902)
        with pytest.raises(AssertionError, match=r"another control key(.|\n)*copy noise.key"):
            async with second:
                pass


async def test_clients_of_two_servers_are_one_tailnet(database: str) -> None:
    async with two_servers(database) as (first, second):
        await first.user("alice")
        async with StockClient("here") as here, StockClient("there") as there:
            await here.up(first.url, await first.key("--user", "alice"))
            # A key made at one admits at the other.
            await there.up(second.url, await first.key("--user", "alice"))
            await all_ready([here, there])
            assert "pong from there" in await here.ping("there")
            assert "pong from here" in await there.ping("here")
            # Their relays are two regions of one map, and each has the nearer one for its home.
            regions = (await first.json("status"), await second.json("status"))
            assert all(any(part["name"] == "beside" for part in status["parts"]) for status in regions)

            # A question travels down a node's stream, and only one of the two has it.
            assert "there" in (await second.run("nodes", "ping", "there")).stdout
            refused = await first.run("nodes", "ping", "there", check=False)
            assert f"connected to the doorward at {socket.gethostname()}:{second.folder}" in refused.stderr

            await second.set_policy(OPEN)
            await there.cli("set", "--ssh")
            ssh = await OpenSSH.between(here, "there")
            done = await ssh.run(getpass.getuser(), "echo across")
            assert done.stdout == "across\n"

            nodes = {node["name"]: node for node in await first.json("nodes", "list")}
            assert set(nodes) == {"here", "there"}
            await first.run("nodes", "rename", "there", "yonder")

            async def is_renamed() -> bool:
                own = (await there.status())["Self"]["DNSName"]
                return own.startswith("yonder.") and "yonder" in await peer_names(here)

            await eventually(is_renamed)
            assert "pong from yonder" in await here.ping("yonder")

            await first.set_policy(CLOSED)

            async def is_closed() -> bool:
                return "yonder" not in await peer_names(here) and "here" not in await peer_names(there)

            await eventually(is_closed)
            await second.set_policy(OPEN)
            await all_ready([here, there])


async def test_the_door_is_each_process_s_own_node_and_its_name_leads_to_one_that_is_up(
    database: str,
) -> None:
    async with two_servers(database) as (first, second):
        await first.user("alice")
        async with StockClient("laptop") as laptop:
            await laptop.up(second.url, await first.key("--user", "alice"))
            addresses = [await first.own_node(), await second.own_node()]
            assert len(set(addresses)) == 2
            # Clients take the first address that they are told.
            await eventually(partial(leads_to, laptop, addresses[0]))
            authority = laptop.folder / "authority.pem"
            authority.write_text((await first.run("ca")).stdout, encoding="ascii")
            for server, address in zip((first, second), addresses, strict=True):
                answer = await fetch(
                    f"https://door.tailnet.internal:{server.door_port}/whoami",
                    *("--proxy", f"socks5://localhost:{laptop.socks_port}"),
                    *("--resolve", f"door.tailnet.internal:{server.door_port}:{address}"),
                    *("--cacert", str(authority), "--header", "Accept: application/json"),
                )
                assert answer.status == 200, answer.text
                assert answer.json()["user"]["login_name"] == "alice"
            await first.kill()
            await promptly(partial(leads_to, laptop, addresses[1]), within=20)


async def test_one_is_killed_and_its_clients_go_on_at_the_other(database: str) -> None:
    async with Balancer() as balancer, contextlib.AsyncExitStack() as stack:
        first = server_at(database, 901, extra=["--url", balancer.url])
        second = server_at(database, 902, extra=["--url", balancer.url])
        first.url = second.url = balancer.url
        await stack.enter_async_context(first)
        share_keys(first, second)
        await stack.enter_async_context(second)
        await first.user("alice")
        await first.set_policy(OPEN)
        names = ["one", "two", "three", "four"]
        clients = [await stack.enter_async_context(StockClient(name)) for name in names]
        for number, client in enumerate(clients):
            server = (first, second)[number % 2]
            balancer.targets = [server.listens_at]  # so that each has some
            await client.up(balancer.url, await server.key("--user", "alice"))
        balancer.targets = [first.listens_at, second.listens_at]
        await all_ready(clients)
        before = {node["name"]: node["id"] for node in await second.json("nodes", "list")}
        assert set(before) == set(names)

        began = asyncio.get_running_loop().time()
        await first.kill()

        async def are_told() -> bool:
            """A change at the survivor reaches those who were at the other."""
            return all(["five" in await peer_names(client) for client in clients])

        async with StockClient("five") as fifth:
            await fifth.up(balancer.url, await second.key("--user", "alice"))
            await eventually(are_told, within=60)
            took = asyncio.get_running_loop().time() - began
            everybody = [*clients, fifth]
            await all_ready(everybody)
            for client in clients:
                assert (await client.status())["BackendState"] == "Running"
                assert (await client.status())["AuthURL"] == ""
            assert "pong from three" in await clients[0].ping("three")
            assert "pong from one" in await fifth.ping("one")
            after = {node["name"]: node["id"] for node in await second.json("nodes", "list")}
            assert {name: after[name] for name in names} == before  # nobody signed in again
            # Past every grace: those who moved were never called away.
            await asyncio.sleep(max(0.0, 25 - (asyncio.get_running_loop().time() - began)))
            assert await online_at(second) == {*names, "five"}
            assert took < max(30, 5 * first.start_took)

            # It comes back, and knows what happened meanwhile.
            await first.start()
            assert await online_at(first) == {*names, "five"}
            await first.run("nodes", "rename", "two", "second")

            async def is_renamed() -> bool:
                return all(["second" in await peer_names(client) for client in (*clients[:1], *clients[2:])])

            await eventually(is_renamed)
