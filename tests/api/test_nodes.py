"""Nodes and registrations over the API."""

from datetime import timedelta
from ipaddress import ip_address

import httpx2
import pytest
from tests.support.nouns import machine_key, node_key
from tests.support.world import CAPVER, World

from doorward.model import Role
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterRequest

TAGS = '{"tagOwners": {"tag:web": [], "tag:db": []}}'


async def people(admin: httpx2.AsyncClient, *names: str) -> None:
    for name in names:
        await admin.post("/users", json={"name": name})


async def test_a_node_tells_all(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    node = await world.join(
        1, "Ann's Laptop", "ann", RoutableIPs=["10.0.0.0/24", "nonsense"], sshHostKeys=["ssh-ed25519 AAAA"]
    )
    await world.report(node, "192.0.2.7:41641", "[2001:db8::7]:41641")
    (told,) = (await admin.get("/nodes")).json()
    assert told == {
        "id": 1,
        "stable_id": node.stable_id,
        "name": "ann-s-laptop",
        "fqdn": "ann-s-laptop.tailnet.internal",
        "user": "ann",
        "tags": [],
        "addresses": ["100.64.0.1", "fd7a:115c:a1e0::1"],
        "online": True,
        "last_seen": None,
        "routes": [{"prefix": "10.0.0.0/24", "advertised": True, "approved": False, "primary": False}],
        "expiry": "2026-07-01T03:04:05Z",
        "expired": False,
        "ephemeral": False,
        "created": "2026-01-02T03:04:05Z",
        "hostname": "Ann's Laptop",
        "os": "linux",
        "client_version": "1.102.4-ERR-BuildInfo",
        "cap_version": 140,
        "endpoints": ["192.0.2.7:41641", "[2001:db8::7]:41641"],
        "came_from": "",
        "relay": "900 Home",
        "ssh": True,
        "ssh_host_keys": ["ssh-ed25519 AAAA"],
        "system": False,
        "suspended": False,
        "approved": True,
        "tab": False,
        "tab_for": [],
    }


@pytest.mark.parametrize(
    "text",
    [
        "laptop",
        "LAPTOP",
        "laptop.tailnet.internal",
        "laptop.tailnet.internal.",
        "1",
        "100.64.0.1",
        "fd7a:115c:a1e0::1",
    ],
)
async def test_a_node_is_found_by_whatever_names_it(
    admin: httpx2.AsyncClient, world: World, text: str
) -> None:
    await people(admin, "ann")
    await world.join(1, "laptop", "ann")
    assert (await admin.get(f"/nodes/{text}")).json()["name"] == "laptop"


async def test_rename_tag_and_untag(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    await world.registry.set_policy("cli", TAGS)
    await world.join(1, "server", "ann")
    renamed = (await admin.patch("/nodes/server", json={"name": "web1"})).json()
    assert renamed["fqdn"] == "web1.tailnet.internal"
    tagged = (await admin.patch("/nodes/web1", json={"tags": ["tag:web", "tag:db"]})).json()
    assert (tagged["tags"], tagged["user"], tagged["expiry"]) == (
        ["tag:db", "tag:web"],
        "tagged-devices",
        None,
    )
    both = (await admin.patch("/nodes/web1", json={"name": "web2", "tags": []})).json()
    assert (both["name"], both["tags"], both["user"]) == ("web2", [], "ann")


async def test_bad_changes_change_nothing(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    await world.join(1, "laptop", "ann")
    await world.join(2, "server", "ann")
    before = (await admin.get("/nodes")).json()
    for path, body, status in (
        ("/nodes/laptop", {}, 400),
        ("/nodes/laptop", {"name": "server"}, 409),
        ("/nodes/laptop", {"name": "not a label"}, 400),
        ("/nodes/laptop", {"tags": ["tag:unknown"]}, 400),
        ("/nodes/laptop", {"tags": ["tag:unknown"], "name": "other"}, 400),
        ("/nodes/nowhere", {"name": "x"}, 404),
    ):
        assert (await admin.patch(path, json=body)).status_code == status, body
    assert (await admin.get("/nodes")).json() == before


async def test_expire_and_delete(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    await world.join(1, "laptop", "ann")
    assert (await admin.post("/nodes/laptop/expire")).json()["expired"] is True
    assert (await admin.delete("/nodes/laptop")).status_code == 204
    assert (await admin.get("/nodes/laptop")).status_code == 404


async def test_routes_are_approved_and_rejected(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    node = await world.join(1, "router", "ann", RoutableIPs=["10.0.0.0/24", "0.0.0.0/0", "::/0"])
    await world.report(node)

    async def change(**body: list[str]) -> dict[str, str]:
        answer = await admin.post("/nodes/router/routes", json=body)
        return {
            route["prefix"]: "".join(
                letter for letter in ("advertised", "approved", "primary") if route[letter]
            )
            for route in answer.json()["routes"]
        }

    assert await change(approve=["10.0.0.0/24", "192.168.1.1"]) == {
        "0.0.0.0/0": "advertised",
        "10.0.0.0/24": "advertisedapprovedprimary",
        "192.168.1.1/32": "approved",
        "::/0": "advertised",
    }
    exits = await change(approve=["0.0.0.0/0"], reject=["192.168.1.1/32"])
    assert exits["0.0.0.0/0"] == exits["::/0"] == "advertisedapproved"
    assert "192.168.1.1/32" not in exits
    wrong = await admin.post("/nodes/router/routes", json={"approve": ["10.0.0.0/24", "10.0.0.1/8"]})
    assert (wrong.status_code, wrong.json()["place"]) == (400, "$.approve[1]")
    both = await admin.post(
        "/nodes/router/routes", json={"approve": ["10.0.0.0/24"], "reject": ["10.0.0.0/24"]}
    )
    assert both.status_code == 400


async def test_a_node_waits_and_is_approved(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann", "bob")
    code = (await world.ask(1, "laptop")).link_code
    (waiting,) = (await admin.get("/registrations")).json()
    assert (waiting["id"], waiting["hostname"], waiting["expires"]) == (1, "laptop", "2026-01-02T03:19:05Z")
    assert code not in str(waiting)
    unclear = await admin.post("/registrations/approve", json={"link": code})
    assert "--user" in unclear.json()["cure"]
    link = f"http://127.0.0.1:8080/join/{code}"
    node = (await admin.post("/registrations/approve", json={"link": link, "user": "bob"})).json()
    assert (node["name"], node["user"]) == ("laptop", "bob")
    assert (await admin.get("/registrations")).json() == []
    assert (await admin.post("/registrations/approve", json={"link": "1", "user": "bob"})).status_code == 409


async def test_approval_by_number_for_the_only_person(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    await world.ask(1, "laptop")
    assert (await admin.post("/registrations/approve", json={"link": "1"})).json()["user"] == "ann"
    await world.ask(2, "late")
    world.clock.advance(timedelta(minutes=15))
    assert (await admin.post("/registrations/approve", json={"link": "2"})).status_code == 404


async def test_nobody_lets_a_node_in_as_somebody_greater(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann", "role": "owner"})
    await world.ask(1, "laptop")
    _, secret = await world.registry.create_api_token("cli", description="it", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as helper:
        for body in ({"link": "1"}, {"link": "1", "user": "ann"}):
            assert (await helper.post("/registrations/approve", json=body)).status_code == 403
    assert (await admin.get("/nodes")).json() == []


async def test_doorward_s_own_node_is_out_of_the_way(admin: httpx2.AsyncClient, world: World) -> None:
    _, secret = await world.registry.create_auth_key("system", user=None, system=True)
    await world.ask(1, "doorward", secret)
    assert (await admin.get("/nodes")).json() == []
    assert (await admin.get("/keys")).json() == []
    (own,) = (await admin.get("/nodes?all=true")).json()
    assert own["system"] is True
    assert (await admin.get("/nodes/doorward")).status_code == 200
    for answer in (
        await admin.delete("/nodes/doorward"),
        await admin.post("/nodes/doorward/expire"),
        await admin.patch("/nodes/doorward", json={"name": "x"}),
        await admin.post("/nodes/doorward/routes", json={"approve": ["0.0.0.0/0"]}),
    ):
        assert answer.status_code == 409


async def test_a_node_is_asked_whether_it_is_there(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    laptop = await world.join(1, "laptop", "ann")
    await world.join(2, "server", "ann")
    assert (await admin.post("/nodes/laptop/ping", json={})).status_code == 503
    await world.report(laptop, "192.0.2.7:41641")
    answer = (await admin.post("/nodes/laptop/ping", json={"source": "server"})).json()
    assert answer == {
        "node": "laptop",
        "source": "server",
        "seconds": 0.0042,
        "endpoint": "192.0.2.7:41641",
        "relay": "",
    }
    assert (await admin.post("/nodes/laptop/ping", json={})).json()["source"] == ""
    assert (await admin.post("/nodes/laptop/ping", json={"source": "laptop"})).status_code == 400
    assert (await admin.post("/nodes/laptop/ping", json={"source": "nobody"})).status_code == 404


POSTURES = """{"postures": {"posture:ok": ["custom:ok == true"], "posture:new": ["node:tsVersion >= '1.200'"]},
    "grants": []}"""


async def test_attributes_are_said_shown_and_taken_back(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    await world.registry.set_policy("cli", POSTURES)
    await world.join(1, "laptop", "ann")
    said = await admin.put(
        "/nodes/laptop/attributes/custom:ok", json={"value": True, "expires_in": 3600, "comment": "on call"}
    )
    told = said.json()
    assert told == (await admin.get("/nodes/laptop/attributes")).json()
    (mine,) = [one for one in told["attributes"] if one["custom"]]
    assert mine == {"key": "custom:ok", "value": True, "custom": True, "expires": "2026-01-02T04:04:05Z"}
    assert {"key": "node:os", "value": "linux", "custom": False, "expires": None} in told["attributes"]
    assert told["postures"] == [
        {"name": "posture:ok", "met": True, "failing": []},
        {"name": "posture:new", "met": False, "failing": ["node:tsVersion >= '1.200'"]},
    ]
    gone = (await admin.delete("/nodes/laptop/attributes/custom:ok")).json()
    assert not any(one["custom"] for one in gone["attributes"])
    assert not gone["postures"][0]["met"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/nodes/laptop/attributes/node:os", {"value": "macos"}),
        ("/nodes/laptop/attributes/custom:a", {"value": "a b"}),
        ("/nodes/laptop/attributes/custom:a", {"value": 1, "expires_in": 0}),
        ("/nodes/laptop/attributes/custom:a", {"value": None}),
    ],
)
async def test_what_cannot_be_said_is_refused(
    admin: httpx2.AsyncClient, world: World, path: str, body: dict[str, object]
) -> None:
    await people(admin, "ann")
    await world.join(1, "laptop", "ann")
    assert (await admin.put(path, json=body)).status_code == 400


async def test_a_node_is_suspended_and_restored(admin: httpx2.AsyncClient, world: World) -> None:
    await people(admin, "ann")
    await world.join(1, "laptop", "ann")
    assert (await admin.post("/nodes/laptop/suspend")).json()["suspended"] is True
    assert (await admin.get("/nodes/laptop")).json()["suspended"] is True
    assert (await admin.post("/nodes/laptop/restore")).json()["suspended"] is False
    assert (await admin.post("/nodes/nothing/suspend")).status_code == 404
    _, secret = await world.registry.create_auth_key("test", user=None, system=True)
    own = (await world.ask(9, "own", secret)).node
    assert own is not None
    refused = await admin.post(f"/nodes/{own.name}/suspend")
    assert (refused.status_code, "doorward's own node" in refused.json()["title"]) == (409, True)


async def test_a_device_waits_for_an_administrator_where_that_is_the_rule(
    admin: httpx2.AsyncClient, world: World
) -> None:
    await people(admin, "ann")
    await admin.patch("/joining", json={"approval": True})
    await world.join(1, "laptop", "ann")
    assert (await admin.get("/nodes/laptop")).json()["approved"] is False
    assert (await admin.post("/nodes/laptop/approve")).json()["approved"] is True
    code = (await world.ask(2, "desk")).link_code
    approved = await admin.post("/registrations/approve", json={"link": code})
    assert approved.json()["approved"] is True  # whoever approves over the API is an administrator


async def test_a_registration_says_where_it_comes_from_and_what_the_machine_is_already(
    admin: httpx2.AsyncClient, world: World
) -> None:
    await people(admin, "ann", "bob")
    await world.join(1, "laptop", "ann")
    request = RegisterRequest(Version=CAPVER, NodeKey=node_key(7), Hostinfo=Hostinfo(Hostname="laptop"))
    await world.registry.admission.register(machine_key(1), request, ip_address("192.0.2.7"))
    (waiting,) = (await admin.get("/registrations")).json()
    assert (waiting["came_from"], waiting["known_as"]) == ("192.0.2.7", [{"node": "laptop", "user": "ann"}])
    denied = await admin.post("/registrations/deny", json={"link": str(waiting["id"])})
    assert denied.json() == waiting
    assert (await admin.get("/registrations")).json() == []
    again = await admin.post("/registrations/approve", json={"link": str(waiting["id"]), "user": "bob"})
    assert (again.status_code, again.json()["title"]) == (409, "this device was denied already")
