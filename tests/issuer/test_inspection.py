import re

import pytest
from tests.support.browsing import DOOR
from tests.support.office import Office, Party


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    made = await office.app(resources=("https://mcp.example",))
    await made.sign_in(scope="openid email groups offline_access")
    return made


async def test_userinfo_by_each_way_and_by_one_alone(office: Office, party: Party) -> None:
    token = party.tokens["access_token"]
    by_get = (await party.userinfo()).json()
    async with party.program() as client:
        by_header = await client.post("/userinfo", headers={"authorization": f"bearer {token}"})
        by_body = await client.post("/userinfo", data={"access_token": token})
        twice = await client.post(
            "/userinfo", data={"access_token": token}, headers={"authorization": f"Bearer {token}"}
        )
        nothing = await client.get("/userinfo")
        in_query = await client.get(f"/userinfo?access_token={token}")
    assert by_get == by_header.json() == by_body.json()
    assert by_get == {"sub": (await party.claims())["sub"], "email": "ann@example.com", "groups": []}
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    assert nothing.status_code == in_query.status_code == 401
    where = f'resource_metadata="{DOOR}/.well-known/oauth-protected-resource/userinfo"'
    assert nothing.headers["www-authenticate"] == f'Bearer realm="doorward", {where}'


async def test_a_program_finds_out_by_itself_how_to_ask_who_somebody_is(office: Office) -> None:
    """From the refusal to the description, and with what it says to a token (RFC 9728)."""
    await office.person("ann")
    party = await office.app()
    async with party.program() as client:
        refused = await client.get("/userinfo", headers={"authorization": "Bearer x"})
        (where,) = re.findall(r'resource_metadata="([^"]*)"', refused.headers["www-authenticate"])
        described = (await client.get(where)).json()
    assert described["authorization_servers"] == [DOOR]
    assert described["resource"] == f"{DOOR}/userinfo"
    await party.sign_in(resource=described["resource"], scope=" ".join(described["scopes_supported"]))
    assert (await party.userinfo()).status_code == 200
    token = party.tokens["access_token"]
    assert (await party.post("/introspect", token=token)).json()["aud"] == described["resource"]
    assert (await party.refresh()).status_code == 200
    # Who has such a token and asks about another's has no more right than before.
    other = await office.app("wiki")
    assert (await other.post("/introspect", token=token)).json() == {"active": False}


async def test_a_token_says_what_it_is_to_its_own_app(office: Office, party: Party) -> None:
    token = party.tokens["access_token"]
    said = (await party.post("/introspect", token=token)).json()
    assert (said["active"], said["username"], said["client_id"]) == (True, "ann", party.app.client_id)
    assert said["sub"] == (await party.claims())["sub"]
    other = await office.app("wiki")
    assert (await other.post("/introspect", token=token)).json() == {"active": False}
    assert (await party.post("/introspect", token="x")).json() == {"active": False}
    assert (await party.post("/introspect", token=party.tokens["id_token"])).json() == {"active": False}
    assert (await party.post("/introspect", how="none", token=token)).status_code == 401
    assert (await party.post("/introspect")).json()["error"] == "invalid_request"


async def test_the_server_that_a_token_is_for_may_ask_about_it(office: Office) -> None:
    await office.person("ann")
    client = await office.app("client", resources=("https://mcp.example",))
    server = await office.app("server", resources=("https://mcp.example",))
    await client.sign_in(resource="https://mcp.example")
    said = (await server.post("/introspect", token=client.tokens["access_token"])).json()
    assert (said["active"], said["aud"]) == (True, "https://mcp.example")


async def test_a_public_app_may_not_ask(office: Office, party: Party) -> None:
    tool = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    said = await tool.post("/introspect", how="public", token=party.tokens["access_token"])
    assert said.status_code == 401


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_revoking_either_ends_all_of_the_grant(office: Office, party: Party, kind: str) -> None:
    other = await office.app("wiki")
    assert (await other.post("/revoke", token=party.tokens[kind])).status_code == 200
    assert (await party.userinfo()).status_code == 200  # nothing of another's
    assert (await party.post("/revoke", token=party.tokens[kind], token_type_hint="x")).status_code == 200
    assert (await party.userinfo()).status_code == 401
    assert (await party.refresh()).json()["error"] == "invalid_grant"
    assert (await party.post("/revoke", token="unknown")).status_code == 200
    assert len(await office.audited("app.revoke")) == 1


async def test_t13_what_was_taken_away_shows_at_once(office: Office, party: Party) -> None:
    await office.registry.suspend_user("cli", "ann", suspended=True)
    assert (await party.userinfo()).status_code == 401
    assert (await party.post("/introspect", token=party.tokens["access_token"])).json() == {"active": False}
    await office.registry.suspend_user("cli", "ann", suspended=False)
    assert (await party.refresh()).json()["error"] == "invalid_grant"  # what ended stays so


async def test_a_deleted_app_has_no_tokens(office: Office, party: Party) -> None:
    await office.apps.delete("cli", "grafana")
    assert (await party.userinfo()).status_code == 401


async def test_without_openid_nobody_is_told_who_it_is(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.send(scope="email")
    await party.redeem()
    assert "id_token" not in party.tokens
    said = await party.userinfo()
    assert (said.status_code, said.json()["error"]) == (403, "insufficient_scope")


async def test_a_server_knows_itself_in_either_spelling_of_its_address(office: Office) -> None:
    client = await office.app("client", resources=("https://mcp.example",))
    server = await office.app("server", resources=("https://mcp.example/",))
    await office.person()
    await client.sign_in(resource="https://mcp.example/")
    told = (await server.post("/introspect", token=client.tokens["access_token"])).json()
    assert (told["active"], told["aud"]) == (True, "https://mcp.example")
