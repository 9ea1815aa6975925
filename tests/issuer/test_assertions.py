"""Apps that sign with a key to show who they are (RFC 7523)."""

import asyncio
import json
from ipaddress import ip_address
from typing import Any

import httpx2
import pytest
from tests.support.browsing import DOOR
from tests.support.idtokens import jwk, jwks, signed, signing_key
from tests.support.office import Office, Party, challenge

from doorward.errors import Unavailable
from doorward.issuer import Issuer
from doorward.issuer.assertions import KIND
from doorward.tailnet.secrets import digest

URL = "https://wiki.example.com/jwks.json"


@pytest.fixture
async def party(office: Office) -> Party:
    return await office.app(keys=json.dumps({"keys": [jwk("ES256"), jwk("RS256")]}), service=True)


def claims(party: Party, **more: Any) -> dict[str, Any]:
    """Good ones, with another number each time; None takes one away."""
    now = int(party.office.world.clock.now().timestamp())
    name, number = party.app.client_id, party.office.issuer._desk.random()
    good = {"iss": name, "sub": name, "aud": DOOR, "iat": now, "exp": now + 60, "jti": number}
    return {key: value for key, value in (good | more).items() if value is not None}


async def show(
    party: Party, assertion: str, path: str = "/token", *, how: str = "none", **form: str
) -> httpx2.Response:
    wanted = {"grant_type": "client_credentials", "client_assertion_type": KIND} | form
    return await party.post(path, how=how, client_assertion=assertion, **wanted)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_an_app_that_signs_gets_tokens(office: Office, party: Party, algorithm: str) -> None:
    said = await show(party, signed(claims(party), algorithm))
    assert said.status_code == 200, said.text
    token = said.json()["access_token"]
    told = await show(party, signed(claims(party)), "/introspect", token=token)
    assert told.json()["sub"] == party.app.client_id
    for audience in (f"{DOOR}/token", [DOOR], f"{DOOR}/revoke"):
        said = await show(party, signed(claims(party, aud=audience)), "/revoke", token="x")
        assert said.status_code == 200


async def test_a_person_signs_in_at_an_app_that_signs(office: Office, party: Party) -> None:
    await office.person("ann")
    form = {
        "redirect_uri": party.app.redirect_uris[0],
        "response_type": "code",
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
    }
    assertion = signed(claims(party, aud=f"{DOOR}/par"))
    pushed = await show(party, assertion, "/par", **form)
    assert pushed.status_code == 201, pushed.text
    await party.send(request_uri=pushed.json()["request_uri"])
    kept = {"client_assertion_type": KIND, "client_assertion": signed(claims(party))}
    assert (await party.redeem(how="none", **kept)).status_code == 200
    stored = b"".join(path.read_bytes() for path in office.world.folder.rglob("*.db*"))
    assert assertion.encode() not in stored


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"iss": "app-other"}, "iss and sub"),
        ({"sub": None}, "iss and sub"),
        ({"sub": 7, "iss": 7}, "iss and sub"),
        ({"sub": "app-other", "iss": "app-other"}, "not known"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": [DOOR, "https://other.example"]}, "aud"),
        ({"aud": f"{DOOR}/introspect"}, "aud"),
        ({"aud": [[DOOR]]}, "aud"),
        ({"exp": None}, "exp"),
        ({"exp": 7}, "too old"),
        ({"exp": "soon"}, "no time"),
        ({"exp": True}, "no time"),
        ({"exp": 2**40}, "no time"),
        ({"iat": 2**35}, "future"),
        ({"nbf": 2**35}, "future"),
        ({"iat": None, "exp": 2**35}, "too long"),
        ({"iat": 7}, "too old"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "x" * 201}, "jti"),
        ({"jti": 7}, "jti"),
    ],
)
async def test_what_it_says_is_looked_at(party: Party, change: dict[str, Any], why: str) -> None:
    said = await show(party, signed(claims(party, **change)))
    assert (said.status_code, said.json()["error"]) == (401, "invalid_client")
    assert why in said.json()["error_description"]


async def test_some_libraries_say_an_hour_and_it_is_five_minutes(office: Office, party: Party) -> None:
    now = int(office.world.clock.now().timestamp())
    first, second = (signed(claims(party, exp=now + 3600)) for _ in range(2))
    assert (await show(party, first)).status_code == 200
    office.world.clock.advance(359)
    assert (await show(party, first)).json()["error_description"].endswith("shown before (jti)")
    office.world.clock.advance(1)
    assert "too old" in (await show(party, second)).json()["error_description"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda said: signed(said, number=1, header={"kid": "ES256-0"}),  # another's key under the app's name
        lambda said: signed(said, number=1),
        lambda said: signed(said, "none"),
        lambda said: signed(said, "HS256", header={"kid": "ES256-0"}),
        lambda said: signed(said, "ES256", header={"alg": "RS256"}),
        lambda said: signed(said, header={"alg": ["ES256"]}),
        lambda said: signed(said, header={"crit": ["b64"], "b64": False}),
        lambda said: signed(said)[:-4] + "AAAA",
        lambda said: signed(said).replace(".", "", 1),
        lambda _: "x.y.z",
        lambda _: "",
    ],
)
async def test_what_the_app_has_not_signed_is_refused(party: Party, forge: Any) -> None:
    said = await show(party, forge(claims(party)))
    assert (said.status_code, said.json()["error"]) == (401, "invalid_client")


