import asyncio
from datetime import timedelta

import pytest
from tests.support.office import Office
from tests.support.waiting import eventually

from doorward.issuer import sweep as module
from doorward.issuer.sweep import Sweep

NOBODY = '{"grants": [{"src": ["bob"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{}]}}]}'
SCOPE = "openid offline_access"


async def test_what_the_policy_took_away_stays_so_when_it_is_given_back(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in(scope=SCOPE)
    sweep = office.issuer._sweep
    await office.policy(NOBODY)
    assert sweep._due.is_set()
    assert await sweep.look() == 1
    await office.policy("{}")
    assert (await party.refresh()).json()["error"] == "invalid_grant"
    assert (await party.userinfo()).status_code == 401
    (event,) = await office.audited("app.end")
    assert (event.actor, event.details["why"]) == ("system", "no longer allowed")


async def test_it_looks_at_all_of_them_page_by_page(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    party = await office.app()
    for number, name in enumerate(("ann", "bob", "cid"), 1):
        await office.person(name, number)
        await party.sign_in(scope=SCOPE)
        await party.sign_in(scope=SCOPE)
    await office.policy(NOBODY)
    assert await office.issuer._sweep.look() == 4
    assert await office.issuer._sweep.look() == 0
    ended = {event.details["user"] for event in await office.audited("app.end")}
    users = office.registry.snapshot.users
    assert {users[one].name for one in ended} == {"ann", "cid"}


async def test_what_stands_is_left_alone(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in(scope=SCOPE)
    assert await office.issuer._sweep.look() == 0
    assert (await party.refresh()).status_code == 200


async def test_what_a_device_reports_is_no_reason_to_look(office: Office) -> None:
    node = await office.person("ann")
    sweep = office.issuer._sweep
    sweep._due.clear()
    await office.world.report(node, "192.0.2.1:41641")
    assert not sweep._due.is_set()
    await office.registry.set_routes("cli", node.id, approve=["10.0.0.0/8"])
    assert sweep._due.is_set()


async def test_it_looks_by_itself(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in(scope=SCOPE)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(office.issuer.run())
        await office.policy(NOBODY)
        await eventually(lambda: ended(office))
        task.cancel()


async def ended(office: Office) -> bool:
    return bool(await office.audited("app.end"))


async def test_it_looks_when_a_key_ends_which_is_nobodys_change(office: Office) -> None:
    node = await office.person("ann")
    party = await office.app()
    sweep, clock = office.issuer._sweep, office.world.clock
    assert node.key_expiry is not None
    clock.advance(node.key_expiry - clock.now() - timedelta(hours=1))
    await party.sign_in(scope=SCOPE)
    sweep._due.clear()
    assert await sweep.look() == 0
    assert sweep._next == node.key_expiry
    clock.advance(timedelta(hours=1))
    async with asyncio.timeout(10):
        await sweep._wait()  # for no time at all, though nothing has changed
    assert await sweep.look() == 1
    assert sweep.__dict__["_next"] is None
    assert (await party.refresh()).json()["error"] == "invalid_grant"


async def test_it_looks_at_its_start(office: Office) -> None:
    """Whoever was here before may have been killed between a change and the look at it."""
    assert Sweep(office.issuer._desk)._due.is_set()
