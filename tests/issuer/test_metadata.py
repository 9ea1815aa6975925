from tests.support.browsing import DOOR
from tests.support.office import Office

from doorward.issuer.grants.id_jag import PROFILE
from doorward.issuer.grants.jwt_bearer import JWT_BEARER

PATHS = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"


async def test_the_two_documents_differ_in_one_word(office: Office) -> None:
    client = office.browser().client
    openid, oauth = [(await client.get(path)).json() for path in PATHS]
    assert openid.pop("scopes_supported") == [*oauth.pop("scopes_supported"), "offline_access"]
    assert openid == oauth


async def test_what_is_ours_to_protect_is_named(office: Office) -> None:
    client = office.browser().client
    (named,) = (await client.get(PATHS[0])).json()["protected_resources"]
    described = (await client.get(f"/.well-known/oauth-protected-resource{named.removeprefix(DOOR)}")).json()
    assert described["resource"] == named


async def test_that_words_of_others_count_is_told(office: Office) -> None:
    client = office.browser().client
    for path in PATHS:
        said = (await client.get(path)).json()
        assert said["authorization_grant_profiles_supported"] == [PROFILE]
        assert JWT_BEARER in said["grant_types_supported"]
