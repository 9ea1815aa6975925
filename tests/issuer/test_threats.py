"""What somebody may try who wants to be signed in as somebody else, or to learn who somebody is: each threat by its number.

A device says whose it is to every program and page on it, so what the network knows goes along with everybody's requests as a
cookie would, without any of a cookie's own limits. Each threat below has at least one test whose name begins with its number
(``test_t7_...``), here, beside the module that stands against it, or in a real browser (``tests/interop``).
"""

import ast
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.browsing import DOOR, LOCAL
from tests.support.conformance import FORM_POST, QUERY, Run
from tests.support.office import BACK, PAGE, Office, Party

from doorward.policy.apps import PROTECTED

THREATS = {
    1: "a page sends the browser here for an app that is the attacker's",
    2: "a page signs somebody in at an app where they did not mean to",
    3: "a redirect, or an error, that leads to an attacker",
    4: "a hidden frame, a script or a page loaded ahead of time learns who somebody is",
    5: "a click that somebody is tricked into",
    6: "a page that makes the browser register an app, or answer for its person",
    7: "another program, or another account, on the person's own device",
    8: "a server that is some person's, and fetches what others tell it to",
    9: "a router behind whose address are others",
    10: "headers that say who somebody is",
    11: "a connection of the local machine that passes for one of the tailnet",
    12: "a device of another tailnet",
    13: "tokens that outlive what they came of",
    14: "a code that is stolen, or put in another's place",
    15: "a token that is stolen",
    16: "addresses that the issuer itself is made to fetch",
    17: "an app with two issuers takes the one's answer for the other's",
    18: "one name with two ways to it, of which one says who somebody is",
    19: "a policy that has a token say what tokens say by themselves",
    20: "finding out who there is",
    21: "a link with a code that somebody else's program shows",
    22: "a name that is given to somebody else",
}
APP = "doorward.dev/cap/app"
ROOT = Path(__file__).parent.parent


