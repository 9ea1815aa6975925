"""Signing in and out by the stock client: by link, by key, again, as somebody else; expiry, tags, names."""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually, promptly

pytestmark = pytest.mark.interop

TAGS = """{
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
    "tagOwners": {"tag:web": ["alice"], "tag:db": ["bob"]},
}"""


@contextlib.asynccontextmanager
async def _up_by_link(
    server: Server, client: StockClient, *extra: str
) -> AsyncIterator[tuple[str, "asyncio.Task[subprocess.CompletedProcess[str]]"]]:
    """``tailscale up`` without a key: the link it shows, and the command as it waits."""
    async with asyncio.TaskGroup() as group:
        up = group.create_task(client.up(server.url, extra=extra))
        link = ""

        async def is_shown() -> bool:
            nonlocal link
            link = (await client.status())["AuthURL"]
            return bool(link)

        await eventually(is_shown)
        yield link, up


async def _node(server: Server, name: str) -> dict[str, Any]:
    (found,) = [node for node in await server.json("nodes", "list") if node["name"] == name]
    assert isinstance(found, dict)
    return found


async def test_a_link_is_approved_and_up_returns_by_itself(server: Server) -> None:
    await server.user("alice")
    await server.user("bob")
    async with StockClient("laptop") as laptop:
        async with _up_by_link(server, laptop) as (link, up):
            assert link.startswith(f"{server.url}/join/")
            page = await fetch(link)
            assert page.status == 200
            assert "laptop" in page.text
            # The page shows the key that the device shows too, so that nobody approves another one.
            key = (await server.json("nodes", "waiting"))[0]["node_key"]
            assert key in page.text
            # With two people there is no guess whose it is.
            unclear = await server.run("nodes", "approve", link, check=False)
            assert unclear.returncode == 1
            assert "--user" in unclear.stderr
            assert not up.done()
            approved = await server.run("nodes", "approve", link, "--user", "alice")
            assert "as a node of alice" in approved.stdout
            async with asyncio.timeout(3):
                done = await up
            assert link in done.stdout + done.stderr
        assert (await laptop.status())["BackendState"] == "Running"
        again = await server.run("nodes", "approve", link, "--user", "bob", check=False)
        assert again.returncode == 1
        assert "approved already" in again.stderr
        assert (await _node(server, "laptop"))["user"] == "alice"
        assert "laptop" in (await fetch(link)).text
        strange = await fetch(f"{server.url}/join/{'a' * 32}")
        assert strange.status == 404


async def test_a_link_for_tags_that_its_user_may_not_give_stays_closed(server: Server) -> None:
    await server.user("alice")
    await server.user("bob")
    await server.set_policy(TAGS)
    async with (
        StockClient("laptop") as laptop,
        _up_by_link(server, laptop, "--advertise-tags=tag:web") as (link, up),
    ):
        refused = await server.run("nodes", "approve", link, "--user", "bob", check=False)
        assert "tag:web" in refused.stderr
        assert not up.done()
        await server.run("nodes", "approve", link, "--user", "alice")
        async with asyncio.timeout(3):
            await up
        assert (await _node(server, "laptop"))["tags"] == ["tag:web"]
        assert (await laptop.status())["Self"]["Tags"] == ["tag:web"]


