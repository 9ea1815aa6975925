import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import pytest
from tests.support import idtokens
from tests.support.clock import FakeClock

from doorward.errors import BadInput, DoorwardError, RemoteProtocolError, Unavailable
from doorward.identity.client import EARLY, MOST, Client, GrantRefused
from doorward.transport.fetch import Answer

ISSUER = "https://id.example.com"
WIKI = "https://wiki.example.com/mcp"


class Door:
    """An issuer, and what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = {"access_token": "new", "token_type": "Bearer", "expires_in": 300, "scope": "a"}
        self.status = 200
        self.forms: list[dict[str, str]] = []
        self.headers: list[Mapping[str, str]] = []

    async def ask(self, method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        await asyncio.sleep(0)
        if method == "GET":
            about = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}
            return Answer(200, {}, json.dumps(about | {"introspection_endpoint": f"{ISSUER}/intro"}).encode())
        assert address in {f"{ISSUER}/token", f"{ISSUER}/intro"}
        assert body is not None
        self.forms.append(dict(parse_qsl(body.decode(), keep_blank_values=True)))
        self.headers.append(headers)
        answer = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return Answer(self.status, {}, answer)


def client(door: Door, clock: FakeClock | None = None, **how: Any) -> Client:
    return Client(ISSUER, "app-1", ask=door.ask, clock=clock or FakeClock(), **(how or {"secret": "s:%"}))


async def test_an_exchange_shows_the_secret_and_the_token_to_the_issuer_alone() -> None:
    door = Door()
    token = await client(door).exchange("theirs", WIKI, ["a", "b"])
    assert (token.access_token, token.scope, token.token_type) == ("new", "a", "Bearer")
    assert door.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "theirs",
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "resource": WIKI,
            "scope": "a b",
        }
    ]
    # Each half form-encoded first (RFC 6749 section 2.3.1).
    assert door.headers[0]["authorization"] == f"Basic {base64.b64encode(b'app-1:s%3A%25').decode()}"
    assert "new" not in repr(token)


async def test_it_is_kept_for_that_caller_and_that_server_until_shortly_before_its_end() -> None:
    door, clock = Door(), FakeClock()
    gateway = client(door, clock)
    await asyncio.gather(*(gateway.exchange("theirs", WIKI) for _ in range(20)))
    assert len(door.forms) == 1
    for token, resource, scopes in (("other", WIKI, ()), ("theirs", ISSUER, ()), ("theirs", WIKI, ("a",))):
        await gateway.exchange(token, resource, scopes)
    assert len(door.forms) == 4
    clock.advance(300 - EARLY - 1)
    await gateway.exchange("theirs", WIKI)
    assert len(door.forms) == 4
    clock.advance(1)
    await gateway.exchange("theirs", WIKI)
    assert len(door.forms) == 5


async def test_what_does_not_say_how_long_it_lasts_is_not_kept() -> None:
    door = Door()
    door.answer = {"access_token": "new"}
    gateway = client(door)
    await gateway.exchange("theirs", WIKI)
    await gateway.exchange("theirs", WIKI)
    assert len(door.forms) == 2


async def test_no_more_is_kept_than_there_is_room_for() -> None:
    door = Door()
    gateway = client(door)
    for number in range(MOST + 10):
        await gateway.exchange(f"t{number}", WIKI)
    assert len(gateway._kept) == MOST
    await gateway.exchange("t0", WIKI)
    assert len(door.forms) == MOST + 11


async def test_a_refusal_is_not_kept() -> None:
    door = Door()
    gateway = client(door)
    door.status, door.answer = (
        400,
        {"error": "invalid_target", "error_description": "the policy has it not so"},
    )
    for _ in range(2):
        with pytest.raises(GrantRefused, match="the policy has it not so") as caught:
            await gateway.exchange("theirs", WIKI)
        assert caught.value.code == "invalid_target"
    door.status, door.answer = 200, {"access_token": "new", "expires_in": 300}
    assert (await gateway.exchange("theirs", WIKI)).access_token == "new"


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (500, b"", Unavailable),
        (429, b"{}", Unavailable),
        (200, b"<html>", RemoteProtocolError),
        (200, b"[]", RemoteProtocolError),
        (200, b"{}", RemoteProtocolError),
        (200, b'{"access_token": 1}', RemoteProtocolError),
        (400, b"{}", GrantRefused),
        (400, b'{"error": []}', GrantRefused),
    ],
)
async def test_what_an_issuer_may_answer_otherwise(
    status: int, answer: bytes, error: type[DoorwardError]
) -> None:
    door = Door()
    door.status, door.answer = status, answer
    with pytest.raises(error):
        await client(door).own_token()


async def test_a_token_of_its_own() -> None:
    door = Door()
    await client(door).own_token(WIKI, ["a"])
    assert door.forms == [{"grant_type": "client_credentials", "resource": WIKI, "scope": "a"}]


async def test_words_are_asked_for_and_brought_each_time_anew() -> None:
    door = Door()
    agent = client(door)
    door.answer = {"access_token": "word", "token_type": "N_A", "expires_in": 300}
    for _ in range(2):
        assert await agent.word("theirs", "https://as.example", WIKI, ["a"], kind="refresh_token") == "word"
        assert (await agent.bring("word", WIKI)).access_token == "word"
    assert door.forms[:2] == door.forms[2:]
    assert door.forms[:2] == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token": "theirs",
            "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
            "audience": "https://as.example",
            "resource": WIKI,
            "scope": "a",
        },
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": "word",
            "resource": WIKI,
        },
    ]


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
async def test_with_a_key_it_signs_and_shows_nothing_else(algorithm: str) -> None:
    door, clock = Door(), FakeClock()
    key = idtokens.signing_key(algorithm, 0).as_dict(private=True) | {"kid": "k1"}
    await client(door, clock, key=key).introspect("theirs")
    (form,) = door.forms
    assert "authorization" not in door.headers[0]
    assert form["token"] == "theirs"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    head, body, _ = form["client_assertion"].split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
    assert (said["iss"], said["sub"], said["aud"]) == ("app-1", "app-1", ISSUER)
    assert said["exp"] - said["iat"] == 60


async def test_by_its_node_it_shows_nothing() -> None:
    door = Door()
    await client(door, node=True).own_token(WIKI)
    assert door.forms == [{"grant_type": "client_credentials", "resource": WIKI, "client_id": "app-1"}]
    assert door.headers[0]["doorward-client"] == "node"
    assert "authorization" not in door.headers[0]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"secret": "a", "node": True},
        {"secret": "a", "key": idtokens.signing_key("ES256", 0).as_dict(private=True)},
        {"key": idtokens.signing_key("ES256", 0).as_dict(private=False)},
        {"key": {"kty": "oct", "k": "c2VjcmV0", "d": "x"}},
        {"key": {"kty": "EC", "crv": "P-384", "d": "x"}},
        {"key": {"kty": "EC", "crv": "P-256", "d": "x"}},
        {"key": {}},
    ],
)
def test_it_shows_who_it_is_in_one_good_way(how: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Client(ISSUER, "app-1", **how)


def test_nothing_of_it_shows_the_secret() -> None:
    assert "s3cret" not in repr(Client(ISSUER, "app-1", secret="s3cret"))
