"""DNS over the API."""

import httpx2
from tests.support.world import World

from doorward.model import Role

NAMES = {
    "magic_dns": True,
    "search": ["corp.example"],
    "nameservers": ["192.0.2.53"],
    "split": {"corp.example": ["10.0.0.53"]},
    "records": [{"name": "wiki.corp.example", "address": "100.64.0.7"}],
}


async def test_it_is_replaced_whole_and_shown_as_it_was_sent(admin: httpx2.AsyncClient, world: World) -> None:
    before = (await admin.get("/dns")).json()
    assert before == {"magic_dns": True, "search": [], "nameservers": [], "split": {}, "records": []}
    assert (await admin.put("/dns", json=NAMES)).json() == NAMES
    assert (await admin.get("/dns")).json() == NAMES
    assert world.registry.snapshot.settings.dns.search == ("corp.example",)
    assert (await admin.put("/dns", json={})).json() == before


async def test_a_fault_has_its_place_and_changes_nothing(admin: httpx2.AsyncClient) -> None:
    await admin.put("/dns", json=NAMES)
    refused = await admin.put("/dns", json={"nameservers": ["192.0.2.53", "nowhere"]})
    assert refused.status_code == 400
    assert refused.json()["place"] == "$.nameservers[1]"
    assert (await admin.put("/dns", json={"searches": []})).status_code == 400
    assert (await admin.get("/dns")).json() == NAMES


async def test_network_administrators_may_and_auditors_look(world: World) -> None:
    for role, status in ((Role.NETWORK_ADMIN, 200), (Role.IT_ADMIN, 403), (Role.AUDITOR, 403)):
        _, secret = await world.registry.create_api_token("cli", description=role, role=role)
        async with world.client(admin=False, token=secret) as client:
            assert (await client.get("/dns")).status_code == 200
            assert (await client.put("/dns", json=NAMES)).status_code == status
