import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import idtokens
from tests.support.clock import FakeClock
from tests.support.office import Office
from tests.support.world import World, open_world

from doorward.errors import BadInput, DoorwardError, RemoteProtocolError, Unavailable
from doorward.identity.discovery import AGAIN, KEPT
from doorward.identity.refusals import ScopeError, TokenError
from doorward.identity.verifier import NODE, STALE, Verifier

ISSUER = idtokens.ISSUER
API = "https://api.example.com"
HEADER = {"typ": "at+jwt"}


class Issuer:
    """What an issuer publishes, and how often it was asked."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = keys or (idtokens.jwk("ES256"), idtokens.jwk("EdDSA"), idtokens.jwk("RS256"))
        self.about: Any = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        self.down = False
        self.asked: list[str] = []

    async def fetch(self, address: str) -> bytes:
        self.asked.append(address)
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("the issuer does not answer")
        return idtokens.jwks(*self.keys) if address.endswith("/keys") else json.dumps(self.about).encode()


def verifier(issuer: Issuer, clock: FakeClock) -> Verifier:
    return Verifier(ISSUER, API, fetch=issuer.fetch, clock=clock)


def token(clock: FakeClock, algorithm: str = "ES256", number: int = 0, **more: Any) -> str:
    said = {"aud": API, "scope": "openid files:read", "nonce": None, "client_id": "a"} | more
    return idtokens.signed(
        idtokens.claims(int(clock.now().timestamp()), **said), algorithm, number=number, header=HEADER
    )


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_a_good_token_says_who(algorithm: str) -> None:
    clock = FakeClock()
    who = await verifier(Issuer(), clock).verify(
        token(clock, algorithm, aud=["x", API], preferred_username="ann"), ["files:read"]
    )
    assert (who.subject, who.login, who.scopes) == (
        "s1",
        "ann",
        frozenset({"openid", "files:read"}),
    )
    assert who.claims["client_id"] == "a"
    assert who.node == ""


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"iss": "https://other.example"}, "iss"),
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": None}, "aud"),
        ({"exp": 1}, "exp"),
        ({"exp": None}, "exp"),
        ({"exp": True}, "exp"),
        ({"nbf": 2**33}, "nbf"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "sub"),
        ({"scope": ["openid"]}, "scope"),
    ],
)
async def test_each_lie_has_its_own_refusal(more: dict[str, Any], part: str) -> None:
    clock = FakeClock()
    with pytest.raises(TokenError, match=part) as caught:
        await verifier(Issuer(), clock).verify(token(clock, **more))
    assert caught.value.code == "invalid_token"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ({"typ": "JWT"}, "typ"),
        ({"typ": None}, "typ"),
        ({"kid": None}, "kid"),
        ({"crit": ["b64"]}, "crit"),
        ({"alg": "none"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "RS256"}, "kid"),  # a key of another kind
        ({"kid": "nobody's"}, "kid"),
    ],
)
async def test_no_other_header_is_taken(header: dict[str, Any], part: str) -> None:
    clock = FakeClock()
    said = idtokens.claims(int(clock.now().timestamp()), aud=API)
    with pytest.raises(TokenError, match=part):
        await verifier(Issuer(), clock).verify(idtokens.signed(said, header=HEADER | header))


async def test_a_signature_of_another_key_is_wrong() -> None:
    clock = FakeClock()
    head, body, _ = token(clock).split(".")
    other = token(clock, sub="eve").split(".")[2]
    for forged in (f"{head}.{body}.{other}", f"{head}.{body}.", f"{head}.{body}.%%"):
        with pytest.raises(TokenError):
            await verifier(Issuer(), clock).verify(forged)


async def test_a_missing_scope_is_not_a_bad_token() -> None:
    clock = FakeClock()
    with pytest.raises(ScopeError, match="files:write") as caught:
        await verifier(Issuer(), clock).verify(token(clock), ["openid", "files:write"])
    assert (caught.value.code, caught.value.status) == ("insufficient_scope", 403)


@pytest.mark.parametrize(
    ("cnf", "how", "good"),
    [
        (None, {}, True),
        (None, {"node": "n1"}, True),
        (None, {"key": "k"}, False),
        ({}, {}, True),
        ({}, {"key": "k"}, False),
        ({"jkt": "k"}, {"key": "k"}, True),
        ({"jkt": "k"}, {"key": "k", "node": "n1"}, True),
        ({"jkt": "k"}, {}, False),
        ({"jkt": "k"}, {"key": "other"}, False),
        ({"jkt": ""}, {}, False),
        ({NODE: "n1"}, {"node": "n1"}, True),
        ({NODE: "n1"}, {"node": "n2"}, False),
        ({NODE: "n1"}, {}, False),
        ({NODE: "n1"}, {"key": "n1", "node": "n1"}, False),
        ({NODE: "n1", "jkt": "k"}, {"node": "n1"}, False),
        ({"x5t#S256": "x"}, {"key": "k", "node": "n1"}, False),
        ("", {}, False),
        ([], {}, False),
    ],
)
async def test_what_a_token_is_bound_to_has_to_come_with_it(
    cnf: Any, how: dict[str, str], good: bool
) -> None:
    clock = FakeClock()
    checks, made = verifier(Issuer(), clock), token(clock, cnf=cnf)
    if good:
        assert (await checks.verify(made, **how)).subject == "s1"
        return
    with pytest.raises(TokenError, match="cnf"):
        await checks.verify(made, **how)


async def test_a_new_key_is_fetched_and_invented_ones_do_not_make_us_a_nuisance() -> None:
    clock, issuer = FakeClock(), Issuer()
    checks = verifier(issuer, clock)
    await checks.verify(token(clock))
    assert issuer.asked == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys"]
    issuer.keys = (idtokens.jwk("ES256", 1),)
    for _ in range(3):
        with pytest.raises(TokenError, match="kid"):
            await checks.verify(token(clock, number=1))
    assert len(issuer.asked) == 2
    clock.advance(AGAIN)
    results = await asyncio.gather(*(checks.verify(token(clock, number=1)) for _ in range(20)))
    assert len(results) == 20
    assert len(issuer.asked) == 4


async def test_a_key_that_was_taken_back_is_forgotten_within_the_hour() -> None:
    clock, issuer = FakeClock(), Issuer()
    checks = verifier(issuer, clock)
    await checks.verify(token(clock))
    issuer.keys = (idtokens.jwk("ES256", 1),)
    clock.advance(KEPT)
    with pytest.raises(TokenError, match="kid"):
        await checks.verify(token(clock))


async def test_kept_keys_serve_while_the_issuer_is_away_but_not_for_ever() -> None:
    clock, issuer = FakeClock(), Issuer()
    checks = verifier(issuer, clock)
    await checks.verify(token(clock))
    issuer.down = True
    clock.advance(KEPT)
    await checks.verify(token(clock))
    clock.advance(STALE)
    with pytest.raises(Unavailable):
        await checks.verify(token(clock))


@pytest.mark.parametrize(
    "about", [[], {"issuer": "https://other.example", "jwks_uri": ISSUER}, {"issuer": ISSUER}]
)
async def test_metadata_of_another_issuer_is_refused(about: Any) -> None:
    clock, issuer = FakeClock(), Issuer()
    issuer.about = about
    with pytest.raises(RemoteProtocolError):
        await verifier(issuer, clock).verify(token(clock))


async def test_keys_are_never_fetched_in_the_clear() -> None:
    clock, issuer = FakeClock(), Issuer()
    issuer.about = {"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys"}
    with pytest.raises(BadInput):
        await verifier(issuer, clock).verify(token(clock))


@pytest.mark.parametrize("address", ["http://id.example.com", "ftp://id.example.com", "", "https://[x"])
def test_an_issuer_is_at_https(address: str) -> None:
    with pytest.raises(BadInput):
        Verifier(address, API)


def test_secrets_are_no_keys() -> None:
    with pytest.raises(BadInput):
        Verifier(ISSUER, API, algorithms=["HS256"])
    Verifier("http://localhost:8080", API)


@pytest.mark.parametrize("text", ["", "a.b", "....", "e30.e30.e30", "x" * 40_000, "é.é.é", "W10.W10.W10"])
async def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        await verifier(Issuer(), FakeClock()).verify(text)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


async def test_the_tokens_of_our_own_issuer_are_good(world: World) -> None:
    office = Office(world)
    await office.person("ann")
    party = await office.app()
    claims = await party.sign_in()

    async def fetch(address: str) -> bytes:
        async with party.program() as client:
            return (await client.get(address)).content

    issuer = claims["iss"]
    checks = Verifier(issuer, party.app.client_id, fetch=fetch, clock=world.clock)
    who = await checks.verify(party.tokens["access_token"], ["openid"])
    assert who.subject == claims["sub"]
    with pytest.raises(DoorwardError, match="typ"):
        await checks.verify(party.tokens["id_token"])
