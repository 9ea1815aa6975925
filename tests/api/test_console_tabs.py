"""What a page asks for its terminal."""

from typing import Any

import httpx2
import msgspec
import pytest
from tests.api.test_feeds import Listener
from tests.support.consoles import HOST_KEY, POLICY, furnish, page
from tests.support.means import ORIGIN, give_identity
from tests.support.nouns import node_key
from tests.support.world import World

from doorward.api import console_types as types
from doorward.api import feeds
from doorward.api import tabs as shown
from doorward.errors import Unavailable
from doorward.model import Node
from doorward.store import signin
from doorward.tailnet.registry import Registry

KEY = str(node_key(77))


@pytest.fixture
async def nodes(world: World) -> dict[str, Node]:
    world.registry.tabs.region = 900
    return await furnish(world)


async def open_tab(client: httpx2.AsyncClient, node: Node, account: str = "root", **more: Any) -> Any:
    body = {"node_key": KEY, "machine": node.id, "account": account} | more
    return await client.post("/console/tabs", json=body)


async def test_a_page_has_its_tab_made_a_node_and_is_told_all_that_it_needs(
    world: World, nodes: dict[str, Node]
) -> None:
    async with page(world) as client:
        answer = await open_tab(client, nodes["server"])
        assert answer.status_code == 201, answer.text
        tab = answer.json()
        assert (tab["state"], tab["grace"], tab["relays"]["home"]) == ("on", 900, 900)
        node = world.registry.snapshot.nodes[tab["id"]]
        assert tab["addresses"] == [str(address) for address in node.addresses]
        (target,) = tab["targets"]
        server = nodes["server"]
        assert target == {
            "machine": server.id,
            "name": "server",
            "dns_name": world.registry.snapshot.fqdn(server),
            "node_key": str(server.node_key),
            "addresses": [str(address) for address in server.addresses],
            "home_region": 900,
            "online": True,
            "ssh": "tailscale",
            "host_keys": server.observed.hostinfo.sshHostKeys,
            "host_keys_from": "node",
            "accounts": ["root"],
            "account": "root",
            "check": True,
        }
        added = await client.post(
            f"/console/tabs/{tab['id']}/targets", json={"machine": server.id, "account": "deploy"}
        )
        assert (added.json()["accounts"], added.json()["account"]) == (["root", "deploy"], "deploy")
        other = await client.post(
            f"/console/tabs/{tab['id']}/targets", json={"machine": nodes["laptop"].id, "account": "ann"}
        )
        assert (other.json()["ssh"], other.json()["host_keys_from"]) == ("unknown", "none")
        seen = (await client.get(f"/console/tabs/{tab['id']}")).json()
        assert [one["name"] for one in seen["targets"]] == ["server", "laptop"]
        listed = {one["name"]: (one["tab"], one["tab_for"]) for one in (await _admin(world, "/nodes"))}
        open_for = [("server", "root"), ("server", "deploy"), ("laptop", "ann")]
        assert listed[node.name] == (True, [{"machine": name, "account": each} for name, each in open_for])
        assert listed["server"] == (False, [])
        left = await client.post(
            f"/console/tabs/{tab['id']}/leave", content=b"", headers={"Content-Type": "text/plain"}
        )
        assert left.status_code == 204
        over = (await client.get(f"/console/tabs/{tab['id']}")).json()
        assert (over["state"], over["over"], over["reason"]) == ("over", "left", "Its page was closed.")


async def test_who_is_linked_to_nobody_any_more_is_told_so_and_by_what(
    world: World, nodes: dict[str, Node]
) -> None:
    user = world.registry.snapshot.user_by_name("ann")
    assert user is not None
    await give_identity(world, user)
    async with page(world, method="provider:corp") as client:
        tab = (await open_tab(client, nodes["server"])).json()
        await world.registry.outside.unlink("test", "ann", "corp")
        for answer in (
            await client.get(f"/console/tabs/{tab['id']}"),
            await open_tab(client, nodes["server"]),
            await client.post(
                f"/console/tabs/{tab['id']}/targets", json={"machine": nodes["server"].id, "account": "root"}
            ),
        ):
            assert (answer.status_code, answer.json()["type"]) == (401, "not-linked")
            assert "your sign-in by corp is not linked to a user" in answer.json()["title"]
            assert "Ask an administrator to link you to corp" in answer.json()["cure"]
    # Who has only signed out is told nothing of links.
    async with page(world, secret="other") as client:
        await world.registry.writer.database.run(
            signin.end_sessions, world.clock.now(), user_id=user.id, method="passkey:1"
        )
        assert (await open_tab(client, nodes["server"])).json()["type"] == "unauthenticated"


async def _admin(world: World, path: str) -> Any:
    async with world.client() as client:
        return (await client.get(path)).json()


