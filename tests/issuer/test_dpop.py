"""Tokens that are bound to a key (RFC 9449)."""

import asyncio
import base64
from typing import Any

import httpx2
import msgspec
import pytest
from joserfc.jwk import OctKey, OKPKey, RSAKey
from tests.support.browsing import DOOR
from tests.support.office import Office, Party
from tests.support.prover import Prover, signed

from doorward.issuer.dpop import TERM
from doorward.login.proofs import WINDOW

TOKEN = f"{DOOR}/token"
NATIVE = {"public": True, "redirect_uris": ("http://127.0.0.1/cb",)}


def proof(office: Office, prover: Prover, address: str = TOKEN, **more: Any) -> str:
    return prover.proof(office.world.clock.now(), address, **more)


async def show(party: Party, prover: Prover | None, scheme: str = "DPoP", **more: Any) -> httpx2.Response:
    """The access token at userinfo."""
    token = party.tokens["access_token"]
    headers = {"authorization": f"{scheme} {token}"}
    if prover is not None:
        given = {"method": "GET", "token": token} | more
        headers["dpop"] = proof(party.office, prover, f"{DOOR}/userinfo", **given)
    async with party.program() as client:
        return await client.get("/userinfo", headers=headers)


def said_in(token: str) -> Any:
    part = token.split(".")[1]
    return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def yes(party: Party, **asked: str | None) -> None:
    """A code for an app on a person's own device."""
    browser = party.browser()
    await party.send(browser, None, **asked)
    if not party.answer:
        await party.press(browser)
    assert "code" in party.answer


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"])
async def test_a_proof_binds_the_tokens_to_its_key(office: Office, algorithm: str) -> None:
    await office.person("ann")
    party = await office.app()
    prover = Prover(algorithm=algorithm)
    if algorithm.startswith("Ed"):
        prover.key = OKPKey.generate_key("Ed25519")
    elif algorithm[1] == "S" and algorithm != "ES256":
        prover.key = RSAKey.generate_key(2048)
    await party.send()
    said = await party.redeem(dpop=proof(office, prover))
    assert said.status_code == 200, said.text
    assert said.json()["token_type"] == "DPoP"
    assert said_in(party.tokens["access_token"])["cnf"] == {"jkt": prover.jkt}
    assert "cnf" not in said_in(party.tokens["id_token"])
    assert (await show(party, prover)).json()["email"] == "ann@example.com"
    known = (await party.post("/introspect", token=party.tokens["access_token"])).json()
    assert (known["active"], known["token_type"], known["cnf"]) == (True, "DPoP", {"jkt": prover.jkt})


async def test_t15_a_bound_token_is_worth_nothing_without_its_key(office: Office) -> None:
    await office.person("ann")
    party, prover = await office.app(), Prover()
    await party.send()
    await party.redeem(dpop=proof(office, prover))
    token = party.tokens["access_token"]
    for refused in (
        await show(party, None, "Bearer"),
        await show(party, prover, "Bearer"),  # a downgrade, proof or not (section 7.2)
        await show(party, None),
        await show(party, Prover()),
        await show(party, prover, token="another"),
        await show(party, prover, method="POST"),
    ):
        assert refused.status_code == 401, refused.text
        assert refused.headers["www-authenticate"].startswith("DPoP ")
        assert token not in refused.text
    async with party.program() as client:
        in_form = await client.post("/userinfo", data={"access_token": token})
    assert in_form.status_code == 401


async def test_a_token_that_is_bound_to_nothing_is_no_bound_one(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in()
    assert party.tokens["token_type"] == "Bearer"
    assert (await show(party, Prover())).status_code == 401
    assert (await party.userinfo()).status_code == 200


async def test_a_proof_is_good_once(office: Office) -> None:
    await office.person("ann")
    party, prover = await office.app(service=True), Prover()
    shown = proof(office, prover)
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(party.post("/token", dpop=shown, grant_type="client_credentials"))
            for _ in range(6)
        ]
    answers = [one.result() for one in tries]
    assert sorted(one.status_code for one in answers) == [200] + [400] * 5
    assert {one.json()["error"] for one in answers if one.status_code == 400} == {"invalid_dpop_proof"}
    # Neither has it become good again, as long as its time would let it.
    office.world.clock.advance(WINDOW - 1)
    again = await party.post("/token", dpop=shown, grant_type="client_credentials")
    assert again.json()["error"] == "invalid_dpop_proof"


@pytest.mark.parametrize(
    "more",
    [
        {"method": "GET"},
        {"address": f"{DOOR}/userinfo"},
        {"address": "https://elsewhere.example/token"},
        {"address": f"{DOOR}:8443/token"},
        {"address": "https://[/token"},
        {"address": "http" + TOKEN[5:]},
        {"htu": None},
        {"htu": [TOKEN]},
        {"iat": None},
        {"iat": True},
        {"iat": "now"},
        {"iat": 2**40},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 257},
        {"jti": 7},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": None}},
        {"header": {"jwk": None}},
        {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"header": {"jwk": {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}}},
        {"header": {"crit": ["exp"]}},
    ],
)
async def test_a_proof_of_something_else_is_refused(office: Office, more: dict[str, Any]) -> None:
    party = await office.app(service=True)
    said = await party.post("/token", dpop=proof(office, Prover(), **more), grant_type="client_credentials")
    assert (said.status_code, said.json()["error"]) == (400, "invalid_dpop_proof")


