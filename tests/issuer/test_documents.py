"""Apps that describe themselves at the address that is their client id."""

import asyncio
import json
from ipaddress import ip_address
from typing import Any

import pytest
from tests.issuer.test_assertions import claims, show
from tests.support.browsing import DOOR
from tests.support.idtokens import jwk, signed
from tests.support.office import Office

from doorward.errors import BadInput, Conflict, NotFound, Unavailable
from doorward.issuer.documents import check_client_id
from doorward.issuer.trust import Trust
from doorward.login.apps import name_of
from doorward.model import App
from doorward.policy import apps as policy_apps
from doorward.store import apps

URL = "https://claude.example/oauth/client.json"
LOOPBACK = ["http://localhost/callback", "http://127.0.0.1/callback"]


async def stored(office: Office) -> list[App]:
    return await office.registry.writer.database.read(apps.load_all)


# A person signs in --------------------------------------------------------------------------------------------------


async def test_each_person_is_asked_once_and_sees_where_it_goes(office: Office) -> None:
    await office.person("ann")
    party = office.publish(
        URL, client_uri="https://claude.example", policy_uri="https://claude.example/p", tos_uri="x"
    )
    browser = party.browser()
    page = await party.send(browser)
    assert page.status_code == 200
    for shown in ("<h1>Sign in to", "A tool", "claude.example", "tool.example.com", "its own word"):
        assert shown in page.text
    assert 'href="https://claude.example/p"' in page.text
    assert await stored(office) == []  # nothing is kept of what a stranger says before somebody has said yes
    await party.press(browser)
    assert party.answer["iss"] == DOOR
    (kept,) = await stored(office)
    assert (kept.name, kept.client_id, kept.title) == (name_of(URL), URL, "A tool")
    assert kept.public
    assert (await party.redeem()).status_code == 200
    assert (await party.claims())["aud"] == URL
    assert (await party.userinfo()).json()["email"] == "ann@example.com"
    assert "A tool" in (await browser.get("/me")).text
    # Another time nobody asks her; bob is asked, though she was.
    assert (await party.send()).status_code == 303
    await office.person("bob", 2)
    assert "<h1>Sign in to" in (await party.send()).text
    created = await office.audited("app.create")
    assert [(one.actor, one.target) for one in created] == [("user:ann", f"app:{name_of(URL)}")]


async def test_a_program_on_the_device_is_asked_about_with_a_warning_and_at_any_port(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL, redirect_uris=LOOPBACK)
    browser = party.browser()
    page = await party.send(browser, redirect_uri="http://localhost:49152/callback")
    assert "Any program on this device could have asked" in page.text
    await party.press(browser)
    assert party.answer["code"]
    said = await party.redeem(redirect_uri="http://localhost:49152/callback")
    assert said.status_code == 200, said.text
    for wrong in ("http://localhost:1/other", "https://localhost/callback", "http://127.0.0.2/callback"):
        assert (await party.send(redirect_uri=wrong)).status_code == 400


async def test_a_no_is_told_and_leaves_nothing(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL)
    browser = party.browser()
    await party.send(browser)
    await party.press(browser, "no")
    assert party.answer["error"] == "access_denied"
    assert await stored(office) == []


async def test_two_people_say_yes_at_once(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL)
    first, second = party.browser(), party.browser()
    for browser in (first, second):
        await party.send(browser)
    async with asyncio.TaskGroup() as group:
        for browser in (first, second):
            group.create_task(party.press(browser))
    assert len(await stored(office)) == 1


async def test_it_stays_signed_in_where_it_says_that_it_does_and_the_policy_lets_it(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL, grant_types=["authorization_code", "refresh_token"])
    browser = party.browser()
    page = await party.send(browser, scope="openid")
    assert "stay signed in while you are away" in page.text
    await party.press(browser)
    said = (await party.redeem()).json()
    assert said["scope"] == "openid offline_access"
    assert (await party.refresh()).status_code == 200
    await office.policy(
        json.dumps(
            {
                "grants": [
                    {
                        "src": ["*"],
                        "dst": ["*"],
                        "app": {policy_apps.APP: [{"apps": [URL], "scopes": ["profile"]}]},
                    }
                ]
            }
        )
    )
    await party.send(browser, scope="openid")
    assert "refresh_token" not in (await party.redeem()).json()


async def test_the_policy_names_it_by_its_address(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL)

    def only(app: str) -> str:
        capability = {policy_apps.APP: [{"apps": [app], "roles": ["agent"]}]}
        return json.dumps({"grants": [{"src": ["*"], "dst": ["*"], "app": capability}]})

    await office.policy(only("grafana"))
    page = await party.send()
    assert page.status_code == 400
    assert "the policy does not let them" in page.text
    for name in (URL, name_of(URL)):
        await office.policy(only(name))
        browser = party.browser()
        await party.send(browser, prompt="consent")
        await party.press(browser)
        await party.redeem()
        assert (await party.claims())["roles"] == ["agent"]


