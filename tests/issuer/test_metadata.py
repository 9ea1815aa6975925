from tests.support.browsing import DOOR
from tests.support.office import Office

from doorward.issuer.metadata import describe

PATHS = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"


async def test_oidcc_discovery_endpoint_verification(office: Office) -> None:
    client = office.browser().client
    said = await client.get(PATHS[0])
    document = said.json()
    assert said.headers["content-type"] == "application/json"
    assert document["issuer"] == DOOR
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    assert "openid" in document["scopes_supported"]
    assert document["response_types_supported"] == ["code"]
    assert document["subject_types_supported"] == ["public"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    for name, value in document.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            assert value.startswith(DOOR + "/")
    keys = (await client.get(document["jwks_uri"])).json()["keys"]
    assert {one["alg"] for one in keys} == set(document["id_token_signing_alg_values_supported"])
    assert all(one["kid"] and "d" not in one for one in keys)


async def test_every_endpoint_that_is_named_is_there(office: Office) -> None:
    client = office.browser().client
    for name, value in describe(DOOR, openid=True).items():
        if name.endswith("_endpoint"):
            path = value.removeprefix(DOOR)
            assert (await client.get(path)).status_code not in {404, 500}


async def test_the_two_documents_differ_in_one_word(office: Office) -> None:
    client = office.browser().client
    openid, oauth = [(await client.get(path)).json() for path in PATHS]
    assert openid.pop("scopes_supported") == [*oauth.pop("scopes_supported"), "offline_access"]
    assert openid == oauth
