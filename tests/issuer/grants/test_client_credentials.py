from tests.support.office import Office


async def test_an_app_gets_a_token_of_its_own(office: Office) -> None:
    job = await office.app("job", redirect_uris=(), service=True, resources=("https://api.example",))
    said = await job.post("/token", grant_type="client_credentials", resource="https://api.example")
    assert said.status_code == 200
    assert "refresh_token" not in said.json()
    token = said.json()["access_token"]
    told = (await job.post("/introspect", token=token)).json()
    assert (told["sub"], told["aud"], told["active"]) == (job.app.client_id, "https://api.example", True)
    assert "username" not in told
    assert (await job.userinfo(token)).status_code == 403
    revoked = await job.post("/revoke", token=token)
    assert revoked.json()["error"] == "unsupported_token_type"
    assert len(await office.audited("app.token")) == 1


async def test_only_one_that_was_made_for_it(office: Office) -> None:
    party = await office.app()
    said = await party.post("/token", grant_type="client_credentials")
    assert said.json()["error"] == "unauthorized_client"


async def test_what_is_about_people_is_not_given(office: Office) -> None:
    job = await office.app("job", redirect_uris=(), service=True)
    asked = {"grant_type": "client_credentials"}
    assert (await job.post("/token", **asked, scope="openid")).json()["error"] == "invalid_scope"
    assert (await job.post("/token", **asked, resource="https://x")).json()["error"] == "invalid_target"


async def test_it_has_those_of_its_own_scopes_that_it_asks_for(office: Office) -> None:
    job = await office.app("job", redirect_uris=(), service=True, scopes=("files:read", "files:write"))
    await office.app("other", scopes=("files:all",))
    asked = {"grant_type": "client_credentials"}
    assert "scope" not in (await job.post("/token", **asked)).json()
    said = (await job.post("/token", **asked, scope="files:read files:read")).json()
    assert said["scope"] == "files:read"
    assert (await job.post("/introspect", token=said["access_token"])).json()["scope"] == "files:read"
    assert (await job.post("/token", **asked, scope="files:all")).json()["error"] == "invalid_scope"
