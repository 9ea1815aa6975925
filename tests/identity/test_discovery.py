import asyncio
import json
from typing import Any

import pytest
from tests.support.clock import FakeClock

from doorward.errors import BadInput, RemoteProtocolError, Unavailable
from doorward.identity.discovery import AGAIN, KEPT, Places, check_address, fetching, place_of, read_about
from doorward.transport.fetch import Answer

ISSUER = "https://id.example.com"


class Door:
    """What an issuer publishes, and how often it was asked."""

    def __init__(self) -> None:
        self.about: Any = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}
        self.down = False
        self.asked = 0

    async def fetch(self, address: str) -> bytes:
        assert address == f"{ISSUER}/.well-known/openid-configuration"
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("it does not answer")
        return json.dumps(self.about).encode()


async def test_a_crowd_asks_once_an_hour() -> None:
    clock, door = FakeClock(), Door()
    places = Places(ISSUER, door.fetch, clock)
    found = await asyncio.gather(*(places.find("token_endpoint", "x") for _ in range(5)))
    assert found == [f"{ISSUER}/token"] * 5
    assert door.asked == 1
    clock.advance(KEPT)
    door.about = door.about | {"token_endpoint": f"{ISSUER}/other"}
    assert await places.find("token_endpoint", "x") == f"{ISSUER}/other"


async def test_what_was_known_serves_while_the_issuer_is_away() -> None:
    clock, door = FakeClock(), Door()
    places = Places(ISSUER, door.fetch, clock)
    door.down = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await places.find("token_endpoint", "x")
    assert door.asked == 1  # who asks in vain does not ask without end
    clock.advance(AGAIN)
    door.down = False
    await places.find("token_endpoint", "x")
    door.down = True
    clock.advance(KEPT)
    assert await places.find("token_endpoint", "x") == f"{ISSUER}/token"


@pytest.mark.parametrize("about", [[], None, {"issuer": "https://other.example"}, {}])
async def test_another_s_description_is_not_taken(about: Any) -> None:
    door = Door()
    door.about = about
    with pytest.raises(RemoteProtocolError):
        await read_about(ISSUER, door.fetch)


@pytest.mark.parametrize(("issuer", "path"), [("https://as.example", ""), ("https://as.example/t/", "/t")])
async def test_one_that_knows_oauth_alone_is_asked_there(issuer: str, path: str) -> None:
    async def fetch(address: str) -> bytes:
        if address != f"https://as.example/.well-known/oauth-authorization-server{path}":
            raise RemoteProtocolError("404")
        return json.dumps({"issuer": issuer}).encode()

    assert await read_about(issuer, fetch) == {"issuer": issuer}


def test_places_are_at_https() -> None:
    with pytest.raises(RemoteProtocolError, match="token_endpoint"):
        place_of(ISSUER, {"token_endpoint": 1}, "token_endpoint", "it")
    with pytest.raises(BadInput):
        place_of(ISSUER, {"token_endpoint": "http://id.example.com/token"}, "token_endpoint", "it")
    check_address("http://127.0.0.1:8080", "it")
    for bad in ("http://id.example.com", "", "https://", "https://[x", "file:///x"):
        with pytest.raises(BadInput):
            check_address(bad, "it")


async def test_only_a_good_answer_is_read() -> None:
    async def ask(*_: Any) -> Answer:
        return Answer(404, {}, b"no")

    with pytest.raises(RemoteProtocolError, match="404"):
        await fetching(ask)("https://id.example.com/keys")
