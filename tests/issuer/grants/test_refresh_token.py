import asyncio
from datetime import timedelta

import pytest
from tests.support.office import Office, Party

from doorward.issuer.grants.refresh_token import Outcome, Rotation, rotate_all
from doorward.store import apps
from doorward.tailnet import secrets

APP = "doorward.dev/cap/app"


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    made = await office.app()
    await made.sign_in(scope="openid email offline_access")
    return made


async def test_without_offline_access_there_is_none(party: Party) -> None:
    await party.sign_in(scope="openid")
    assert "refresh_token" not in party.tokens


async def test_a_second_use_ends_the_family(office: Office, party: Party) -> None:
    stolen = party.tokens["refresh_token"]
    await party.refresh()
    assert (await party.refresh(stolen)).json()["error"] == "invalid_grant"
    assert (await party.refresh()).json()["error"] == "invalid_grant"
    assert (await party.userinfo()).status_code == 401
    assert len(await office.audited("app.replay")) == 1


async def test_of_many_at_once_one_gets_tokens(party: Party) -> None:
    token = party.tokens["refresh_token"]
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(party.refresh(token)) for _ in range(8)]
    assert sorted(one.result().status_code for one in tries) == [200] + [400] * 7


async def test_scopes_get_fewer_and_never_more(party: Party) -> None:
    said = await party.refresh(scope="openid groups")
    assert said.json()["error"] == "invalid_scope"
    assert (await party.refresh(scope="openid")).json()["scope"] == "openid"


async def test_it_ends_when_nobody_uses_it_and_at_last(office: Office, party: Party) -> None:
    for _ in range(3):
        office.world.clock.advance(timedelta(days=29))
        assert (await party.refresh()).status_code == 200
    office.world.clock.advance(timedelta(days=4))
    assert (await party.refresh()).json()["error"] == "invalid_grant"
    await party.sign_in(scope="openid offline_access")
    office.world.clock.advance(timedelta(days=30))
    assert (await party.refresh()).json()["error"] == "invalid_grant"


async def test_t13_policy_and_device_are_looked_at_each_time(office: Office, party: Party) -> None:
    rule = f'{{"src": ["bob"], "dst": ["*"], "app": {{"{APP}": [{{}}]}}}}'
    await office.policy(f'{{"grants": [{rule}]}}')
    assert (await party.refresh()).json()["error"] == "invalid_grant"
    await office.policy("{}")
    assert (await party.refresh()).json()["error"] == "invalid_grant"  # it ended then
    (event,) = await office.audited("app.end")
    assert event.details["why"] == "no longer allowed"


async def test_t13_what_only_the_device_gave_ends_with_it(office: Office) -> None:
    """Also for who has signed in there: a condition on devices needs the device each time."""
    rule = f'{{"src": ["ann"], "dst": ["*"], "srcPosture": ["posture:l"], "app": {{"{APP}": [{{}}]}}}}'
    await office.policy(f'{{"postures": {{"posture:l": ["node:os == \'linux\'"]}}, "grants": [{rule}]}}')
    await office.person("ann")
    browser = await office.resident("ann")
    party = await office.app()
    await party.sign_in(browser, scope="openid offline_access")
    assert (await party.refresh()).status_code == 200
    assert office.identity is not None
    await office.registry.delete_node("cli", office.identity.id)
    assert (await party.refresh()).json()["error"] == "invalid_grant"


async def test_t13_a_device_that_is_gone_vouches_for_nobody(office: Office, party: Party) -> None:
    assert office.identity is not None
    await office.registry.delete_node("cli", office.identity.id)
    assert (await party.refresh()).json()["error"] == "invalid_grant"


async def test_a_person_who_is_deleted_leaves_nothing(office: Office, party: Party) -> None:
    assert office.identity is not None
    await office.registry.delete_node("cli", office.identity.id)
    await office.registry.delete_user("cli", "ann")
    assert (await party.refresh()).json()["error"] == "invalid_grant"


async def test_a_missing_token_is_said_to_be(party: Party) -> None:
    assert (await party.post("/token", grant_type="refresh_token")).json()["error"] == "invalid_request"


async def test_those_of_one_family_are_decided_one_after_the_other(office: Office, party: Party) -> None:
    """In one transaction, as if each had come alone: after the old one came again, the new one is worth nothing either."""
    database, now = office.registry.writer.database, office.world.clock.now()
    entropy = office.registry.writer.entropy

    async def bring(*texts: str) -> list[Outcome]:
        asked = []
        for text in texts:
            found = await database.find(apps.grants_by_refresh_token, secrets.digest(text))
            assert found is not None
            fresh = secrets.make("dwrefresh", entropy(secrets.ENTROPY))
            asked.append(Rotation(party.app, found[0], found[1].id, fresh, "ann", now))
        return await database.run(rotate_all, asked)

    old = party.tokens["refresh_token"]
    await party.refresh()
    new = party.tokens["refresh_token"]
    other = await office.app("wiki")
    await other.sign_in(scope="openid offline_access")
    elsewhere = other.tokens["refresh_token"]
    told = await bring(new, elsewhere, old, new, elsewhere)
    assert told == [Outcome.GOOD, Outcome.GOOD, Outcome.REPLAYED, Outcome.OVER, Outcome.REPLAYED]
    assert len(await office.audited("app.refresh")) == 3
    assert len(await office.audited("app.replay")) == 2
