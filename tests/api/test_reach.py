"""Who reaches what, and what a draft would change."""

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.world import World

from doorward.api import reach as module
from doorward.api.reach import parse_goal
from doorward.errors import BadInput, NotFound
from doorward.policy import parse_policy
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
    return {way["source"]: (way["ports"], [rule["name"] for rule in way["rules"]]) for way in found["ways"]}


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


async def asked(client: httpx2.AsyncClient, path: str, **query: str) -> Any:
    answer = await client.get(f"/policy/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_rule_is_named_with_its_place(tailnet: World, admin: httpx2.AsyncClient) -> None:
    found = await asked(admin, "reach", source="laptop", destination="server:22")
    assert found["ways"][0]["rules"] == [{"name": "acls[1]", "line": 5, "column": 9}]
    assert (found["closest"], found["notes"]) == (None, [])


async def test_where_nobody_reaches_the_closest_rule_is_named(
    tailnet: World, admin: httpx2.AsyncClient
) -> None:
    found = await asked(admin, "reach", source="ann", destination="server:23")
    assert found["allowed"] is False
    assert found["closest"] == {
        "source": "laptop",
        "rule": {"name": "acls[1]", "line": 5, "column": 9},
        "missing": "it lets ann reach tag:server at ports 22,80-90; tcp 23 is not among that",
    }
    other = await asked(admin, "reach", source="desk", destination="server:22")
    assert other["closest"]["missing"].startswith("it lets 100.64.0.2/31 reach")
    own = await asked(admin, "reach", source="server", destination="desk:22")
    assert own["closest"] is None


async def test_what_else_stands_in_the_way_is_said(tailnet: World, admin: httpx2.AsyncClient) -> None:
    await tailnet.registry.suspend_user("cli", "ann", suspended=True)
    await admin.post("/nodes/laptop/expire")
    found = await asked(admin, "reach", source="laptop", destination="server:22")
    assert found["allowed"] is False
    assert found["notes"] == [
        "ann is suspended: nothing of theirs reaches anything, or is reached.",
        "The key of laptop has expired: its person has to sign in again.",
    ]
    await admin.post("/users", json={"name": "eve"})
    assert (await asked(admin, "reach", source="eve", destination="server:22"))["notes"] == [
        "eve has no node."
    ]


async def test_who_is_shut_out_or_kept_apart_is_named(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert (await asked(admin, "reach", source="laptop", destination="server:22"))["allowed"] is True
    await admin.put("/nodes/server/cuts/laptop", json={"expires_in": 3600})
    found = await asked(admin, "reach", source="laptop", destination="server:22")
    assert (found["allowed"], found["ways"]) == (False, [])
    assert found["notes"] == ["laptop and server are kept apart until 2026-01-02 04:04 UTC, by cli."]
    assert "laptop" not in await ways(admin, "who-can", destination="server:22")
    await admin.delete("/nodes/laptop/cuts/server")
    await admin.post("/nodes/server/suspend")
    found = await asked(admin, "reach", source="laptop", destination="server:22")
    assert found["allowed"] is False
    assert found["notes"] == ["server is suspended: it reaches nothing, and nothing reaches it."]
    assert found["closest"]["missing"].endswith("but somebody is shut out, or the two are kept apart")
    assert await ways(admin, "who-can", destination="server:22") == {}
    await admin.post("/nodes/server/restore")
    assert (await asked(admin, "reach", source="laptop", destination="server:22"))["allowed"] is True


async def test_tags_groups_and_hosts_may_be_asked_about(tailnet: World, admin: httpx2.AsyncClient) -> None:
    text = """{
        "tagOwners": {"tag:server": []}, "groups": {"group:g": ["bob"]}, "hosts": {"printer": "10.0.0.9"},
        "grants": [{"src": ["group:g"], "dst": ["printer", "tag:server"], "ip": ["80"]}],
    }"""
    assert (await admin.put("/policy", json={"text": text})).status_code == 200
    assert list(await ways(admin, "reach", source="group:g", destination="printer:80")) == ["desk"]
    assert list(await ways(admin, "who-can", destination="printer:80")) == ["desk"]
    assert await ways(admin, "reach", source="tag:server", destination="desk:80") == {}
    for source in ("group:x", "tag:x", "autogroup:x"):
        answer = await admin.get("/policy/reach", params={"source": source, "destination": "desk"})
        assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


async def test_many_are_asked_about_at_once_with_the_same_answer(
    tailnet: World, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [
        {"source": source, "destination": destination}
        for source in ("ann", "autogroup:member", "bob", "tag:server")
        for destination in ("server:22", "server:23", "10.0.0.7:443", "laptop")
    ]
    few = [await asked(admin, "reach", **each) for each in questions]
    monkeypatch.setattr(module, "AT_ONCE", 1)
    many = [await asked(admin, "reach", **each) for each in questions]
    for one, other in zip(few, many, strict=True):
        assert [one["ways"], one["allowed"], one["notes"]] == [
            other["ways"],
            other["allowed"],
            other["notes"],
        ]
        assert (one["closest"] is None) <= (other["closest"] is None)


SSH = """{
    "tagOwners": {"tag:server": []},
    "grants": [
        {"src": ["ann"], "dst": ["tag:server"], "ip": ["22", "tcp:80"]},
        {"src": ["bob"], "dst": ["10.0.0.0/25"], "ip": ["443"]},
    ],
    "ssh": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["autogroup:nonroot"]},
        {"action": "check", "src": ["ann"], "dst": ["tag:server"], "users": ["root"]},
    ],
}"""


async def test_who_can_as_an_account(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert (await admin.put("/policy", json={"text": SSH})).status_code == 200
    found = await asked(admin, "who-can", destination="server", account="root")
    assert [(way["source"], way["ssh"]["name"], way["check"]) for way in found["ways"]] == [
        ("laptop", "ssh[1]", True),
        ("phone", "ssh[1]", True),
    ]
    found = await asked(admin, "who-can", destination="server", account="web")
    assert [(way["source"], way["ssh"]["name"], way["check"]) for way in found["ways"]] == [
        ("laptop", "ssh[0]", False),
        ("phone", "ssh[0]", False),
    ]  # bob's rule is there, but no way to port 22
    assert (await asked(admin, "who-can", destination="server:80", account="root"))["allowed"]
    assert not (await asked(admin, "who-can", destination="desk", account="root"))["allowed"]
    answer = await admin.get("/policy/who-can", params={"destination": "10.0.0.7", "account": "root"})
    assert answer.status_code == 400


async def test_what_can_and_the_review(tailnet: World, admin: httpx2.AsyncClient) -> None:
    assert (await admin.put("/policy", json={"text": SSH})).status_code == 200
    server = {
        "destination": "server",
        "router": None,
        "owner": "tag:server",
        "services": "icmp/icmpv6, tcp 22,80, udp 22",
        "ssh": ["root after a check", "any account but root"],
        "rules": [
            {"name": "grants[0]", "line": 4, "column": 9},
            {"name": "ssh[1]", "line": 9, "column": 9},
            {"name": "ssh[0]", "line": 8, "column": 9},
        ],
    }
    beyond = {
        "destination": "10.0.0.0/25",
        "router": "server",
        "owner": "tag:server",
        "services": "port 443",
        "ssh": [],
        "rules": [{"name": "grants[1]", "line": 5, "column": 9}],
    }
    assert await asked(admin, "what-can", source="ann") == [server]
    assert await asked(admin, "what-can", source="bob") == [beyond]
    assert await asked(admin, "what-can", source="server") == []
    assert await asked(admin, "review") == [
        {"who": "ann", "person": True, "nodes": ["laptop", "phone"]} | server,
        {"who": "bob", "person": True, "nodes": ["desk"]} | beyond,
    ]
    assert len(await asked(admin, "review", source="bob")) == 1
    assert (await admin.get("/policy/review", params={"source": "nobody"})).status_code == 404


async def test_a_review_has_an_end(
    tailnet: World, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REVIEW_LIMIT", 2)
    answer = await admin.get("/policy/review")
    assert (answer.status_code, "more than 2 lines" in answer.json()["title"]) == (400, True)


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
        "lost": [
            "tcp 80-100, udp 80-90 from ann (phone)",
            "tcp 85-100 from bob (desk)",
            "tcp/udp 80-90 from ann (laptop)",
        ],
        "gained": ["ssh as any account from bob (desk)", "ssh as root from bob (desk)"],
    }
    assert (await admin.post("/policy/diff", json={"text": "{"})).status_code == 400


@given(st.text(max_size=30))
def test_any_goal_is_understood_or_refused(text: str) -> None:

    snapshot = Snapshot.build(Settings(domain="tailnet.internal", url=""), [], [], parse_policy("{}"), "{}")
    with pytest.raises((BadInput, NotFound)):
        parse_goal(snapshot, text, "tcp")
