"""What an issuer says about itself (OpenID Connect Discovery 1.0 section 4, RFC 8414), asked for once an hour."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec

from doorward.clock import Clock
from doorward.errors import BadInput, DoorwardError, RemoteProtocolError
from doorward.transport.fetch import Answer, Fetcher

KEPT = timedelta(hours=1).total_seconds()  # how long it is not asked for again
AGAIN = timedelta(minutes=1).total_seconds()  # between two questions that were for nothing
LARGEST = 256 << 10  # bytes of any answer

Fetch = Callable[[str], Awaitable[bytes]]
Ask = Callable[[str, str, Mapping[str, str], bytes | None], Awaitable[Answer]]


def asker(ssl_context: ssl.SSLContext | None) -> Ask:
    """How issuers are asked: method, address, headers, body. An answer is read up to LARGEST."""

    async def ask(method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        # The address is the operator's, or signed off by it over https: private ones are what tailnets are made of.
        async with Fetcher(allow_private=True, ssl_context=ssl_context) as fetcher:
            return await fetcher.request(method, address, limit=LARGEST, headers=headers, body=body)

    return ask


def fetching(ask: Ask) -> Fetch:
    """The same, for what is only read."""

    async def fetch(address: str) -> bytes:
        answer = await ask("GET", address, {}, None)
        if answer.status != 200:
            raise RemoteProtocolError(f"{address} answered with status {answer.status}, expected 200")
        return answer.body

    return fetch


async def read_about(issuer: str, fetch: Fetch) -> dict[str, Any]:
    """The issuer's own description. Raises RemoteProtocolError for another's, and what ``fetch`` does."""
    try:
        said = await fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    except RemoteProtocolError:
        # One that knows OAuth alone says it elsewhere (RFC 8414 section 3.1).
        parts = urlsplit(issuer)
        path = f"/.well-known/oauth-authorization-server{parts.path.rstrip('/')}"
        said = await fetch(f"{parts.scheme}://{parts.netloc}{path}")
    try:
        found = msgspec.json.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RemoteProtocolError(f"the metadata of {issuer} is no JSON object")
    if found.get("issuer") != issuer:
        raise RemoteProtocolError(f"the metadata at {issuer} is another issuer's")
    return found


def place_of(issuer: str, about: Mapping[str, Any], name: str, what: str) -> str:
    """An address in a description. Raises RemoteProtocolError where there is none, BadInput for one that is not https."""
    place = about.get(name)
    if not isinstance(place, str):
        raise RemoteProtocolError(f"{issuer} does not say where {what} is ({name})")
    check_address(place, what)
    return place


def check_address(address: str, what: str) -> None:
    """Raise BadInput for what is neither https nor http on this very computer."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    local = host in {"localhost", "127.0.0.1", "::1"}
    if not host or parts.scheme not in ({"http", "https"} if local else {"https"}):
        raise BadInput(f"{what} is not at an https address", cure="Only on this computer http will do.")


class Places:
    """Where an issuer's endpoints are.

    Args:
        issuer: its address, exactly as its description has it.
        fetch: gets a body by its address.
        clock: the time.
    """

    def __init__(self, issuer: str, fetch: Fetch, clock: Clock) -> None:
        check_address(issuer, "the issuer")
        self.issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._about: dict[str, Any] = {}
        self._read = float("-inf")
        self._asked = float("-inf")
        self._failure: DoorwardError | None = None
        self._one = asyncio.Lock()

    async def find(self, name: str, what: str) -> str:
        """An endpoint's address. Raises RemoteProtocolError and Unavailable where it cannot be had."""
        async with self._one:  # a crowd asks once
            now = self._clock.monotonic()
            if now - self._read >= KEPT and now - self._asked >= AGAIN:
                self._asked = now
                try:
                    self._about = await read_about(self.issuer, self._fetch)
                except DoorwardError as error:
                    self._failure = error
                else:
                    self._read, self._failure = now, None
        # What was good an hour ago is better than nothing; it moves rarely.
        if not self._about and self._failure is not None:
            raise self._failure
        return place_of(self.issuer, self._about, name, what)
