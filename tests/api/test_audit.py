"""The audit log over the API."""

import contextlib
import hashlib
import itertools
import sqlite3
from datetime import timedelta

import httpx2
from tests.support.world import World


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
    assert (await admin.get("/audit/verify")).json() == {"ok": True, "first_bad": None}


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
    assert (await admin.get("/audit/verify")).json() == {"ok": False, "first_bad": event["seq"]}
