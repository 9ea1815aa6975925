"""Single claims that an app asks for: read, told where the scope would be, and the two that decide who is signed in."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.office import Office, Party

from doorward.issuer.decision import Level
from doorward.issuer.errors import AuthorizeError
from doorward.issuer.wanted import Wanted, read

PASSKEY, NETWORK, CLICK = Level.PASSKEY.value, Level.NETWORK.value, Level.CLICK.value


def asked(**places: Any) -> str:
    return json.dumps(places)


def test_what_is_known_is_kept_and_what_is_not_is_left_out() -> None:
    text = asked(
        id_token={
            "name": None,
            "email": {"essential": True},
            "name#fr": None,
            "picture": None,
            "auth_time": None,
        },
        userinfo={"groups": {"values": ["a"]}, "https://example.com/x": {"value": 7, "other": {}}},
        verified={"email": None},
    )
    assert read(text) == Wanted(id_token=("name", "email"), userinfo=("groups",))
    assert read(text).scopes == ("profile", "email", "groups")
    assert read("") == read("{}") == read('{"id_token": null}') == Wanted()
    text = asked(
        id_token={"sub": {"value": "a"}, "acr": {"values": [PASSKEY, 7]}}, userinfo={"sub": {"values": ["b"]}}
    )
    assert read(text) == Wanted(subjects=("a", "b"), levels=(PASSKEY, ""))
    assert read(asked(id_token={"acr": {"essential": True, "value": PASSKEY}})).essential
    assert not read(asked(id_token={"acr": {"essential": True}})).essential


@pytest.mark.parametrize(
    "text",
    [
        *("x", "[]", "7", '"x"', '{"id_token": []}', '{"userinfo": {"name": "x"}}', "[" * 5000, "\ud800"),
        *('{"id_token": {"acr": {"essential": "yes"}}}', '{"id_token": {"acr": {"values": "x"}}}'),
        asked(id_token={"sub": {"values": ["x"] * 51}}),
    ],
)
def test_what_is_no_such_object(text: str) -> None:
    with pytest.raises(AuthorizeError) as refused:
        read(text)
    assert refused.value.code == "invalid_request"


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(), lambda one: st.dictionaries(st.text(), one)
    )
)
def test_whatever_it_says(value: Any) -> None:
    for text in (json.dumps(value), asked(id_token=value, userinfo=value)):
        with contextlib.suppress(AuthorizeError):
            assert set(read(text).scopes) <= {"profile", "email", "groups", "device"}


async def userinfo(party: Party) -> dict[str, Any]:
    said = await party.browser().client.get(
        "/userinfo", headers={"authorization": f"Bearer {party.tokens['access_token']}"}
    )
    assert said.status_code == 200
    told: dict[str, Any] = said.json()
    return told


async def test_each_claim_is_told_where_it_was_asked_for(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    wanted = asked(
        id_token={"name": None, "node": None}, userinfo={"preferred_username": {"essential": True}}
    )
    said = await grafana.sign_in(scope="openid offline_access", claims=wanted)
    assert office.identity is not None
    assert (said["name"], said["node"]) == ("ann", f"{office.identity.name}.tailnet.internal")
    assert await userinfo(grafana) == {"sub": said["sub"], "preferred_username": "ann"}
    # The same again where it is renewed, and no scope has been given with it.
    assert (await grafana.refresh()).status_code == 200
    assert (await grafana.claims())["name"] == "ann"
    assert "profile" not in grafana.tokens["scope"]
    # Nobody else changes what tokens say by themselves.
    other = await office.app("wiki")
    assert "name" not in await other.sign_in(scope="openid")


async def test_the_policy_s_scopes_are_for_single_claims_too(office: Office) -> None:
    await office.person("ann")
    entry = {"apps": ["grafana"], "scopes": ["profile"]}
    grant = {"src": ["*"], "dst": ["*"], "app": {"doorward.dev/cap/app": [entry]}}
    await office.policy(json.dumps({"grants": [grant], "groups": {"group:ops": ["ann"]}}))
    grafana = await office.app()
    wanted = asked(
        id_token={"name": None, "groups": {"essential": True}}, userinfo={"groups": None, "node": None}
    )
    said = await grafana.sign_in(scope="openid", claims=wanted)
    assert said["name"] == "ann"
    assert "groups" not in said
    assert (await userinfo(grafana)).keys() == {"sub"}
    # Taken away meanwhile: the next answer has it no more.
    await office.policy(json.dumps({"grants": [grant | {"app": {"doorward.dev/cap/app": [{"scopes": []}]}}]}))
    assert "name" not in await grafana.sign_in(scope="openid", claims=wanted)


async def test_who_is_asked_is_asked_about_them(office: Office) -> None:
    await office.person("ann")
    wiki = await office.app("wiki", asks=True)
    browser = wiki.browser()
    page = await wiki.send(browser, scope="openid", claims=asked(userinfo={"email": None}))
    assert "know your e-mail address" in page.text
    await wiki.press(browser)
    assert "code" in wiki.answer
    # That yes is for no other claim.
    assert (await wiki.send(scope="openid")).status_code == 303
    page = await wiki.send(scope="openid", claims=asked(id_token={"name": None}))
    assert page.status_code == 200
    assert "know your name" in page.text


async def test_nobody_else_than_who_is_wanted_is_signed_in(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    sub = (await grafana.sign_in())["sub"]
    wanted = asked(id_token={"sub": {"value": sub}})
    assert (await grafana.sign_in(claims=wanted))["sub"] == sub
    await office.person("bob", 2)
    await grafana.send(claims=wanted)
    assert (grafana.answer["error"], "code" in grafana.answer) == ("login_required", False)
    await grafana.send(claims=asked(userinfo={"sub": {"values": ["x", ""]}}))
    assert grafana.answer["error"] == "login_required"


async def test_an_essential_level_is_met_or_there_is_no_sign_in(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    for level, essential in (("urn:example:other", True), (PASSKEY, True)):
        await grafana.send(
            claims=asked(id_token={"acr": {"essential": essential, "value": level}}), prompt="none"
        )
        assert "error" in grafana.answer
    await grafana.send(claims=asked(id_token={"acr": {"essential": True, "value": "urn:example:other"}}))
    assert grafana.answer["error"] == "unmet_authentication_requirements"
    # Not essential, it is a wish, as acr_values has it.
    said = await grafana.sign_in(claims=asked(id_token={"acr": {"value": "urn:example:other"}}))
    assert said["acr"] == NETWORK
    # The best of those that the app takes, though the person is known better.
    browser = await office.resident("ann")
    await grafana.send(
        browser, claims=asked(id_token={"acr": {"essential": True, "values": [NETWORK, CLICK]}})
    )
    assert (await grafana.redeem()).status_code == 200
    assert (await grafana.claims())["acr"] == CLICK


async def test_a_proof_that_is_too_weak_for_an_essential_level_signs_nobody_in(office: Office) -> None:
    browser = await office.resident("ann")
    grafana = await office.app()
    await grafana.send(browser, claims=asked(id_token={"acr": {"essential": True, "value": PASSKEY}}))
    assert (await grafana.redeem()).status_code == 200
    assert (await grafana.claims())["acr"] == PASSKEY
    office.identity = None
    stranger = grafana.browser()
    page = await grafana.send(stranger, claims=asked(id_token={"acr": {"essential": True, "value": PASSKEY}}))
    assert page.status_code == 200  # the page that wants a passkey
    assert "code" not in grafana.answer


async def test_what_cannot_be_read_is_told_to_the_app(office: Office) -> None:
    await office.person("ann")
    grafana = await office.app()
    await grafana.send(claims="{")
    assert grafana.answer["error"] == "invalid_request"
