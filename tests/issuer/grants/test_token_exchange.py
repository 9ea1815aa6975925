"""A token for the next server (RFC 8693)."""

import base64
import json
from typing import Any

import httpx2
import pytest
from tests.support.office import Office, Party

from doorward.issuer.grants.token_exchange import ACCESS_TOKEN, DEEPEST, TOKEN_EXCHANGE

GATEWAY, WIKI, DEEP = "https://gateway.example", "https://wiki.example/mcp", "https://deep.example"


class Chain:
    """A person who is signed in to a client, whose token is for a gateway, behind which there is a wiki."""

    def __init__(self, office: Office, client: Party, gateway: Party, wiki: Party) -> None:
        self.office = office
        self.client = client
        self.gateway = gateway
        self.wiki = wiki

    @property
    def token(self) -> str:
        return str(self.client.tokens["access_token"])


async def rule(office: Office, *entries: dict[str, Any]) -> None:
    capability = {"doorward.dev/cap/app": [*entries]}
    text = {"grants": [{"src": ["ann"], "dst": ["*"], "app": capability}]}
    await office.policy(json.dumps(text))


@pytest.fixture
async def chain(office: Office) -> Chain:
    await office.person("ann")
    client = await office.app("client", resources=(GATEWAY,))
    gateway = await office.app("gateway", resources=(GATEWAY,), service=True)
    wiki = await office.app("wiki", resources=(WIKI,))
    await rule(
        office,
        {"apps": ["client"]},
        {"apps": ["gateway"], "resources": [WIKI], "roles": ["caller"]},
        {"apps": ["wiki"], "resources": [DEEP, GATEWAY, WIKI]},
    )
    await client.sign_in(scope="openid email groups offline_access", resource=GATEWAY)
    return Chain(office, client, gateway, wiki)


async def exchange(party: Party, token: str, **form: str) -> httpx2.Response:
    how = "public" if party.app.public else "basic"
    wanted = {"subject_token": token, "subject_token_type": ACCESS_TOKEN, "resource": WIKI} | form
    given = {name: value for name, value in wanted.items() if value}
    return await party.post("/token", how=how, grant_type=TOKEN_EXCHANGE, **given)