def _named() -> dict[int, list[str]]:
    """The tests of each threat. A test that is never run would count, so none may be marked as skipped."""
    found: dict[int, list[str]] = {number: [] for number in THREATS}
    for path in sorted(ROOT.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "test_t" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            named = re.match(r"test_t(\d+)_", node.name)
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            if named and not any("skip" in mark or "xfail" in mark for mark in marks):
                found.setdefault(int(named[1]), []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("number", THREATS)
def test_every_threat_has_a_test(number: int) -> None:
    assert _named()[number], THREATS[number]


def test_every_number_is_a_threat() -> None:
    assert _named().keys() == THREATS.keys()


# T7 -------------------------------------------------------------------------------------------------------------------


async def test_t7_another_program_on_the_device_gets_no_code_without_its_person(office: Office) -> None:
    await office.person("ann")
    tool = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    grafana = await office.app()
    for party in (tool, grafana):
        for headers in ({}, {"origin": "null"}):
            browser = office.browser()
            browser.client.headers.pop("sec-fetch-site")
            page = await party.send(browser, headers)
            assert page.status_code == 200
            assert not party.answer
    assert await office.audited("app.signin") == []


async def test_t7_what_matters_takes_more_than_a_device(office: Office) -> None:
    """A program may say that it is a browser, and press a button; it has nobody's passkey."""
    resident, other = await office.resident("ann"), await office.resident("bob")
    await office.person("ann")
    vault = await office.app("vault")
    browser = office.browser()
    page = await vault.send(browser, acr_values="urn:doorward:acr:passkey")
    assert not vault.answer
    assert "/authorize/answer" not in page.text
    asked = browser.options() | {"allowCredentials": []}  # another's passkey, which the page does not ask for
    given = other.authenticator.sign(asked, DOOR)
    page = await browser.post("/signin/passkey", asking=browser.field("asking"), answer=given)
    assert page.status_code == 403
    assert not vault.answer
    browser.authenticator = resident.authenticator
    await vault.send(browser, acr_values="urn:doorward:acr:passkey")
    await vault.prove(browser)
    await vault.redeem()
    assert (await vault.claims())["acr"] == "urn:doorward:acr:passkey"
    assert vault.tokens["expires_in"] <= 300


# T12 ------------------------------------------------------------------------------------------------------------------


async def test_t12_a_device_that_this_tailnet_does_not_know_is_nobody(office: Office) -> None:
    """Nobody here is of another tailnet: a stable id that is not in the snapshot of now says nothing."""
    grafana = await office.app()
    node = await office.person("ann")
    await office.registry.delete_node("cli", node.id)
    office.identity = node
    page = await grafana.send()
    assert "passkey" in page.text
    await grafana.send(prompt="none")
    assert grafana.answer["error"] == "login_required"


# T15 ------------------------------------------------------------------------------------------------------------------


async def test_t15_a_token_is_for_one_server_and_a_short_time(office: Office) -> None:
    await office.person("ann")
    client = await office.app("client", resources=("https://a.example", "https://b.example"))
    first = await office.app("first", resources=("https://a.example",))
    second = await office.app("second", resources=("https://b.example",))
    await client.sign_in(resource="https://a.example")
    token = client.tokens["access_token"]
    assert (await first.post("/introspect", token=token)).json()["active"] is True
    assert (await second.post("/introspect", token=token)).json() == {"active": False}
    office.world.clock.advance(client.tokens["expires_in"])
    assert (await first.post("/introspect", token=token)).json() == {"active": False}
    assert (await client.userinfo()).status_code == 401


async def test_t15_an_id_token_is_no_access_token_and_the_other_way_round(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in()
    assert (await party.userinfo(party.tokens["id_token"])).status_code == 401
    await party.send(prompt="none", id_token_hint=party.tokens["access_token"])
    assert party.answer["error"] == "login_required"


# T16 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "https://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8080/",
        "https://wiki.tailnet.internal/request.jwt",
        "https://grafana.example.com/request.jwt",
        "file:///etc/passwd",
    ],
)
async def test_t16_no_request_has_the_issuer_fetch_anything(office: Office, address: str) -> None:
    await office.person("ann")
    party = await office.app()
    await party.send(request_uri=address)
    assert party.answer["error"] == "request_uri_not_supported"
    for name in ("jwks_uri", "logo_uri", "sector_identifier_uri", "initiate_login_uri", "policy_uri"):
        await party.send(None, None, **{name: address})
        await party.post("/par", **{name: address, "redirect_uri": BACK, "response_type": "code"})
        await party.post("/token", grant_type="authorization_code", **{name: address})
    assert office.fetched == []


# T17 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [QUERY, FORM_POST])
async def test_t17_every_answer_says_whose_it_is(office: Office, mode: str) -> None:
    await office.person("ann")
    run, party = Run(office, mode), await office.app()
    browser = await run.authorize(party)
    assert run.heard(party, browser.page)["iss"] == DOOR
    for wrong in ({"response_type": "token"}, {"scope": "x"}, {"prompt": "none", "login_hint": "bob"}):
        browser = await run.authorize(party, None, **wrong)
        assert run.heard(party, browser.page, error=True)["iss"] == DOOR
    document = (await office.browser().client.get("/.well-known/openid-configuration")).json()
    assert document["authorization_response_iss_parameter_supported"] is True
    # What an app checks it against is at the address that it names (RFC 8414 section 3.3).
    assert document["issuer"] == DOOR


async def test_t17_a_code_of_another_issuer_is_not_taken_in(office: Office) -> None:
    """An attacker who runs an issuer of its own has the app send the code here, or ours there: both are worth nothing."""
    await office.person("ann")
    party = await office.app()
    await party.send()
    mine = party.answer["code"]
    for foreign in ("SplxlOBeZQQYbYS6WxSbIA", mine[:-1], mine.upper(), mine + "x"):
        assert (await party.redeem(foreign)).json()["error"] == "invalid_grant"
    assert (await party.redeem(mine, code_verifier="w" * 43)).json()["error"] == "invalid_grant"
    assert (await party.redeem(mine)).status_code == 200


# T18 ------------------------------------------------------------------------------------------------------------------


async def test_t18_the_same_name_from_outside_says_nothing_of_anybody(office: Office) -> None:
    node = await office.person("ann")
    party = await office.app()
    await party.sign_in()
    office.identity = None  # the same address, by the other way
    lies = {
        "tailscale-funnel-request": "?1",
        "x-forwarded-for": node.ipv4.compressed,
        "forwarded": f"for={node.ipv4}",
        "tailscale-user-login": "ann@example.com",
        "x-doorward-identity": node.stable_id,
        "host": urlsplit(DOOR).netloc,
    }
    for headers in ({}, lies):
        page = await party.send(None, PAGE | headers)
        assert not party.answer
        assert "ann" not in page.text
    document = (await office.browser().client.get("/.well-known/openid-configuration")).json()
    assert document["issuer"] == DOOR


async def test_t18_another_name_is_another_issuer_and_there_is_none(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    local = office.browser(LOCAL).client
    for host in (None, "evil.example", "door.tailnet.internal", "door.tailnet.internal:8443.evil.example"):
        headers = PAGE | ({} if host is None else {"host": host})
        page = await local.get(party.url(), headers=headers)
        assert page.status_code in {400, 421}
        assert "location" not in page.headers


# T19 ------------------------------------------------------------------------------------------------------------------


async def test_t19_no_policy_changes_what_tokens_say_by_themselves(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    honest = await party.sign_in()
    everything = ", ".join(f'"{name}": "forged"' for name in sorted(PROTECTED))
    entry = f'{{"claims": {{{everything}, "team": "ops"}}}}'
    tsidp = f'{{"extraClaims": {{{everything}}}, "includeInUserInfo": true}}'
    await office.policy(
        f'{{"grants": [{{"src": ["*"], "dst": ["*"], "app": {{"{APP}": [{entry}], '
        f'"tailscale.com/cap/tsidp": [{tsidp}]}}}}]}}'
    )
    claims = await party.sign_in()
    assert claims.pop("team") == "ops"
    changing = ("iat", "exp", "at_hash")
    assert {k: v for k, v in claims.items() if k not in changing} == {
        k: v for k, v in honest.items() if k not in changing
    }
    told = (await party.post("/introspect", token=party.tokens["access_token"])).json()
    assert "forged" not in str(told)
    assert "forged" not in (await party.userinfo()).text


# T20 ------------------------------------------------------------------------------------------------------------------


async def test_t20_who_is_not_known_learns_of_nobody(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in()
    office.identity = None
    seen = set()
    for hint in ("ann", "ann@example.com", "nobody-there"):
        page = await party.send(login_hint=hint)
        assert hint not in page.text
        asking = re.sub(r'name="asking" value="\d+"|data-options="[^"]*"', "", page.text)
        seen.add((page.status_code, asking))
    assert len(seen) == 1
    for path in ("/introspect", "/userinfo", "/token"):
        async with party.program() as client:
            said = await client.post(path, data={"token": party.tokens["access_token"]})
        assert said.status_code == 401
        assert "ann" not in said.text


async def test_t20_a_device_is_no_app_and_learns_of_no_token(office: Office) -> None:
    """Where the connection itself would count, any device could ask about any token."""
    await office.person("ann")
    party = await office.app()
    await party.sign_in()
    await office.person("bob", 2)
    said = await party.post("/introspect", how="none", token=party.tokens["access_token"])
    assert said.status_code == 401
    other = await office.app("wiki")
    for token in (party.tokens["access_token"], "x"):
        assert (await other.post("/introspect", token=token)).json() == {"active": False}


# T22 ------------------------------------------------------------------------------------------------------------------


async def test_t22_a_name_that_is_given_to_somebody_else_is_somebody_else(office: Office) -> None:
    node = await office.person("ann")
    party = await office.app()
    before = await party.sign_in(scope="openid offline_access")
    refresh = party.tokens["refresh_token"]
    await office.registry.delete_node("cli", node.id)
    await office.registry.delete_user("cli", "ann")
    after = await _sign_in_again(office, party)
    assert after["sub"] != before["sub"]
    assert after["sid"] != before["sid"]
    assert (await party.refresh(refresh)).json()["error"] == "invalid_grant"


async def _sign_in_again(office: Office, party: Party) -> dict[str, object]:
    await office.person("ann", 3)
    return await party.sign_in(scope="openid offline_access")


async def test_t22_a_device_that_changes_hands_takes_nothing_along(office: Office) -> None:
    node = await office.person("ann")
    tool = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    browser = office.browser()
    await tool.send(browser, scope="openid offline_access")
    await tool.press(browser)
    await tool.redeem()
    first = tool.tokens["refresh_token"]
    # The same machine, another's from now on: another node, as far as anybody is concerned.
    await office.registry.delete_node("cli", node.id)
    office.world.clock.advance(timedelta(seconds=5))
    await office.person("bob", 1)
    page = await tool.send(browser, scope="openid offline_access")
    assert page.status_code == 200, "a yes of another's does not count"
    assert (await tool.refresh(first)).json()["error"] == "invalid_grant"