async def test_algorithm_confusion_and_foreign_keys_make_no_proof(office: Office) -> None:
    party, prover = await office.app(service=True), Prover()
    now = office.world.clock.now()
    good = prover.proof(now, TOKEN)
    claims = said_in(good)
    public = prover.key.as_dict(private=False)
    shared = OctKey.import_key(b"k" * 32)
    forged = (
        signed({"typ": "dpop+jwt", "alg": "HS256", "jwk": public}, claims, shared),
        signed({"typ": "dpop+jwt", "alg": "HS256", "jwk": shared.as_dict()}, claims, shared),
        prover.proof(now, TOKEN, header={"jwk": Prover().key.as_dict(private=False)}),
        prover.proof(now, TOKEN, header={"jwk": prover.key.as_dict(private=True)}),
        good.rpartition(".")[0] + ".",
        "eyJhbGciOiJub25lIn0.e30.",
        "x",
        f"{good}, {prover.proof(now, TOKEN)}",
    )
    for one in forged:
        said = await party.post("/token", dpop=one, grant_type="client_credentials")
        assert (said.status_code, said.json()["error"]) == (400, "invalid_dpop_proof"), said.text
    said = await party.post("/token", dpop=good, grant_type="client_credentials")
    assert said.status_code == 200


async def test_clocks_may_differ_and_a_proof_gets_old(office: Office) -> None:
    party, prover = await office.app(service=True), Prover()
    now = int(office.world.clock.now().timestamp())
    for made, status in (
        (now + 60, 200),
        (now + WINDOW + 1, 400),
        (now - WINDOW + 1, 200),
        (now - WINDOW - 1, 400),
    ):
        shown = proof(office, prover, iat=made)
        said = await party.post("/token", dpop=shown, grant_type="client_credentials")
        assert said.status_code == status, made - now


@pytest.mark.parametrize("address", [f"{TOKEN}?x=1#y", TOKEN.upper().replace("/TOKEN", "/token")])
async def test_addresses_that_are_the_same_are_the_same(office: Office, address: str) -> None:
    party = await office.app(service=True)
    shown = proof(office, Prover(), address)
    assert (await party.post("/token", dpop=shown, grant_type="client_credentials")).status_code == 200


# Refresh tokens and codes ------------------------------------------------------------------------------------------


async def test_a_public_app_s_refresh_token_is_bound_and_another_s_is_not(office: Office) -> None:
    await office.person("ann")
    tool, prover = await office.app("tool", **NATIVE), Prover()
    await yes(tool, scope="openid offline_access")
    assert (await tool.redeem(dpop=proof(office, prover))).status_code == 200
    for shown in ("", proof(office, Prover())):
        said = await tool.refresh(dpop=shown)
        assert (said.status_code, said.json()["error"]) == (400, "invalid_grant")
    assert [one.details["why"] for one in await office.audited("app.refuse")] == ["another key"] * 2
    for _ in range(2):  # who has not the key has not spoilt it, and the next one is bound as well
        said = await tool.refresh(dpop=proof(office, prover))
        assert said.json()["token_type"] == "DPoP", said.text
    assert (await tool.refresh()).json()["error"] == "invalid_grant"
    party = await office.app()
    await party.send(scope="openid offline_access")
    await party.redeem(dpop=proof(office, prover))
    said = await party.refresh(dpop=proof(office, other := Prover()))  # its secret says who it is
    assert said_in(said.json()["access_token"])["cnf"] == {"jkt": other.jkt}
    assert (await party.refresh()).json()["token_type"] == "Bearer"


async def test_a_code_may_be_bound_to_a_key(office: Office) -> None:
    await office.person("ann")
    party, prover = await office.app(), Prover()
    await party.send(dpop_jkt=prover.jkt)
    for shown in ("", proof(office, Prover())):
        assert (await party.redeem(dpop=shown)).json()["error"] == "invalid_grant"
    assert (await party.redeem(dpop=proof(office, prover))).status_code == 200
    await party.send(dpop_jkt="short")
    assert party.answer["error"] == "invalid_request"


async def test_it_stays_bound_over_the_page_that_asks(office: Office) -> None:
    await office.person("ann")
    party, prover = await office.app(asks=True), Prover()
    await yes(party, dpop_jkt=prover.jkt)
    assert (await party.redeem()).json()["error"] == "invalid_grant"
    assert (await party.redeem(dpop=proof(office, prover))).status_code == 200


