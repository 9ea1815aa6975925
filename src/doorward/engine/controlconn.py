"""A client's connection to its control server: the key, Noise, HTTP/2 and plain requests (control.md sections 4 to 9).

One Noise connection at most, dialled at the first request and again after it was lost. What is said over it is
``engine.client``'s.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

import httpx2

from doorward.errors import BadInput, RemoteProtocolError, TooMany, Unavailable
from doorward.protocol.keys import MachinePrivate, MachinePublic
from doorward.protocol.tailcfg.capability import OUR_CAPVER
from doorward.protocol.tailcfg.codec import decode_response
from doorward.protocol.tailcfg.requests import ServerKeys
from doorward.transport.h2client import H2Client, Response
from doorward.transport.noise import Entropy, dial

ANSWER_LIMIT: Final = 1 << 20  # bytes of an answer that is no stream
_HTTP_SECONDS: Final = 10.0
_KEY_LIMIT: Final = 64 << 10  # section 4
_REFUSAL_SHOWN: Final = 200  # characters of a refusal's body that an error repeats, as stock clients do


class UnexpectedStatus(Unavailable):
    """Control answered with a status that is no answer to the request.

    Args:
        what: the request.
        code: the HTTP status.
        text: the beginning of the body.
    """

    def __init__(self, what: str, code: int, text: str) -> None:
        super().__init__(f"{what}: control answered {code}: {text}".rstrip(": "))
        self.code = code


async def fetch_server_key(
    url: str, *, version: int = OUR_CAPVER, ssl_context: ssl.SSLContext | None = None
) -> MachinePublic:
    """Control's Noise key, from ``GET /key``.

    With https this is the trust anchor: the certificate is verified, by ``ssl_context`` if given. Raises Unavailable
    when there is no answer, UnexpectedStatus, and BadInput when the answer is not what ``/key`` gives.
    """
    try:
        async with (
            one_request(url, ssl_context) as http,
            http.stream("GET", f"{url}/key", params={"v": str(version)}) as answer,
        ):
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _KEY_LIMIT:
                    raise RemoteProtocolError(f"the answer of /key has more than {_KEY_LIMIT} bytes")
            if answer.status_code != httpx2.codes.OK:
                raise UnexpectedStatus("GET /key", answer.status_code, _text(body))
    except httpx2.HTTPError as error:
        raise Unavailable(f"no answer from {url}/key: {error}") from None
    return decode_response(body, ServerKeys, limit=_KEY_LIMIT).publicKey


class ControlConnection:
    """The way to one control server for one machine key.

    Args:
        url: ``http://`` or ``https://``, no slash at the end.
        machine: the machine key.
        version: the capability version to claim.
        entropy: gives that many random bytes.
        server_key: control's Noise key where it is known; fetched at the first request otherwise, and kept.
        ssl_context: for https.
    """

    def __init__(
        self,
        url: str,
        machine: MachinePrivate,
        *,
        version: int,
        entropy: Entropy,
        server_key: MachinePublic | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and not url.endswith("/")
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError:
            usable = False
        if not usable:
            raise BadInput(
                f"{url!r} is not the address of a control server, such as https://control.example.com"
            )
        self._url = url
        self._machine = machine
        self._version = version
        self._entropy = entropy
        self._server_key = server_key
        self._ssl_context = ssl_context
        self._connection: H2Client | None = None
        self._dialling = asyncio.Lock()

    def close(self) -> None:
        """End everything that runs on the connection. The next request dials again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def post(self, path: str, body: bytes) -> bytes:
        """POST, and the whole answer. Raises as ``request`` does."""
        async with self.request(path, body) as response:
            return await response.read(ANSWER_LIMIT)

    @contextlib.asynccontextmanager
    async def request(self, path: str, body: bytes = b"", *, method: str = "POST") -> AsyncIterator[Response]:
        """A request whose answer has status 200 or 204. Leaving the block gives up what is left of it.

        Raises TooMany for status 429, UnexpectedStatus for any other, Unavailable when control cannot be reached, and
        RemoteProtocolError when it is not who it was or breaks off.
        """
        connection = await self._connect()
        response = await connection.request(method, path, body=body)
        try:
            if response.status not in {httpx2.codes.OK, httpx2.codes.NO_CONTENT}:
                text = _text(await response.read(ANSWER_LIMIT))
                if response.status == httpx2.codes.TOO_MANY_REQUESTS:
                    raise TooMany(f"{path}: control asks to try again later: {text}".rstrip(": "))
                raise UnexpectedStatus(f"{method} {path}", response.status, text)
            yield response
        finally:
            response.close()

    async def _connect(self) -> H2Client:
        async with self._dialling:
            if self._connection is None or self._connection.closed:
                if self._server_key is None:
                    self._server_key = await fetch_server_key(
                        self._url, version=self._version, ssl_context=self._ssl_context
                    )
                self._connection = await dial(
                    self._url,
                    self._machine,
                    self._server_key,
                    version=self._version,
                    entropy=self._entropy,
                    ssl_context=self._ssl_context,
                )
            return self._connection


def one_request(url: str, context: ssl.SSLContext | None) -> httpx2.AsyncClient:
    """A client for one request. Without TLS its context trusts nobody, and costs nothing to make."""
    if context is None:
        secure = urlsplit(url).scheme == "https"
        context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.AsyncClient(verify=context, trust_env=False, timeout=_HTTP_SECONDS)


def _text(body: bytes) -> str:
    """The beginning of an answer's body, for a message: one line, nothing that a terminal would obey."""
    text = body[: 4 * _REFUSAL_SHOWN].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text[:_REFUSAL_SHOWN]).strip()
