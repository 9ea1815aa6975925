"""The audit log over the API."""

import contextlib
import hashlib
import itertools
import json
import sqlite3
from datetime import timedelta

import httpx2
from tests.support.world import AUDIT_KEY, World

from doorward.protocol.auditlog import read_checkpoint
from doorward.store import audit, checkpoints


async def test_events_in_pages_both_ways(admin: httpx2.AsyncClient, world: World) -> None:
    for name in ("ann", "bob", "eve"):
        await admin.post("/users", json={"name": name})
        world.clock.advance(timedelta(hours=1))
    newest = (await admin.get("/audit", params={"action": "user.create", "limit": 2})).json()
    assert [event["target"] for event in newest] == ["user:eve", "user:bob"]
    older = (await admin.get("/audit", params={"action": "user.", "before": newest[-1]["seq"]})).json()
    assert [event["target"] for event in older] == ["user:ann"]
    after = (await admin.get("/audit", params={"after": older[0]["seq"]})).json()
    assert [event["target"] for event in after] == ["user:bob", "user:eve"]
    since = (await admin.get("/audit", params={"since": "2026-01-02T04:30:00Z"})).json()
    assert [event["target"] for event in since] == ["user:eve"]
    assert (await admin.get("/audit", params={"actor": "user:ann"})).json() == []
    assert (await admin.get("/audit", params={"target": "user:bob"})).json()[0]["actor"] == "cli"
    assert (await admin.get("/audit", params={"before": 2, "after": 1})).status_code == 400
    assert (await admin.get("/audit", params={"limit": 1001})).json()["place"] == "$.limit"


async def test_each_event_carries_the_hash_of_the_one_before(admin: httpx2.AsyncClient) -> None:
    for name in ("ann", "bob"):
        await admin.post("/users", json={"name": name})
    events = (await admin.get("/audit", params={"after": 0})).json()
    assert events[0]["previous"] == "00" * 32
    for before, after in itertools.pairwise(events):
        assert after["previous"] == before["digest"]
        assert len(bytes.fromhex(after["digest"])) == hashlib.sha256().digest_size
    verdict = (await admin.get("/audit/verify")).json()
    assert verdict == {
        "ok": True,
        "first_bad": None,
        "problems": [],
        "events": len(events),
        "last": len(events),
        "digest": events[-1]["digest"],
        "confirmed": 0,
        "keys": [],
    }


async def test_a_changed_event_shows(admin: httpx2.AsyncClient, world: World) -> None:
    for name in ("ann", "bob"):
        await admin.post("/users", json={"name": name})
    (event,) = (await admin.get("/audit", params={"target": "user:ann"})).json()
    with contextlib.closing(sqlite3.connect(world.folder / "doorward.db")) as intruder:
        triggers = intruder.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'"
        )
        for (name,) in triggers.fetchall():
            intruder.execute(f"DROP TRIGGER {name}")
        intruder.execute("UPDATE audit SET actor = 'user:eve' WHERE seq = ?", (event["seq"],))
        intruder.commit()
    verdict = (await admin.get("/audit/verify")).json()
    assert (verdict["ok"], verdict["first_bad"]) == (False, event["seq"])
    text = f"event {event['seq']} was altered: it does not say what was sealed"
    assert verdict["problems"] == [{"seq": event["seq"], "fault": "altered", "text": text}]


async def test_an_event_says_from_where_and_in_which_request_it_was_asked_for(
    admin: httpx2.AsyncClient, world: World
) -> None:
    made = await admin.post("/users", json={"name": "ann"})
    _, token = await world.registry.create_api_token("cli", description="x")
    async with world.client(admin=False, token=token) as outside:
        changed = await outside.patch("/users/ann", json={"role": "auditor"})
        refused = await outside.post("/users", json={"name": "ann"})
    update, alone, create = (await admin.get("/audit", params={"limit": 3})).json()
    assert create["details"]["origin"] == {
        "source": "127.0.0.1",
        "request": made.headers["x-request-id"],
    }
    assert update["details"] == {
        "role": "auditor",
        "before": {"role": "member"},
        "origin": {"source": "127.0.0.1", "request": changed.headers["x-request-id"]},
    }
    assert "origin" not in alone["details"]
    assert refused.json()["request"] == refused.headers["x-request-id"]


async def test_a_person_and_a_node_are_found_on_either_side(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    node = await world.join(1, "laptop", "ann")
    await admin.patch("/users/ann", json={"suspended": True})
    world.clock.advance(timedelta(hours=1))

    async def actions(**params: str) -> list[str]:
        return [event["action"] for event in (await admin.get("/audit", params=params)).json()]

    found = await actions(user=" Ann ")
    assert (found[-1], set(found)) == ("user.create", {"user.create", *found})
    assert await actions(node="laptop") == ["node.register"]
    assert await actions(node=str(node.ipv4), action="node.") == ["node.register"]
    assert await actions(node="laptop", user="ann") == []
    await world.registry.delete_node("user:ann", node.id)
    assert await actions(node=node.stable_id) == ["node.delete", "node.register"]
    assert await actions(node=node.stable_id, user="ann") == ["node.delete"]
    assert await actions(node="laptop") == []
    assert await actions(node=node.stable_id, until="2026-01-02T03:30:00Z") == ["node.register"]


async def test_checkpoints_and_their_key(admin: httpx2.AsyncClient, world: World) -> None:
    assert (await admin.get("/audit/key")).json() == {"key": str(AUDIT_KEY.public())}
    assert (await admin.get("/audit/checkpoints")).json() == []
    database = world.registry.writer.database
    for name in ("ann", "bob"):
        await admin.post("/users", json={"name": name})
        seq, digest = await database.read(audit.head)
        await database.run(checkpoints.add, AUDIT_KEY.sign(seq, digest, world.clock.now()))
    first, second = (await admin.get("/audit/checkpoints")).json()
    assert read_checkpoint(json.dumps(first)) == AUDIT_KEY.sign(
        2, bytes.fromhex(first["digest"]), world.clock.now()
    )
    assert (await admin.get("/audit/checkpoints", params={"after": 2})).json() == [second]
    verdict = (await admin.get("/audit/verify")).json()
    assert (verdict["confirmed"], verdict["keys"]) == (3, [str(AUDIT_KEY.public())])
