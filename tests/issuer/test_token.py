import pytest
from tests.support.office import Office


@pytest.mark.parametrize(
    "kind", ["", "password", "implicit", "urn:ietf:params:oauth:grant-type:saml2-bearer"]
)
async def test_a_grant_that_there_is_not(office: Office, kind: str) -> None:
    party = await office.app()
    said = await party.post("/token", grant_type=kind)
    assert (said.status_code, said.json()["error"]) == (400, "unsupported_grant_type")
    assert said.headers["cache-control"] == "no-store"
    assert said.headers["content-type"] == "application/json"


async def test_a_parameter_that_is_given_twice(office: Office) -> None:
    party = await office.app()
    async with party.program() as client:
        body = f"grant_type=x&grant_type=x&client_id={party.app.client_id}&client_secret={party.secret}"
        headers = {"content-type": "application/x-www-form-urlencoded"}
        said = await client.post("/token", content=body, headers=headers)
    assert said.json()["error"] == "invalid_request"


async def test_a_token_is_not_fetched_by_get(office: Office) -> None:
    assert (await office.browser().client.get("/token")).status_code == 405
