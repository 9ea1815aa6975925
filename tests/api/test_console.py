"""The console's pages: who sits there, and which machines are for them."""

from typing import Any

import httpx2
import pytest
from tests.support.consoles import furnish, page
from tests.support.means import ORIGIN
from tests.support.world import World

from doorward import __version__
from doorward.model import Role


async def test_it_says_who_sits_there(world: World) -> None:
    await furnish(world)
    async with page(world) as client:
        found = (await client.get("/console")).json()
    assert found["user"] == {"id": 1, "name": "ann", "display_name": "ann", "role": "member"}
    assert (found["version"], found["signed_in"], found["method"]) == (__version__, True, "passkey:1")
    assert found["proven"] == world.clock.now().isoformat().replace("+00:00", "Z")
    assert found["device"] is None
    assert found["counts"] == {"machines": 2, "online": 2, "ways": 2}


async def test_a_device_looks_without_a_session(world: World) -> None:
    nodes = await furnish(world)

    async def from_laptop(scope: Any, receive: Any, send: Any) -> None:
        state = {"identity": nodes["laptop"].stable_id, "listener": "door"}
        await world.app({**scope, "state": state}, receive, send)

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(from_laptop),
        base_url=f"{ORIGIN}/api/v1",
        headers={"Sec-Fetch-Site": "same-origin"},
    ) as client:
        found = (await client.get("/console")).json()
        assert (found["signed_in"], found["device"], found["method"]) == (False, "laptop", "")
        assert found["proven"] is None
        assert len((await client.get("/console/machines")).json()["machines"]) == 2


async def test_people_see_the_machines_that_are_for_them(world: World) -> None:
    nodes = await furnish(world)
    async with page(world) as client:
        machines = {one["name"]: one for one in (await client.get("/console/machines")).json()["machines"]}
    assert set(machines) == {"laptop", "server"}
    server = machines["server"]
    assert server["id"] == nodes["server"].id
    assert (server["ssh"], server["yours"], server["online"]) == ("tailscale", False, True)
    assert [(way["account"], way["check"], way["rule"]["name"]) for way in server["ways"]] == [
        ("deploy", True, "ssh[1]"),
        ("root", True, "ssh[1]"),
    ]
    assert server["ways"][0]["rule"]["line"] == 11
    assert (server["any_account"], server["why"]) == (False, "")
    # No key of its own is known, so whatever serves ssh there decides about accounts.
    assert (machines["laptop"]["ssh"], machines["laptop"]["any_account"]) == ("unknown", True)
    assert machines["laptop"]["yours"]


async def test_who_may_look_at_everything_sees_everything_and_why_there_is_no_way(world: World) -> None:
    await furnish(world)
    async with page(world, "eve", role=Role.AUDITOR) as client:
        machines = (await client.get("/console/machines")).json()["machines"]
    assert [one["name"] for one in machines] == ["db", "desk", "laptop", "server"]
    assert {one["name"]: one["why"] for one in machines} == {
        "db": "No rule lets you or your groups reach TCP port 22 of db.",
        "desk": "No rule names you or your groups for desk.",
        "laptop": "No rule lets you or your groups reach TCP port 22 of laptop.",
        "server": "No rule names you or your groups for server.",
    }
    assert not any(one["ways"] or one["any_account"] for one in machines)


async def test_a_program_and_the_administrators_socket_have_no_console(world: World) -> None:
    await furnish(world)
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.OWNER)
    for client in (world.client(), world.client(admin=False, token=secret)):
        async with client:
            refused = await client.get("/console")
            assert (refused.status_code, refused.json()["title"]) == (
                403,
                "this is for a person in a browser",
            )


@pytest.mark.parametrize("accept", ["", "*/*", "application/json"])
async def test_the_stream_is_for_who_asks_for_one(world: World, accept: str) -> None:
    await furnish(world)
    async with page(world) as client:
        refused = await client.get("/console/events", headers={"Accept": accept})
    assert (refused.status_code, refused.json()["type"]) == (406, "not-acceptable")
