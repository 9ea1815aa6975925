"""A browser outside the tailnet is signed in by a yes from a device inside."""

import asyncio
import re

import httpx2
import pytest
from tests.support.browsing import DOOR, Browser
from tests.support.conformance import FORM_POST, Run
from tests.support.office import PAGE, Office, Party

from doorward.issuer.device import LETTERS
from doorward.model import Node

CAPABILITY = "doorward.dev/cap/app"
REMOTE = "urn:doorward:acr:remote"


class Outside:
    """A browser that nobody knows, while its person has a device inside."""

    def __init__(self, office: Office, party: Party, node: Node) -> None:
        self.office = office
        self.party = party
        self.node = node
        self.browser = office.browser()
        self.place = ""

    async def begin(self, **changes: str | None) -> httpx2.Response:
        """As far as the page with the code."""
        self.office.identity = None
        self.asked = await self.party.send(self.browser, None, **changes)
        await self.browser.post("/authorize/elsewhere", asking=self.browser.field("asking"))
        assert self.browser.page.status_code == 303, self.browser.page.text
        self.place = self.browser.page.headers["location"]
        return await self.look()

    async def look(self, browser: Browser | None = None) -> httpx2.Response:
        """Have the page look again."""
        self.office.identity = None
        browser = browser or self.browser
        browser.page = await browser.client.get(self.place, headers=PAGE)
        self.party.heard(browser.page)
        return browser.page

    @property
    def code(self) -> str:
        found = re.search(f'class="match">([{LETTERS}]{{4}}-[{LETTERS}]{{4}})<', self.browser.page.text)
        assert found, self.browser.page.text
        return found[1]

    async def type_code(self, code: str = "", inside: Browser | None = None) -> Browser:
        """Type it on the device inside."""
        self.office.identity = self.node
        inside = inside or self.office.browser()
        await inside.post("/device", user_code=code or self.code)
        return inside

    async def answer(self, answer: str = "yes") -> httpx2.Response:
        inside = await self.type_code()
        return await inside.post("/device/answer", asking=inside.field("asking"), answer=answer)


@pytest.fixture
async def outside(office: Office) -> Outside:
    node = await office.person("ann")
    return Outside(office, await office.app(device=True), node)


async def test_a_yes_inside_signs_in_the_browser_outside(office: Office, outside: Outside) -> None:
    page = await outside.begin()
    assert page.status_code == 200
    assert f"{DOOR}/device" in page.text
    assert 'http-equiv="refresh"' in page.text
    assert outside.code in (await outside.look()).text  # the same code each time
    inside = await outside.type_code()
    for words in (
        "grafana",
        "in another browser",
        "grafana.example.com",
        "no device of yours",
        "know your name",
    ):
        assert words in inside.page.text
    await inside.post("/device/answer", asking=inside.field("asking"), answer="yes")
    page = await outside.look()
    assert page.status_code == 303
    assert outside.party.answer.keys() == {"code", "state", "iss"}
    said = await outside.party.redeem()
    assert said.status_code == 200, said.text
    claims = await outside.party.claims()
    assert (claims["acr"], claims["amr"]) == (REMOTE, ["network", "user", "mca"])
    assert (await outside.party.userinfo()).json()["name"] == "ann"
    (event,) = await office.audited("app.signin")
    assert (event.actor, event.details["how"], event.details["by"]) == ("user:ann", "remote", "device")
    # It was good for that once, and the browser is nobody still.
    assert (await outside.look()).status_code == 404
    assert "passkey" in (await outside.party.send(outside.browser)).text


async def test_the_answer_comes_by_form_post_too(office: Office, outside: Outside) -> None:
    await outside.begin(response_mode=FORM_POST)
    await outside.answer()
    page = await outside.look()
    run = Run(office, FORM_POST)
    run.heard(outside.party, page)
    run.tokens(outside.party, await outside.party.redeem())


@pytest.mark.parametrize("answer", ["no", "", "BCDF-GHJK"])
async def test_a_no_is_told_to_the_app(office: Office, outside: Outside, answer: str) -> None:
    await outside.begin()
    assert "Turned away" in (await outside.answer(answer)).text
    await outside.look()
    assert outside.party.answer["error"] == "access_denied"
    assert outside.party.answer["state"] == "the state"
    assert (await outside.look()).status_code == 404
    assert len(await office.audited("app.deny")) == 1
    assert await office.audited("app.signin") == []