async def test_logging_out_and_in_again_keeps_name_and_addresses(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        before = await _node(server, "laptop")
        await laptop.cli("logout")
        await laptop.wait_until("NeedsLogin", within=3)
        assert (await _node(server, "laptop"))["expired"]

        async def is_offline() -> bool:
            peers = (await other.status())["Peer"].values()
            return any(peer["HostName"] == "laptop" and peer.get("Expired") for peer in peers)

        await eventually(is_offline)
        await laptop.up(server.url, await server.key("--user", "alice"))
        after = await _node(server, "laptop")
        assert (after["id"], after["addresses"]) == (before["id"], before["addresses"])
        assert not after["expired"]
        assert "pong from laptop" in await other.ping("laptop")


async def test_a_single_use_key_serves_one_reauthentication_and_no_second(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        before = await _node(server, "laptop")
        key = await server.key("--user", "alice")
        first_key = (await laptop.status())["Self"]["PublicKey"]
        await laptop.up(server.url, key, extra=["--force-reauth"])
        status = await laptop.wait_until("Running")
        assert status["Self"]["PublicKey"] != first_key
        assert (await _node(server, "laptop"))["id"] == before["id"]
        assert "pong from laptop" in await other.ping("laptop")
        again = await laptop.up(server.url, key, extra=["--force-reauth"], check=False)
        assert again.returncode == 1
        assert "was used already, and it admits one node only" in again.stderr
        # Nothing is lost by the refusal: the next good key brings the same node back.
        await laptop.up(server.url, await server.key("--user", "alice"), extra=["--force-reauth"])
        assert (await _node(server, "laptop"))["addresses"] == before["addresses"]


async def test_an_expired_node_needs_a_login_and_is_itself_again(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        before = await _node(server, "laptop")
        await server.run("nodes", "expire", "laptop", "--yes")
        await laptop.wait_until("NeedsLogin", within=3)
        said = await other.cli("ping", "-c", "1", "--timeout=1s", "laptop", check=False)
        assert said.returncode != 0
        assert "expired" in (await server.run("nodes", "list")).stdout
        await laptop.up(server.url, await server.key("--user", "alice"))
        after = await _node(server, "laptop")
        assert (after["id"], after["addresses"]) == (before["id"], before["addresses"])
        assert after["expiry"] > before["expiry"]
        assert "pong from laptop" in await other.ping("laptop")


async def test_an_ephemeral_node_is_gone_when_it_logs_out(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,), StockClient("job") as job:
        await job.up(server.url, await server.key("--user", "alice", "--ephemeral"))
        assert (await _node(server, "job"))["ephemeral"]
        assert "pong from job" in await laptop.ping("job")
        await job.cli("logout")

        async def is_gone() -> bool:
            nodes = await server.json("nodes", "list")
            return (
                "job" not in {node["name"] for node in nodes}
                and "job" not in (await laptop.cli("status")).stdout
            )

        await eventually(is_gone)


async def test_tags_come_by_key_by_request_and_by_command(server: Server) -> None:
    await server.user("alice")
    await server.set_policy(TAGS)
    async with StockClient("web") as web, StockClient("laptop") as laptop:
        await web.up(server.url, await server.key("--tag", "tag:web"))
        node = await _node(server, "web")
        assert (node["tags"], node["user"], node["expiry"]) == (["tag:web"], "tagged-devices", None)
        await laptop.up(server.url, await server.key("--user", "alice"), extra=["--advertise-tags=tag:web"])
        assert (await laptop.status())["Self"]["Tags"] == ["tag:web"]
        assert "tagged-devices" in (await laptop.cli("status")).stdout
        # Of a node that runs, the client goes on with the tags it has, and shows why it got no others.
        await laptop.cli("up", f"--login-server={server.url}", "--hostname=laptop", "--advertise-tags=tag:db")

        async def is_told() -> bool:
            said = (await laptop.cli("status")).stdout
            return "the tag tag:db is not yours to give. An administrator can name you" in said

        await eventually(is_told)
        assert (await laptop.status())["Self"]["Tags"] == ["tag:web"]
        # It has long hung up when it is refused, and that is no accident worth a word in the log.
        assert "Traceback" not in server.log.read_text()
        await server.run("nodes", "tags", "web", "tag:db")

        async def is_retagged() -> bool:
            return bool((await web.status())["Self"]["Tags"] == ["tag:db"])

        await promptly(is_retagged, within=2)
        unknown = await server.run("nodes", "tags", "web", "tag:nobodys", check=False)
        assert "the policy knows no tag:nobodys" in unknown.stderr


async def test_two_people_on_one_machine_are_two_nodes(server: Server) -> None:
    await server.user("bob")
    async with machines(server, "laptop") as (laptop,):
        alices = (await laptop.status())["Self"]
        await laptop.cli(
            "login",
            f"--login-server={server.url}",
            f"--auth-key={await server.key('--user', 'bob')}",
            "--hostname=laptop",
        )
        bobs = (await laptop.wait_until("Running"))["Self"]
        assert set(bobs["TailscaleIPs"]).isdisjoint(alices["TailscaleIPs"])
        nodes = {node["name"]: node["user"] for node in await server.json("nodes", "list")}
        assert nodes == {"laptop": "alice", "laptop-1": "bob"}
        listed = (await laptop.cli("switch", "--list")).stdout
        assert "alice" in listed
        (profile,) = [line.split()[0] for line in listed.splitlines() if "alice" in line]
        await laptop.cli("switch", profile)
        back = (await laptop.wait_until("Running"))["Self"]
        assert back["TailscaleIPs"] == alices["TailscaleIPs"]
        assert back["ID"] == alices["ID"]


async def test_names_follow_the_host_stay_unique_and_stay_when_given(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other), StockClient("third") as third:
        await third.up(server.url, await server.key("--user", "alice"), hostname="Laptop")
        assert (await third.status())["Self"]["DNSName"] == "laptop-1.tailnet.internal."
        await other.cli("set", "--hostname=Büro PC #2")

        async def is_renamed() -> bool:
            names = {peer["DNSName"] for peer in (await laptop.status())["Peer"].values()}
            return any(re.match(r"b.*pc.*2\.tailnet\.internal\.$", name) for name in names)

        await eventually(is_renamed)
        await server.run("nodes", "rename", "laptop-1", "kept")
        await third.cli("set", "--hostname=something-else")

        async def is_reported() -> bool:
            return bool((await _node(server, "kept"))["hostname"] == "something-else")

        await eventually(is_reported)
        assert (await third.status())["Self"]["DNSName"] == "kept.tailnet.internal."
