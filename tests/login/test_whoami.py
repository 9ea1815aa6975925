"""Who is asking: from the connection alone, and from the truth of this moment."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec import UNSET
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from tests.support.markup import Markup
from tests.support.world import World, open_world

from doorward.login import pages
from doorward.login.whoami import peer_capabilities, whoami_route
from doorward.model import Node
from doorward.protocol.proxyheaders import IDENTITY_HEADERS
from doorward.protocol.tailcfg.filter import CapGrant, FilterRule
from doorward.tailnet.settings import Joining, Settings

HTML = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        await made.registry.create_user("test", "alice", display_name="Alice <i>Doe</i>")
        yield made


async def ask(world: World, identity: str | None, *, method: str = "GET", **headers: str) -> httpx2.Response:
    """Ask over a connection that carries this identity, None for none."""
    app = Starlette(routes=[whoami_route(lambda: world.registry.snapshot, world.clock), *pages.routes()])

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"listener": "door", "identity": identity}}, receive, send)

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(marked), base_url="http://door.test"
    ) as client:
        return await client.request(method, "/whoami", headers=headers)


async def test_a_person_learns_who_they_are(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    answer = await ask(world, node.stable_id)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"] == "Accept"
    assert answer.json() == {
        "user": {"login_name": "alice", "display_name": "Alice <i>Doe</i>", "role": "member"},
        "node": {
            "name": "laptop",
            "fqdn": "laptop.tailnet.internal",
            "stable_id": node.stable_id,
            "addresses": [str(node.ipv4), str(node.ipv6)],
            "tags": [],
            "os": "linux",
        },
        "capabilities": {},
        "known_by": "tailnet-connection",
        "listener": "door",
    }


async def test_a_tagged_node_is_nobody(world: World) -> None:
    await world.registry.set_policy("test", '{"tagOwners": {"tag:ci": ["alice@"]}}')
    node = await world.join(1, "build", None, "tag:ci")
    answer = (await ask(world, node.stable_id)).json()
    assert answer["user"] is None
    assert answer["node"]["tags"] == ["tag:ci"]
    page = Markup((await ask(world, node.stable_id, Accept=HTML)).text)
    assert "This is build" in page.text
    assert "alice" not in page.text


async def test_no_header_says_who_somebody_is(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    claims = {f"{name}login".replace("--", "-"): "alice" for name in IDENTITY_HEADERS}
    claims |= {"X-Forwarded-For": str(node.ipv4), "Cookie": f"identity={node.stable_id}"}
    answer = await ask(world, None, **claims)
    assert answer.status_code == 403
    assert answer.json()["type"] == "not-in-tailnet"
    assert (await ask(world, node.stable_id, **{"Tailscale-User-Login": "bob"})).json()["user"][
        "login_name"
    ] == "alice"


async def test_outside_the_tailnet_the_way_in_is_named(world: World) -> None:
    settings = world.registry.snapshot.settings
    outside = await ask(world, None)
    assert outside.status_code == 403
    assert outside.headers["content-type"] == "application/problem+json"
    assert outside.headers["vary"] == "Accept"
    assert settings.door_host == ""
    for host, ports, address in (
        ("door.example.net", (8443,), "https://door.example.net:8443/whoami"),
        ("door.example.net", (80, 443), "https://door.example.net/whoami"),
    ):
        changed = Settings(domain="example.net", url="http://x", door_host=host, door_ports=ports)
        route = whoami_route(lambda now=changed: world.registry.snapshot.with_settings(now), world.clock)  # type: ignore[misc]
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(Starlette(routes=[route])), base_url="http://door.test"
        ) as client:
            cure = (await client.get("/whoami")).json()["cure"]
        assert cure == f"Open it from a device inside the tailnet: {address}"


async def test_a_connection_outlives_neither_suspension_nor_expiry_nor_deletion(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    assert (await ask(world, node.stable_id)).status_code == 200

    await world.registry.suspend_user("test", "alice", suspended=True)
    refused = await ask(world, node.stable_id)
    assert (refused.status_code, refused.json()["type"]) == (403, "suspended")
    assert Markup((await ask(world, node.stable_id, Accept=HTML)).text).all("body") == [{"class": "barred"}]

    await world.registry.suspend_user("test", "alice", suspended=False)
    assert (await ask(world, node.stable_id)).status_code == 200

    world.clock.advance(timedelta(days=181))
    refused = await ask(world, node.stable_id)
    assert (refused.status_code, refused.json()["type"]) == (403, "key-expired")

    await world.registry.access.suspend_node("test", node.id, suspended=True)
    refused = await ask(world, node.stable_id)
    assert (refused.status_code, refused.json()["title"]) == (403, "the device laptop is suspended")

    await world.registry.delete_node("test", node.id)
    refused = await ask(world, node.stable_id)
    assert (refused.status_code, refused.json()["type"]) == (403, "not-in-tailnet")


async def test_a_new_owner_counts_at_once(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    await world.registry.set_policy("test", '{"tagOwners": {"tag:ci": ["alice@"]}}')
    assert (await ask(world, node.stable_id)).json()["user"] is not None
    await world.registry.set_tags("test", node.id, ["tag:ci"])
    assert (await ask(world, node.stable_id)).json()["user"] is None


async def test_a_browser_gets_a_page(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    answer = await ask(world, node.stable_id, Accept=HTML)
    assert answer.status_code == 200
    assert len(answer.content) + len(pages._FILES["door.css"]) < 20_000
    page = Markup(answer.text)
    assert "You are Alice <i>Doe</i>" in page.text
    assert "laptop.tailnet.internal" in page.text
    assert node.stable_id in page.text
    assert page.all("body") == [{"class": "open"}]
    css = pages._FILES["door.css"].decode()
    assert {each for each in page.classes if f".{each}" not in css} <= {"hue0"}

    outside = await ask(world, None, Accept=HTML)
    assert outside.status_code == 403
    assert "This request did not come through the tailnet" in Markup(outside.text).text


async def test_a_hostile_system_stays_text(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    hostinfo = node.observed.hostinfo
    bad = replace(hostinfo, OS="<script>\u202e" + "x" * 10_000)
    changed = replace(node, observed=replace(node.observed, hostinfo=bad))
    world.registry.writer.observe(changed)
    answer = await ask(world, node.stable_id, Accept=HTML)
    page = Markup(answer.text)
    assert "<script>U+202Exxx" in page.text
    assert len(answer.content) < 8_000


async def test_head_and_no_other_method(world: World) -> None:
    node = await world.join(1, "laptop", "alice")
    assert (await ask(world, node.stable_id, method="HEAD")).status_code == 200
    assert (await ask(world, node.stable_id, method="POST")).status_code == 405


def grant(sources: list[str], **capabilities: Any) -> FilterRule:
    named = {f"example.com/cap/{name}": values for name, values in capabilities.items()}
    return FilterRule(SrcIPs=sources, CapGrant=[CapGrant(Dsts=["100.64.0.9/32"], CapMap=named)])


async def test_capabilities_are_those_of_every_rule_about_the_node(world: World) -> None:
    await world.registry.set_policy("test", '{"nodeAttrs": [{"target": ["alice@"], "attr": ["custom:x"]}]}')
    node: Node = await world.join(1, "laptop", "alice")
    snapshot = world.registry.snapshot
    rules = [
        grant(["*"], everybody=[1]),
        grant([str(node.ipv4)], address=None),
        grant([f"{node.ipv6}/128"], address=[{"a": 1}]),
        grant(["100.64.0.0/10"], prefix=[2], everybody=[3]),
        grant([f"100.64.0.0-{node.ipv4}"], run=[4]),
        grant(["cap:custom:x"], attribute=[5]),
        grant(["100.127.0.0/16", "100.127.0.0-100.127.0.9", "::-::9", "cap:other"], others=[6]),
        FilterRule(SrcIPs=["*"], DstPorts=[]),
        FilterRule(SrcIPs=["*"], CapGrant=[CapGrant(Dsts=["100.64.0.9/32"], CapMap=UNSET)]),
    ]
    assert peer_capabilities(rules, node, snapshot) == {
        "example.com/cap/everybody": [1, 3],
        "example.com/cap/address": [{"a": 1}],
        "example.com/cap/prefix": [2],
        "example.com/cap/run": [4],
        "example.com/cap/attribute": [5],
    }


async def test_a_device_that_waits_is_told_so(world: World) -> None:
    await world.registry.access.set_joining("test", Joining(approval=True))
    node = await world.join(1, "laptop", "alice")
    refused = await ask(world, node.stable_id)
    assert (refused.status_code, refused.json()["type"]) == (403, "waiting")
    assert "waits for approval" in (await ask(world, node.stable_id, Accept=HTML)).text
    await world.registry.access.approve_node("test", node.id)
    assert (await ask(world, node.stable_id)).status_code == 200