async def test_tokens_for_resources_that_are_shared_and_for_no_others(office: Office) -> None:
    await office.person("ann")
    await office.app("mcp", resources=("https://mcp.example.com/mcp",), shared=True)
    await office.app("wiki", resources=("https://wiki.example.com",))
    party = office.publish(URL)
    browser = party.browser()
    await party.send(browser, resource="https://mcp.example.com/mcp")
    await party.press(browser)
    said = await party.redeem(resource="https://mcp.example.com/mcp")
    assert said.status_code == 200, said.text
    page = await party.send(browser, resource="https://wiki.example.com")
    assert page.status_code == 400
    assert "no tokens for" in page.text
    # A resource that was not in the yes takes another one.
    assert (await party.send(browser)).status_code == 303
    (kept,) = [one for one in await stored(office) if one.client_id == URL]
    assert kept.resources == ()


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["query", "form_post"])
async def test_no_link_of_ours_leads_where_a_stranger_wants(office: Office, mode: str) -> None:
    """Nor does a page find out by an error who is at home (prompt=none)."""
    await office.person("ann")
    party = office.publish(URL)
    for name, value in (("prompt", "none"), ("response_type", "token"), ("scope", "nothing")):
        page = await party.send(None, None, response_mode=mode, **{name: value})
        assert "location" not in page.headers
        assert "refresh" not in page.headers
        assert "<script" not in page.text
        assert "tool.example.com" in page.text  # a link or a button, for who wants to go there
    made = await office.app(redirect_uris=("https://tool.example.com/back",))
    assert (await made.send(response_type="token")).status_code == 303  # an administrator's word


# Approved of ---------------------------------------------------------------------------------------------------------


async def test_an_administrator_makes_it_silent(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL)
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    approved = await office.apps.approve("cli", URL)
    assert approved.brought is not None
    assert approved.brought.approved == ("tool.example.com",)
    await office.person("bob", 2)
    assert (await party.send()).status_code == 303
    assert (await party.send(prompt="none")).status_code == 303
    # At another host it is as it was: who took the document over sends people elsewhere.
    office.world.clock.advance(3600)
    office.publish(URL, redirect_uris=["https://tool.example.com/back", "https://evil.example/back"])
    assert (await party.send()).status_code == 303
    assert "evil.example" in (await party.send(redirect_uri="https://evil.example/back")).text
    assert (await party.send(redirect_uri="https://evil.example/back", prompt="none")).status_code == 400
    await office.apps.approve("cli", name_of(URL), approved=False)
    assert (await party.send()).status_code == 200
    said = [(one.action, one.details["hosts"]) for one in await office.audited("app.approve")]
    assert said == [("app.approve", ["tool.example.com"])]
    assert len(await office.audited("app.doubt")) == 1


async def test_it_can_be_approved_of_before_it_comes(office: Office) -> None:
    await office.person("ann")
    await office.apps.approve("cli", URL)
    party = office.publish(URL, redirect_uris=["https://claude.example/back", "https://other.example/back"])
    assert (await party.send()).status_code == 303
    assert (await party.redeem()).status_code == 200
    assert (await party.send(redirect_uri="https://other.example/back")).status_code == 200
    with pytest.raises(BadInput):
        await office.apps.approve("cli", "https://")
    with pytest.raises(NotFound):
        await office.apps.approve("cli", "http://claude.example/x")
    with pytest.raises(NotFound):
        await office.apps.approve("cli", "https://never.example/x", approved=False)


async def test_an_app_that_an_administrator_made_needs_no_approval(office: Office) -> None:
    await office.app()
    with pytest.raises(Conflict):
        await office.apps.approve("cli", "grafana")


async def test_a_program_on_the_device_is_asked_about_all_the_same(office: Office) -> None:
    await office.person("ann")
    await office.apps.approve("cli", URL)
    party = office.publish(URL, redirect_uris=LOOPBACK)
    assert "Any program on this device" in (await party.send()).text


# Whose ----------------------------------------------------------------------------------------------------------------


async def test_what_a_stranger_names_is_not_asked_for(office: Office) -> None:
    party = office.publish(URL)
    page = await party.send()
    assert page.status_code == 400
    assert "/signin" in page.text
    assert office.fetched == []
    office.rule(Trust(hosts=("claude.example",)))
    page = await party.send()  # the page to sign in
    assert page.status_code in {200, 303}
    assert [url for url, _ in office.fetched] == [URL]


async def test_a_named_host_may_be_inside_and_any_other_not(office: Office) -> None:
    node = await office.person("ann")
    name = f"{node.name}.tailnet.internal"
    await office.publish(f"https://{name}/client.json").send()
    office.rule(Trust(hosts=("*.tailnet.internal",)))
    await office.publish(f"https://{name}/other.json").send()
    first, second = (rules.also(name, node.addresses[0]) for _, rules in office.fetched)
    assert (first, second) == (False, True)


