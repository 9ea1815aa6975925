import pytest
from tests.support.office import Office, Party

from doorward.issuer.live import live_token
from doorward.issuer.tokens import BadToken


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    made = await office.app(service=True)
    await made.sign_in()
    return made


async def test_a_token_of_a_person_and_one_of_the_app(office: Office, party: Party) -> None:
    desk = office.issuer._desk
    live = await live_token(desk, party.tokens["access_token"])
    assert live.app == party.app
    assert live.who is not None
    assert live.who.user.name == "ann"
    own = (await party.post("/token", grant_type="client_credentials")).json()["access_token"]
    live = await live_token(desk, own)
    assert (live.app, live.grant, live.who) == (party.app, None, None)


async def test_what_a_token_stands_on_may_be_gone(office: Office, party: Party) -> None:
    desk, token = office.issuer._desk, party.tokens["access_token"]
    await office.policy('{"grants": [{"src": ["bob"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{}]}}]}')
    with pytest.raises(BadToken, match="may not use"):
        await live_token(desk, token)
    await office.policy("{}")
    await party.post("/revoke", token=token)
    with pytest.raises(BadToken, match="revoked"):
        await live_token(desk, token)
    await office.apps.delete("cli", party.app.name)
    with pytest.raises(BadToken, match="app is gone"):
        await live_token(desk, token)
