"""Who reaches what, and what a draft would change."""

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.world import World

from doorward.api.reach import parse_goal, ways_to
from doorward.errors import BadInput, NotFound
from doorward.policy import parse_policy
from doorward.policy.reach import point_of, who_can
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot

POLICY = """{
    "tagOwners": {"tag:server": []},
    "acls": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
        {"action": "accept", "src": ["ann"], "dst": ["tag:server:22,80-90"]},
        {"action": "accept", "src": ["ann"], "proto": "udp", "dst": ["tag:server:53"]},
        {"action": "accept", "src": ["bob"], "dst": ["10.0.0.0/24:443"]},
    ],
    "grants": [{"src": ["100.64.0.2-100.64.0.3"], "dst": ["tag:server"], "ip": ["tcp:85-100"]}],
}"""


@pytest.fixture
async def tailnet(world: World, admin: httpx2.AsyncClient) -> World:
    """laptop and phone are ann's, desk is bob's; server is tagged and routes 10.0.0.0/24."""
    for name in ("ann", "bob"):
        await admin.post("/users", json={"name": name})
    answer = await admin.put(
        "/policy", json={"text": POLICY.replace("100.64.0.2-100.64.0.3", "100.64.0.2/31")}
    )
    assert answer.status_code == 200, answer.text
    await world.join(1, "laptop", "ann")
    await world.join(2, "phone", "ann")
    await world.join(3, "desk", "bob")
    server = await world.join(4, "server", None, "tag:server", RoutableIPs=["10.0.0.0/24"])
    await world.report(server)
    await admin.post("/nodes/server/routes", json={"approve": ["10.0.0.0/24"]})
    return world


async def ways(client: httpx2.AsyncClient, path: str, **query: str) -> dict[str, Any]:
    answer = await client.get(f"/policy/{path}", params=query)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["allowed"] is bool(found["ways"])
    return {way["source"]: (way["ports"], way["rules"]) for way in found["ways"]}


async def test_reach_names_ports_and_rules(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert await ways(admin, "reach", source="laptop", destination="server:22") == {
        "laptop": ("22", ["acls[1]"])
    }
    assert await ways(admin, "reach", source="laptop", destination="server:23") == {}
    assert await ways(admin, "reach", source="laptop", destination="server") == {
        "laptop": ("22,80-90", ["acls[1]"])
    }
    assert await ways(admin, "reach", source="phone", destination="server") == {
        "phone": ("22,80-100", ["grants[0]", "acls[1]"])
    }
    assert await ways(admin, "reach", source="ann", destination="server:53", protocol="udp") == {
        "laptop": ("53", ["acls[2]"]),
        "phone": ("53", ["acls[2]"]),
    }
    assert await ways(admin, "reach", source="laptop", destination="desk") == {}


async def test_a_person_reaches_their_own(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert await ways(admin, "reach", source="laptop", destination="phone") == {
        "laptop": ("all", ["acls[0]"])
    }


async def test_an_address_behind_a_router(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert await ways(admin, "reach", source="bob", destination="10.0.0.7:443") == {
        "desk": ("443", ["acls[3]"])
    }
    assert await ways(admin, "reach", source="ann", destination="10.0.0.7:443") == {}
    missing = await admin.get("/policy/who-can", params={"destination": "10.0.1.7"})
    assert (missing.status_code, missing.json()["type"]) == (404, "not-found")


async def test_who_can(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert await ways(admin, "who-can", destination="server:85") == {
        "desk": ("85-100", ["grants[0]"]),
        "laptop": ("80-90", ["acls[1]"]),
        "phone": ("80-100", ["grants[0]", "acls[1]"]),
    }
    assert await ways(admin, "who-can", destination="[fd7a:115c:a1e0::4]:22") == {
        "laptop": ("22", ["acls[1]"]),
        "phone": ("22", ["acls[1]"]),
    }
    assert set(await ways(admin, "who-can", destination="server", protocol="icmp")) == {"laptop", "phone"}
    assert await ways(admin, "who-can", destination="server", protocol="47") == {}


@pytest.mark.parametrize(
    ("destination", "protocol", "status"),
    [
        ("nowhere", "tcp", 404),
        ("server:0", "tcp", 400),
        ("server:65536", "tcp", 400),
        ("server:ssh", "tcp", 400),
        ("server", "quic", 400),
        ("server", "256", 400),
    ],
)
async def test_questions_that_make_no_sense(
    tailnet: World, admin: httpx2.AsyncClient, destination: str, protocol: str, status: int
) -> None:
    query = {"destination": destination, "protocol": protocol}
    assert (await admin.get("/policy/who-can", params=query)).status_code == status


async def test_the_answers_agree_with_the_policy_s_own_judgement(tailnet: World) -> None:
    """Every pair of nodes and some ports, asked here and of the rules themselves: filters and rules must agree."""
    snapshot = tailnet.registry.snapshot
    nodes = list(snapshot.nodes.values())
    for target in nodes:
        for port in (21, 22, 80, 85, 95, 443):
            for protocol, number in (("tcp", 6), ("udp", 17)):
                goal = parse_goal(snapshot, f"{target.ipv4}:{port}", protocol)
                told = {way.source: set(way.rules) for way in ways_to(snapshot, goal, nodes)}
                judged = who_can(snapshot.policy, point_of(snapshot.policy, target.id), port, number)
                judged.pop(target.id, None)
                assert told == {
                    snapshot.nodes[node_id].name: {rule.origin for rule in rules}
                    for node_id, rules in judged.items()
                }, (target.name, port, protocol)


async def test_diff_says_who_gains_and_loses_what(tailnet: World, admin: httpx2.AsyncClient) -> None:
    same = await admin.post("/policy/diff", json={"text": (await admin.get("/policy")).json()["text"]})
    assert same.json() == []
    text = """{
        "tagOwners": {"tag:server": []},
        "acls": [
            {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
            {"action": "accept", "src": ["ann"], "dst": ["tag:server:22"]},
            {"action": "accept", "src": ["ann"], "proto": "udp", "dst": ["tag:server:53"]},
            {"action": "accept", "src": ["bob"], "dst": ["10.0.0.0/24:443"]},
        ],
        "ssh": [{"action": "accept", "src": ["bob"], "dst": ["tag:server"], "users": ["root", "autogroup:nonroot"]}],
    }"""
    (diff,) = (await admin.post("/policy/diff", json={"text": text})).json()
    assert diff == {
        "node": "server",
        "lost": ["ports 80-90 from laptop, phone", "tcp 85-100 from 100.64.0.2/31"],
        "gained": ["ssh as any account, root from desk"],
    }
    assert (await admin.post("/policy/diff", json={"text": "{"})).status_code == 400


@given(st.text(max_size=30))
def test_any_goal_is_understood_or_refused(text: str) -> None:

    snapshot = Snapshot.build(Settings(domain="tailnet.internal", url=""), [], [], parse_policy("{}"), "{}")
    with pytest.raises((BadInput, NotFound)):
        parse_goal(snapshot, text, "tcp")