@pytest.mark.parametrize(
    ("name", "account", "status", "kind", "words"),
    [
        ("server", "postgres", 403, "not-allowed", "lets you in to server as postgres"),
        ("desk", "root", 404, "no-such-machine", "no such machine"),
        ("db", "root", 404, "no-such-machine", "no such machine"),
        ("server", "a b", 400, "bad-input", ""),
        ("server", "root\n", 400, "bad-input", ""),
        ("server", "", 400, "bad-input", ""),
    ],
)
async def test_what_is_not_for_them_is_refused(
    world: World, nodes: dict[str, Node], name: str, account: str, status: int, kind: str, words: str
) -> None:
    async with page(world) as client:
        refused = await open_tab(client, nodes[name], account)
    assert (refused.status_code, refused.json()["type"]) == (status, kind)
    assert words in refused.json()["title"]
    assert not world.registry.snapshot.tabs


async def test_what_the_policy_refuses_is_on_record(world: World, nodes: dict[str, Node]) -> None:
    async with page(world) as client:
        tab = (await open_tab(client, nodes["server"])).json()["id"]
        body = {"machine": nodes["server"].id, "account": "postgres"}
        refused = await client.post(f"/console/tabs/{tab}/targets", json=body)
        assert refused.json()["type"] == "not-allowed"
    (event,) = await world.registry.audit(action="tab.refuse")
    assert (event.actor, event.target) == ("user:ann", f"node:{nodes['server'].stable_id}")
    why = 'no rule under "ssh" of the policy lets you in to server as postgres'
    said = {name: value for name, value in event.details.items() if name != "origin"}
    assert said == {"account": "postgres", "name": "server", "session": 1, "why": why}


async def test_the_missing_rule_is_named(world: World, nodes: dict[str, Node]) -> None:
    await world.registry.set_policy("test", POLICY.replace('"src": ["ann"], "dst"', '"src": ["bob"], "dst"'))
    async with page(world, "bob") as client:
        refused = await open_tab(client, nodes["db"])
    assert refused.json()["type"] == "not-allowed"
    assert refused.json()["title"] == "No rule lets you or your groups reach TCP port 22 of db"
    assert refused.json()["cure"]


@pytest.mark.parametrize("key", ["nodekey:00", "mkey:" + "0" * 64, KEY.upper(), ""])
async def test_a_key_is_a_node_key(world: World, nodes: dict[str, Node], key: str) -> None:
    async with page(world) as client:
        assert (await open_tab(client, nodes["server"], node_key=key)).status_code == 400


async def test_a_machine_that_is_away_is_said_to_be(world: World, nodes: dict[str, Node]) -> None:
    world.registry.observations._left(nodes["server"].id)
    async with page(world) as client:
        refused = await open_tab(client, nodes["server"])
    assert (refused.status_code, refused.json()["type"]) == (409, "offline")


async def test_a_device_alone_opens_nothing(world: World, nodes: dict[str, Node]) -> None:
    async def from_laptop(scope: Any, receive: Any, send: Any) -> None:
        state = {"identity": nodes["laptop"].stable_id, "listener": "door"}
        await world.app({**scope, "state": state}, receive, send)

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(from_laptop),
        base_url=f"{ORIGIN}/api/v1",
        headers={"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN},
    ) as client:
        refused = await open_tab(client, nodes["server"])
        assert (refused.status_code, refused.json()["type"]) == (403, "fresh-proof-needed")
        assert (await client.get("/console/tabs/1")).json()["type"] == "fresh-proof-needed"


async def test_another_session_and_another_person_know_nothing_of_it(
    world: World, nodes: dict[str, Node]
) -> None:
    async with page(world) as client:
        tab = (await open_tab(client, nodes["server"])).json()["id"]
    for name, secret in (("ann", "another"), ("bob", "cookie")):
        async with page(world, name, secret=secret) as client:
            assert (await client.get(f"/console/tabs/{tab}")).json()["type"] == "tab-over"
            body = {"machine": nodes["desk" if name == "bob" else "laptop"].id, "account": "x"}
            assert (await client.post(f"/console/tabs/{tab}/targets", json=body)).json()["type"] == "tab-over"
            assert (await client.post(f"/console/tabs/{tab}/leave")).status_code == 204
    assert tab in world.registry.snapshot.nodes


async def test_nothing_can_be_changed_about_a_tab_but_that_it_goes(
    world: World, nodes: dict[str, Node]
) -> None:
    async with page(world) as client:
        tab = (await open_tab(client, nodes["server"])).json()["id"]
        name = world.registry.snapshot.nodes[tab].name
        async with world.client() as admin:
            for method, path, body in (
                ("PATCH", f"/nodes/{name}", {"tags": ["tag:server"]}),
                ("PATCH", f"/nodes/{name}", {"name": "server2"}),
                ("POST", f"/nodes/{name}/routes", {"approve": ["10.0.0.0/8"]}),
            ):
                refused = await admin.request(method, path, json=body)
                assert (refused.status_code, refused.json()["title"]) == (409, f"{name} is a browser's tab")
            assert (await admin.delete(f"/nodes/{name}")).status_code == 204
        over = (await client.get(f"/console/tabs/{tab}")).json()
        assert (over["over"], over["reason"]) == ("removed", "An administrator removed it.")


