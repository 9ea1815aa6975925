"""Another organization's word about a person (ID-JAG, RFC 7523)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support import idtokens
from tests.support.browsing import DOOR
from tests.support.office import Office, Party
from tests.support.world import World, open_world

from doorward.errors import Unavailable
from doorward.issuer.grants.id_jag import ID_JAG, ID_TOKEN, KIND
from doorward.issuer.grants.jwt_bearer import JWT_BEARER, LEEWAY, WINDOW
from doorward.issuer.grants.token_exchange import TOKEN_EXCHANGE
from doorward.login.idtoken import read_keys
from doorward.model import Provider

API, OTHER = "https://api.example/mcp", "https://other.example"
ALLOWED = {"apps": ["agent"], "assertions": ["corp"]}


async def rule(office: Office, *entries: dict[str, Any]) -> None:
    text = {"grants": [{"src": ["ann"], "dst": ["*"], "app": {"doorward.dev/cap/app": [*entries]}}]}
    await office.policy(json.dumps(text))


@pytest.fixture
async def party(office: Office) -> Party:
    """An app of an organization whose people sign in at ``corp``; ann is one of them."""
    await office.registry.create_user("cli", "ann", email="ann@example.com")
    await office.add_provider()
    await office.registry.outside.link("cli", "ann", "corp", "s1")
    await rule(office, ALLOWED)
    return await office.app("agent", resources=(API, OTHER), scopes=("files:read", "files:write"))


def word(party: Party, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A good one; None takes a claim away."""
    now = int(party.office.world.clock.now().timestamp())
    said = {
        "iss": idtokens.ISSUER,
        "sub": "s1",
        "aud": DOOR,
        "client_id": party.app.client_id,
        "jti": f"j{len(changes)}{changes}"[:200],
        "iat": now,
        "exp": now + 300,
        "scope": "files:read email",
        "resource": API,
    }
    given = {name: value for name, value in (said | changes).items() if value is not None}
    return idtokens.signed(given, header={"typ": KIND} | (header or {}))


async def bring(party: Party, assertion: str, **form: str) -> httpx2.Response:
    how = "public" if party.app.public else "basic"
    return await party.post("/token", how=how, grant_type=JWT_BEARER, assertion=assertion, **form)


def read(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


async def test_a_word_becomes_a_token_for_the_person(party: Party) -> None:
    office = party.office
    now = int(office.world.clock.now().timestamp())
    said = await bring(party, word(party, auth_time=now - 100))
    assert said.status_code == 200, said.text
    body = said.json()
    token = body.pop("access_token")
    assert body == {"token_type": "Bearer", "expires_in": 300, "scope": "files:read email"}
    claims = read(token)
    assert (claims["aud"], claims["client_id"], claims["auth_time"]) == (API, party.app.client_id, now - 100)
    assert (claims["acr"], claims["amr"]) == ("urn:doorward:acr:session", ["provider"])
    told = (await party.post("/introspect", token=token)).json()
    assert (told["active"], told["username"], told["sub"]) == (True, "ann", claims["sub"])
    (event,) = await office.audited("app.assertion")
    assert (event.actor, event.target, event.details["by"]) == ("user:ann", "app:agent", "provider:corp")
    # What they sign in with themselves has the same number.
    user = office.registry.snapshot.user_by_name("ann")
    assert user is not None
    await office.person("ann")
    mine = await office.app("mine")
    await rule(office, ALLOWED, {"apps": ["mine"]})
    assert (await mine.sign_in())["sub"] == claims["sub"]


async def test_it_is_good_once(party: Party) -> None:
    made = word(party)
    answers = await asyncio.gather(*(bring(party, made) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [200, 400, 400, 400, 400]
    assert all("before" in each.json()["error_description"] for each in answers if each.status_code == 400)
    assert len(await party.office.audited("app.assertion")) == 1


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"header": {"typ": "JWT"}}, "typ"),
        ({"header": {"typ": "at+jwt"}}, "typ"),
        ({"header": {"typ": None}}, "typ"),
        ({"header": {"alg": "none"}}, "signed"),
        ({"header": {"alg": "HS256"}}, "signed"),
        ({"header": {"crit": ["x"]}}, "signed"),
        ({"header": {"kid": "other"}}, "signed"),
        ({"iss": "https://other.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": OTHER}, "aud"),
        ({"aud": [DOOR, OTHER]}, "aud"),
        ({"aud": f"{DOOR}/"}, "aud"),
        ({"aud": None}, "aud"),
        ({"client_id": "app-other"}, "client_id"),
        ({"client_id": None}, "client_id"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "x" * 300}, "jti"),
        ({"sub": None}, "sub"),
        ({"sub": 1}, "sub"),
        ({"sub": "s2"}, "sub"),
        ({"exp": None}, "exp"),
        ({"exp": 1}, "exp"),
        ({"exp": True}, "exp"),
        ({"iat": None}, "iat"),
        ({"iat": 2**35}, "iat"),
        ({"nbf": 2**35}, "nbf"),
        ({"iat": 10**30}, "iat"),
        ({"scope": ["a"]}, "scope"),
        ({"resource": "https://elsewhere.example"}, "resource"),
        ({"resource": [API, "https://elsewhere.example"]}, "resource"),
        ({"resource": [1]}, "resource"),
    ],
)
async def test_each_lie_is_found(party: Party, changes: dict[str, Any], part: str) -> None:
    said = await bring(party, word(party, **changes))
    assert (said.status_code, said.json()["error"]) == (400, "invalid_grant")
    assert part in said.json()["error_description"]
    assert await party.office.audited("app.assertion") == []


