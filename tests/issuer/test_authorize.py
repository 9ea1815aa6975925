"""What becomes of a request to sign in; threats by their numbers (``test_threats``)."""

import asyncio
import re
from datetime import timedelta

import pytest
from tests.support.office import PAGE, Office

from doorward.login.pages import _static_address

APP = "doorward.dev/cap/app"


async def test_a_person_who_is_asked_after_a_proof_is_not_asked_for_another(office: Office) -> None:
    browser = await office.resident("ann")
    grafana = await office.app(asks=True)
    await grafana.send(browser, prompt="login")
    page = await grafana.prove(browser)
    assert "Yes, sign in" in page.text
    await grafana.press(browser)
    assert (await grafana.redeem()).status_code == 200


async def test_who_is_another_than_was_asked_for_says_so(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    browser = office.browser()
    page = await grafana.send(browser, login_hint="bob@example.com")
    assert "bob@example.com" in page.text
    await grafana.press(browser)
    await grafana.redeem()
    claims = await grafana.claims()
    assert claims["acr"] == "urn:doorward:acr:click"
    assert claims["amr"] == ["network", "user"]


# Redirects: T3 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": "https://evil.example/cb"},  # oidcc-ensure-registered-redirect-uri
        {"redirect_uri": "https://grafana.example.com/login/generic_oauth/"},
        {"redirect_uri": "https://grafana.example.com/login/generic_oauth?x=1"},
        {"redirect_uri": None},  # oidcc-ensure-redirect-uri-in-authorization-request
        {"client_id": "app-unknown"},
        {"client_id": None},
    ],
    ids=repr,
)
async def test_t3_nobody_is_sent_where_an_app_is_not(office: Office, changes: dict[str, str | None]) -> None:
    await office.person("ann")
    grafana = await office.app()
    page = await grafana.send(None, None, **changes)
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "refresh" not in page.headers
    assert "evil.example" not in page.text


async def test_t3_errors_lead_to_the_app_alone(office: Office) -> None:
    grafana = await office.app()
    page = await grafana.send(response_type="token", redirect_uri="https://evil.example/cb")
    assert page.status_code == 400
    await grafana.send(response_type="token")
    assert grafana.answer["error"] == "unsupported_response_type"


# Threats --------------------------------------------------------------------------------------------------------------


async def test_t1_an_app_that_asks_gets_no_code_by_being_visited(office: Office) -> None:
    await office.person("ann")
    tool = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    wiki = await office.app("wiki", asks=True)
    for party in (tool, wiki):
        page = await party.send()
        assert page.status_code == 200
        assert not party.answer
        assert "Sign in to" in page.text


async def test_t1_a_yes_is_remembered_for_the_same_and_no_more(office: Office) -> None:
    await office.person("ann")
    wiki = await office.app("wiki", asks=True)
    browser = office.browser()
    await wiki.send(browser, scope="openid profile")
    await wiki.press(browser, "once")
    assert "code" in wiki.answer
    await wiki.send(browser, scope="openid profile")
    assert not wiki.answer
    await wiki.press(browser)
    assert (await wiki.send(browser, scope="openid")).status_code == 303
    assert (await wiki.send(browser, scope="openid email")).status_code == 200
    office.world.clock.advance(timedelta(days=91))
    assert (await wiki.send(browser, scope="openid")).status_code == 200


async def test_t1_a_yes_for_a_program_is_good_on_its_device_alone(office: Office) -> None:
    laptop = await office.person("ann")
    tool = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    browser = office.browser()
    await tool.send(browser, redirect_uri="http://127.0.0.1:5000/cb")
    await tool.press(browser)
    assert (await tool.send(browser, redirect_uri="http://127.0.0.1:6000/cb")).status_code == 303
    await office.person("ann", 2)
    assert (await tool.send(browser)).status_code == 200
    office.identity = laptop
    assert (await tool.send(browser)).status_code == 303