async def test_a_proof_with_a_pushed_request_binds_its_code(office: Office) -> None:
    await office.person("ann")
    party, prover = await office.app(), Prover()
    form = {"redirect_uri": party.app.redirect_uris[0], "response_type": "code", "scope": "openid"}
    par = f"{DOOR}/par"
    other = await party.post("/par", dpop=proof(office, prover, par), dpop_jkt=Prover().jkt, **form)
    assert other.json()["error"] == "invalid_dpop_proof"
    wrong = await party.post("/par", dpop=proof(office, prover, TOKEN), **form)
    assert wrong.json()["error"] == "invalid_dpop_proof"
    for more in ({}, {"dpop_jkt": prover.jkt}):
        said = await party.post("/par", dpop=proof(office, prover, par), **form, **more)
        rest = dict.fromkeys(["scope", "nonce", "state", "code_challenge", "code_challenge_method"])
        await party.send(request_uri=said.json()["request_uri"], **rest)
        assert (await party.redeem(code_verifier="")).json()["error"] == "invalid_grant"
        said = await party.redeem(code_verifier="", dpop=proof(office, prover))
        assert said.json()["token_type"] == "DPoP"


async def test_an_exchanged_token_is_bound_to_who_exchanged_it(office: Office) -> None:
    await office.person("ann")
    await office.policy(
        '{"grants": [{"src": ["*"], "dst": ["*"], "app": {"doorward.dev/cap/app": '
        '[{"resources": ["https://wiki.example/mcp"]}]}}]}'
    )
    party, prover, gateway = await office.app(), Prover(), Prover()
    await party.send()
    await party.redeem(dpop=proof(office, prover))
    said = await party.post(
        "/token",
        dpop=proof(office, gateway),
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=party.tokens["access_token"],
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        resource="https://wiki.example/mcp",
    )
    assert said.json()["token_type"] == "DPoP", said.text
    assert said_in(said.json()["access_token"])["cnf"] == {"jkt": gateway.jkt}


# Apps that always do -----------------------------------------------------------------------------------------------


async def test_an_app_with_dpop_gets_no_token_without_a_proof_that_has_our_word(office: Office) -> None:
    await office.person("ann")
    party, prover = await office.app(dpop=True), Prover()
    await party.send()
    assert (await party.redeem()).json()["error"] == "invalid_dpop_proof"
    first = await party.redeem(dpop=proof(office, prover))
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    assert "DPoP-Nonce" in first.headers["access-control-expose-headers"]
    prover.nonce = first.headers["dpop-nonce"]
    said = await party.redeem(dpop=proof(office, prover))
    assert said.status_code == 200, said.text
    assert said.headers["dpop-nonce"]
    assert (await show(party, prover)).status_code == 200
    told = await show(party, prover, nonce=None)
    assert told.status_code == 401
    assert 'DPoP realm="doorward"' in told.headers["www-authenticate"]
    assert 'error="use_dpop_nonce"' in told.headers["www-authenticate"]
    assert told.headers["dpop-nonce"] == prover.nonce


@pytest.mark.parametrize("nonce", ["x", "ä", "x" * 200])
async def test_a_word_that_is_not_ours_does_not_count(office: Office, nonce: Any) -> None:
    for dpop in (True, False):
        party = await office.app("a" if dpop else "b", service=True, dpop=dpop)
        shown = proof(office, Prover(), nonce=nonce)
        said = await party.post("/token", dpop=shown, grant_type="client_credentials")
        assert said.json()["error"] == "use_dpop_nonce"


async def test_our_word_is_over_after_a_while_and_is_the_same_in_all_processes(office: Office) -> None:
    party, prover = await office.app(service=True, dpop=True), Prover()

    async def ask() -> httpx2.Response:
        return await party.post("/token", dpop=proof(office, prover), grant_type="client_credentials")

    prover.nonce = (await ask()).headers["dpop-nonce"]
    office.world.clock.advance(TERM)
    assert (await ask()).status_code == 200
    # Another process with the same files.
    assert Office(office.world).issuer._token._proofs.nonce() == (await ask()).headers["dpop-nonce"]
    office.world.clock.advance(TERM)
    assert (await ask()).json()["error"] == "use_dpop_nonce"
    # One whose clock is a little ahead has given it.
    prover.nonce = office.issuer._token._proofs.nonce()
    office.world.clock.advance(-TERM)
    assert (await ask()).status_code == 200


async def test_who_floods_with_proofs_under_a_public_name_is_slowed_down(office: Office) -> None:
    tool = await office.app("tool", **NATIVE)
    answers = set()
    for _ in range(310):
        said = await tool.post("/token", how="public", dpop="x", grant_type="refresh_token")
        answers.add(said.json()["error"])
    assert answers == {"invalid_dpop_proof", "temporarily_unavailable"}


async def test_pages_of_any_origin_may_send_proofs(office: Office) -> None:
    async with (await office.app()).program() as client:
        preflight = await client.options("/token")
    assert "DPoP" in preflight.headers["access-control-allow-headers"]
