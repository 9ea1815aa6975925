"""Access tokens that say nothing by themselves."""

import pytest
from tests.support.office import Office, Party

from doorward.issuer.access import KIND, read_access
from doorward.issuer.tokens import ACCESS, BadToken
from doorward.store import apps
from doorward.tailnet import secrets

HERE, THERE = "https://gateway.example", "https://wiki.example/mcp"


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    made = await office.app(opaque=True)
    await made.sign_in(scope="openid email offline_access")
    return made


async def test_it_is_a_name_and_nothing_more(office: Office, party: Party) -> None:
    token = party.tokens["access_token"]
    assert token.startswith(KIND)
    assert "." not in token
    assert (await party.userinfo()).json()["email"] == "ann@example.com"
    said = (await party.post("/introspect", token=token)).json()
    assert (said["active"], said["username"], said["scope"]) == (True, "ann", "openid email offline_access")
    assert said["sub"] == (await party.claims())["sub"]  # whose at_hash is of this very name
    jwt = await office.app("jwt")
    await jwt.sign_in()
    said_by_itself = (await jwt.post("/introspect", token=jwt.tokens["access_token"])).json()
    assert said.keys() == said_by_itself.keys()


async def test_who_has_read_the_database_has_no_token(office: Office, party: Party) -> None:
    token = party.tokens["access_token"]
    found = await office.registry.writer.database.read(apps.access_tokens, [secrets.digest(token)])
    (kept,) = found.values()
    assert token not in repr(kept) + str(kept.claims)
    assert (await party.userinfo(f"{KIND}-x")).status_code == 401
    assert (await party.userinfo(token[:-1])).status_code == 401
    other = await office.app("wiki")
    assert (await other.post("/introspect", token=token)).json() == {"active": False}


async def test_it_ends_in_time_and_is_forgotten(office: Office, party: Party) -> None:
    token, database = party.tokens["access_token"], office.registry.writer.database
    office.world.clock.advance(ACCESS.total_seconds() - 1)
    assert (await party.userinfo()).status_code == 200
    office.world.clock.advance(1)
    assert (await party.userinfo()).status_code == 401
    office.world.clock.advance(1)
    now = office.world.clock.now()
    await database.run(apps.delete_over, now, now)
    assert await database.read(apps.access_tokens, [secrets.digest(token)]) == {}


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_it_ends_when_it_is_given_back(party: Party, kind: str) -> None:
    assert (await party.post("/revoke", token=party.tokens[kind])).status_code == 200
    assert (await party.userinfo()).status_code == 401
    assert (await party.post("/introspect", token=party.tokens["access_token"])).json() == {"active": False}


async def test_t13_it_ends_with_its_person_and_its_app(office: Office, party: Party) -> None:
    await party.refresh()
    assert party.tokens["access_token"].startswith(KIND)
    await office.registry.suspend_user("cli", "ann", suspended=True)
    assert (await party.userinfo()).status_code == 401
    await office.registry.suspend_user("cli", "ann", suspended=False)
    await office.apps.delete("cli", "grafana")
    assert (await party.userinfo()).status_code == 401
    with pytest.raises(BadToken):  # even its row is gone, with the grant
        await read_access(office.issuer._desk, party.tokens["access_token"])


async def test_of_the_app_itself_and_by_exchange(office: Office) -> None:
    await office.person("ann")
    await office.policy(
        '{"grants": [{"src": ["*"], "dst": ["*"], "app": {"doorward.dev/cap/app": '
        f'[{{"resources": ["{THERE}"]}}]}}}}]}}'
    )
    client = await office.app(resources=(HERE,), opaque=True)
    gateway = await office.app("gateway", resources=(HERE,), opaque=True, service=True)
    await client.sign_in(resource=HERE)
    exchanged = await gateway.post(
        "/token",
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=client.tokens["access_token"],
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        resource=THERE,
    )
    own = await gateway.post("/token", grant_type="client_credentials")
    for answer in (exchanged, own):
        token = answer.json()["access_token"]
        assert token.startswith(KIND)
        assert (await gateway.post("/introspect", token=token)).json()["active"] is True
