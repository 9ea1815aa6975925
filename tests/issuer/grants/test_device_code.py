import asyncio

import pytest
from tests.issuer.test_device import begin, poll, press, type_code
from tests.support.office import Office, Party

from doorward.issuer.grants.device_code import DEVICE_CODE


@pytest.fixture
async def screen(office: Office) -> Party:
    return await office.app("screen", redirect_uris=(), device=True, resources=("https://api.example",))


async def say_yes(office: Office, started: dict[str, str]) -> None:
    await office.person("ann")
    browser = office.browser()
    await type_code(browser, started["user_code"])
    assert (await press(browser)).status_code == 200


async def test_who_asks_too_often_waits_longer(office: Office, screen: Party) -> None:
    started, clock = await begin(screen), office.world.clock
    said = []
    for seconds in (
        0,
        5,
        2,
        4.5,
        8,
        15,
    ):  # 10 after the first that came too soon, 15 after the second, 20 after the third
        clock.advance(seconds)
        said.append((await poll(screen, started)).json()["error"])
    assert said == ["authorization_pending"] * 2 + ["slow_down"] * 4
    clock.advance(25)
    assert (await poll(screen, started)).json()["error"] == "authorization_pending"


async def test_of_many_who_ask_at_once_one_gets_tokens_and_they_stay_good(
    office: Office, screen: Party
) -> None:
    started = await begin(screen, scope="openid offline_access", resource="https://api.example")
    await say_yes(office, started)
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(poll(screen, started)) for _ in range(8)]
    assert sorted(one.result().status_code for one in tries) == [200] + [400] * 7
    screen.tokens = next(one.result().json() for one in tries if one.result().status_code == 200)
    told = (await screen.post("/introspect", token=screen.tokens["access_token"])).json()
    assert (told["active"], told["aud"], told["acr"]) == (
        True,
        "https://api.example",
        "urn:doorward:acr:click",
    )
    assert (await screen.refresh()).status_code == 200
    assert (await poll(screen, started)).json()["error"] == "invalid_grant"


async def test_without_offline_access_there_is_no_refresh_token(office: Office, screen: Party) -> None:
    started = await begin(screen, scope="openid")
    await say_yes(office, started)
    assert "refresh_token" not in (await poll(screen, started)).json()


async def test_a_device_code_is_no_authorization_code(office: Office, screen: Party) -> None:
    started = await begin(screen)
    await say_yes(office, started)
    code = started["device_code"]
    said = await screen.post("/token", grant_type="authorization_code", code=code)
    assert said.json()["error"] == "invalid_grant"


async def test_it_is_over_in_time_also_after_a_yes(office: Office, screen: Party) -> None:
    first, second = await begin(screen), await begin(screen)
    await say_yes(office, second)
    office.world.clock.advance(600)
    for started in (first, second):
        assert (await poll(screen, started)).json()["error"] == "expired_token"


async def test_it_is_the_app_s_own(office: Office, screen: Party) -> None:
    other = await office.app("other", redirect_uris=(), device=True)
    started = await begin(screen)
    await say_yes(office, started)
    assert (await poll(other, started)).json()["error"] == "invalid_grant"
    assert (await poll(screen, started)).status_code == 200
    plain = await office.app("plain")
    assert (await poll(plain, started)).json()["error"] == "unauthorized_client"


async def test_the_device_that_said_yes_has_to_stay_theirs(office: Office, screen: Party) -> None:
    started = await begin(screen)
    await say_yes(office, started)
    assert office.identity is not None
    await office.registry.delete_node("cli", office.identity.id)
    assert (await poll(screen, started)).json()["error"] == "access_denied"
    assert len(await office.audited("app.end")) == 1


async def test_a_person_who_is_gone_has_said_nothing(office: Office, screen: Party) -> None:
    started = await begin(screen)
    await say_yes(office, started)
    assert office.identity is not None
    await office.registry.delete_node("cli", office.identity.id)
    await office.registry.delete_user("cli", "ann")
    assert (await poll(screen, started)).json()["error"] == "invalid_grant"


async def test_what_is_missing_or_unknown(screen: Party) -> None:
    assert (await screen.post("/token", grant_type=DEVICE_CODE)).json()["error"] == "invalid_request"
    assert (await poll(screen, {"device_code": "dwdevice-x"})).json()["error"] == "invalid_grant"
