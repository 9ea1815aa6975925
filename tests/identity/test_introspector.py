import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.office import Office
from tests.support.proving import thumbprint
from tests.support.world import World, open_world

from doorward.errors import Unavailable
from doorward.identity.client import Client, GrantRefused
from doorward.identity.introspector import KEPT, Introspector
from doorward.identity.refusals import ScopeError, TokenError
from doorward.identity.verifier import NODE
from doorward.transport.fetch import Answer

ISSUER = "https://id.example.com"
API = "https://api.example.com"


class Told(Client):
    """A client whose issuer says what the test has it say."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(ISSUER, "app-1", secret="s")
        now = clock.now().timestamp()
        self.said: Any = {
            "active": True,
            "iss": ISSUER,
            "aud": API,
            "sub": "s1",
            "exp": now + 300,
            "scope": "a b",
        }
        self.asked = 0

    async def introspect(self, token: str) -> dict[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.said, Exception):
            raise self.said
        return dict(self.said)


def checks() -> tuple[Introspector, Told, FakeClock]:
    clock = FakeClock()
    told = Told(clock)
    return Introspector(told, API, clock=clock), told, clock


async def test_the_issuer_is_asked_and_believed_for_a_few_seconds() -> None:
    introspector, told, clock = checks()
    for _ in range(3):
        who = await introspector.verify("opaque-token_1.~+/==", ["a"])
    assert (who.subject, who.scopes) == ("s1", frozenset({"a", "b"}))
    await asyncio.gather(*(introspector.verify("another") for _ in range(5)))
    assert told.asked <= 1 + 5
    asked = told.asked
    told.said = {"active": False}
    await introspector.verify("opaque-token_1.~+/==")
    clock.advance(KEPT)
    for _ in range(2):
        with pytest.raises(TokenError):
            await introspector.verify("opaque-token_1.~+/==")
    assert told.asked == asked + 1


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"active": "true"}, "good"),
        ({"active": 1}, "good"),
        ({"iss": "https://other.example"}, "iss"),
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": None}, "aud"),
        ({"exp": 1}, "exp"),
        ({"exp": None}, "exp"),
        ({"sub": ""}, "sub"),
        ({"scope": []}, "scope"),
        ({"cnf": {"jkt": "x"}}, "cnf"),
        ({"cnf": "x"}, "cnf"),
    ],
)
async def test_each_reason_to_refuse(changes: dict[str, Any], part: str) -> None:
    introspector, told, _ = checks()
    told.said |= changes
    with pytest.raises(TokenError, match=part):
        await introspector.verify("t")


async def test_what_it_is_bound_to_has_to_come_with_it() -> None:
    introspector, told, _ = checks()
    told.said["cnf"] = {"jkt": thumbprint(), NODE: "n1"}
    assert (await introspector.verify("t", key=thumbprint(), node="n1")).subject == "s1"
    for how in ({}, {"key": thumbprint()}, {"node": "n1"}, {"key": thumbprint(number=1), "node": "n1"}):
        with pytest.raises(TokenError, match="cnf"):
            await introspector.verify("t", **how)


async def test_a_missing_scope_is_not_a_bad_token() -> None:
    introspector, _, _ = checks()
    with pytest.raises(ScopeError) as caught:
        await introspector.verify("t", ["a", "c"])
    assert caught.value.scopes == ("a", "c")


@pytest.mark.parametrize("token", ["", "a b", "a=b", "é", "x" * 40_000, "a\n"])
async def test_nobody_is_asked_about_what_is_none(token: str) -> None:
    introspector, told, _ = checks()
    with pytest.raises(TokenError):
        await introspector.verify(token)
    assert told.asked == 0


async def test_a_server_that_the_issuer_does_not_know_says_that_it_cannot_tell() -> None:
    introspector, told, _ = checks()
    told.said = GrantRefused("invalid_client", "the secret is wrong")
    with pytest.raises(Unavailable, match="invalid_client"):
        await introspector.verify("t")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


@pytest.mark.parametrize("opaque", [False, True])
async def test_our_own_issuer_tells_a_resource_s_app_and_takes_tokens_back(
    world: World, opaque: bool
) -> None:
    office = Office(world)
    await office.person("ann")
    party = await office.app(resources=(API,), opaque=opaque)
    server = await office.app("server", resources=(API,))
    claims = await party.sign_in(resource=API)

    async def ask(method: str, address: str, headers: Any, body: bytes | None) -> Answer:
        async with party.program() as program:
            got = await program.request(method, address, headers=headers, content=body)
            return Answer(got.status_code, {}, got.content)

    client = Client(claims["iss"], server.app.client_id, secret=server.secret, ask=ask, clock=world.clock)
    introspector = Introspector(client, API, clock=world.clock)
    token = party.tokens["access_token"]
    assert (token.count(".") == 2) is not opaque
    who = await introspector.verify(token, ["openid"])
    assert who.subject == claims["sub"]
    await party.post("/revoke", token=token)
    world.clock.advance(KEPT)
    with pytest.raises(TokenError):
        await introspector.verify(token)
