"""Requests that apps leave before they send a browser (RFC 9126)."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from tests.support.office import BACK, Office, Party

from doorward.issuer.pushed import URN, is_pushed

KNOWN_AS = "request_uri"


def asked(party: Party, **changes: str | None) -> dict[str, str]:
    """What the app would have put into the address."""
    found = dict(parse_qsl(urlsplit(party.url(**changes)).query))
    del found["client_id"]
    return found


async def push(party: Party, *, how: str = "", **changes: Any) -> httpx2.Response:
    how = how or ("public" if party.app.public else "basic")
    return await party.post("/par", how=how, **asked(party, **changes))


async def name_of(party: Party, **changes: str) -> str:
    said = await push(party, **changes)
    assert said.status_code == 201, said.text
    assert said.headers["cache-control"] == "no-store"
    assert said.json().keys() == {KNOWN_AS, "expires_in"}
    assert said.json()["expires_in"] == 60
    assert said.json()[KNOWN_AS].startswith(URN)
    return str(said.json()[KNOWN_AS])


def only(name: str) -> dict[str, Any]:
    """An address with nothing in it but the two that count."""
    rest = "redirect_uri response_type scope state nonce code_challenge code_challenge_method"
    return {KNOWN_AS: name, **dict.fromkeys(rest.split())}


@pytest.mark.parametrize("how", ["basic", "post"])
async def test_a_pushed_request_signs_in(office: Office, how: str) -> None:
    await office.person("ann")
    party = await office.app()
    said = await push(party, how=how)
    page = await party.send(**only(said.json()[KNOWN_AS]))
    assert page.status_code == 303, page.text
    assert page.headers["location"].startswith(BACK)
    assert party.answer["state"] == "the state"
    assert (await party.redeem()).status_code == 200
    assert (await party.claims())["nonce"] == "the nonce"


async def test_a_public_app_pushes_without_a_secret_and_with_pkce(office: Office) -> None:
    await office.person("ann")
    party = await office.app("tool", public=True)
    assert (await push(party, code_challenge=None, code_challenge_method=None)).json()[
        "error"
    ] == "invalid_request"
    await party.send(**only(await name_of(party)))
    assert (await party.redeem()).status_code == 200


async def test_what_stands_in_the_address_does_not_count(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    name = await name_of(party, scope="openid")
    await party.send(
        request_uri=name, state="another", nonce="x", scope="openid email", redirect_uri="https://e.example"
    )
    assert party.answer["state"] == "the state"
    assert (await party.redeem()).json()["scope"] == "openid"


async def test_it_is_good_once_and_for_a_minute(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    name = await name_of(party)
    assert (await party.send(**only(name))).status_code == 303
    page = await party.send(**only(name))
    assert page.status_code == 400
    assert "not known any more" in page.text
    name = await name_of(party)
    office.world.clock.advance(60)
    assert (await party.send(**only(name))).status_code == 400
    assert (await party.send(**only(URN + "guessed"))).status_code == 400


async def test_of_many_browsers_at_once_one_goes_on(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    name = await name_of(party)
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(party.send(**only(name))) for _ in range(8)]
    assert sorted(one.result().status_code for one in tries) == [303] + [400] * 7


async def test_it_is_no_other_app_s(office: Office) -> None:
    await office.person("ann")
    party, other = await office.app(), await office.app("wiki")
    name = await name_of(party)
    assert (await other.send(**only(name))).status_code == 400
    assert (await party.send(**only(name))).status_code == 303  # and nobody has spoilt it


async def test_it_survives_the_page_that_asks_who_is_there(office: Office) -> None:
    browser = await office.resident("ann")
    party = await office.app()
    await party.send(browser, **only(await name_of(party, prompt="login")))
    office.world.clock.advance(300)
    await party.prove(browser)
    assert (await party.redeem()).status_code == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"redirect_uri": "https://elsewhere.example/"}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "nothing-known"}, "invalid_scope"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "https://a.example/request.jwt"}, "invalid_request"),
        ({"request_uri": URN + "x"}, "invalid_request"),
    ],
)
async def test_what_is_wrong_the_app_is_told_at_once(
    office: Office, changes: dict[str, Any], code: str
) -> None:
    party = await office.app()
    said = await push(party, **changes)
    assert (said.status_code, said.json()["error"]) == (400, code)


async def test_who_has_a_secret_shows_it(office: Office) -> None:
    party = await office.app()
    assert (await push(party, how="public")).status_code == 401
    party.secret = "wrong"
    said = await push(party)
    assert (said.status_code, said.json()["error"]) == (401, "invalid_client")


async def test_the_secret_is_not_among_what_waits(office: Office) -> None:
    party = await office.app()
    await push(party, how="post")
    stored = b"".join(path.read_bytes() for path in office.world.folder.rglob("*.db*"))
    assert b"the state" in stored
    assert party.secret.encode() not in stored


async def test_what_is_too_large_or_too_often(office: Office) -> None:
    party = await office.app()
    assert (await push(party, state="x" * 40_000)).status_code == 413
    tool = await office.app("tool", public=True)
    for _ in range(60):
        assert (await push(tool)).status_code == 201
    said = await push(tool)
    assert (said.status_code, said.json()["error"]) == (429, "temporarily_unavailable")
    assert (await push(party)).status_code == 201  # which has shown a secret


async def test_an_address_of_elsewhere_is_never_fetched(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.send(request_uri="https://a.example/request.jwt")
    assert party.answer["error"] == "request_uri_not_supported"
    assert not is_pushed("https://a.example/" + URN)
