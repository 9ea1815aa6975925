"""Subnet routes and exit nodes, used: what they lead to can be reached in no other way."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.fetching import Answer, fetch
from tests.support.netns import Host, switch
from tests.support.programs import require_client
from tests.support.server import Server
from tests.support.waiting import eventually

from doorward.engine.processes import stop, tied_to_us

pytestmark = [pytest.mark.interop, pytest.mark.root]

SITE, SITE_NETWORK = (
    "198.51.100.7",
    "198.51.100.0/24",
)  # behind the routers; the world's documentation has it, no host does
INTERNET = "93.184.216.34"  # some public address, which here only the routers have

GRANTS = """"grants": [
    {"src": ["*"], "dst": ["*"], "ip": ["*"]},
    {"src": ["*"], "dst": ["autogroup:internet"], "ip": ["*"]},
]"""


class Site:
    """Control in a namespace, and two that it joins: one in front of the site, one that wants to get there."""

    def __init__(self, server: Server, here: Host, there: Host) -> None:
        self.server = server
        self.here = here
        self.there = there

    async def ask(self, client: StockClient, address: str) -> Answer:
        """Ask the site's web server through the client's proxy."""
        proxy = f"socks5h://localhost:{client.socks_port}"
        return await fetch(
            f"http://{address}:8000/name", "--proxy", proxy, "--max-time", "8", inside=self.here
        )

    async def reaches(self, client: StockClient, address: str) -> bool:
        with contextlib.suppress(AssertionError):
            return (await self.ask(client, address)).text == "the site\n"
        return False

    async def routes(self, name: str) -> dict[str, Any]:
        (node,) = [node for node in await self.server.json("nodes", "list") if node["name"] == name]
        return {route["prefix"]: route for route in node["routes"]}

    async def is_advertised(self, name: str, prefix: str) -> None:
        async def is_there() -> bool:
            return prefix in await self.routes(name)

        await eventually(is_there)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str, Host, Host]]:
    require_client()
    with switch() as net, net.host("here") as here, net.host("there") as there:
        for address in (SITE, INTERNET):
            there.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
        yield net.name, net.address, here, there


@pytest.fixture
async def site(hosts: tuple[str, str, Host, Host]) -> AsyncIterator[Site]:
    namespace, address, here, there = hosts
    async with Server(namespace=namespace, host=address) as server:
        folder = server.folder / "site"
        folder.mkdir()
        (folder / "name").write_text("the site\n", encoding="ascii")
        command = there.command(sys.executable, "-m", "http.server", "8000", "--directory", str(folder))
        web = await asyncio.create_subprocess_exec(
            *tied_to_us(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield Site(server, here, there)
        finally:
            await stop(web, 1)


@contextlib.asynccontextmanager
async def _joined(site: Site, *routers: str) -> AsyncIterator[tuple[StockClient, list[StockClient]]]:
    """A laptop here, and routers there."""
    await site.server.user("alice")
    async with contextlib.AsyncExitStack() as stack:
        laptop = await stack.enter_async_context(StockClient("laptop", namespace=site.here.name))
        there = [
            await stack.enter_async_context(StockClient(name, namespace=site.there.name)) for name in routers
        ]
        for client in (laptop, *there):
            await client.up(site.server.url, await site.server.key("--user", "alice"))
        yield laptop, there


async def test_a_subnet_route_is_approved_used_and_taken_over_by_another_router(site: Site) -> None:
    await site.server.set_policy(f"{{{GRANTS}}}")
    async with _joined(site, "first", "second") as (laptop, routers):
        await laptop.cli("set", "--accept-routes")
        for router in routers:
            await router.cli("set", f"--advertise-routes={SITE_NETWORK}")
            await site.is_advertised(router.name, SITE_NETWORK)
        said = (await routers[0].cli("status")).stdout
        assert "Routes wait for approval" in said
        assert f"doorward nodes routes first --approve {SITE_NETWORK}" in said
        assert not await site.reaches(laptop, SITE)
        for router in routers:
            await site.server.run("nodes", "routes", router.name, "--approve", SITE_NETWORK)

        async def through_first() -> bool:
            return await site.reaches(laptop, SITE)

        await eventually(through_first, 60)
        assert (await site.routes("first"))[SITE_NETWORK]["primary"]
        assert "Routes wait" not in (await routers[0].cli("status")).stdout
        # `tailscale nc` goes the same way.
        stream = await laptop.cli("nc", SITE, "8000", check=False, within=30)
        assert stream.returncode == 0, stream.stderr
        await site.server.run("nodes", "routes", "first", "--reject", SITE_NETWORK)

        async def through_second() -> bool:
            peers = (await laptop.status())["Peer"].values()
            using = [peer["HostName"] for peer in peers if peer.get("PrimaryRoutes")]
            return using == ["second"] and await site.reaches(laptop, SITE)

        await eventually(through_second, 60)


async def test_an_exit_node_is_approved_and_used(site: Site) -> None:
    await site.server.set_policy(f"{{{GRANTS}}}")
    async with _joined(site, "gate") as (laptop, (gate,)):
        await gate.cli("set", "--advertise-exit-node")
        await site.is_advertised("gate", "0.0.0.0/0")
        refused = await laptop.cli("set", "--exit-node=gate", check=False)
        assert refused.returncode != 0
        assert "not advertising an exit node" in refused.stderr
        assert not await site.reaches(laptop, INTERNET)
        await site.server.run("nodes", "routes", "gate", "--approve", "0.0.0.0/0")
        assert (await site.routes("gate"))["::/0"]["approved"]

        async def is_offered() -> bool:
            listed = await laptop.cli("exit-node", "list", check=False)
            return "gate" in listed.stdout

        await eventually(is_offered)
        await laptop.cli("set", "--exit-node=gate")
        status = await laptop.status()
        assert status["ExitNodeStatus"]["Online"]

        async def is_used() -> bool:
            return await site.reaches(laptop, INTERNET)

        await eventually(is_used, 60)
        await site.server.run("nodes", "routes", "gate", "--reject", "0.0.0.0/0")

        async def is_over() -> bool:
            return not await site.reaches(laptop, INTERNET)

        await eventually(is_over, 60)


async def test_routes_that_the_policy_approves_by_itself(site: Site) -> None:
    approvers = f'"autoApprovers": {{"routes": {{"{SITE_NETWORK}": ["alice"]}}, "exitNode": ["tag:gate"]}}'
    await site.server.user("bob")
    async with _joined(site, "router") as (laptop, (router,)):
        await site.server.set_policy(f'{{{GRANTS}, "tagOwners": {{"tag:gate": ["alice"]}}, {approvers}}}')
        await laptop.cli("set", "--accept-routes")
        await router.cli("set", f"--advertise-routes={SITE}/32,10.99.0.0/16", "--advertise-exit-node")
        await site.is_advertised("router", f"{SITE}/32")

        async def is_used() -> bool:
            return await site.reaches(laptop, SITE)

        await eventually(is_used, 60)
        approved = {prefix for prefix, route in (await site.routes("router")).items() if route["approved"]}
        # Inside what alice may route; the rest waits, and an exit node is not hers to open.
        assert approved == {f"{SITE}/32"}
        await site.server.run("nodes", "tags", "router", "tag:gate")
        await router.cli("set", "--advertise-exit-node=false")

        async def is_withdrawn() -> bool:
            return "0.0.0.0/0" not in await site.routes("router")

        await eventually(is_withdrawn)  # or the client might leave out what it has taken back already
        await router.cli("set", "--advertise-exit-node")

        async def is_exit() -> bool:
            routes = await site.routes("router")
            return all(routes.get(prefix, {}).get("approved") for prefix in ("0.0.0.0/0", "::/0"))

        await eventually(is_exit)
