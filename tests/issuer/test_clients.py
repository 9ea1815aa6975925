import base64
import json

import pytest
from tests.support.office import Office

from doorward.login.tsidp import read_clients


@pytest.mark.parametrize("how", ["basic", "post"])
async def test_a_wrong_secret_is_refused_and_spoils_no_code(office: Office, how: str) -> None:
    await office.person("ann")
    party = await office.app()
    await party.send()
    good, party.secret = party.secret, "dwapp-wrong"
    said = await party.redeem(how=how)
    assert (said.status_code, said.json()["error"]) == (401, "invalid_client")
    assert ("www-authenticate" in said.headers) == (how == "basic")
    party.secret = ""
    assert (await party.redeem(how=how)).status_code == 401
    assert (await party.redeem(how="public")).status_code == 401
    party.secret = good
    assert (await party.redeem()).status_code == 200


async def test_credentials_are_shown_in_one_way(office: Office) -> None:
    party = await office.app()
    said = await party.post("/token", client_secret=party.secret)
    assert said.json()["error"] == "invalid_request"
    said = await party.post("/token", client_id="app-other")
    assert said.json()["error"] == "invalid_request"
    said = await party.post("/token", client_id=party.app.client_id)
    assert said.json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer x", "Basic " + "A" * 3000, "Basic YQ=="])
async def test_a_header_that_cannot_be_read_is_no_app(office: Office, header: str) -> None:
    party = await office.app()
    async with party.program() as client:
        said = await client.post("/token", data={"grant_type": "x"}, headers={"authorization": header})
    assert said.status_code == 401


async def test_basic_credentials_are_form_encoded(office: Office) -> None:
    party = await office.app()
    raw = f"{party.app.client_id.replace('-', '%2D')}:{party.secret.replace('-', '%2d')}".encode()
    headers = {"authorization": f"basic {base64.b64encode(raw).decode()}"}
    async with party.program() as client:
        said = await client.post("/token", data={"grant_type": "x"}, headers=headers)
    assert said.json()["error"] == "unsupported_grant_type"


async def test_a_public_app_shows_no_secret(office: Office) -> None:
    party = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    for how in ("basic", "post"):
        party.secret = "x"
        assert (await party.post("/token", how=how, grant_type="x")).status_code == 401
    assert (await party.post("/token", how="public", grant_type="x")).json()[
        "error"
    ] == "unsupported_grant_type"


async def test_who_guesses_is_stopped(office: Office) -> None:
    party = await office.app()
    good, party.secret = party.secret, "wrong"
    for _ in range(30):
        assert (await party.post("/token", grant_type="x")).status_code == 401
    party.secret = good
    assert (await party.post("/token", grant_type="x")).status_code == 429
    office.world.clock.advance(60)
    assert (await party.post("/token", grant_type="x")).status_code == 400


@pytest.mark.parametrize("how", ["basic", "post"])
async def test_an_app_that_comes_from_tsidp_signs_people_in_with_the_secret_that_it_has(
    office: Office, how: str
) -> None:
    party = await office.app()
    client_id, secret = "0a" * 16, "f00d" * 16
    back = list(party.app.redirect_uris)
    clients = {client_id: {"client_secret": secret, "client_name": "Wiki", "redirect_uris": back}}
    await office.world.context.apps.bring("cli", read_clients(json.dumps(clients)))
    await office.person("ann")
    party.app, party.secret = await office.world.context.apps.find("wiki"), secret
    await party.send()
    assert (await party.redeem(how=how)).status_code == 200
    assert (await party.claims())["aud"] == client_id
