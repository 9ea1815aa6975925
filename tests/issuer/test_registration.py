"""Apps that register themselves: RFC 7591, RFC 7592, and the conformance modules of dynamic registration by their names."""

import asyncio
import json
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import httpx2
import pytest
from tests.issuer.test_assertions import claims, show
from tests.support.browsing import DOOR
from tests.support.idtokens import jwk, signed
from tests.support.office import Office, Party

from doorward.issuer.trust import Trust
from doorward.model import App
from doorward.policy.apps import REGISTER, TSIDP
from doorward.store import apps, comers

BACK = "https://tool.example.com/back"
TOOL: dict[str, Any] = {
    "client_name": "A tool",
    "redirect_uris": [BACK],
    "token_endpoint_auth_method": "none",
}
LETS_ANN = {"src": ["ann"], "dst": ["*"], "app": {REGISTER: [{}]}}


async def ask(
    office: Office,
    method: str = "POST",
    path: str = "/register",
    *,
    key: str = "",
    headers: dict[str, str] | None = None,
    **said: Any,
) -> httpx2.Response:
    client = office.browser().client
    client.headers.pop("sec-fetch-site")
    given = {"authorization": f"Bearer {key}"} if key else {}
    async with client:
        if method in {"POST", "PUT"}:
            return await client.request(method, path, json=said, headers=given | (headers or {}))
        return await client.request(method, path, headers=given | (headers or {}))


async def invitation(office: Office, uses: int = 100) -> str:
    return (await office.apps.invite("cli", uses, timedelta(days=1)))[1]


async def register(office: Office, **fields: Any) -> tuple[Party, dict[str, Any]]:
    """One with an invitation, as a relying party, and what it was told."""
    said = await ask(office, key=await invitation(office), **(TOOL | fields))
    assert said.status_code == 201, said.text
    told = said.json()
    app = await office.registry.writer.database.read(apps.by_client_id, told["client_id"])
    assert app is not None
    return Party(office, app, told.get("client_secret", "")), told


async def stored(office: Office) -> list[App]:
    return await office.registry.writer.database.read(apps.load_all)


# Who may -----------------------------------------------------------------------------------------------------------


async def test_nobody_may_who_has_not_been_let(office: Office) -> None:
    for identity in (None, await office.person("ann")):
        office.identity = identity
        said = await ask(office, **TOOL)
        assert (said.status_code, said.json()["error"]) == (401, "invalid_token")
        assert said.headers["www-authenticate"].startswith("Bearer ")
        assert "registration_endpoint" not in (await ask(office, "GET", METADATA)).json()
    said = await ask(office, key="dwappinvite-x", **TOOL)
    assert (said.status_code, said.json()["error"]) == (401, "invalid_token")
    assert await stored(office) == []


METADATA = "/.well-known/oauth-authorization-server"


async def test_with_an_invitation_as_often_as_it_says(office: Office) -> None:
    key = await invitation(office, 2)
    shown = await ask(office, "GET", METADATA)
    assert shown.json()["registration_endpoint"] == f"{DOOR}/register"
    assert shown.headers["cache-control"] == "no-store"
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(ask(office, key=key, **(TOOL | {"client_name": str(n)}))) for n in range(5)
        ]
    answers = sorted(one.result().status_code for one in tries)
    assert answers[:2] == [201, 201]
    assert set(answers[2:]) <= {401, 403}
    assert len(await stored(office)) == 2
    assert "registration_endpoint" not in (await ask(office, "GET", METADATA)).json()
    text = json.dumps([one.details for one in await office.audited("app.create")])
    assert key not in text


async def test_an_invitation_is_over_or_taken_back(office: Office) -> None:
    key = await invitation(office)
    office.world.clock.advance(86_400)
    assert (await ask(office, key=key, **TOOL)).status_code == 401
    key = await invitation(office)
    assert await office.apps.end_invitations("cli") == 1
    assert (await ask(office, key=key, **TOOL)).status_code == 401


