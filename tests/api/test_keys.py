"""Auth keys over the API."""

from datetime import timedelta

import httpx2
from tests.support.world import World

from doorward.model import Role


async def test_a_key_admits_a_node_and_its_state_is_told(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    made = await admin.post("/keys", json={"user": "ann", "expires_in": 60})
    assert made.status_code == 201
    key, secret = made.json()["key"], made.json()["secret"]
    assert key["expires"] == "2026-01-02T03:05:05Z"
    assert (key["state"], key["user"], key["tags"]) == ("valid", "ann", [])
    assert secret.startswith(key["prefix"] + "-")
    assert (await world.ask(1, "laptop", secret)).node is not None
    (listed,) = (await admin.get("/keys")).json()
    assert (listed["state"], listed["used"]) == ("used", "2026-01-02T03:04:05Z")
    assert secret not in (await admin.get("/keys")).text


async def test_states_of_keys_that_admit_nobody(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    for reusable in (True, True, True, False):
        await admin.post("/keys", json={"user": "ann", "reusable": reusable, "expires_in": 60})
    assert (await admin.delete("/keys/1")).json()["state"] == "revoked"
    world.clock.advance(timedelta(seconds=60))
    await admin.post("/keys", json={"user": "ann"})
    states = [key["state"] for key in (await admin.get("/keys")).json()]
    assert states == ["revoked", "expired", "expired", "expired", "valid"]


async def test_refusals(admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/keys", json={})).status_code == 400
    assert (await admin.post("/keys", json={"user": "eve"})).status_code == 404
    assert "tag:web" in (await admin.post("/keys", json={"tags": ["tag:web"]})).json()["title"]
    assert (await admin.post("/keys", json={"user": "ann", "expires_in": 0})).json()[
        "place"
    ] == "$.expires_in"
    assert (await admin.delete("/keys/7")).status_code == 404
    assert (await admin.delete("/keys/seven")).status_code == 400


async def test_a_key_for_somebody_greater_would_be_their_identity(
    admin: httpx2.AsyncClient, world: World
) -> None:
    await admin.post("/users", json={"name": "ann", "role": "owner"})
    await admin.post("/users", json={"name": "bob"})
    _, secret = await world.registry.create_api_token("cli", description="net", role=Role.NETWORK_ADMIN)
    async with world.client(admin=False, token=secret) as helper:
        assert (await helper.post("/keys", json={"user": "ann"})).status_code == 403
        assert (await helper.post("/keys", json={"user": "bob"})).status_code == 201
    (event,) = await world.registry.audit(target="key:1")
    assert event.actor == "token:1"