ELSEWHERE = {
    "another site": {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"},
    "another origin of this site": {"Origin": "https://other.door.test", "Sec-Fetch-Site": "same-site"},
    "another port": {"Origin": f"{ORIGIN}:8443", "Sec-Fetch-Site": "same-site"},
    "a sandbox": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "a form of an old browser": {"Origin": "https://evil.test", "Sec-Fetch-Site": ""},
    "nowhere": {"Origin": "", "Sec-Fetch-Site": "none"},
}


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_a_page_elsewhere_uses_nobodys_cookie(
    world: World, nodes: dict[str, Node], headers: dict[str, str]
) -> None:
    async with page(world) as client:
        tab = (await open_tab(client, nodes["server"])).json()["id"]
        before = await world.registry.audit(limit=1)
        client.headers.update(headers)
        for name in [name for name, value in headers.items() if not value]:
            del client.headers[name]
        new = {"node_key": str(node_key(78)), "machine": nodes["laptop"].id, "account": "ann"}
        for path, body in (
            ("/console/tabs", new),
            (f"/console/tabs/{tab}/targets", {"machine": nodes["laptop"].id, "account": "ann"}),
            (f"/console/tabs/{tab}/leave", None),
            (f"/console/machines/{nodes['laptop'].id}/host-key", {"key": HOST_KEY}),
        ):
            # As a script sends it, and as forms and beacons can without being asked about first.
            for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                sent = b"" if body is None else msgspec.json.encode(body)
                refused = await client.post(path, content=sent, headers={"Content-Type": kind})
                assert refused.status_code == 403, (path, kind, refused.text)
                assert "access-control-allow-origin" not in refused.headers
    assert list(world.registry.snapshot.tabs) == [tab]
    assert await world.registry.audit(limit=1) == before


async def test_who_opens_terminals_in_a_loop_is_slowed(world: World, nodes: dict[str, Node]) -> None:
    async with page(world) as client:
        for _ in range(60):
            assert (await open_tab(client, nodes["server"])).status_code == 201
        assert (await open_tab(client, nodes["server"])).json()["type"] == "rate-exceeded"


async def test_an_answer_about_a_host_key_is_kept(world: World, nodes: dict[str, Node]) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    async with page(world) as client:
        for name, status in (("laptop", 204), ("server", 409), ("desk", 404)):
            answer = await client.post(f"/console/machines/{nodes[name].id}/host-key", json={"key": key})
            assert answer.status_code == status
        tab = (await open_tab(client, nodes["laptop"], "ann")).json()
    (target,) = tab["targets"]
    assert (target["ssh"], target["host_keys"], target["host_keys_from"]) == ("other", [key], "you")
    assert HOST_KEY


async def test_its_page_hears_what_becomes_of_it(world: World, nodes: dict[str, Node]) -> None:
    user = world.registry.snapshot.users[1]
    async with page(world) as client:
        tab = (await open_tab(client, nodes["server"])).json()["id"]
        session = (await world.registry.writer.database.read(signin.open_sessions, world.clock.now()))[0]
        stream = world.context.feeds.listen(user.id, session)
        listener = Listener(stream)
        assert await listener.comment() == b": listening\n\n"
        await client.post(
            f"/console/tabs/{tab}/targets", json={"machine": nodes["server"].id, "account": "deploy"}
        )
        name, data = await listener.next()
        assert (name, data["id"], data["state"]) == ("tab", tab, "on")
        assert data["target_changed"][0]["accounts"] == ["root", "deploy"]
        await client.post(f"/console/tabs/{tab}/leave")
        name, data = await listener.next()
        assert (name, data["state"], data["over"], data["reason"]) == (
            "tab",
            "over",
            "left",
            "Its page was closed.",
        )
        await stream.aclose()  # type: ignore[attr-defined]


async def test_its_page_hears_later_what_the_store_could_not_say_at_once(
    world: World, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "KEEP_ALIVE", 0.01)
    away: list[str] = []
    real = shown.targets

    async def targets(registry: Registry, node: Node) -> tuple[types.Target, ...]:
        if away:
            raise Unavailable(away.pop(), cure="Wait.")
        return await real(registry, node)

    monkeypatch.setattr(shown, "targets", targets)
    async with page(world) as client:
        tab = (await open_tab(client, nodes["server"])).json()["id"]
        session = (await world.registry.writer.database.read(signin.open_sessions, world.clock.now()))[0]
        stream = world.context.feeds.listen(1, session)
        listener = Listener(stream)
        assert await listener.comment() == b": listening\n\n"
        away.append("the store is away")
        await client.post(
            f"/console/tabs/{tab}/targets", json={"machine": nodes["server"].id, "account": "deploy"}
        )
        _, data = await listener.next()
        assert away == []
        assert data["target_changed"][0]["accounts"] == ["root", "deploy"]
        await stream.aclose()  # type: ignore[attr-defined]
