"""The page on which somebody says yes to a device without a browser (RFC 8628)."""

import asyncio
import re
from typing import Any

import httpx2
import pytest
from tests.support.browsing import DOOR, Browser
from tests.support.office import BACK, PAGE, Office, Party

from doorward.issuer.device import LETTERS
from doorward.issuer.grants.device_code import DEVICE_CODE

CAPABILITY = "doorward.dev/cap/app"


@pytest.fixture
async def screen(office: Office) -> Party:
    return await office.app("screen", redirect_uris=(), public=True, device=True)


async def begin(party: Party, **form: str) -> dict[str, Any]:
    how = "public" if party.app.public else "basic"
    said = await party.post("/device_authorization", how=how, **({"scope": "openid profile"} | form))
    assert said.status_code == 200, said.text
    found: dict[str, Any] = said.json()
    return found


async def poll(party: Party, started: dict[str, Any]) -> httpx2.Response:
    how = "public" if party.app.public else "basic"
    return await party.post("/token", how=how, grant_type=DEVICE_CODE, device_code=started["device_code"])


async def type_code(browser: Browser, code: str) -> httpx2.Response:
    return await browser.post("/device", user_code=code)


async def open_link(browser: Browser, started: dict[str, Any]) -> list[str]:
    """Follow the link; the codes to choose from."""
    link = started["verification_uri_complete"].removeprefix(DOOR)
    browser.page = await browser.client.get(link, headers=PAGE)
    return re.findall(r'name="answer" value="([A-Z-]+)"', browser.page.text)


async def press(browser: Browser, answer: str = "yes") -> httpx2.Response:
    return await browser.post("/device/answer", asking=browser.field("asking"), answer=answer)


async def test_somebody_says_yes_to_the_code_that_they_type(office: Office, screen: Party) -> None:
    started = await begin(screen)
    assert started.keys() == {
        *(
            "device_code",
            "user_code",
            "verification_uri",
            "verification_uri_complete",
            "expires_in",
            "interval",
        )
    }
    assert (started["expires_in"], started["interval"]) == (600, 5)
    assert re.fullmatch(f"[{LETTERS}]{{4}}-[{LETTERS}]{{4}}", started["user_code"])
    await office.person("ann")
    browser = office.browser()
    page = await browser.client.get("/device", headers=PAGE)
    assert "Which code" in page.text
    page = await type_code(browser, started["user_code"].lower().replace("-", " "))
    assert page.status_code == 200, page.text
    for words in ("screen", "know your name", "outside the tailnet", "no device of yours"):
        assert words in page.text
    page = await press(browser)
    assert "is signed in" in page.text
    said = await poll(screen, started)
    assert said.status_code == 200, said.text
    screen.tokens = said.json()
    told = (await screen.userinfo()).json()
    assert told["name"] == "ann"
    claims = await screen.post("/revoke", how="public", token=screen.tokens["access_token"])
    assert claims.status_code == 200
    (event,) = await office.audited("app.signin")
    assert (event.actor, event.target, event.details["how"]) == ("user:ann", "app:screen", "device")


async def test_t21_nothing_is_silent_however_often_they_said_yes(office: Office, screen: Party) -> None:
    await office.person("ann")
    browser = office.browser()
    for _ in range(2):
        started = await begin(screen)
        assert (await poll(screen, started)).json()["error"] == "authorization_pending"
        await type_code(browser, started["user_code"])
        assert (await poll(screen, started)).status_code == 400
        await press(browser)
        assert (await poll(screen, started)).status_code == 200


async def test_t21_who_came_by_a_link_finds_the_code_among_three(office: Office, screen: Party) -> None:
    await office.person("ann")
    browser, started = office.browser(), await begin(screen)
    codes = await open_link(browser, started)
    assert len(codes) == len(set(codes)) == 3
    assert started["user_code"] in codes
    assert 'value="yes"' not in browser.page.text
    await press(browser, started["user_code"])
    assert (await poll(screen, started)).status_code == 200


@pytest.mark.parametrize("answer", ["no", "yes", "wrong", ""])
async def test_any_other_answer_is_a_no(office: Office, screen: Party, answer: str) -> None:
    await office.person("ann")
    browser, started = office.browser(), await begin(screen)
    codes = await open_link(browser, started)
    wrong = next(code for code in codes if code != started["user_code"])
    page = await press(browser, wrong if answer == "wrong" else answer)
    assert "Turned away" in page.text
    assert (await poll(screen, started)).json()["error"] == "access_denied"
    assert (await type_code(browser, started["user_code"])).status_code == 404
    assert len(await office.audited("app.deny")) == 1


async def test_t21_the_page_says_whose_device_asks(office: Office, screen: Party) -> None:
    await office.person("bob", 2)
    started = await begin(screen)
    await office.person("ann", 1)
    browser = office.browser()
    page = await type_code(browser, started["user_code"])
    assert "bob-2" in page.text
    assert "no device of yours" in page.text
    await office.person("ann", 3)
    started = await begin(screen)
    page = await type_code(browser, started["user_code"])
    assert "ann-3" in page.text
    assert "It is a device of yours" in page.text
    assert 'value="yes"' in page.text  # and still it is asked


