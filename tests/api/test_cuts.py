"""Cuts over the API."""

import httpx2
from tests.support.world import World

from doorward.model import Role


async def test_two_nodes_are_kept_apart_and_let_go(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    for number, name in enumerate(("laptop", "server"), 1):
        await world.join(number, name, "ann")
    assert (await admin.get("/cuts")).json() == []
    cut = (await admin.put("/nodes/server/cuts/laptop", json={"comment": "why"})).json()
    assert cut == {
        "id": 1,
        "nodes": ["laptop", "server"],
        "created": "2026-01-02T03:04:05Z",
        "created_by": "cli",
        "expires": None,
        "comment": "why",
    }
    assert not world.registry.snapshot.policy.can_see(1, 2)
    sooner = (await admin.put("/nodes/laptop/cuts/server", json={"expires_in": 60})).json()
    assert (sooner["id"], sooner["expires"], sooner["comment"]) == (1, "2026-01-02T03:05:05Z", "")
    assert (await admin.get("/cuts")).json() == [sooner]
    assert (await admin.delete("/nodes/server/cuts/laptop")).json() == sooner
    assert world.registry.snapshot.policy.can_see(1, 2)
    assert (await admin.delete("/nodes/server/cuts/laptop")).status_code == 404
    assert (await admin.put("/nodes/server/cuts/server", json={})).status_code == 400
    assert (await admin.put("/nodes/server/cuts/nobody", json={})).status_code == 404
    assert (await admin.put("/nodes/server/cuts/laptop", json={"expires_in": 0})).status_code == 400


async def test_who_may_look_may_not_cut(world: World) -> None:
    for role, looks, acts in ((Role.IT_ADMIN, 200, 404), (Role.AUDITOR, 200, 403), (Role.MEMBER, 403, 403)):
        _, secret = await world.registry.create_api_token("cli", description=role, role=role)
        async with world.client(admin=False, token=secret) as client:
            assert (await client.get("/cuts")).status_code == looks
            assert (await client.put("/nodes/a/cuts/b", json={})).status_code == acts
            assert (await client.delete("/nodes/a/cuts/b")).status_code == acts
