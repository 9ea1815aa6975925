"""Who gets in, over the API."""

import httpx2
import pytest
from tests.support.world import World

from doorward.model import Role

DEFAULT = {"approval": False, "key_lifetime": 180 * 86400}


async def test_each_part_is_changed_by_itself(admin: httpx2.AsyncClient) -> None:
    assert (await admin.get("/joining")).json() == DEFAULT
    assert (await admin.patch("/joining", json={"approval": True})).json() == DEFAULT | {"approval": True}
    changed = await admin.patch("/joining", json={"key_lifetime": 3600})
    assert changed.json() == {"approval": True, "key_lifetime": 3600}
    never = await admin.patch("/joining", json={"key_lifetime": 0, "approval": False})
    assert never.json() == (await admin.get("/joining")).json() == {"approval": False, "key_lifetime": None}


@pytest.mark.parametrize("body", [{}, {"key_lifetime": 59}, {"key_lifetime": -1}, {"approve": True}])
async def test_what_is_none_of_it_is_refused(admin: httpx2.AsyncClient, body: dict[str, object]) -> None:
    assert (await admin.patch("/joining", json=body)).status_code == 400
    assert (await admin.get("/joining")).json() == DEFAULT


async def test_who_may_look_may_not_change(world: World) -> None:
    for role, looks, acts in (
        (Role.IT_ADMIN, 200, 200),
        (Role.NETWORK_ADMIN, 200, 403),
        (Role.AUDITOR, 200, 403),
        (Role.MEMBER, 403, 403),
    ):
        _, secret = await world.registry.create_api_token("cli", description=role, role=role)
        async with world.client(admin=False, token=secret) as client:
            assert (await client.get("/joining")).status_code == looks
            assert (await client.patch("/joining", json={"approval": True})).status_code == acts