async def test_t21_only_an_app_that_was_made_for_it(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    office.identity = None
    browser = office.browser()
    page = await party.send(browser)
    assert "on another device" not in page.text
    await browser.post("/authorize/elsewhere", asking=browser.field("asking"))
    assert browser.page.status_code == 403


async def test_t21_what_takes_a_sign_in_is_not_had_so(office: Office, outside: Outside) -> None:
    office.identity = None
    await office.policy('{"postures": {"posture:l": ["node:os == \'linux\'"]}}')
    for wanted in ("urn:doorward:acr:passkey", "urn:doorward:acr:session", "urn:doorward:acr:posture:l"):
        browser = office.browser()
        page = await outside.party.send(browser, acr_values=wanted)
        assert "on another device" not in page.text
        await browser.post("/authorize/elsewhere", asking=browser.field("asking"))
        assert browser.page.status_code == 403
    page = await outside.party.send(acr_values="urn:doorward:acr:click")
    assert "on another device" in page.text
    # Nor where somebody is known already, and has to show it.
    office.identity = outside.node
    assert "on another device" not in (await outside.party.send(prompt="login")).text


async def test_t21_the_code_is_worth_nothing_to_another_browser(office: Office, outside: Outside) -> None:
    await outside.begin()
    await outside.answer()
    other = office.browser()
    assert (await outside.look(other)).status_code == 404
    assert not outside.party.answer
    other.client.cookies = outside.browser.client.cookies
    other.client.headers["sec-fetch-site"] = "cross-site"
    assert (await other.post("/authorize/elsewhere", asking="1")).status_code == 403
    await outside.look()
    assert "code" in outside.party.answer


async def test_t4_the_page_is_opened_as_a_whole(office: Office, outside: Outside) -> None:
    await outside.begin()
    await outside.answer()
    office.identity = None
    for target in ("iframe", "image", "empty"):
        said = await outside.browser.client.get(outside.place, headers=PAGE | {"sec-fetch-dest": target})
        assert said.status_code == 503
    assert (await outside.look()).status_code == 303


async def test_t13_it_ends_sooner_and_with_the_device_that_said_yes(office: Office, outside: Outside) -> None:
    await outside.begin(scope="openid offline_access")
    await outside.answer()
    await outside.look()
    await outside.party.redeem()
    assert (await outside.party.refresh()).status_code == 200
    office.world.clock.advance(12 * 3600 - 60)
    assert (await outside.party.refresh()).status_code == 200
    office.world.clock.advance(60)
    assert (await outside.party.refresh()).json()["error"] == "invalid_grant"
    await outside.begin(scope="openid offline_access")
    await outside.answer()
    await outside.look()
    await outside.party.redeem()
    await office.registry.delete_node("cli", outside.node.id)
    assert (await outside.party.refresh()).json()["error"] == "invalid_grant"


async def test_what_the_policy_says_of_devices_is_not_about_the_browser(
    office: Office, outside: Outside
) -> None:
    rule = f'{{"src": ["ann"], "dst": ["*"], "srcPosture": ["posture:l"], "app": {{"{CAPABILITY}": [{{}}]}}}}'
    await office.policy(f'{{"postures": {{"posture:l": ["node:os == \'linux\'"]}}, "grants": [{rule}]}}')
    office.identity = outside.node
    assert (await outside.party.send()).status_code == 303  # on the device itself
    await outside.begin()
    inside = await outside.type_code()
    assert inside.page.status_code == 403
    assert await office.audited("app.signin") != []
    everybody = f'{{"src": ["ann"], "dst": ["*"], "app": {{"{CAPABILITY}": [{{"scopes": ["email"]}}]}}}}'
    await office.policy(
        f'{{"postures": {{"posture:l": ["node:os == \'linux\'"]}}, "grants": [{rule}, {everybody}]}}'
    )
    await outside.answer()
    await outside.look()
    await outside.party.redeem()
    assert outside.party.tokens["scope"] == "openid email"


async def test_a_tagged_device_says_yes_to_nobody(office: Office, outside: Outside) -> None:
    await outside.begin()
    await office.policy('{"tagOwners": {"tag:kiosk": []}}')
    outside.node = await office.registry.set_tags("cli", outside.node.id, ("tag:kiosk",))
    assert (await outside.type_code()).page.status_code == 403


async def test_somebody_who_shows_a_passkey_meanwhile_needs_no_yes(office: Office, outside: Outside) -> None:
    resident = await office.resident("ann")
    await outside.begin()
    code = outside.code
    outside.browser.page = outside.asked
    outside.browser.authenticator = resident.authenticator
    await outside.party.prove(outside.browser)
    assert "code" in outside.party.answer
    assert (await outside.party.redeem()).status_code == 200
    assert (await outside.type_code(code)).page.status_code == 404


async def test_the_button_may_be_pressed_twice(outside: Outside) -> None:
    await outside.begin()
    number = outside.place.rpartition("/")[2]
    await outside.browser.post("/authorize/elsewhere", asking=number)
    assert outside.browser.page.headers["location"] == outside.place


async def test_of_many_looks_at_once_one_gets_the_code(office: Office, outside: Outside) -> None:
    await outside.begin()
    await outside.answer()
    office.identity = None
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(outside.browser.client.get(outside.place, headers=PAGE)) for _ in range(5)]
    assert sorted(one.result().status_code for one in tries) == [303, 404, 404, 404, 404]


async def test_it_is_over_after_ten_minutes(office: Office, outside: Outside) -> None:
    await outside.begin()
    code = outside.code
    office.world.clock.advance(600)
    assert (await outside.look()).status_code == 404
    assert (await outside.type_code(code)).page.status_code == 404


async def test_nobody_asks_without_end(office: Office, outside: Outside) -> None:
    await outside.begin()
    for _ in range(121):
        page = await outside.look()
    assert page.status_code == 429
    office.world.clock.advance(5)
    assert (await outside.look()).status_code == 200


async def test_one_who_asks_not_to_be_looked_for_again(outside: Outside) -> None:
    await outside.begin()
    outside.place += "?refresh=no"
    assert 'http-equiv="refresh"' not in (await outside.look()).text


async def test_the_app_that_is_deleted_meanwhile(office: Office, outside: Outside) -> None:
    await outside.begin()
    await office.apps.delete("cli", "grafana")
    assert (await outside.look()).status_code in {400, 403, 404}


async def test_a_program_there_is_not_called_one_on_this_device(office: Office) -> None:
    node = await office.person("ann")
    tool = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True, device=True)
    outside = Outside(office, tool, node)
    await outside.begin()
    page = (await outside.type_code()).page
    assert "a program on the device that asks" in page.text
    assert "on this device" not in page.text
