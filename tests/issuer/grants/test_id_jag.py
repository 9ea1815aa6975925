"""Our word about a person, for another organization's server (ID-JAG)."""

import base64
import json
from typing import Any

import httpx2
import pytest
from tests.support.browsing import DOOR
from tests.support.office import Office, Party

from doorward.issuer.grants.id_jag import ID_JAG, ID_TOKEN, KIND, REFRESH_TOKEN
from doorward.issuer.grants.token_exchange import ACCESS_TOKEN, TOKEN_EXCHANGE

THERE, API = "https://as.example", "https://api.example/mcp"
PLACE = {"issuer": THERE, "resource": API, "client_id": "known-there", "scopes": ["read", "write"]}


async def rule(office: Office, *entries: dict[str, Any]) -> None:
    text = {"grants": [{"src": ["ann"], "dst": ["*"], "app": {"doorward.dev/cap/app": [*entries]}}]}
    await office.policy(json.dumps(text))


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    made = await office.app("agent", algorithm="ES256")
    await rule(office, {"apps": ["agent"], "elsewhere": [PLACE]})
    await made.sign_in(scope="openid email offline_access")
    return made


async def vouch(party: Party, **form: str | None) -> httpx2.Response:
    asked: dict[str, str | None] = {
        "grant_type": TOKEN_EXCHANGE,
        "requested_token_type": ID_JAG,
        "subject_token": party.tokens.get("id_token"),
        "subject_token_type": ID_TOKEN,
        "audience": THERE,
        "resource": API,
    }
    how = "public" if party.app.public else "basic"
    return await party.post("/token", how=how, **{k: v for k, v in (asked | form).items() if v is not None})


def part(token: str, number: int) -> dict[str, Any]:
    text = token.split(".")[number]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


async def test_an_app_gets_a_word_for_the_server_that_the_policy_names(party: Party) -> None:
    said = await vouch(party, scope="read")
    assert said.status_code == 200, said.text
    body = said.json()
    token = body.pop("access_token")
    assert body == {"issued_token_type": ID_JAG, "token_type": "N_A", "expires_in": 300, "scope": "read"}
    assert part(token, 0)["typ"] == KIND
    assert part(token, 0)["alg"] == "ES256"
    claims, signed_in = part(token, 1), part(party.tokens["id_token"], 1)
    now = int(party.office.world.clock.now().timestamp())
    assert claims.pop("jti") != part((await vouch(party)).json()["access_token"], 1)["jti"]
    assert claims == {
        "iss": DOOR,
        "sub": signed_in["sub"],
        "aud": THERE,
        "client_id": "known-there",
        "iat": now,
        "exp": now + 300,
        "auth_time": signed_in["auth_time"],
        "acr": signed_in["acr"],
        "amr": signed_in["amr"],
        "scope": "read",
        "resource": API,
        "email": "ann@example.com",
    }
    events = await party.office.audited("app.vouch")
    assert (events[0].actor, events[0].details["to"], events[0].details["resource"]) == (
        "user:ann",
        THERE,
        API,
    )


async def test_it_is_no_token_of_ours(party: Party) -> None:
    word = (await vouch(party)).json()["access_token"]
    assert (await party.userinfo(word)).status_code == 401
    assert (await party.post("/introspect", token=word)).json() == {"active": False}
    form = {"subject_token": word, "subject_token_type": ACCESS_TOKEN, "requested_token_type": ACCESS_TOKEN}
    assert (await vouch(party, **form)).json()["error"] == "invalid_request"


async def test_without_scopes_it_is_for_all_that_the_policy_names(party: Party) -> None:
    assert (await vouch(party)).json()["scope"] == "read write"
    place = {name: value for name, value in PLACE.items() if name in {"issuer", "resource"}}
    await rule(party.office, {"apps": ["agent"], "elsewhere": [place]})
    body = (await vouch(party)).json()
    assert "scope" not in body
    claims = part(body["access_token"], 1)
    assert "scope" not in claims
    assert claims["client_id"] == party.app.client_id
    assert (await vouch(party, scope="any thing")).json()["scope"] == "any thing"


async def test_the_person_s_address_is_told_only_to_whom_the_app_may_tell_it(party: Party) -> None:
    await party.sign_in(scope="openid")
    assert "email" not in part((await vouch(party)).json()["access_token"], 1)


async def test_a_refresh_token_will_do_and_is_not_used_up(party: Party) -> None:
    form = {"subject_token": party.tokens["refresh_token"], "subject_token_type": REFRESH_TOKEN}
    for _ in range(2):
        assert (await vouch(party, **form)).status_code == 200
    party.office.world.clock.advance(3600)  # long after the ID token
    assert (await vouch(party)).json()["error"] == "invalid_request"
    assert (await vouch(party, **form)).status_code == 200
    assert (await party.refresh()).status_code == 200
    assert (await vouch(party, **form)).json()["error"] == "invalid_request"  # it was exchanged


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"audience": "https://other.example"}, "invalid_target"),
        ({"audience": None}, "invalid_target"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"scope": "read admin"}, "invalid_scope"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "x"}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"subject_token_type": REFRESH_TOKEN}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
    ],
)
async def test_each_reason_to_refuse(party: Party, form: dict[str, str | None], error: str) -> None:
    said = await vouch(party, **form)
    assert (said.status_code, said.json()["error"]) == (400, error)


async def test_other_tokens_say_nothing_of_the_person(party: Party) -> None:
    for name in ("access_token", "refresh_token"):
        assert (await vouch(party, subject_token=party.tokens[name])).json()["error"] == "invalid_request"


async def test_the_word_is_for_the_app_where_they_signed_in(party: Party) -> None:
    other = await party.office.app("other", algorithm="ES256")
    await rule(party.office, {"apps": ["agent", "other"], "elsewhere": [PLACE]})
    for name, kind in (("id_token", ID_TOKEN), ("refresh_token", REFRESH_TOKEN)):
        said = await vouch(other, subject_token=party.tokens[name], subject_token_type=kind)
        assert said.json()["error"] == "invalid_request"
    tool = await party.office.app("tool", public=True)
    said = await vouch(tool, subject_token=party.tokens["id_token"])
    assert said.json()["error"] == "unauthorized_client"


async def test_it_ends_with_the_policy_the_grant_and_the_person(party: Party) -> None:
    await rule(party.office, {"apps": ["agent"]})
    assert (await vouch(party)).json()["error"] == "invalid_target"
    (event,) = await party.office.audited("app.refuse")
    assert event.details["why"] == "no word"
    await rule(party.office, {"apps": ["other"], "elsewhere": [PLACE]})
    assert (await vouch(party)).json()["error"] == "invalid_request"
    await rule(party.office, {"apps": ["agent"], "elsewhere": [PLACE]})
    assert (await vouch(party)).status_code == 200
    await party.post("/revoke", token=party.tokens["refresh_token"])
    assert (await vouch(party)).json()["error"] == "invalid_request"
    await party.sign_in(scope="openid")
    await party.office.registry.suspend_user("cli", "ann", suspended=True)
    assert (await vouch(party)).json()["error"] == "invalid_request"
