"""People over the API."""

import httpx2
from tests.support.world import World

from doorward.model import Role


async def test_create_list_show_change_delete(admin: httpx2.AsyncClient, world: World) -> None:
    made = await admin.post("/users", json={"name": "ann", "email": "ann@example.com", "role": "admin"})
    assert made.status_code == 201
    assert made.json() == {
        "id": 1,
        "name": "ann",
        "display_name": "",
        "email": "ann@example.com",
        "role": "admin",
        "created": "2026-01-02T03:04:05Z",
        "suspended": False,
        "nodes": 0,
        "groups": [],
        "passkeys": 0,
        "identities": 0,
        "recovery_codes": 0,
        "sessions": 0,
        "invited": None,
    }
    await admin.post("/users", json={"name": "Bob"})
    await world.join(1, "laptop", "ann")
    listed = (await admin.get("/users")).json()
    assert [(user["name"], user["nodes"]) for user in listed] == [("ann", 1), ("bob", 0)]
    assert (await admin.get("/users/ann")).json()["nodes"] == 1
    changed = await admin.patch("/users/bob", json={"role": "auditor"})
    assert changed.json()["role"] == "auditor"
    assert (await admin.delete("/users/bob")).status_code == 204
    assert (await admin.get("/users/bob")).status_code == 404


async def test_refusals_name_the_fault_and_the_cure(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    await world.join(1, "laptop", "ann")
    assert (await admin.post("/users", json={"name": "ann"})).status_code == 409
    assert (await admin.delete("/users/ann")).status_code == 409
    assert (await admin.delete("/users/eve")).json()["cure"]
    assert (await admin.post("/users", json={"name": "a b"})).status_code == 400
    wrong = (await admin.post("/users", json={"name": "bob", "role": "boss"})).json()
    assert wrong["place"] == "$.role"
    assert (await admin.patch("/users/ann", json={"rôle": "admin"})).status_code == 400


async def test_nobody_raises_anybody_above_themselves(admin: httpx2.AsyncClient, world: World) -> None:
    for name, role in (("ann", "owner"), ("ada", "admin"), ("bob", "member")):
        await admin.post("/users", json={"name": name, "role": role})
    _, secret = await world.registry.create_api_token("cli", description="it", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as helper:
        assert (await helper.post("/users", json={"name": "eve", "role": "admin"})).status_code == 403
        assert (await helper.patch("/users/bob", json={"role": "it-admin"})).status_code == 403
        assert (await helper.delete("/users/ada")).status_code == 403
        assert (await helper.post("/users", json={"name": "eve"})).status_code == 201
    _, secret = await world.registry.create_api_token("cli", description="admin", role=Role.ADMIN)
    async with world.client(admin=False, token=secret) as administrator:
        assert (await administrator.patch("/users/ann", json={"role": "member"})).status_code == 403
        assert (await administrator.patch("/users/bob", json={"role": "owner"})).status_code == 403
        assert (await administrator.patch("/users/bob", json={"role": "it-admin"})).status_code == 200
    assert {user.name: user.role for user in world.registry.snapshot.users.values()} == {
        "ann": "owner",
        "ada": "admin",
        "bob": "it-admin",
        "eve": "member",
    }


async def test_a_person_is_suspended_and_restored(admin: httpx2.AsyncClient, world: World) -> None:
    for name, role in (("ann", "owner"), ("bob", "member")):
        await admin.post("/users", json={"name": name, "role": role})
    await world.join(1, "laptop", "bob")
    suspended = await admin.patch("/users/bob", json={"suspended": True})
    assert (suspended.status_code, suspended.json()["suspended"], suspended.json()["nodes"]) == (200, True, 1)
    assert suspended.json()["role"] == "member"
    both = (await admin.patch("/users/bob", json={"suspended": False, "role": "auditor"})).json()
    assert (both["suspended"], both["role"]) == (False, "auditor")
    nothing = await admin.patch("/users/bob", json={})
    assert (nothing.status_code, nothing.json()["cure"]) == (400, "Send a role, or suspended, or both.")
    assert (await admin.patch("/users/eve", json={"suspended": True})).status_code == 404
    events = (await admin.get("/audit?action=user.&target=user:bob")).json()
    assert [event["action"] for event in events][:3] == ["user.restore", "user.update", "user.suspend"]
    _, secret = await world.registry.create_api_token("cli", description="admin", role=Role.ADMIN)
    async with world.client(admin=False, token=secret) as administrator:
        assert (await administrator.patch("/users/ann", json={"suspended": True})).status_code == 403


async def test_the_only_owner_stays_one(admin: httpx2.AsyncClient, world: World) -> None:
    for name in ("ann", "bob"):
        await admin.post("/users", json={"name": name, "role": "owner"})
    assert (await admin.patch("/users/bob", json={"suspended": True})).status_code == 200
    for act in (
        admin.patch("/users/ann", json={"role": "admin"}),
        admin.patch("/users/ann", json={"suspended": True}),
        admin.delete("/users/ann"),
    ):
        refused = await act
        assert (refused.status_code, refused.json()["type"]) == (409, "conflict")
        assert "ann is the only owner" in refused.json()["title"]
        assert "users role NAME owner" in refused.json()["cure"]
    assert (await admin.patch("/users/ann", json={"role": "owner"})).status_code == 200
    assert (await admin.patch("/users/bob", json={"suspended": False})).status_code == 200
    assert (await admin.delete("/users/ann")).status_code == 204
    assert (await admin.patch("/users/bob", json={"role": "member"})).status_code == 409


async def test_a_person_is_deleted_with_their_nodes_where_that_is_said(
    admin: httpx2.AsyncClient, world: World
) -> None:
    for name in ("ann", "bob"):
        await admin.post("/users", json={"name": name})
    await world.join(1, "laptop", "ann")
    await world.join(2, "desk", "bob")
    refused = await admin.delete("/users/ann")
    assert (refused.status_code, "`--with-nodes`" in refused.json()["cure"]) == (409, True)
    assert (await admin.delete("/users/ann", params={"with_nodes": "true"})).status_code == 204
    assert [node["name"] for node in (await admin.get("/nodes")).json()] == ["desk"]
    assert [user["name"] for user in (await admin.get("/users")).json()] == ["bob"]
