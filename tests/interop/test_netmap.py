"""What running clients are told of each other: who comes, goes, is tagged or renamed, and what they may know of themselves."""

import asyncio
import json
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.simulated import simulated
from tests.support.waiting import eventually, promptly

pytestmark = pytest.mark.interop

EVERYBODY = """{
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
    "tagOwners": {"tag:web": ["alice"]},
}"""


async def _peer(client: StockClient, name: str) -> dict[str, Any]:
    """A peer as the client shows it; empty where it shows none of that name."""
    for peer in ((await client.status())["Peer"] or {}).values():
        if peer["DNSName"].split(".")[0] == name:
            assert isinstance(peer, dict)
            return peer
    return {}


async def test_peers_come_go_and_change_under_a_running_client(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        await server.set_policy(EVERYBODY)
        assert not await _peer(laptop, "server")
        async with StockClient("server") as other:
            await other.up(server.url, await server.key("--user", "alice"))

            async def has_come() -> bool:
                peer = await _peer(laptop, "server")
                return bool(peer.get("Online") and peer["Relay"] == "home")

            await eventually(has_come)
            await server.run("nodes", "tags", "server", "tag:web")

            async def is_tagged() -> bool:
                return (await _peer(laptop, "server")).get("Tags") == ["tag:web"]

            await promptly(is_tagged, within=2)
            assert "tagged-devices" in (await laptop.cli("status")).stdout
            assert (await _peer(laptop, "server")).get("KeyExpiry") is None
            await server.run("nodes", "tags", "server", "--clear")

            async def is_alices_again() -> bool:
                peer = await _peer(laptop, "server")
                return not peer.get("Tags") and bool(peer.get("KeyExpiry"))

            await promptly(is_alices_again, within=2)
            await server.run("nodes", "delete", "server", "--yes")

            async def has_gone() -> bool:
                return not await _peer(laptop, "server")

            await promptly(has_gone, within=2)
            assert (await other.status())["BackendState"] in {"Running", "NeedsLogin"}


async def test_who_is_away_is_shown_so_after_a_moment_and_back_at_once(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        await other.cli("down")

        async def is_away() -> bool:
            peer = await _peer(laptop, "server")
            return not peer["Online"] and not peer["LastSeen"].startswith("0001")

        # Clients reconnect for many reasons, so the others are told after 10 s only.
        await promptly(is_away, within=14)
        (node,) = [node for node in await server.json("nodes", "list") if node["name"] == "server"]
        assert not node["online"]
        assert node["last_seen"]
        await other.cli("up", f"--login-server={server.url}", "--hostname=server")

        async def is_back() -> bool:
            return bool((await _peer(laptop, "server"))["Online"])

        await promptly(is_back, within=2)


async def test_a_node_knows_what_it_may(server: Server) -> None:
    await server.user("root", "--role", "owner")
    async with machines(server, "laptop") as (laptop,), StockClient("console") as console:
        await console.up(server.url, await server.key("--user", "root"))
        caps = {}
        for client in (laptop, console):
            netmap = json.loads((await client.cli("debug", "netmap")).stdout)
            caps[client.name] = set(netmap["SelfNode"]["CapMap"])
        common = {"https://tailscale.com/cap/ssh", "https://tailscale.com/cap/file-sharing", "magicdns-aaaa"}
        assert common <= caps["laptop"]
        administrators = {"https://tailscale.com/cap/is-admin", "https://tailscale.com/cap/is-owner"}
        assert administrators <= caps["console"]
        assert not administrators & caps["laptop"]


async def test_what_is_not_there_is_said_in_words(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        token = await laptop.cli("debug", "localapi", "POST", "/localapi/v0/id-token?aud=x", check=False)
        assert "doorward does not issue ID tokens yet" in token.stdout
        served = await laptop.cli("serve", "--bg", "80", check=False)
        assert served.returncode == 1
        assert "it needs certificates, which doorward does not arrange yet" in served.stderr
        assert "serve --http" in served.stderr
        funnel = await laptop.cli("funnel", "80", check=False)
        assert "HTTPS must be enabled" in funnel.stderr
        assert "NOT enabled" in (await laptop.cli("lock", "status")).stdout
        await eventually(laptop.is_well)


GROUP = """{"groups": {"group:all": ["alice", "bob"]},
    "grants": [{"src": ["group:all"], "dst": ["group:all"], "ip": ["tcp:22"]}]}"""


async def _sources(client: StockClient) -> set[str]:
    """The addresses that the client's packet filter lets in."""
    netmap = json.loads((await client.cli("debug", "netmap")).stdout)
    return {
        source.partition("/")[0]
        for rule in netmap["PacketFilterRules"]
        for source in (rule.get("SrcIPs") or ())
    }


async def test_a_filter_of_many_addresses_reaches_clients_whole(server: Server) -> None:
    """It is told in parts, and a client joins those; one that goes is no longer let in."""
    async with machines(server, "laptop") as (laptop,):
        await server.set_policy(GROUP)
        await server.user("bob")
        key = await server.key("--user", "bob", "--reusable")
        wanted: set[str] = set()

        async def has_all() -> bool:
            return await _sources(laptop) == wanted

        async def listed() -> set[str]:
            nodes = json.loads((await server.run("nodes", "list", "--json")).stdout)
            return {address for node in nodes for address in node["addresses"]}

        for batch in range(2):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    group.create_task(_join(server, f"n{batch}-{number}", key))
            wanted = await listed()
            assert len(wanted) == 2 * (1 + 20 * (batch + 1))
            await eventually(has_all)
        await server.run("nodes", "delete", "n1-7", "--yes")
        wanted = await listed()
        await eventually(has_all)


async def _join(server: Server, name: str, key: str) -> None:
    async with simulated(server.url, name) as one:
        await one.join(auth_key=key)