@pytest.mark.parametrize("capability", [{REGISTER: [{}]}, {TSIDP: [{"allow_dcr": True}]}])
async def test_a_program_on_the_device_of_who_may(office: Office, capability: dict[str, Any]) -> None:
    await office.person("ann")
    await office.policy(json.dumps({"grants": [{"src": ["ann"], "dst": ["*"], "app": capability}]}))
    assert "registration_endpoint" in (await ask(office, "GET", METADATA)).json()
    said = await ask(office, **TOOL)
    assert said.status_code == 201, said.text
    (app,) = await stored(office)
    ann = office.registry.snapshot.user_by_name("ann")
    assert ann is not None
    assert (app.actor, app.owner_id) == ("user:ann", ann.id)
    await office.person("bob", 2)
    assert (await ask(office, **TOOL)).status_code == 401
    assert "registration_endpoint" not in (await ask(office, "GET", METADATA)).json()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": DOOR},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-mode": "cors", "sec-fetch-site": "cross-site"},
        {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
async def test_t6_a_page_cannot_register_in_the_name_of_who_looks_at_it(
    office: Office, headers: dict[str, str]
) -> None:
    await office.person("ann")
    await office.policy(json.dumps({"grants": [LETS_ANN]}))
    office.rule(Trust(callbacks=("tool.example.com",)))
    assert (await ask(office, headers=headers, **TOOL)).status_code == 401
    assert await stored(office) == []
    # With an invitation a page may: nothing that a browser sends by itself counts then.
    said = await ask(office, headers=headers, key=await invitation(office), **TOOL)
    assert said.status_code == 201


async def test_a_program_in_node_is_no_page(office: Office) -> None:
    await office.person("ann")
    await office.policy(json.dumps({"grants": [LETS_ANN]}))
    # What its fetch() adds by itself.
    said = await ask(office, headers={"sec-fetch-mode": "cors", "accept-language": "*"}, **TOOL)
    assert said.status_code == 201, said.text


async def test_t6_a_form_cannot_either(office: Office) -> None:
    await office.person("ann")
    await office.policy(json.dumps({"grants": [LETS_ANN]}))
    client = office.browser().client
    client.headers.pop("sec-fetch-site")
    async with client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            said = await client.post("/register", content=json.dumps(TOOL), headers={"content-type": kind})
            assert (said.status_code, said.json()["error"]) == (400, "invalid_client_metadata")


async def test_strangers_for_hosts_that_the_settings_name(office: Office) -> None:
    office.rule(Trust(callbacks=("tool.example.com",)))
    assert "registration_endpoint" in (await ask(office, "GET", METADATA)).json()
    said = await ask(office, **TOOL)
    assert said.status_code == 201, said.text
    assert "registration_access_token" not in said.json()
    for uris in (
        ["https://evil.example/back"],
        [BACK, "https://evil.example/back"],
        ["http://localhost/back"],
        ["com.example.tool:/back"],
    ):
        said = await ask(office, **(TOOL | {"redirect_uris": uris}))
        assert (said.status_code, said.json()["error"]) == (400, "invalid_redirect_uri")
    assert len(await stored(office)) == 1


async def test_strangers_are_limited(office: Office) -> None:
    office.rule(Trust(callbacks=("tool.example.com",)))
    for number in range(20):
        assert (await ask(office, **(TOOL | {"client_name": str(number)}))).status_code == 201
    assert (await ask(office, **TOOL)).status_code == 429


async def test_one_person_has_so_many(office: Office) -> None:
    await office.person("ann")
    await office.policy(json.dumps({"grants": [LETS_ANN]}))
    for number in range(20):
        office.world.clock.advance(60)
        assert (await ask(office, **(TOOL | {"client_name": str(number)}))).status_code == 201
    office.world.clock.advance(60)
    said = await ask(office, **TOOL)
    assert (said.status_code, said.json()["error"]) == (403, "access_denied")
    assert (await ask(office, **(TOOL | {"client_name": "7"}))).status_code == 201  # that one is there


# What it gets ------------------------------------------------------------------------------------------------------


async def test_the_same_words_again_are_the_same_public_app(office: Office) -> None:
    office.rule(Trust(callbacks=("tool.example.com",)))
    first, again = (await ask(office, **TOOL)).json(), (await ask(office, **TOOL)).json()
    assert again == first
    other = (await ask(office, **(TOOL | {"client_name": "Another"}))).json()
    assert other["client_id"] != first["client_id"]
    # An approval does not make it another one, and it stays.
    await office.apps.approve("cli", first["client_id"])
    assert (await ask(office, **TOOL)).json() == first
    (app, _) = await stored(office)
    assert app.brought is not None
    assert app.brought.approved == ("tool.example.com",)
    # One with a secret is another one each time.
    wanted = TOOL | {"token_endpoint_auth_method": "client_secret_basic"}
    one, two = (await ask(office, **wanted)).json(), (await ask(office, **wanted)).json()
    assert one["client_id"] != two["client_id"]
    assert one["client_secret"] != two["client_secret"]


async def test_one_registrars_app_is_never_anothers(office: Office) -> None:
    """Else whoever says the same gets the key to an app that others use."""
    await office.person("ann")
    await office.policy(json.dumps({"grants": [{"src": ["*"], "dst": ["*"], "app": {REGISTER: [{}]}}]}))
    office.rule(Trust(callbacks=("tool.example.com",)))
    ids = {(await ask(office, **TOOL)).json()["client_id"]}
    await office.person("bob", 2)
    ids.add((await ask(office, **TOOL)).json()["client_id"])
    office.identity = None
    ids.add((await ask(office, **TOOL)).json()["client_id"])
    ids.add((await ask(office, key=await invitation(office), **TOOL)).json()["client_id"])
    assert len(ids) == 4


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none", None])
async def test_oidcc_server(office: Office, method: str | None) -> None:
    """The whole way, with what was registered and nothing else."""
    await office.person("ann")
    party, told = await register(office, token_endpoint_auth_method=method)
    assert told["token_endpoint_auth_method"] == method or "client_secret_basic"
    assert told["client_id_issued_at"] == int(office.world.clock.now().timestamp())
    assert ("client_secret" in told) is (method != "none")
    if method != "none":
        assert told["client_secret_expires_at"] == 0
    assert told["redirect_uris"] == [BACK]
    browser = party.browser()
    page = await party.send(browser)
    assert "registered it on" in page.text
    assert "its own word" in page.text
    await party.press(browser)
    how = {"client_secret_post": "post", "none": "public"}.get(method or "", "basic")
    assert (await party.redeem(how=how)).status_code == 200
    assert (await party.claims())["aud"] == party.app.client_id
    assert (await party.send()).status_code == 303  # she said yes


async def test_a_secret_is_kept_as_a_hash_alone(office: Office) -> None:
    _, told = await register(office, token_endpoint_auth_method="client_secret_basic")
    everything = b"".join(path.read_bytes() for path in office.world.folder.rglob("*.db*"))
    for name in ("client_secret", "registration_access_token"):
        assert told[name].encode() not in everything


async def test_whose_program_it_was_is_shown_and_it_goes_with_them(office: Office) -> None:
    await office.person("ann")
    await office.policy(json.dumps({"grants": [LETS_ANN]}))
    told = (await ask(office, **TOOL)).json()
    await office.person("bob", 2)
    party = Party(office, (await stored(office))[0], "")
    assert "whose program registered it on" in (await party.send()).text
    await office.registry.suspend_user("cli", "ann", suspended=True)
    assert (await party.send()).status_code == 400
    assert (
        await ask(office, "GET", f"/register/{party.app.client_id}", key=told["registration_access_token"])
    ).status_code == 401


async def test_an_approved_one_is_silent(office: Office) -> None:
    await office.person("ann")
    party, _ = await register(office)
    await office.apps.approve("cli", party.app.name)
    await party.sign_in()


async def test_oidcc_registration_jwks(office: Office) -> None:
    await office.person("ann")
    party, told = await register(
        office, token_endpoint_auth_method="private_key_jwt", jwks={"keys": [jwk("ES256")]}
    )
    assert "client_secret" not in told
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    said = await show(party, signed(claims(party)), "/introspect", token="x")
    assert said.json() == {"active": False}


async def test_oidcc_registration_jwks_uri(office: Office) -> None:
    there = "https://tool.example.com/keys.json"
    office.published[there] = json.dumps({"keys": [jwk("ES256")]}).encode()
    party, told = await register(office, token_endpoint_auth_method="private_key_jwt", jwks_uri=there)
    assert told["jwks_uri"] == there
    assert (await show(party, signed(claims(party)), "/introspect", token="x")).status_code == 200
    assert office.fetched[0][0] == there


async def test_oidcc_refresh_token_rp_key_rotation(office: Office) -> None:
    """A key that the app uses from now on is found within a minute."""
    there = "https://tool.example.com/keys.json"
    office.published[there] = json.dumps({"keys": [jwk("ES256")]}).encode()
    party, _ = await register(office, token_endpoint_auth_method="private_key_jwt", jwks_uri=there)
    assert (await show(party, signed(claims(party)), "/introspect", token="x")).status_code == 200
    office.published[there] = json.dumps({"keys": [jwk("ES256", 1)]}).encode()
    office.world.clock.advance(59)
    said = await show(party, signed(claims(party), number=1), "/introspect", token="x")
    assert said.status_code == 200


@pytest.mark.parametrize(
    ("name", "page", "text"),
    [
        ("oidcc_registration_policy_uri", "policy_uri", "what it does with what it learns"),
        ("oidcc_registration_tos_uri", "tos_uri", "its terms"),
        ("client_uri", "client_uri", "Its page"),
    ],
)
async def test_pages_of_the_app_are_links_and_its_picture_is_not_loaded(
    office: Office, name: str, page: str, text: str
) -> None:
    """oidcc-registration-logo-uri, -policy-uri, -tos-uri."""
    await office.person("ann")
    url = f"https://tool.example.com/{name}"
    party, told = await register(office, **{page: url, "logo_uri": "https://tool.example.com/logo.png"})
    assert told[page] == url
    shown = (await party.send()).text
    assert f'<a href="{url}" rel="noreferrer noopener" target="_blank">{text}</a>' in shown
    assert "logo.png" not in shown


async def test_oidcc_idtoken_unsigned(office: Office) -> None:
    said = await ask(office, key=await invitation(office), **TOOL, id_token_signed_response_alg="none")
    assert (said.status_code, said.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_oidcc_idtoken_rs256(office: Office, algorithm: str) -> None:
    await office.person("ann")
    party, told = await register(office, id_token_signed_response_alg=algorithm)
    assert told["id_token_signed_response_alg"] == algorithm
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    assert (await party.redeem()).status_code == 200
    assert await party.claims()


async def test_oidcc_redirect_uri_regfrag(office: Office) -> None:
    said = await ask(office, key=await invitation(office), **(TOOL | {"redirect_uris": [f"{BACK}#x"]}))
    assert (said.status_code, said.json()["error"]) == (400, "invalid_redirect_uri")


async def test_oidcc_redirect_uri_query(office: Office) -> None:
    """oidcc-redirect-uri-query-OK, -query-mismatch, -query-added."""
    await office.person("ann")
    party, _ = await register(office, redirect_uris=[f"{BACK}?a=b"])
    browser = party.browser()
    await party.send(browser)
    page = await party.press(browser)
    assert f"{BACK}?a=b&amp;code=" in page.text
    for wrong in (f"{BACK}?a=c", f"{BACK}?a=b&c=d", BACK):
        assert (await party.send(redirect_uri=wrong)).status_code == 400
        assert party.answer == {}


async def test_oidcc_ensure_redirect_uri_in_authorization_request(office: Office) -> None:
    await office.person("ann")
    party, _ = await register(office, redirect_uris=[BACK, "https://tool.example.com/other"])
    page = await party.send(redirect_uri=None)
    assert page.status_code == 400
    assert "location" not in page.headers


async def test_oidcc_3rd_party_init_login(office: Office) -> None:
    url = "https://tool.example.com/begin"
    party, told = await register(office, initiate_login_uri=url)
    assert told["initiate_login_uri"] == url
    said = await ask(office, "GET", f"/register/{party.app.client_id}", key=told["registration_access_token"])
    assert said.json()["initiate_login_uri"] == url


async def test_oidcc_3rd_party_init_login_nohttps(office: Office) -> None:
    for url in ("http://tool.example.com/begin", "javascript:alert(1)"):
        said = await ask(office, key=await invitation(office), **TOOL, initiate_login_uri=url)
        assert (said.status_code, said.json()["error"]) == (400, "invalid_client_metadata")


async def test_of_several_addresses_those_that_are_possible_are_registered(office: Office) -> None:
    uris = ["cursor://anysphere.cursor-mcp/oauth/callback", BACK, "http://localhost:8787/callback"]
    _, told = await register(office, redirect_uris=uris)
    assert told["redirect_uris"] == uris[1:]


async def test_an_app_that_pushes_its_requests_takes_no_others(office: Office) -> None:
    await office.person("ann")
    party, told = await register(office, require_pushed_authorization_requests=True)
    assert told["require_pushed_authorization_requests"] is True
    page = await party.send()
    assert page.status_code == 400
    assert "/par first" in page.text
    made = await office.app(pushed_only=True)
    await made.send()
    assert made.answer["error"] == "invalid_request"
    form = {
        "redirect_uri": made.app.redirect_uris[0],
        "response_type": "code",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    pushed = await made.post("/par", **form)
    await made.send(request_uri=pushed.json()["request_uri"])
    assert made.answer["code"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b"{", json.dumps(TOOL | {"client_name": "x" * 20_000}).encode()]
)
async def test_what_is_no_description(office: Office, body: bytes) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {await invitation(office)}"}
    client = office.browser().client
    async with client:
        said = await client.post("/register", content=body, headers=headers)
    assert said.status_code in {400, 413}
    assert said.json()["error"] == "invalid_client_metadata"
    assert said.headers["cache-control"] == "no-store"


# Signing out -------------------------------------------------------------------------------------------------------

OUT, TOLD = "https://tool.example.com/out", "https://tool.example.com/logout"
LOGOUT = {"post_logout_redirect_uris": [OUT], "backchannel_logout_uri": TOLD}


async def signed_in(office: Office, **fields: Any) -> tuple[Party, dict[str, Any]]:
    await office.person("ann")
    office.published[TOLD] = b""
    party, told = await register(office, **(LOGOUT | fields))
    browser = party.browser()
    await party.send(browser)
    await party.press(browser)
    assert (await party.redeem()).status_code == 200
    return party, told


async def test_it_says_where_people_go_who_sign_out_and_where_it_is_told(office: Office) -> None:
    party, told = await signed_in(office, backchannel_logout_session_required=True)
    assert (told["post_logout_redirect_uris"], told["backchannel_logout_uri"]) == ([OUT], TOLD)
    assert told["backchannel_logout_session_required"] is True
    (made,) = await office.audited("app.create")
    assert (made.details["signed_out_uris"], made.details["logout_url"]) == ([OUT], TOLD)
    said = await party.claims()
    page = await party.end_session(
        id_token_hint=party.tokens["id_token"], post_logout_redirect_uri=OUT, state="s"
    )
    # It is a stranger's app: its address is a link, which nobody follows without seeing it.
    assert page.status_code == 200
    assert f'href="{OUT}?state=s"' in page.text
    ((url, token),) = await office.told()
    assert (url, token["sub"], token["sid"]) == (TOLD, said["sub"], said["sid"])


async def test_people_are_sent_back_to_one_that_is_approved_of(office: Office) -> None:
    party, _ = await signed_in(office)
    await office.apps.approve("cli", party.app.name)
    page = await party.end_session(id_token_hint=party.tokens["id_token"], post_logout_redirect_uri=OUT)
    assert (page.status_code, page.headers["location"]) == (303, OUT)


async def test_t16_a_strangers_word_has_us_tell_nobody_inside(office: Office) -> None:
    """What an administrator has said may lead into the tailnet and the networks of the settings; this may not, nor when it is deleted."""
    party, _ = await signed_in(office)
    await office.apps.delete("cli", party.app.name)
    assert [url for url, _ in await office.told()] == [TOLD]
    ((_, rules),) = [one for one in office.fetched if one[0] == TOLD]
    assert office.identity is not None
    for address in (*office.identity.addresses, ip_address("10.0.0.1")):
        assert not rules.also(f"{office.identity.name}.tailnet.internal", address)
    assert rules.resolve != office.issuer._backchannel._fetch._resolve


async def test_addresses_of_other_hosts_are_left_out_or_refused(office: Office) -> None:
    _, told = await register(
        office,
        post_logout_redirect_uris=[OUT, OUT, "https://evil.example/out", "http://tool.example.com/", "x:"],
    )
    assert told["post_logout_redirect_uris"] == [OUT]
    for url in (
        "https://evil.example/logout",
        "http://tool.example.com/logout",
        f"{TOLD}#part",
        "https://ann@tool.example.com/logout",
        "https://tool.example.com:x/logout",
        "x",
    ):
        said = await ask(office, key=await invitation(office), **(TOOL | {"backchannel_logout_uri": url}))
        assert (said.status_code, said.json()["error"]) == (400, "invalid_client_metadata"), url


async def test_another_registration_says_something_else(office: Office) -> None:
    party, told = await register(office, **LOGOUT)
    path, key = f"/register/{party.app.client_id}", told["registration_access_token"]
    changed = await ask(office, "PUT", path, key=key, **(TOOL | {"client_id": party.app.client_id}))
    assert "backchannel_logout_uri" not in changed.json()
    (app,) = await stored(office)
    assert (app.logout_url, app.signed_out_uris) == ("", ())
    assert (await register(office, **LOGOUT))[0].app.client_id != party.app.client_id


# To change it ------------------------------------------------------------------------------------------------------


async def test_an_app_reads_changes_and_deletes_what_it_said(office: Office) -> None:
    await office.person("ann")
    party, told = await register(office)
    path, key = f"/register/{party.app.client_id}", told.pop("registration_access_token")
    assert told["registration_client_uri"] == f"{DOOR}{path}"
    read = await ask(office, "GET", path, key=key)
    assert (read.status_code, read.json()) == (200, told)
    wanted = TOOL | {"client_id": party.app.client_id, "client_name": "New", "redirect_uris": [f"{BACK}2"]}
    changed = await ask(office, "PUT", path, key=key, **wanted)
    assert changed.status_code == 200, changed.text
    assert changed.json()["redirect_uris"] == [f"{BACK}2"]
    assert (await ask(office, "GET", path, key=key)).json() == changed.json()
    assert (await party.send()).status_code == 400
    assert (await party.send(redirect_uri=f"{BACK}2")).status_code == 200
    gone = await ask(office, "DELETE", path, key=key)
    assert (gone.status_code, gone.content) == (204, b"")
    assert await stored(office) == []
    for method in ("GET", "DELETE"):
        assert (await ask(office, method, path, key=key)).status_code == 401
    for action in ("app.create", "app.change", "app.delete"):
        assert len(await office.audited(action)) == 1


async def test_what_was_approved_of_is_not_what_it_becomes(office: Office) -> None:
    await office.person("ann")
    party, told = await register(office)
    await office.apps.approve("cli", party.app.name)
    elsewhere = "https://evil.example/back"
    wanted = TOOL | {"client_id": party.app.client_id, "redirect_uris": [elsewhere]}
    path = f"/register/{party.app.client_id}"
    assert (
        await ask(office, "PUT", path, key=told["registration_access_token"], **wanted)
    ).status_code == 200
    page = await party.send(redirect_uri=elsewhere)
    assert page.status_code == 200
    assert "evil.example" in page.text


@pytest.mark.parametrize(
    "fields",
    [
        {"client_id": "app-other"},
        {"client_id": None},
        {"client_secret": "x"},
        {"client_secret": 7},
        {"registration_access_token": "x"},
        {"client_id_issued_at": 7},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"redirect_uris": []},
        {"id_token_signed_response_alg": "none"},
    ],
)
async def test_a_change_that_cannot_be(office: Office, fields: dict[str, Any]) -> None:
    party, told = await register(office)
    wanted = {"client_id": party.app.client_id} | TOOL | fields
    path = f"/register/{party.app.client_id}"
    said = await ask(office, "PUT", path, key=told["registration_access_token"], **wanted)
    assert said.status_code == 400
    assert (await stored(office)) == [party.app]


async def test_a_key_is_for_its_own_app(office: Office) -> None:
    party, told = await register(office)
    other, told_other = await register(office, client_name="Other")
    made = await office.app()
    office.rule(Trust(callbacks=("tool.example.com",)))
    stranger = (await ask(office, **TOOL)).json()["client_id"]
    path = f"/register/{party.app.client_id}"
    for key in ("", "x", told_other["registration_access_token"], await invitation(office)):
        assert (await ask(office, "GET", path, key=key)).status_code == 401
    for client_id in (other.app.client_id, made.app.client_id, stranger, "app-none"):
        for method in ("GET", "DELETE"):
            said = await ask(office, method, f"/register/{client_id}", key=told["registration_access_token"])
            assert (said.status_code, said.json()["error"]) == (401, "invalid_token")


async def test_who_tries_keys_is_stopped(office: Office) -> None:
    party, told = await register(office)
    path = f"/register/{party.app.client_id}"
    for _ in range(30):
        assert (await ask(office, "GET", path, key="x")).status_code == 401
    assert (await ask(office, "GET", path, key=told["registration_access_token"])).status_code == 429


# And its end -------------------------------------------------------------------------------------------------------


async def test_what_nobody_has_used_is_forgotten(office: Office) -> None:
    await office.person("ann")
    used, _ = await register(office)
    browser = used.browser()
    await used.send(browser)
    await used.press(browser)
    await used.redeem()
    await register(office, client_name="Unused")
    approved, _ = await register(office, client_name="Approved")
    await office.apps.approve("cli", approved.app.name)
    await office.app()
    database, later = office.registry.writer.database, office.world.clock.now() + timedelta(days=1)
    assert await database.run(comers.delete_unused, later, office.world.clock.now()) == 0
    assert await database.run(comers.delete_unused, later, later) == 1
    assert {one.title for one in await stored(office)} == {"A tool", "Approved", "grafana"}
