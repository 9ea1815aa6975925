"""Stock clients join, see each other, reach each other, and are told of changes."""

import json

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually, promptly

pytestmark = pytest.mark.interop

EVERYBODY = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "tagOwners": {"tag:web": ["alice"]}}'


async def test_two_machines_see_and_ping_each_other_at_the_first_try(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        assert "pong from server" in await laptop.ping("server", tries=1)
        assert "pong from laptop" in await other.ping("laptop", tries=1)
        status = await laptop.status()
        names = {peer["DNSName"] for peer in status["Peer"].values()}
        assert "server.tailnet.internal." in names
        assert status["Self"]["DNSName"] == "laptop.tailnet.internal."
        assert status["MagicDNSSuffix"] == "tailnet.internal"
        shown = (await laptop.cli("status")).stdout
        assert "server" in shown
        assert "alice" in shown


async def test_magicdns_names_resolve(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        address = (await other.cli("ip", "-4")).stdout.strip()
        answer = await laptop.cli("dns", "query", "server.tailnet.internal", "A")
        assert address in answer.stdout
        door = await server.own_node()
        answer = await laptop.cli("dns", "query", "door.tailnet.internal", "A")
        assert door in answer.stdout


async def test_a_policy_change_takes_effect_within_a_second(server: Server) -> None:
    await server.user("bob")
    async with machines(server, "laptop") as (laptop,), StockClient("bobs") as bobs:
        await bobs.up(server.url, await server.key("--user", "bob"))

        async def sees_bob() -> bool:
            return "bobs" in (await laptop.cli("status")).stdout

        assert not await sees_bob()
        await server.set_policy(EVERYBODY)
        await promptly(sees_bob, within=1)
        assert "pong from bobs" in await laptop.ping("bobs")
        await server.set_policy('{"grants": []}')

        async def sees_nobody() -> bool:
            return not await sees_bob()

        await promptly(sees_nobody, within=1)


async def test_a_rename_and_a_deletion_reach_the_others(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        await server.run("nodes", "rename", "server", "renamed")

        async def is_renamed() -> bool:
            return "renamed" in (await laptop.cli("status")).stdout

        await eventually(is_renamed)
        assert "pong from renamed" in await laptop.ping("renamed")
        await server.run("nodes", "delete", "renamed", "--yes")

        async def is_gone() -> bool:
            return "renamed" not in (await laptop.cli("status")).stdout

        await eventually(is_gone)
        assert other.pid


async def test_of_the_routes_a_node_advertises_the_approved_ones_are_in_use(server: Server) -> None:
    async with machines(server, "laptop", "router") as (laptop, router):
        await server.set_policy(EVERYBODY)
        await router.cli("set", "--advertise-routes=10.66.0.0/16,10.77.0.0/24")
        await laptop.cli("set", "--accept-routes")

        async def is_advertised() -> bool:
            (node,) = [one for one in await server.json("nodes", "list") if one["name"] == "router"]
            return "10.77.0.0/24" in json.dumps(node["routes"])

        await eventually(is_advertised)
        await server.run("nodes", "routes", "router", "--approve", "10.77.0.0/24")

        async def is_routed() -> bool:
            peers = (await laptop.status())["Peer"].values()
            return any("10.77.0.0/24" in (peer.get("PrimaryRoutes") or []) for peer in peers)

        await eventually(is_routed)
        allowed = [peer["AllowedIPs"] or [] for peer in (await laptop.status())["Peer"].values()]
        assert not any("10.66.0.0/16" in routes for routes in allowed)