async def test_outside_the_tailnet_somebody_signs_in_first(office: Office, screen: Party) -> None:
    resident, started = await office.resident("ann"), await begin(screen)
    browser = office.browser()
    browser.authenticator = resident.authenticator
    page = await type_code(browser, started["user_code"])
    assert "Show who you are" in page.text
    assert "know your name" not in page.text
    await browser.prove()
    await press(browser)
    said = await poll(screen, started)
    assert said.status_code == 200, said.text


async def test_a_proof_where_the_app_wants_one(office: Office, screen: Party) -> None:
    browser = await office.resident("ann")
    browser.client.cookies.clear()
    await office.person("ann")
    started = await begin(screen, acr_values="urn:doorward:acr:passkey")
    page = await type_code(browser, started["user_code"])
    assert "Show who you are" in page.text
    await browser.prove()
    await press(browser)
    assert (await poll(screen, started)).status_code == 200
    (event,) = await office.audited("app.signin")
    assert event.details["by"] == "session"


async def test_the_page_that_asks_is_not_answered_by_a_passkey(office: Office, screen: Party) -> None:
    browser = await office.resident("ann")
    started = await begin(screen)
    await type_code(browser, started["user_code"])
    # What another page asks a passkey for is signed, and shown as the answer to this one.
    number = browser.field("asking")
    await browser.post("/ask")
    assert (await browser.prove(asking=number)).status_code in {403, 404}
    assert (await poll(screen, started)).json()["error"] == "authorization_pending"


async def test_a_tagged_device_is_no_person(office: Office, screen: Party) -> None:
    started = await begin(screen)
    await office.policy('{"tagOwners": {"tag:kiosk": []}}')
    await office.person("ann")
    assert office.identity is not None
    await office.registry.set_tags("cli", office.identity.id, ("tag:kiosk",))
    page = await type_code(office.browser(), started["user_code"])
    assert page.status_code == 403
    assert (await poll(screen, started)).json()["error"] == "authorization_pending"


async def test_who_may_not_use_the_app_cannot_say_yes(office: Office, screen: Party) -> None:
    await office.registry.create_user("cli", "bob")
    rule = f'{{"src": ["bob"], "dst": ["*"], "app": {{"{CAPABILITY}": [{{}}]}}}}'
    await office.person("ann")
    browser, started = office.browser(), await begin(screen)
    await type_code(browser, started["user_code"])
    await office.policy(f'{{"grants": [{rule}]}}')
    assert (await press(browser)).status_code == 403
    assert (await type_code(browser, started["user_code"])).status_code == 403
    assert (await poll(screen, started)).json()["error"] == "authorization_pending"
    assert len(await office.audited("app.refuse")) == 2


async def test_an_answer_is_the_person_s_to_whom_the_page_was_shown(office: Office, screen: Party) -> None:
    await office.person("ann")
    browser, started = office.browser(), await begin(screen)
    await type_code(browser, started["user_code"])
    other = office.browser()
    other.page = browser.page
    assert (await press(other)).status_code == 404  # without the cookie
    await office.person("bob", 2)
    shown = browser.page
    assert (await press(browser)).status_code == 404
    browser.page = shown
    browser.client.headers["sec-fetch-site"] = "cross-site"
    assert (await press(browser)).status_code == 403
    assert (await poll(screen, started)).json()["error"] == "authorization_pending"


async def test_of_two_answers_at_once_one_counts(office: Office, screen: Party) -> None:
    await office.person("ann")
    started = await begin(screen)
    browsers = [office.browser() for _ in range(4)]
    for browser in browsers:
        await type_code(browser, started["user_code"])
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(press(browser)) for browser in browsers]
    assert sorted(one.result().status_code for one in tries) == [200, 404, 404, 404]
    assert len(await office.audited("app.signin")) == 1


async def test_who_guesses_codes_is_stopped(office: Office, screen: Party) -> None:
    await office.person("ann")
    browser, started = office.browser(), await begin(screen)
    for _ in range(10):
        assert (await type_code(browser, "BBBB-BBBB")).status_code == 404
    assert (await type_code(browser, started["user_code"])).status_code == 429
    office.world.clock.advance(60)
    assert (await type_code(browser, started["user_code"])).status_code == 200


async def test_a_code_is_over_after_ten_minutes(office: Office, screen: Party) -> None:
    await office.person("ann")
    browser, started = office.browser(), await begin(screen)
    await type_code(browser, started["user_code"])
    office.world.clock.advance(600)
    assert (await press(browser)).status_code == 404
    assert (await type_code(browser, started["user_code"])).status_code == 404


@pytest.mark.parametrize("dest", ["iframe", "image"])
async def test_the_page_is_opened_as_a_whole(office: Office, dest: str) -> None:
    said = await office.browser().client.get("/device", headers=PAGE | {"sec-fetch-dest": dest})
    assert said.status_code == 503


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"scope": "nothing-known"}, "invalid_scope"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
    ],
)
async def test_what_cannot_begin(screen: Party, form: dict[str, str], code: str) -> None:
    said = await screen.post("/device_authorization", how="public", **form)
    assert (said.status_code, said.json()["error"]) == (400, code)


async def test_only_an_app_that_was_made_for_it(office: Office, screen: Party) -> None:
    party = await office.app(redirect_uris=(BACK,))
    said = await party.post("/device_authorization", scope="openid")
    assert said.json()["error"] == "unauthorized_client"
    assert (await party.post("/device_authorization", how="public", scope="openid")).status_code == 401
    for _ in range(60):
        await begin(screen)
    assert (await screen.post("/device_authorization", how="public")).status_code == 429