async def test_an_assertion_is_good_once(party: Party) -> None:
    assertion = signed(claims(party))
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(show(party, assertion)) for _ in range(8)]
    assert sorted(one.result().status_code for one in tries) == [200] + [401] * 7


async def test_a_forged_one_uses_up_no_number(party: Party) -> None:
    good = claims(party)
    assert (await show(party, signed(good, number=1))).status_code == 401
    assert (await show(party, signed(good))).status_code == 200


async def test_numbers_of_two_apps_are_two(office: Office, party: Party) -> None:
    keys = json.dumps({"keys": [jwk("ES256")]})
    other = await office.app("wiki", keys=keys, service=True)
    assert (await show(party, signed(claims(party, jti="1")))).status_code == 200
    assert (await show(other, signed(claims(other, jti="1")))).status_code == 200


async def test_it_is_shown_in_one_way(office: Office, party: Party) -> None:
    said = await show(party, signed(claims(party)), how="basic")
    assert said.json()["error"] == "invalid_request"
    said = await show(party, signed(claims(party)), client_secret="x")
    assert said.json()["error"] == "invalid_request"
    said = await show(party, signed(claims(party)), client_assertion_type="other")
    assert said.json()["error"] == "invalid_request"
    said = await show(party, signed(claims(party)), client_id="app-other")
    assert said.json()["error"] == "invalid_client"
    said = await show(party, signed(claims(party)), client_id=party.app.client_id)
    assert said.status_code == 200


async def test_an_app_with_a_secret_cannot_sign_and_one_with_a_key_has_no_secret(
    office: Office, party: Party
) -> None:
    other = await office.app("wiki", service=True)
    assert (await show(other, signed(claims(other)))).status_code == 401
    assert party.secret == ""
    for how in ("basic", "post", "public"):
        assert (await party.post("/token", how=how, grant_type="client_credentials")).status_code == 401
    assert digest("") != party.app.secret_hash


async def test_who_tries_is_stopped(office: Office, party: Party) -> None:
    for _ in range(30):
        assert (await show(party, "x.y.z")).status_code == 401
    assert (await show(party, signed(claims(party)))).status_code == 429


async def test_keys_at_an_address_are_read_once_an_hour(office: Office) -> None:
    party = await office.app("wiki", keys_url=URL, service=True)
    office.published[URL] = jwks(jwk("ES256"))
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(show(party, signed(claims(party)))) for _ in range(4)]
    assert [one.result().status_code for one in tries] == [200] * 4
    assert [url for url, _ in office.fetched] == [URL]
    assert not office.fetched[0][1].also("wiki.example.com", ip_address("10.0.0.1"))
    office.world.clock.advance(3600)
    assert (await show(party, signed(claims(party)))).status_code == 200
    assert len(office.fetched) == 2


async def test_an_unknown_key_has_them_read_anew_but_not_without_end(office: Office) -> None:
    party = await office.app("wiki", keys_url=URL, service=True)
    office.published[URL] = jwks(jwk("ES256"))
    assert (await show(party, signed(claims(party)))).status_code == 200
    office.published[URL] = jwks(jwk("ES256", 1))
    for _ in range(5):
        assert (await show(party, signed(claims(party), number=1))).status_code == 401
    assert len(office.fetched) == 1
    office.world.clock.advance(60)
    assert (await show(party, signed(claims(party), number=1))).status_code == 200
    assert (await show(party, signed(claims(party)))).status_code == 401  # that key is gone
    assert len(office.fetched) == 2


async def test_keys_that_cannot_be_read(office: Office) -> None:
    party = await office.app("wiki", keys_url=URL, service=True)
    office.published[URL] = Unavailable("wiki.example.com cannot be reached")
    for _ in range(3):
        said = await show(party, signed(claims(party)))
        assert (said.status_code, said.json()["error"]) == (503, "temporarily_unavailable")
    assert len(office.fetched) == 1
    office.world.clock.advance(60)
    office.published[URL] = jwks(jwk("ES256"))
    assert (await show(party, signed(claims(party)))).status_code == 200
    office.published[URL] = b"<html>"
    office.world.clock.advance(60)
    assert (await show(party, signed(claims(party)))).status_code == 200  # for an hour, they are as they were
    assert (await show(party, signed(claims(party), number=1))).status_code == 401
    office.world.clock.advance(3600)
    assert (await show(party, signed(claims(party)))).status_code == 503


async def test_the_real_fetcher_asks_no_private_address(office: Office) -> None:
    issuer = Issuer(office.askings, office.world.clock, b"k" * 32)
    office.routes[:] = [*issuer.routes()]
    party = await office.app("wiki", keys_url="https://127.0.0.1:9/jwks", service=True)
    said = await show(party, signed(claims(party)))
    assert (said.status_code, said.json()["error"]) == (503, "temporarily_unavailable")
    assert "127.0.0.1" not in said.text


def test_the_keys_of_the_tests_are_two() -> None:
    assert signing_key("ES256", 0) is not signing_key("ES256", 1)