async def test_no_is_told_and_on_record(office: Office) -> None:
    await office.person("ann")
    wiki = await office.app("wiki", asks=True)
    browser = office.browser()
    await wiki.send(browser)
    await wiki.press(browser, "no")
    assert wiki.answer["error"] == "access_denied"
    assert wiki.answer["state"] == "the state"
    assert "come back" not in browser.page.text  # that is what people hear who go on to a provider
    assert len(await office.audited("app.deny")) == 1


async def test_a_button_works_once_for_the_one_it_was_shown_to(office: Office) -> None:
    await office.person("ann")
    wiki = await office.app("wiki", asks=True)
    browser = office.browser()
    await wiki.send(browser)
    shown = browser.page
    await office.person("bob", 2)  # the same browser, from another device
    assert (await wiki.press(browser)).status_code == 404
    office.identity = office.registry.snapshot.node_by_name("ann-1")
    browser.page = shown
    await wiki.press(browser)
    assert "code" in wiki.answer
    browser.page = shown
    assert (await wiki.press(browser)).status_code == 404


async def test_t2_many_sign_ins_in_a_row_take_a_click(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    pages = [await grafana.send() for _ in range(31)]
    assert [page.status_code for page in pages] == [303] * 30 + [200]


@pytest.mark.parametrize("target", ["iframe", "frame", "embed", "object", "empty", "image", "script"])
async def test_t4_nothing_inside_another_page_learns_anything(office: Office, target: str) -> None:
    await office.person("ann")
    grafana = await office.app()
    headers = {**PAGE, "sec-fetch-dest": target}
    for prompt in (None, "none"):
        page = await grafana.send(None, headers, prompt=prompt)
        assert page.status_code == 403
        assert "location" not in page.headers


async def test_t4_a_page_that_is_loaded_ahead_of_time_signs_nobody_in(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    page = await grafana.send(None, {**PAGE, "sec-purpose": "prefetch"})
    assert page.status_code == 503
    assert await office.audited("app.signin") == []


async def test_t5_the_page_that_asks_is_shown_in_no_frame(office: Office) -> None:
    await office.person("ann")
    wiki = await office.app("wiki", asks=True)
    page = await wiki.send()
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "autofocus" not in page.text
    assert re.findall(r"<script[^>]*>", page.text) == [f'<script src="{_static_address("steady.js")}" defer>']
    assert "script-src 'self'" in page.headers["content-security-policy"]


async def test_t8_a_program_without_a_browser_gets_no_code(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    browser = office.browser()
    browser.client.headers.pop("sec-fetch-site")
    page = await grafana.send(browser, {})
    assert page.status_code == 200
    assert "Yes, sign in" in page.text


async def test_t9_a_router_vouches_for_nobody(office: Office) -> None:
    router = await office.person("ann", RoutableIPs=["10.0.0.0/8"])
    grafana = await office.app()
    assert (await grafana.send()).status_code == 303
    await office.registry.set_routes("cli", router.id, approve=["10.0.0.0/8"])
    page = await grafana.send()
    assert page.status_code == 403
    assert "carries the traffic of others" in page.text


async def test_a_tagged_device_is_no_person(office: Office) -> None:
    await office.policy('{"tagOwners": {"tag:ci": ["ann"]}}')
    await office.registry.create_user("cli", "ann")
    office.identity = await office.world.join(5, "runner", None, "tag:ci")
    grafana = await office.app()
    await grafana.send()
    assert grafana.answer["error"] == "access_denied"


async def test_t10_no_header_says_who_somebody_is(office: Office) -> None:
    await office.person("ann")
    office.identity = None
    grafana = await office.app()
    lies = {"x-forwarded-for": "100.64.0.2", "tailscale-user-login": "ann", "x-webauth-user": "ann"}
    page = await grafana.send(None, {**PAGE, **lies})
    assert page.status_code == 200
    assert "passkey" in page.text


async def test_the_policy_decides_who_may(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    rule = f'{{"src": ["ann"], "dst": ["*"], "app": {{"{APP}": [{{"apps": ["grafana"], "scopes": ["email"]}}]}}}}'
    await office.policy(f'{{"grants": [{rule}]}}')
    await grafana.sign_in()
    assert grafana.tokens["scope"] == "openid email"
    await office.person("bob", 2)
    await grafana.send()
    assert grafana.answer["error"] == "access_denied"
    (event,) = await office.audited("app.refuse")
    assert (event.actor, event.details["why"]) == ("user:bob", "the policy does not let them")


async def test_an_app_may_ask_for_a_device_that_meets_a_posture(office: Office) -> None:
    """And what was given for it ends when the device does not meet it any more."""
    met = "urn:doorward:acr:posture:ours"
    await office.person("ann")
    grafana = await office.app()
    postures = (
        '{"postures": {"posture:ours": ["node:os == \'linux\'"], "posture:other": ["node:os == \'plan9\'"]}}'
    )
    await office.policy(postures)
    for wanted in (f"urn:doorward:acr:posture:other {met}", met):
        await grafana.send(acr_values=wanted, scope="openid offline_access")
        assert (await grafana.redeem()).status_code == 200
        assert (await grafana.claims())["acr"] == met
        assert (await grafana.refresh()).status_code == 200
    for unmet in ("urn:doorward:acr:posture:other", "urn:doorward:acr:posture:unknown"):
        for prompt in (None, "none"):
            await grafana.send(acr_values=unmet, prompt=prompt)
            assert grafana.answer["error"] == "unmet_authentication_requirements"
    await grafana.send(scope="openid offline_access", acr_values=met)
    await grafana.redeem()
    await office.policy(postures.replace("linux", "freebsd"))
    refused = await grafana.refresh()
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert (await grafana.userinfo()).status_code == 401


async def test_a_session_elsewhere_meets_no_posture(office: Office) -> None:
    browser = await office.resident("ann")
    office.identity = None
    grafana = await office.app()
    await office.policy('{"postures": {"posture:ours": ["node:os == \'linux\'"]}}')
    await grafana.send(browser, acr_values="urn:doorward:acr:posture:ours")
    assert grafana.answer["error"] == "unmet_authentication_requirements"


async def test_who_is_suspended_is_nobody(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    await office.registry.suspend_user("cli", "ann", suspended=True)
    page = await grafana.send()
    assert page.status_code == 200
    assert not grafana.answer


async def test_nobody_asks_without_end(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    for _ in range(100):
        await grafana.send(response_type="token")
    page = await grafana.send(response_type="token")
    assert page.status_code == 429


async def test_a_code_is_in_no_answer_without_a_body(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    said = await office.browser().client.head(grafana.url(), headers=PAGE)
    assert said.status_code == 405
    assert "location" not in said.headers


async def test_people_sign_in_at_once(office: Office) -> None:
    await office.person("ann")
    parties = [await office.app(f"app-{number}") for number in range(5)]
    async with asyncio.TaskGroup() as group:
        done = [group.create_task(party.sign_in()) for party in parties]
    assert len({one.result()["sub"] for one in done}) == 1
    assert len({one.result()["sid"] for one in done}) == 1


async def test_who_wants_tokens_for_a_resource_can_refresh_them(office: Office) -> None:
    party = await office.app(resources=("https://mcp.example",))
    await office.person()
    await party.sign_in(scope="openid", resource="https://mcp.example")
    assert (
        party.tokens["scope"] == "openid"
    )  # or clients would ask for it from then on, and have their person asked
    assert (await party.refresh(resource="https://mcp.example")).status_code == 200
    await party.sign_in(scope="openid")
    assert "refresh_token" not in party.tokens
    # As far as the policy lets them.
    await office.policy(
        '{"grants": [{"src": ["ann"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{"scopes": ["profile"]}]}}]}'
    )
    await party.sign_in(scope="openid", resource="https://mcp.example")
    assert "refresh_token" not in party.tokens
