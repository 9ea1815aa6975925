"""API tokens over the API."""

from datetime import timedelta

import httpx2
from tests.support.world import World

from doorward.model import Role


async def test_a_token_works_until_it_is_revoked(admin: httpx2.AsyncClient, world: World) -> None:
    made = (await admin.post("/tokens", json={"description": "backup", "role": "auditor"})).json()
    assert made["token"]["expires"] == "2026-04-02T03:04:05Z"
    async with world.client(admin=False, token=made["secret"]) as client:
        assert (await client.get("/nodes")).json() == []
        assert (await client.post("/users", json={"name": "eve"})).status_code == 403
        assert (await admin.delete("/tokens/1")).json()["state"] == "revoked"
        assert (await client.get("/nodes")).status_code == 401
    assert made["secret"] not in (await admin.get("/tokens")).text


async def test_a_token_ends(admin: httpx2.AsyncClient, world: World) -> None:
    made = (await admin.post("/tokens", json={"description": "x", "expires_in": 60})).json()
    endless = (await admin.post("/tokens", json={"description": "y", "expires_in": None})).json()
    world.clock.advance(timedelta(days=3650))
    assert [token["state"] for token in (await admin.get("/tokens")).json()] == ["expired", "valid"]
    async with world.client(admin=False, token=made["secret"]) as client:
        assert (await client.get("/nodes")).status_code == 401
    async with world.client(admin=False, token=endless["secret"]) as client:
        assert (await client.get("/nodes")).status_code == 200


async def test_an_administrator_makes_and_ends_no_owner_s_token(
    admin: httpx2.AsyncClient, world: World
) -> None:
    await admin.post("/tokens", json={"description": "owner's", "role": "owner"})
    _, secret = await world.registry.create_api_token("cli", description="admin's", role=Role.ADMIN)
    async with world.client(admin=False, token=secret) as client:
        assert (await client.post("/tokens", json={"description": "x", "role": "owner"})).status_code == 403
        assert (await client.delete("/tokens/1")).status_code == 403
        assert (await client.post("/tokens", json={"description": "x"})).status_code == 201
        assert (await client.delete("/tokens/9")).status_code == 404


async def test_a_persons_token_may_do_no_more_than_they_may_now(
    admin: httpx2.AsyncClient, world: World
) -> None:
    ann = await world.registry.create_user("cli", "ann", role=Role.ADMIN)
    _, secret = await world.registry.create_api_token("user:ann", description="x", role=Role.ADMIN, owner=ann)
    assert [token["user"] for token in (await admin.get("/tokens")).json()] == ["ann"]
    async with world.client(admin=False, token=secret) as client:
        made = (await client.post("/tokens", json={"description": "y", "role": "auditor"})).json()
        assert made["token"]["user"] == "ann"  # what it makes is theirs, too
        await world.registry.set_role("cli", "ann", Role.AUDITOR)
        assert (await client.post("/users", json={"name": "eve"})).status_code == 403
        assert (await client.get("/users")).status_code == 200
        await world.registry.set_role("cli", "ann", Role.MEMBER)
        assert (await client.get("/users")).status_code == 403
        await world.registry.suspend_user("cli", "ann", suspended=True)
        assert (await client.get("/users")).status_code == 401