@pytest.mark.parametrize("assertion", ["", "x", "a.b.c", "x" * 20_000])
async def test_what_is_no_word(party: Party, assertion: str) -> None:
    assert (await bring(party, assertion)).json()["error"] == "invalid_grant"


async def test_a_word_of_another_key_is_nobody_s(party: Party) -> None:
    head, body, _ = word(party).split(".")
    other = word(party, sub="x").split(".")[2]
    assert (await bring(party, f"{head}.{body}.{other}")).json()["error"] == "invalid_grant"


async def test_an_old_word_is_over_whatever_it_says(party: Party) -> None:
    now = int(party.office.world.clock.now().timestamp())
    made = word(party, exp=now + 86_400)
    party.office.world.clock.advance(WINDOW + LEEWAY)
    assert (await bring(party, made)).json()["error"] == "invalid_grant"


async def test_the_policy_has_to_take_that_provider_s_word(party: Party) -> None:
    for entries in (
        [{"apps": ["agent"]}],
        [{"apps": ["agent"], "assertions": ["other"]}],
        [{"apps": ["other"], "assertions": ["corp"]}],
    ):
        await rule(party.office, *entries)
        said = await bring(party, word(party))
        assert (said.status_code, said.json()["error"]) == (400, "invalid_grant")
    assert len(await party.office.audited("app.refuse")) == 3
    await party.office.policy("{}")  # every app is everybody's, and nobody's word counts
    assert (await bring(party, word(party))).json()["error"] == "invalid_grant"


async def test_who_is_suspended_is_spoken_for_by_nobody(party: Party) -> None:
    token = (await bring(party, word(party))).json()["access_token"]
    await party.office.registry.suspend_user("cli", "ann", suspended=True)
    assert (await bring(party, word(party, jti="2"))).json()["error"] == "invalid_grant"
    assert (await party.post("/introspect", token=token)).json() == {"active": False}


async def test_scopes_are_those_that_the_word_and_the_request_and_the_policy_have(party: Party) -> None:
    said = await bring(
        party, word(party, jti="1", scope="files:read openid offline_access"), scope="files:read"
    )
    assert (said.json()["scope"], set(said.json())) == (
        "files:read",
        {"access_token", "token_type", "expires_in", "scope"},
    )
    said = await bring(party, word(party, jti="2"), scope="files:write")
    assert said.json()["error"] == "invalid_scope"
    said = await bring(party, word(party, jti="3", scope="openid offline_access"))
    assert said.json()["scope"] == ""
    await rule(party.office, ALLOWED | {"scopes": ["email"]})
    said = await bring(party, word(party, jti="4"))
    assert said.json()["scope"] == "email"