@pytest.mark.parametrize("trust", [Trust(documents="off"), Trust(blocked=("claude.example",))])
async def test_what_is_not_wanted_any_more_is_over(office: Office, trust: Trust) -> None:
    await office.person("ann")
    party = office.publish(URL, grant_types=["authorization_code", "refresh_token"])
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    await party.redeem()
    office.rule(trust)
    page = await party.send(browser)
    assert page.status_code == 400
    assert "not wanted here" in page.text
    if trust.blocked:
        assert (await party.refresh()).status_code == 401
        assert (await party.userinfo()).status_code == 401


# The document --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"client_id": "https://claude.example/oauth/other.json"},
        {"client_id": URL + "?"},
        {"client_id": None},
        {"client_id": URL.upper()},
        {"client_name": None},
        {"client_name": " "},
        {"client_name": 7},
        {"redirect_uris": None},
        {"redirect_uris": ["https://tool.example.com/back#x"]},
        {"client_secret": "x"},
        {"client_secret_expires_at": 0},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt"},
    ],
)
async def test_a_document_that_is_not_good(office: Office, fields: dict[str, Any]) -> None:
    await office.person("ann")
    party = office.publish(URL, **fields)
    page = await party.send()
    assert page.status_code == 400
    assert "cannot be used" in page.text
    assert "location" not in page.headers


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{" * 5000, Unavailable("nobody answers")])
async def test_a_document_that_is_none(office: Office, body: Any) -> None:
    await office.person("ann")
    party = office.publish(URL)
    office.published[URL] = body
    assert (await party.send()).status_code == 400


async def test_what_has_gone_from_its_address_signs_nobody_in(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL)
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    office.world.clock.advance(3600)
    office.published[URL] = Unavailable("gone")
    assert (await party.send(browser)).status_code == 400


async def test_it_follows_its_document(office: Office) -> None:
    await office.person("ann")
    party = office.publish(URL)
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    office.world.clock.advance(3600)
    office.publish(URL, client_name="Another", redirect_uris=["https://new.example.com/back"])
    assert (await party.send(browser)).status_code == 400  # the address is the app's no more
    assert "Another" in (await party.send(browser, redirect_uri="https://new.example.com/back")).text
    (kept,) = await stored(office)
    assert (kept.title, kept.redirect_uris) == ("Another", ("https://new.example.com/back",))
    assert len(await office.audited("app.change")) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://claude.example",
        "https://claude.example/",
        "https://claude.example/./client.json",
        "https://claude.example/a/../client.json",
        "https://claude.example/a/%2e%2E/client.json",
        "https://claude.example/a/..",
        "https://ann@claude.example/client.json",
        "https://claude.example/client.json#x",
        "https:///client.json",
        "https:claude.example/client.json",
    ],
)
async def test_an_address_that_is_no_client_id(office: Office, url: str) -> None:
    with pytest.raises(BadInput):
        check_client_id(url)
    await office.person("ann")
    assert (await office.publish(url).send()).status_code == 400
    assert office.fetched == []


async def test_two_addresses_are_two_apps(office: Office) -> None:
    check_client_id(URL + "?v=2")
    assert name_of(URL) != name_of(URL + "?v=2")
    assert name_of(URL).startswith("claude.example~")


# One that signs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["jwks", "jwks_uri"])
async def test_one_that_signs_with_its_key(office: Office, at: str) -> None:
    await office.person("ann")
    keys = {"keys": [jwk("ES256")]}
    there = "https://claude.example/keys.json"
    office.published[there] = json.dumps(keys).encode()
    party = office.publish(
        URL,
        token_endpoint_auth_method="private_key_jwt",
        **{at: keys if at == "jwks" else there},
    )
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    form = {
        "grant_type": "authorization_code",
        "code": party.answer["code"],
        "redirect_uri": party.app.redirect_uris[0],
        "code_verifier": "a-verifier-of-43-characters-or-more-0123456789",
    }
    assert (await party.redeem(how="public")).status_code == 401
    assert (await show(party, signed(claims(party), number=1), **form)).status_code == 401
    said = await show(party, signed(claims(party)), **form)
    assert said.status_code == 200, said.text
    assert all(not rules.also("claude.example", ip_address("10.0.0.1")) for _, rules in office.fetched)
    # It becomes a public one, and then no key counts for it any more.
    office.world.clock.advance(3600)
    office.publish(URL)
    await party.send(browser)
    assert (await party.redeem()).status_code == 200


async def test_the_keys_of_a_named_host_may_be_inside(office: Office) -> None:
    node = await office.person("ann")
    name = f"{node.name}.tailnet.internal"
    office.rule(Trust(hosts=(name,)))
    there = f"https://{name}/keys.json"
    office.published[there] = json.dumps({"keys": [jwk("ES256")]}).encode()
    party = office.publish(
        f"https://{name}/client.json", token_endpoint_auth_method="private_key_jwt", jwks_uri=there
    )
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    await show(party, signed(claims(party)), "/revoke", token="x")
    assert office.fetched[-1][0] == there
    assert office.fetched[-1][1].also(name, node.addresses[0])
