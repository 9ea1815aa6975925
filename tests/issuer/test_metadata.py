from tests.support.office import Office

PATHS = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"


async def test_the_two_documents_differ_in_one_word(office: Office) -> None:
    client = office.browser().client
    openid, oauth = [(await client.get(path)).json() for path in PATHS]
    assert openid.pop("scopes_supported") == [*oauth.pop("scopes_supported"), "offline_access"]
    assert openid == oauth
