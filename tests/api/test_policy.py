"""The policy over the API."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.world import World

from doorward.model import Role
from doorward.policy import DEFAULT_POLICY

OPEN = """{
    // everybody to everything
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
}
"""
BROKEN = '{\n  "grants": [{"src": ["group:none"], "dst": ["*"], "ip": ["*"]}],\n  "colour": 1,\n}\n'


async def test_get_set_history_rollback(admin: httpx2.AsyncClient) -> None:
    first = (await admin.get("/policy")).json()
    assert (first["text"], first["version"], first["actor"]) == (DEFAULT_POLICY, 1, "system")
    assert (first["comment"], first["owner"]) == ("default", None)
    version = (await admin.put("/policy", json={"text": OPEN, "comment": "for the party"})).json()
    assert (version["id"], version["actor"], version["size"], version["current"], version["comment"]) == (
        2,
        "cli",
        len(OPEN),
        True,
        "for the party",
    )
    assert (await admin.get("/policy")).json()["text"] == OPEN
    history = (await admin.get("/policy/history")).json()
    assert [(each["id"], each["current"]) for each in history] == [(2, True), (1, False)]
    assert len((await admin.get("/policy/history?limit=1")).json()) == 1
    older = (await admin.get("/policy/history?before=2")).json()
    assert [(each["id"], each["current"]) for each in older] == [(1, False)]
    assert (await admin.post("/policy/rollback", json={})).json()["id"] == 3
    assert (await admin.get("/policy")).json()["text"] == DEFAULT_POLICY
    assert (await admin.post("/policy/rollback", json={"version": 2})).status_code == 200
    assert (await admin.get("/policy")).json()["text"] == OPEN
    assert (await admin.post("/policy/rollback", json={"version": 99})).status_code == 404


async def test_the_first_version_has_none_before_it(admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/policy/rollback", json={})).status_code == 409


async def test_a_version_with_its_text_and_what_it_changed(admin: httpx2.AsyncClient) -> None:
    await admin.put("/policy", json={"text": '{\n"grants": [],\n}\n'})
    await admin.put("/policy", json={"text": '{\n"acls": [],\n}\n'})
    answer = await admin.get("/policy/versions/2")
    assert (answer.json()["text"], answer.json()["current"]) == ('{\n"grants": [],\n}\n', False)
    assert "etag" not in answer.headers
    assert (await admin.get("/policy/versions/3")).headers["etag"] == '"3"'
    assert (await admin.get("/policy/versions/3/diff")).json() == {
        "old": 2,
        "new": 3,
        "added": 1,
        "removed": 1,
        "diff": '--- version 2\n+++ version 3\n@@ -1,3 +1,3 @@\n {\n-"grants": [],\n+"acls": [],\n }\n',
    }
    whole = (await admin.get("/policy/versions/1/diff")).json()
    assert (whole["old"], whole["removed"]) == (None, 0)
    assert whole["diff"].startswith("--- nothing\n+++ version 1\n@@ -0,0 +1,")
    back = (await admin.get("/policy/versions/1/diff?against=3")).json()
    assert (back["old"], back["new"]) == (3, 1)
    for path in ("9", "0", "9/diff", "3/diff?against=9", f"{10**30}", f"3/diff?against={10**30}"):
        assert (await admin.get(f"/policy/versions/{path}")).status_code in {400, 404}, path


async def test_a_change_for_a_version_that_is_no_longer_in_force_is_refused(
    admin: httpx2.AsyncClient,
) -> None:
    seen = (await admin.get("/policy")).headers["etag"]
    assert seen == '"1"'
    made = await admin.put("/policy", json={"text": OPEN}, headers={"If-Match": seen})
    assert (made.status_code, made.headers["etag"]) == (200, '"2"')
    for act in (
        admin.put("/policy", json={"text": "{}"}, headers={"If-Match": seen}),
        admin.post("/policy/rollback", json={}, headers={"If-Match": seen}),
    ):
        refused = await act
        assert (refused.status_code, refused.json()["type"]) == (412, "policy-changed")
        assert "version 2 of the policy is in force, set by cli at 2026-" in refused.json()["title"]
        assert "history diff 1 2" in refused.json()["cure"]
    assert (await admin.get("/policy")).json()["text"] == OPEN
    for header in ("2", 'W/"2"', '"1", "2"', '"two"', f'"{10**30}"', ""):
        answer = await admin.put("/policy", json={"text": "{}"}, headers={"If-Match": header})
        assert (answer.status_code, answer.json()["place"]) == (400, "If-Match"), header
    assert (await admin.put("/policy", json={"text": "{}"}, headers={"If-Match": "*"})).status_code == 200


async def test_a_file_that_owns_the_policy_is_named(
    admin: httpx2.AsyncClient, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "mine.hujson"
    file.write_text(OPEN)
    await world.registry.own_policy(file)
    found = (await admin.get("/policy")).json()
    assert (found["owner"], found["actor"], found["comment"]) == (str(file), "file", str(file))
    for act in (admin.put("/policy", json={"text": "{}"}), admin.post("/policy/rollback", json={})):
        refused = await act
        assert (refused.status_code, str(file) in refused.json()["title"]) == (409, True)


COMMENTED = """{
    // people
    "groups": {"group:ops": ["ann"]}, // on call
    "grants": [],
}
"""


async def test_edits_keep_the_text(admin: httpx2.AsyncClient) -> None:
    await admin.put("/policy", json={"text": COMMENTED})
    edits: list[dict[str, Any]] = [
        {"do": "add-name", "section": "groups", "key": "group:ops", "name": "bob"},
        {"do": "add-name", "section": "tagOwners", "key": "tag:web", "name": "group:ops"},
        {"do": "set-host", "name": "office", "address": "10.0.0.1"},
        {
            "do": "add-rule",
            "section": "grants",
            "rule": {"src": ["group:ops"], "dst": ["office"], "ip": ["22"]},
        },
    ]
    tried = await admin.post("/policy/edit", json={"edits": edits, "dry_run": True})
    assert (tried.json()["version"], tried.json()["changed"]) == (2, True)
    assert (await admin.get("/policy")).json()["text"] == COMMENTED
    done = await admin.post("/policy/edit", json={"edits": edits})
    assert (done.json()["version"], done.headers["etag"]) == (3, '"3"')
    text = (await admin.get("/policy")).json()["text"]
    assert (
        text
        == """{
    // people
    "groups": {"group:ops": ["ann", "bob"]}, // on call
    "grants": [{"src": ["group:ops"], "dst": ["office"], "ip": ["22"]}],
    "tagOwners": {"tag:web": ["group:ops"]},
    "hosts": {"office": "10.0.0.1"},
}
"""
    )
    assert done.json()["diff"].splitlines()[2:] == tried.json()["diff"].splitlines()[2:]
    (entry,) = (await admin.get("/policy/history?limit=1")).json()
    assert entry["comment"] == (
        "add bob to group:ops; add group:ops to tag:web; set host office to 10.0.0.1; add a rule to grants"
    )
    undone = [
        {"do": "remove-name", "section": "groups", "key": "group:ops", "name": "bob"},
        {"do": "remove-rule", "section": "grants", "number": 0},
        {"do": "set-host", "name": "office", "address": None},
    ]
    assert (await admin.post("/policy/edit", json={"edits": undone})).json()["changed"] is True


async def test_edits_are_refused_whole(admin: httpx2.AsyncClient) -> None:
    await admin.put("/policy", json={"text": COMMENTED})
    good = {"do": "add-name", "section": "groups", "key": "group:ops", "name": "bob"}
    deep: Any = []
    for _ in range(80):
        deep = [deep]
    for bad, status in (
        ({"do": "remove-rule", "section": "grants", "number": 0}, 404),
        ({"do": "add-rule", "section": "grants", "rule": {"src": ["tag:none"]}}, 400),
        ({"do": "add-rule", "section": "grants", "rule": {"app": {"x/y": deep}}}, 400),
        ({"do": "set-host", "name": "a\u0000", "address": "x" * 1_100_000}, 400),
        ({"do": "burn", "section": "grants"}, 400),
    ):
        for dry_run in (True, False):
            answer = await admin.post("/policy/edit", json={"edits": [good, bad], "dry_run": dry_run})
            assert answer.status_code == status, answer.text
    for many in ([], [good] * 101):
        assert (await admin.post("/policy/edit", json={"edits": many})).status_code == 400
    assert (await admin.get("/policy")).json()["text"] == COMMENTED
    for dry_run in (True, False):
        stale = await admin.post(
            "/policy/edit", json={"edits": [good], "dry_run": dry_run}, headers={"If-Match": '"1"'}
        )
        assert (stale.status_code, stale.json()["type"]) == (412, "policy-changed")


async def test_edits_of_many_at_once_are_all_made(admin: httpx2.AsyncClient) -> None:
    await admin.put("/policy", json={"text": COMMENTED})
    names = [f"user{number}" for number in range(12)]
    every = await asyncio.gather(
        *(
            admin.post(
                "/policy/edit",
                json={"edits": [{"do": "add-name", "section": "groups", "key": "group:ops", "name": name}]},
            )
            for name in names
        )
    )
    assert {answer.status_code for answer in every} == {200}
    text = (await admin.get("/policy")).json()["text"]
    assert all(f'"{name}"' in text for name in names)
    assert sorted(answer.json()["version"] for answer in every) == list(range(3, 15))


async def test_a_refusal_shows_every_fault_and_changes_nothing(admin: httpx2.AsyncClient) -> None:
    draft = {"text": BROKEN, "filename": "mine.hujson"}
    checked = (await admin.post("/policy/check", json=draft)).json()
    assert checked["ok"] is False
    places = [(each["line"], each["column"]) for each in checked["diagnostics"]]
    assert len(places) == 2
    assert {line for line, _ in places} == {2, 3}
    refused = await admin.put("/policy", json=draft)
    assert (refused.status_code, refused.json()["type"]) == (400, "bad-policy")
    assert refused.json()["diagnostics"] == checked["diagnostics"]
    assert refused.json()["place"].startswith("mine.hujson:2:")
    assert (await admin.get("/policy")).json()["text"] == DEFAULT_POLICY


async def test_a_check_warns_of_slips(admin: httpx2.AsyncClient) -> None:
    text = '{"grants": [{"src": ["ghost@example.com"], "dst": ["*"], "ip": ["*"]}]}'
    checked = (await admin.post("/policy/check", json={"text": text})).json()
    assert checked["ok"] is True
    assert "ghost@example.com" in checked["warnings"][0]["message"]


async def test_the_policy_s_own_tests_count(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    await world.join(1, "laptop", "ann")
    text = '{"grants": [], "tests": [{"src": "ann", "accept": ["100.64.0.1:22"]}]}'
    checked = (await admin.post("/policy/check", json={"text": text})).json()
    assert checked["ok"] is False
    assert "100.64.0.1:22" in checked["diagnostics"][0]["message"]
    assert (await admin.put("/policy", json={"text": text})).status_code == 400
    assert (await admin.get("/policy")).json()["text"] == DEFAULT_POLICY


async def test_compile_tells_what_each_node_would_be_sent(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    await world.join(1, "laptop", "ann")
    await world.join(2, "server", "ann")
    text = '{"grants": [{"src": ["ann"], "dst": ["100.64.0.2"], "ip": ["tcp:22"]}]}'
    compiled = (await admin.post("/policy/compile", json={"text": text})).json()
    assert [each["node"] for each in compiled] == ["laptop", "server"]
    assert compiled[0] == {"node": "laptop", "filter": [], "ssh": {"rules": []}}
    (rule,) = compiled[1]["filter"]
    assert rule["DstPorts"] == [{"IP": "100.64.0.2", "Ports": {"First": 22, "Last": 22}}]
    (only,) = (await admin.post("/policy/compile?node=server", json={"text": text})).json()
    assert only == compiled[1]
    assert (await admin.post("/policy/compile?node=x", json={"text": text})).status_code == 404
    assert (await admin.post("/policy/compile", json={"text": BROKEN})).status_code == 400


async def test_a_policy_of_two_megabytes_is_the_most(admin: httpx2.AsyncClient) -> None:
    big = "{}" + " " * (2 * 1024 * 1024 - 100)
    assert (await admin.post("/policy/check", json={"text": big})).status_code == 200
    assert (await admin.post("/policy/check", json={"text": big + " " * 200})).status_code == 413


@pytest.mark.parametrize(
    ("role", "status"), [(Role.NETWORK_ADMIN, 200), (Role.IT_ADMIN, 403), (Role.AUDITOR, 403)]
)
async def test_who_may_set_it(world: World, role: Role, status: int) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=role)
    async with world.client(admin=False, token=secret) as client:
        assert (await client.put("/policy", json={"text": OPEN})).status_code == status
        assert (await client.post("/policy/check", json={"text": OPEN})).status_code == 200
