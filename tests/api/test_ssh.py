"""Checks of ssh over the API."""

import httpx2
from tests.support.checking import POLICY, Scene
from tests.support.world import World

from doorward.model import Role


async def _scene(world: World) -> Scene:
    await world.registry.create_user("test", "ann")
    await world.registry.set_policy("test", POLICY)
    laptop = await world.join(1, "laptop", "ann")
    runner = await world.join(3, "runner", None, "tag:ci")
    return Scene(world, laptop, laptop, runner, await world.join(4, "server", None, "tag:server"))


async def test_what_waits_is_listed_and_decided(admin: httpx2.AsyncClient, world: World) -> None:
    scene = await _scene(world)
    assert (await admin.get("/ssh/checks")).json() == []
    first = await scene.ask(scene.attempt())
    second = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    listed = (await admin.get("/ssh/checks")).json()
    assert listed[0] == {
        "id": first.id,
        "user": "ann",
        "source": "laptop",
        "target": "server",
        "account": "root",
        "since": "2026-01-02T03:04:05Z",
        "code": first.code,
        "rule": "ssh[0]",
        "approvers": [],
        "expires": "2026-01-02T03:14:05Z",
        "state": "waiting",
        "until": None,
    }
    assert (listed[1]["user"], listed[1]["approvers"]) == ("tagged-devices", ["ann", "autogroup:admin"])
    approved = (await admin.post(f"/ssh/checks/{first.id}/approve")).json()
    assert (approved["state"], approved["until"]) == ("approved", "2026-01-02T04:04:05Z")
    assert (await admin.post(f"/ssh/checks/{second.id}/deny")).json()["state"] == "denied"
    assert (await admin.get("/ssh/checks")).json() == []
    assert (await admin.post(f"/ssh/checks/{first.id}/deny")).status_code == 409
    assert (await admin.post("/ssh/checks/4711/approve")).status_code == 404
    assert (await admin.post("/ssh/checks/x/approve")).status_code == 400


async def test_a_device_that_is_gone_is_no_reason_to_stumble(admin: httpx2.AsyncClient, world: World) -> None:
    scene = await _scene(world)
    await scene.ask(scene.attempt())
    await world.registry.delete_node("test", scene.laptop.id)
    (listed,) = (await admin.get("/ssh/checks")).json()
    assert (listed["user"], listed["source"]) == ("", "(deleted)")


async def test_only_owners_and_administrators_decide(admin: httpx2.AsyncClient, world: World) -> None:
    scene = await _scene(world)
    check = await scene.ask(scene.attempt())
    for role in Role:
        _, secret = await world.registry.create_api_token("test", description="x", role=role)
        async with world.client(admin=False, token=secret) as client:
            answer = await client.post(f"/ssh/checks/{check.id}/approve")
            able = role in {Role.OWNER, Role.ADMIN}
            assert answer.status_code in ({200, 409} if able else {403}), role
    (event,) = await world.registry.audit(action="ssh.check.approve")
    assert event.actor.startswith("token:")
