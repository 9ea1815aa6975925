"""The modules of the RP-Initiated and the Back-Channel Logout OP profiles of OpenID Connect, each under its name."""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from tests.support.browsing import DOOR, Browser
from tests.support.office import Office, Party

from doorward.issuer.backchannel import EVENT
from doorward.issuer.tokens import split

OUT = "https://grafana.example.com/signed-out"
TOLD = "https://grafana.example.com/oidc/backchannel-logout"


async def signed_in(office: Office) -> tuple[Party, str]:
    """Somebody in an app, and the ID token that it has."""
    await office.person("ann")
    grafana = await office.app(signed_out_uris=(OUT,), logout_url=TOLD)
    office.published[TOLD] = b""
    await grafana.sign_in()
    return grafana, grafana.tokens["id_token"]


async def is_out(grafana: Party) -> bool:
    """Whether prompt=none gives an error, and not a code."""
    page = await grafana.send(prompt="none")
    assert page.status_code == 303
    assert ("code" in grafana.answer) != (grafana.answer.get("error") == "login_required")
    return "error" in grafana.answer


def asks(page: httpx2.Response) -> bool:
    assert page.status_code == 200
    assert "location" not in page.headers
    assert "refresh" not in page.headers
    return "Sign out of all apps here?" in page.text


async def press(browser: Browser, answer: str = "yes") -> httpx2.Response:
    return await browser.post("/end_session/answer", asking=browser.field("asking"), answer=answer)


async def test_oidcc_rp_initiated_logout_discovery_endpoint_verification(office: Office) -> None:
    document = (await office.browser().client.get("/.well-known/openid-configuration")).json()
    assert document["end_session_endpoint"] == f"{DOOR}/end_session"


async def test_oidcc_rp_initiated_logout(office: Office) -> None:
    grafana, hint = await signed_in(office)
    page = await grafana.end_session(id_token_hint=hint, post_logout_redirect_uri=OUT, state="the state")
    assert page.status_code == 303
    target = urlsplit(page.headers["location"])
    assert target._replace(query="").geturl() == OUT
    assert parse_qsl(target.query) == [("state", "the state")]
    assert await is_out(grafana)


async def test_oidcc_rp_initiated_logout_no_state(office: Office) -> None:
    grafana, hint = await signed_in(office)
    page = await grafana.end_session(id_token_hint=hint, post_logout_redirect_uri=OUT)
    assert (page.status_code, page.headers["location"]) == (303, OUT)
    assert await is_out(grafana)


@pytest.mark.parametrize(
    "uri",
    [
        "https://grafana.example.com/elsewhere",  # oidcc-rp-initiated-logout-bad-post-logout-redirect-uri
        f"{OUT}?foo=bar",  # oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri
        f"{OUT}/",
        f"{OUT}#",
        OUT.upper(),
        "https://grafana.example.com/login/generic_oauth",  # for codes
        "https://evil.example/",
    ],
)
async def test_oidcc_rp_initiated_logout_bad_post_logout_redirect_uri(office: Office, uri: str) -> None:
    grafana, hint = await signed_in(office)
    browser = grafana.browser()
    page = await grafana.end_session(browser, id_token_hint=hint, post_logout_redirect_uri=uri)
    assert asks(page)
    assert uri not in page.text
    assert not await is_out(grafana)
    page = await press(browser)
    assert uri not in page.text
    assert await is_out(grafana)


def without_signature(token: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}."


def of_another(token: str) -> str:
    header, claims, signature = token.split(".")
    return f"{header}.{claims}.{signature[:-8]}{signature[-8:].swapcase()}"


@pytest.mark.parametrize("change", [without_signature, of_another, lambda _: "x.y.z", lambda _: "x" * 20_000])
async def test_oidcc_rp_initiated_logout_modified_and_bad_id_token_hint(
    office: Office, change: Callable[[str], str]
) -> None:
    grafana, hint = await signed_in(office)
    page = await grafana.end_session(id_token_hint=change(hint), post_logout_redirect_uri=OUT)
    assert asks(page)
    assert not await is_out(grafana)


async def test_oidcc_rp_initiated_logout_no_id_token_hint(office: Office) -> None:
    grafana, _ = await signed_in(office)
    page = await grafana.end_session(post_logout_redirect_uri=OUT, state="s")
    assert asks(page)
    assert OUT not in page.text
    assert not await is_out(grafana)


@pytest.mark.parametrize("said", [{}, {"state": "the state"}], ids=["no-params", "only-state"])
async def test_oidcc_rp_initiated_logout_no_params_and_only_state(
    office: Office, said: dict[str, Any]
) -> None:
    grafana, _ = await signed_in(office)
    browser = grafana.browser()
    assert asks(await grafana.end_session(browser, **said))
    page = await press(browser)
    assert "You are signed out" in page.text
    assert await is_out(grafana)


async def test_oidcc_rp_initiated_logout_no_post_logout_redirect_uri(office: Office) -> None:
    grafana, hint = await signed_in(office)
    page = await grafana.end_session(id_token_hint=hint)
    assert page.status_code == 200
    assert "You are signed out" in page.text
    assert await is_out(grafana)


async def test_oidcc_backchannel_logout_discovery_endpoint_verification(office: Office) -> None:
    document = (await office.browser().client.get("/.well-known/openid-configuration")).json()
    assert document["backchannel_logout_supported"] is True
    assert document["backchannel_logout_session_supported"] is True
    assert document["end_session_endpoint"].startswith("https://")


async def test_oidcc_backchannel_rp_initiated_logout(office: Office) -> None:
    grafana, hint = await signed_in(office)
    signed = await grafana.claims()
    office.posted.clear()
    page = await grafana.end_session(id_token_hint=hint, post_logout_redirect_uri=OUT)
    assert page.headers["location"] == OUT
    ((url, said),) = await office.told()
    assert url == TOLD
    (_, form) = office.posted[0]
    assert split(form["logout_token"]).header["typ"] == "logout+jwt"
    assert split(form["logout_token"]).header["alg"] == "RS256"
    now = office.world.clock.now().timestamp()
    assert (said["iss"], said["aud"]) == (DOOR, grafana.app.client_id)
    assert said["iat"] <= now < said["exp"] <= now + 120
    assert len(said["jti"]) >= 20
    assert said["events"] == {EVENT: {}}
    assert (said["sub"], said["sid"]) == (signed["sub"], signed["sid"])
    assert said.keys() == {"iss", "aud", "iat", "exp", "jti", "sub", "sid", "events"}  # no nonce
    assert await is_out(grafana)
    assert await office.told() == []  # once
