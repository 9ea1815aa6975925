"""The whole way of an app through the issuer, and the endpoints' common rules."""

import pytest
from tests.support.browsing import LOCAL
from tests.support.office import BACK, PAGE, Office
from tests.support.world import World


async def test_an_app_signs_a_person_in_without_a_click_inside_the_tailnet(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    page = await grafana.send()
    assert page.status_code == 303
    assert page.headers["location"].startswith(BACK + "?code=dwcode-")
    assert grafana.answer.keys() == {"code", "state", "iss"}
    assert grafana.answer["state"] == "the state"
    said = await grafana.redeem()
    assert said.headers["cache-control"] == "no-store"
    assert said.json().keys() == {"access_token", "token_type", "expires_in", "scope", "id_token"}
    claims = await grafana.claims()
    assert claims["acr"] == "urn:doorward:acr:network"
    assert claims.keys() == {
        *("iss", "sub", "aud", "exp", "iat", "auth_time", "acr", "amr", "sid", "at_hash", "nonce")
    }
    told = (await grafana.userinfo()).json()
    assert told == {
        "sub": claims["sub"],
        "name": "ann",
        "preferred_username": "ann",
        "email": "ann@example.com",
    }
    (event,) = await office.audited("app.signin")
    assert (event.actor, event.target, event.details["how"]) == ("user:ann", "app:grafana", "silent")


async def test_outside_the_tailnet_a_person_signs_in_with_a_passkey(office: Office) -> None:
    ann = await office.resident("ann")
    grafana = await office.app()
    await office.browser().get("/signin")
    browser = office.browser()
    browser.authenticator = ann.authenticator
    page = await grafana.send(browser)
    assert page.status_code == 200
    assert "Sign in to grafana" in page.text
    page = await grafana.prove(browser)
    assert page.status_code == 200  # a page that goes on, since a redirect after our form would be blocked
    assert (await grafana.redeem()).status_code == 200
    claims = await grafana.claims()
    assert claims["acr"] == "urn:doorward:acr:passkey"
    # From now on this browser is known.
    assert (await grafana.sign_in(browser))["sub"] == claims["sub"]


async def test_an_asking_of_one_browser_is_no_other_s(office: Office) -> None:
    ann = await office.resident("ann")
    grafana = await office.app()
    first, second = office.browser(), office.browser()
    first.authenticator = second.authenticator = ann.authenticator
    await grafana.send(first)
    second.page = first.page
    assert (await second.prove()).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/openid-configuration",
        "/token",
        "/par",
        "/device_authorization",
        "/userinfo",
        "/introspect",
        "/revoke",
    ],
)
async def test_every_page_may_ask_what_needs_a_secret_or_none(office: Office, path: str) -> None:
    said = await office.browser().client.options(path, headers={"origin": "https://elsewhere.example"})
    assert said.status_code == 204
    assert said.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in said.headers


async def test_the_issuer_answers_at_its_own_name_alone(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    local = office.browser(LOCAL)
    for path in (grafana.url(), "/.well-known/openid-configuration", "/.well-known/jwks.json", "/userinfo"):
        assert (await local.client.get(path, headers=PAGE)).status_code == 421


async def test_t6_no_page_may_answer_for_a_person(office: Office) -> None:
    """T6 and the like: what the connection says counts only at /authorize."""
    await office.person("ann")
    grafana = await office.app(asks=True)
    browser = office.browser()
    await grafana.send(browser)
    browser.client.headers["sec-fetch-site"] = "cross-site"
    assert (await grafana.press(browser)).status_code == 403
    assert not grafana.answer


async def test_all_that_apps_get_has_the_number_that_they_know_from_tsidp(world: World) -> None:
    ann, bob = [await world.registry.create_user("cli", name) for name in ("ann", "bob")]
    office = Office(world, numbers={ann.id: 7234567890123456})
    told = "https://grafana.example.com/logout"
    grafana = await office.app(signed_out_uris=(BACK,), logout_url=told)
    office.published[told] = b""
    await office.person("bob", number=2)
    said = await grafana.sign_in()
    assert str(bob.id) not in said["sub"].split(":")
    assert ":" not in said["sub"]
    of_bob = grafana.tokens["id_token"]
    await office.person("ann")
    said = await grafana.sign_in()
    known = "userid:7234567890123456"
    token, hint = grafana.tokens["access_token"], grafana.tokens["id_token"]
    assert said["sub"] == (await grafana.userinfo()).json()["sub"] == known
    assert (await grafana.post("/introspect", token=token)).json()["sub"] == known
    assert "code" in (page := await grafana.send(prompt="none", id_token_hint=hint)).headers["location"], (
        page.text
    )
    await grafana.send(prompt="none", id_token_hint=of_bob)
    assert grafana.answer["error"] == "login_required"
    await grafana.end_session(id_token_hint=hint)
    assert {each["sub"] for _, each in await office.told()} == {known}