async def test_resources_are_those_of_the_word(party: Party) -> None:
    said = await bring(party, word(party, jti="1", resource=[API, OTHER]), resource=OTHER)
    assert read(said.json()["access_token"])["aud"] == OTHER
    said = await bring(party, word(party, jti="2"), resource=OTHER)
    assert said.json()["error"] == "invalid_target"
    said = await bring(party, word(party, jti="3"), resource="https://elsewhere.example")
    assert said.json()["error"] == "invalid_target"
    said = await bring(party, word(party, jti="4", resource=None), resource=OTHER)
    assert read(said.json()["access_token"])["aud"] == OTHER
    said = await bring(party, word(party, jti="5", resource=None))
    assert read(said.json()["access_token"])["aud"] == party.app.client_id


async def test_only_an_app_that_shows_who_it_is_brings_one(party: Party) -> None:
    tool = await party.office.app("tool", public=True, resources=(API,))
    assert (await bring(tool, word(tool))).json()["error"] == "unauthorized_client"
    said = await party.post("/token", how="none", grant_type=JWT_BEARER, assertion=word(party))
    assert (said.status_code, said.json()["error"]) == (401, "invalid_client")


async def test_a_provider_that_is_away_is_asked_again_later(party: Party) -> None:
    party.office.corp.answers["/jwks"] = Unavailable("no answer")
    said = await bring(party, word(party))
    assert (said.status_code, said.json()["error"]) == (503, "temporarily_unavailable")
    party.office.corp.answers.clear()
    assert (await bring(party, word(party))).status_code == 200


async def test_a_new_key_of_the_provider_is_looked_for(party: Party) -> None:
    office = party.office
    assert (await bring(party, word(party, jti="1"))).status_code == 200
    office.corp.keys = [idtokens.jwk("ES256", 1)]
    now = int(office.world.clock.now().timestamp())
    said = read(word(party, jti="2", iat=now)) | {"exp": now + 600}
    made = idtokens.signed(said, number=1, header={"typ": KIND})
    assert (await bring(party, made)).json()["error"] == "invalid_grant"  # asked a moment ago
    office.world.clock.advance(60)
    assert (await bring(party, made)).status_code == 200


# Two of us -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def abroad(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "abroad").mkdir()
    async with open_world(tmp_path / "abroad") as made:
        yield made


async def test_one_doorward_s_word_counts_at_another(office: Office, abroad: World) -> None:
    """The whole way: signed in at one door, let in at a server behind another, and nobody was sent anywhere."""
    await office.person("ann")
    agent = await office.app("agent")
    there = Office(abroad, "https://door.abroad.example")
    await there.registry.create_user("cli", "anna")
    home = Provider(id=0, name="home", issuer=office.door, client_id="x", created=abroad.clock.now())
    await there.registry.outside.add("cli", home)
    server = await there.app("visitor", resources=(API,), scopes=("files:read",))
    signed_in = await _vouched(office, agent, server)
    await there.registry.outside.link("cli", "anna", "home", signed_in["sub"])
    entry = {"apps": ["visitor"], "assertions": ["home"]}
    grant = {"src": ["anna"], "dst": ["*"], "app": {"doorward.dev/cap/app": [entry]}}
    await there.policy(json.dumps({"grants": [grant]}))
    there.issuer._desk.provider_keys = _published(agent)
    said = await bring(server, agent.answer["word"])
    assert said.status_code == 200, said.text
    told = (await server.post("/introspect", token=said.json()["access_token"])).json()
    assert (told["username"], told["aud"], told["scope"]) == ("anna", API, "files:read")
    assert (await bring(server, agent.answer["word"])).json()["error"] == "invalid_grant"


async def _vouched(office: Office, agent: Party, server: Party) -> dict[str, Any]:
    place = {"issuer": server.office.door, "resource": API, "client_id": server.app.client_id}
    await rule(office, {"apps": ["agent"], "elsewhere": [place]})
    signed_in = await agent.sign_in()
    said = await agent.post(
        "/token",
        grant_type=TOKEN_EXCHANGE,
        requested_token_type=ID_JAG,
        subject_token=agent.tokens["id_token"],
        subject_token_type=ID_TOKEN,
        audience=server.office.door,
        resource=API,
        scope="files:read",
    )
    agent.answer["word"] = said.json()["access_token"]
    return signed_in


def _published(party: Party) -> Callable[[Provider, bool], Awaitable[Any]]:
    """What a door publishes, read as a provider's."""

    async def keys(provider: Provider, anew: bool) -> Any:
        assert provider.issuer == party.office.door
        async with party.program() as client:
            return read_keys(provider.name, (await client.get("/.well-known/jwks.json")).content)

    return keys