def read(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


async def test_a_gateway_gets_a_token_for_the_next_server(chain: Chain) -> None:
    chain.office.world.clock.advance(100)
    said = await exchange(chain.gateway, chain.token)
    assert said.status_code == 200, said.text
    body = said.json()
    assert body.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert (body["issued_token_type"], body["token_type"]) == (ACCESS_TOKEN, "Bearer")
    assert body["expires_in"] == 200  # no longer than the first one
    assert body["scope"] == "email groups"
    first, claims = read(chain.token), read(body["access_token"])
    assert claims["aud"] == WIKI
    assert claims["client_id"] == chain.gateway.app.client_id
    assert claims["act"] == {"sub": chain.gateway.app.client_id}
    assert claims["roles"] == ["caller"]
    assert claims["exp"] == first["exp"]
    for name in ("sub", "iss", "auth_time", "acr", "sid"):
        assert claims[name] == first[name]
    told = (await chain.wiki.post("/introspect", token=body["access_token"])).json()
    assert (told["active"], told["act"], told["username"]) == (True, claims["act"], "ann")
    assert (await chain.client.userinfo(body["access_token"])).status_code == 403
    (event,) = await chain.office.audited("app.exchange")
    assert (event.actor, event.target, event.details["to"]) == ("user:ann", "app:gateway", WIKI)


async def test_the_chain_of_actors_is_kept_and_ends_somewhere(chain: Chain) -> None:
    token = (await exchange(chain.gateway, chain.token)).json()["access_token"]
    token = (await exchange(chain.wiki, token, resource=WIKI)).json()["access_token"]
    names = [chain.wiki.app.client_id, chain.gateway.app.client_id]
    assert read(token)["act"] == {"sub": names[0], "act": {"sub": names[1]}}
    for _ in range(DEEPEST - 2):
        token = (await exchange(chain.wiki, token, resource=WIKI)).json()["access_token"]
    said = await exchange(chain.wiki, token, resource=DEEP)
    assert (said.status_code, said.json()["error"]) == (400, "invalid_request")


async def test_a_token_for_somebody_else_is_not_exchanged(chain: Chain) -> None:
    said = await exchange(chain.wiki, chain.token)
    assert said.json()["error"] == "invalid_request"
    assert "somebody else" in said.json()["error_description"]


@pytest.mark.parametrize("target", ["https://other.example", "*", GATEWAY])
async def test_the_policy_says_for_what(chain: Chain, target: str) -> None:
    said = await exchange(chain.gateway, chain.token, resource=target)
    assert (said.status_code, said.json()["error"]) == (400, "invalid_target")
    (event,) = await chain.office.audited("app.refuse")
    assert event.details["why"] == "no exchange"


async def test_without_a_word_in_the_policy_there_is_nothing(chain: Chain) -> None:
    await chain.office.policy("{}")
    assert (await exchange(chain.gateway, chain.token)).json()["error"] == "invalid_target"


async def test_it_is_for_one(chain: Chain) -> None:
    assert (await exchange(chain.gateway, chain.token, resource="")).json()["error"] == "invalid_target"
    assert (await exchange(chain.gateway, chain.token, audience=DEEP)).json()["error"] == "invalid_target"
    said = await exchange(chain.gateway, chain.token, resource="", audience=WIKI)
    assert said.status_code == 200


async def test_scopes_get_fewer_and_never_more(chain: Chain) -> None:
    said = await exchange(chain.gateway, chain.token, scope="email profile")
    assert said.json()["error"] == "invalid_scope"
    said = await exchange(chain.gateway, chain.token, scope="email")
    assert said.json()["scope"] == "email"


async def test_the_next_server_s_own_scopes_are_named_beside_it_in_the_policy(chain: Chain) -> None:
    office = chain.office
    await office.app("files", resources=(WIKI,), scopes=("wiki:read", "wiki:write"))
    await office.app("stranger", resources=(DEEP,), scopes=("deep:read",))
    said = await exchange(chain.gateway, chain.token, scope="wiki:read")
    assert said.json()["error"] == "invalid_scope"  # that server has it, and the policy does not say so
    client, behind = {"apps": ["client"]}, {"apps": ["gateway"], "resources": [WIKI]}
    await rule(office, client, behind | {"scopes": ["email", "wiki:read", "deep:read", "openid"]})
    assert (await exchange(chain.gateway, chain.token)).json()["scope"] == "email wiki:read"
    said = (await exchange(chain.gateway, chain.token, scope="wiki:read")).json()
    assert said["scope"] == "wiki:read"
    told = (await chain.wiki.post("/introspect", token=said["access_token"])).json()
    assert (told["active"], told["scope"]) == (True, "wiki:read")
    for scope in ("wiki:write", "deep:read", "wiki:read wiki:write"):
        refused = await exchange(chain.gateway, chain.token, scope=scope)
        assert refused.json()["error"] == "invalid_scope"
    # Beside another server they say nothing of this one, and an entry without scopes names none.
    await rule(office, client, behind, {"apps": ["gateway"], "resources": [DEEP], "scopes": ["wiki:read"]})
    assert (await exchange(chain.gateway, chain.token, scope="wiki:read")).json()["error"] == "invalid_scope"


async def test_it_ends_when_the_policy_takes_it_away_or_the_grant_ends(chain: Chain) -> None:
    token = (await exchange(chain.gateway, chain.token)).json()["access_token"]
    for entries, active in (
        ([{"apps": ["client"]}, {"apps": ["gateway"], "resources": [WIKI]}], True),
        ([{"apps": ["client"]}, {"apps": ["gateway"]}], False),
        ([{"apps": ["gateway"], "resources": [WIKI]}], False),
        ([{"apps": ["client", "gateway"], "resources": [WIKI]}], True),
    ):
        await rule(chain.office, *entries)
        assert (await chain.wiki.post("/introspect", token=token)).json()["active"] is active
    # The gateway cannot take back what the person gave to the client; the client can.
    await chain.gateway.post("/revoke", token=token)
    assert (await chain.wiki.post("/introspect", token=token)).json()["active"]
    await chain.client.post("/revoke", token=chain.token)
    assert not (await chain.wiki.post("/introspect", token=token)).json()["active"]
    assert (await exchange(chain.gateway, chain.token)).json()["error"] == "invalid_request"


async def test_an_app_exchanges_the_token_of_its_own_sign_in(chain: Chain) -> None:
    await rule(chain.office, {"apps": ["client"], "resources": [WIKI]})
    await chain.client.sign_in(scope="openid email")
    token = (await exchange(chain.client, chain.token)).json()["access_token"]
    assert read(token)["act"] == {"sub": chain.client.app.client_id}
    assert (await chain.wiki.post("/introspect", token=token)).json()["active"]
    await rule(chain.office, {"apps": ["client"]})
    assert not (await chain.wiki.post("/introspect", token=token)).json()["active"]
    assert (await chain.client.userinfo()).status_code == 200  # what was exchanged is as good as before


async def test_a_token_that_is_over_or_none(chain: Chain) -> None:
    for token in ("x", chain.client.tokens["id_token"], chain.client.tokens["refresh_token"], ""):
        assert (await exchange(chain.gateway, token)).json()["error"] == "invalid_request"
    own = (await chain.gateway.post("/token", grant_type="client_credentials", resource=GATEWAY)).json()
    assert (await exchange(chain.gateway, own["access_token"])).json()["error"] == "invalid_request"
    chain.office.world.clock.advance(300)
    assert (await exchange(chain.gateway, chain.token)).json()["error"] == "invalid_request"


@pytest.mark.parametrize("name", ["subject_token_type", "requested_token_type", "actor_token_type"])
async def test_kinds_of_tokens_that_there_are_not(chain: Chain, name: str) -> None:
    kind = "urn:ietf:params:oauth:token-type:saml2"
    assert (await exchange(chain.gateway, chain.token, **{name: kind})).json()["error"] == "invalid_request"


async def test_the_actor_is_the_app_itself(chain: Chain) -> None:
    own = (await chain.gateway.post("/token", grant_type="client_credentials")).json()["access_token"]
    form = {"actor_token": own, "actor_token_type": ACCESS_TOKEN}
    assert (await exchange(chain.gateway, chain.token, **form)).status_code == 200
    form = {"actor_token": chain.token, "actor_token_type": ACCESS_TOKEN}
    assert (await exchange(chain.gateway, chain.token, **form)).json()["error"] == "invalid_request"


async def test_a_public_app_exchanges_nothing(chain: Chain) -> None:
    tool = await chain.office.app("tool", public=True, resources=(GATEWAY,))
    assert (await exchange(tool, chain.token)).json()["error"] == "unauthorized_client"


async def test_who_is_suspended_is_nobody_s_caller(chain: Chain) -> None:
    user = chain.office.registry.snapshot.user_by_name("ann")
    assert user is not None
    await chain.office.registry.suspend_user("cli", "ann", suspended=True)
    assert (await exchange(chain.gateway, chain.token)).json()["error"] == "invalid_request"


async def test_what_is_exchanged_for_is_named_as_the_policy_has_it(chain: Chain) -> None:
    said = await exchange(chain.gateway, chain.token, resource=WIKI.replace("https://", "HTTPS://"))
    assert said.status_code == 200, said.text
    assert read(said.json()["access_token"])["aud"] == WIKI
