"""ts2021: Noise over an upgraded HTTP connection or a WebSocket, with HTTP/2 inside (control.md sections 5 to 8).

::

    POST /ts2021, Upgrade: tailscale-control-protocol ─▶ listener hands over ─▶ Ts2021.takeover ─┐
    GET  /ts2021, WebSocket                           ─▶ the outer app       ─▶ Ts2021.websocket ─┴▶ H2Server ─▶ app

The app finds in ``scope["state"]``: ``machine_key`` (MachinePublic, proven by Noise), ``noise_version`` (the client's
capability version) and ``guest`` (``lobby.Guest``). Any machine key gets this far: whom it belongs to is the app's question,
which settles the guest when it is a node's. Handshakes take turns (``turns``).
"""

import asyncio
import base64
import binascii
import ssl
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from doorward.errors import BadInput, RemoteProtocolError, Unavailable
from doorward.protocol.keys import KEY_SIZE, MachinePrivate, MachinePublic
from doorward.protocol.noise import (
    INITIATION_SIZE,
    ClientHandshake,
    EarlyPayloadStripper,
    NoiseTransport,
    ServerHandshake,
    encode_error,
)
from doorward.telemetry import counter, gauge, log
from doorward.transport.accepting import abort, keep_tcp_alive
from doorward.transport.h2 import H2Limits, H2Server
from doorward.transport.h2client import H2Client
from doorward.transport.listener import Refusal, UpgradeRequest
from doorward.transport.lobby import Guest
from doorward.transport.sources import address_key
from doorward.transport.turns import Turn, Turns

_log = log("ts2021")
_HANDSHAKES = counter("noise_handshakes_total", "Noise handshakes by outcome.", "outcome")
_BROKEN = counter("noise_broken_total", "ts2021 connections cut because of a record that cannot be opened.")
_CONNECTIONS = gauge("noise_connections", "ts2021 connections that are open.")

UPGRADE_TOKEN = "tailscale-control-protocol"  # noqa: S105 - the token of an Upgrade header; clients compare its case
PATH = "/ts2021"
_HEADER = "X-Tailscale-Handshake"
_SWITCHING = (
    f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {UPGRADE_TOKEN}\r\nConnection: upgrade\r\n\r\n"
).encode()
_MOST_EARLY = 16 << 10  # bytes behind the initiation, before it was answered; stock clients send none
_MAX_HEAD = 16 << 10  # of the answer to our upgrade
_MESSAGE_HIGH_WATER = 64 << 10  # unsent bytes on a WebSocket before the HTTP/2 above is told to wait

Entropy = Callable[[int], bytes]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Ts2021:
    """The server's side of every ts2021 connection. An async context manager: leaving it ends them all.

    Args:
        app: the ASGI app inside.
        static: the server's Noise key, the one that ``/key`` publishes.
        entropy: gives that many random bytes; every connection takes 32 for its ephemeral key.
        limits: of each connection.
        turns: of handshakes; shared with the listeners' TLS.
    """

    def __init__(
        self,
        app: Any,
        static: MachinePrivate,
        *,
        entropy: Entropy,
        limits: H2Limits = H2Limits(),  # noqa: B008 - frozen
        turns: Turns | None = None,
    ) -> None:
        self.turns = turns or Turns()
        self._app = app
        self._static = static
        self._entropy = entropy
        self._limits = limits
        self._group = asyncio.TaskGroup()
        self._open: set[H2Server] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in list(self._open):
            server.shutdown()
        await self._group.__aexit__(kind, error, trace)

    def takeover(self, request: UpgradeRequest) -> asyncio.Protocol | Refusal:
        """The listener's handler for ``UPGRADE_TOKEN``: 404, 405 and 400 as text, or the protocol.

        An initiation that is well-formed but not for our key is answered in Noise's own words, which the client shows.
        """
        if request.path != PATH:
            return Refusal(404, f"{UPGRADE_TOKEN} is spoken at {PATH}.\n")
        if request.method != "POST":
            return Refusal(405, "Use POST, or GET with a WebSocket.\n", (("allow", "POST"),))
        try:
            initiation = decode_initiation(request.get(_HEADER))
        except BadInput as error:
            _HANDSHAKES.labels("malformed").inc()
            return Refusal(400, error.message + "\n")
        return _ServerConnection(self, request, initiation)

    def begin(self, request: UpgradeRequest, initiation: bytes) -> "tuple[_NoiseWire, H2Server]":
        """The handshake, when its turn has come. Raises RemoteProtocolError, whose sentence the client is to read."""
        key, version, response, noise = self._shake(initiation)
        # Header, response and SETTINGS leave in one write: the client's first wait is over with one packet.
        wire = _NoiseWire(request.transport, noise, first=_SWITCHING + response)
        return wire, self._server(wire, key, version, request.client, request.guest)

    async def websocket(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI endpoint of ``GET /ts2021`` for browsers (section 5.3); returns when the connection has ended.

        Any Origin is accepted: the handshake is the authentication, and no cookie has a part in it.
        """
        await receive()  # websocket.connect
        try:
            initiation = _websocket_initiation(scope)
        except BadInput as error:
            _HANDSHAKES.labels("malformed").inc()
            await _refuse_websocket(scope, send, error.message)
            return
        await send({"type": "websocket.accept", "subprotocol": UPGRADE_TOKEN})
        state = scope.get("state") or {}
        peer = state.get("client", scope.get("client"))
        guest = state.get("guest") or Guest()
        await self._turn(address_key(peer), guest)
        try:
            key, version, response, noise = self._shake(initiation)
        except RemoteProtocolError as error:
            await send({"type": "websocket.send", "bytes": encode_error(error.sentence())})
            await send({"type": "websocket.close", "code": 1002})
            return
        wire = _MessageWire(noise, first=response)
        server = self._server(wire, key, version, tuple(peer) if peer else None, guest)
        await wire.run(self, server, receive, send)

    async def _turn(self, source: str, guest: Guest) -> None:
        """Wait until it is this one's turn."""
        turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go() -> None:
            if not turned.done():
                turned.set_result(None)

        turn = self.turns.ask(source, go)
        guest.wait()
        try:
            await turned
        finally:
            turn.cancel()
            guest.go_on()

    def joined(self, server: H2Server) -> None:
        """A connection is open."""
        self._open.add(server)
        _CONNECTIONS.set(len(self._open))
        server.start()

    def left(self, server: H2Server) -> None:
        """A connection is gone."""
        self._open.discard(server)
        _CONNECTIONS.set(len(self._open))

    def _shake(self, initiation: bytes) -> tuple[MachinePublic, int, bytes, NoiseTransport]:
        ephemeral = MachinePrivate.from_entropy(self._entropy(KEY_SIZE))
        try:
            result = ServerHandshake(self._static, ephemeral).receive(initiation)
        except RemoteProtocolError:
            _HANDSHAKES.labels("refused").inc()
            raise
        _HANDSHAKES.labels("done").inc()
        return result

    def _server(
        self, wire: "_NoiseWire | _MessageWire", key: MachinePublic, version: int, peer: Any, guest: Guest
    ) -> H2Server:
        return H2Server(
            wire,
            self._app,
            state={"machine_key": key, "noise_version": version, "guest": guest},
            client=peer,
            group=self._group,
            limits=self._limits,
        )


def decode_initiation(text: str | None) -> bytes:
    """The Noise initiation from its header or query parameter.

    Raises BadInput when it is missing, not standard base64, or not 101 bytes long.
    """
    if not text:
        raise BadInput(f"{_HEADER} is missing")
    try:
        initiation = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(f"{_HEADER} is not standard base64") from None
    if len(initiation) != INITIATION_SIZE:
        raise BadInput(f"{_HEADER} holds {len(initiation)} bytes, expected {INITIATION_SIZE}")
    return initiation


def _websocket_initiation(scope: Mapping[str, Any]) -> bytes:
    if UPGRADE_TOKEN not in scope.get("subprotocols", ()):
        raise BadInput(f"the WebSocket subprotocol {UPGRADE_TOKEN} was not offered")
    values = parse_qs(scope["query_string"].decode("latin-1")).get(_HEADER)
    return decode_initiation(values[0] if values else None)


class _NoiseWire:
    """Seals what HTTP/2 writes, right before it is written: the nonce counter fixes the order."""

    __slots__ = ("_first", "_noise", "transport")

    def __init__(self, transport: asyncio.Transport, noise: NoiseTransport, *, first: bytes = b"") -> None:
        self.transport = transport
        self._noise = noise
        self._first = first

    def open(self, data: bytes) -> bytes:
        return self._noise.receive(data)

    def write(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        sealed = self._noise.send(data)
        if self._first:
            sealed, self._first = self._first + sealed, b""
        self.transport.write(sealed)

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        abort(self.transport)

    def pause_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


class _ServerConnection(asyncio.Protocol):
    """Bytes between an upgraded connection and its HTTP/2, which begins when the handshake's turn has come."""

    __slots__ = ("_early", "_server", "_service", "_turn", "_waiting", "_wire")

    def __init__(self, service: Ts2021, request: UpgradeRequest, initiation: bytes) -> None:
        self._service = service
        self._waiting: tuple[UpgradeRequest, bytes] | None = (request, initiation)
        self._turn: Turn | None = None
        self._early = b""
        self._wire: _NoiseWire
        self._server: H2Server | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: ARG002 - the request has it
        assert self._waiting is not None
        request, _ = self._waiting
        turn = self._service.turns.ask(request.source, self._begin)
        if self._waiting is not None:
            self._turn = turn
            request.guest.wait()

    def _begin(self) -> None:
        assert self._waiting is not None
        request, initiation = self._waiting
        self._waiting = None
        self._turn = None
        request.guest.go_on()
        transport = request.transport
        if transport.is_closing():
            return
        try:
            self._wire, self._server = self._service.begin(request, initiation)
        except RemoteProtocolError as error:
            transport.write(_SWITCHING + encode_error(error.sentence()))
            transport.close()
            return
        self._service.joined(self._server)
        early, self._early = self._early, b""
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._server is None:
            # Read on, or nobody would notice that it has left. What comes after a refusal is lost.
            if self._waiting is not None:
                self._early += data
                if len(self._early) > _MOST_EARLY:
                    abort(self._waiting[0].transport)
            return
        try:
            plaintext = self._wire.open(data)
        except RemoteProtocolError as error:
            _BROKEN.inc()
            _log.info("noise connection broken", why=error.message)
            self._wire.abort()
            self._server.lost(error.message)
            return
        self._server.receive(plaintext)

    def pause_writing(self) -> None:
        if self._server is not None:
            self._server.pause_writing()

    def resume_writing(self) -> None:
        if self._server is not None:
            self._server.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        if self._turn is not None:
            self._turn.cancel()
        self._waiting = None
        if self._server is not None:
            self._server.lost()
            self._service.left(self._server)

    def shutdown(self) -> None:
        """For the listener's stop: GOAWAY, then close."""
        if self._server is not None:
            self._server.shutdown()
        elif self._waiting is not None:
            self._waiting[0].transport.close()


async def _refuse_websocket(scope: Mapping[str, Any], send: Send, text: str) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1002})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": 400, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": text.encode() + b"\n"})


class _MessageWire:
    """Noise over WebSocket messages, whose boundaries mean nothing."""

    def __init__(self, noise: NoiseTransport, *, first: bytes) -> None:
        self._noise = noise
        self._outgoing = bytearray(first)
        self._changed = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._closing = False
        self._aborted = False
        self._server: H2Server | None = None

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._outgoing += self._noise.send(data)
            self._changed.set()
            if self._server is not None and len(self._outgoing) > _MESSAGE_HIGH_WATER:
                self._server.pause_writing()

    def close(self) -> None:
        self._closing = True
        self._changed.set()

    def abort(self) -> None:
        self._aborted = True
        self.close()

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    async def run(self, service: Ts2021, server: H2Server, receive: Receive, send: Send) -> None:
        """Carry messages both ways until either side ends."""
        self._server = server
        service.joined(server)
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(server, receive))
                writing = group.create_task(self._write(server, send))
                await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                if writing.done() or self._aborted:
                    writing.cancel()
                else:
                    self.close()
        finally:
            server.lost()
            service.left(server)

    async def _read(self, server: H2Server, receive: Receive) -> None:
        while True:
            await self._readable.wait()
            message = await receive()
            data = message.get("bytes")
            if message["type"] != "websocket.receive" or data is None:  # the end, or text, which is not ours
                return
            try:
                plaintext = self._noise.receive(data)
            except RemoteProtocolError as error:
                _BROKEN.inc()
                _log.info("noise connection broken", why=error.message)
                return
            server.receive(plaintext)

    async def _write(self, server: H2Server, send: Send) -> None:
        while not self._aborted:
            if self._outgoing:
                data, self._outgoing = bytes(self._outgoing), bytearray()
                await send({"type": "websocket.send", "bytes": data})
                if server.paused and not self._outgoing:
                    server.resume_writing()
            elif self._closing:
                break
            else:
                self._changed.clear()
                await self._changed.wait()
        await send({"type": "websocket.close", "code": 1000})


async def dial(
    url: str,
    machine: MachinePrivate,
    server_public: MachinePublic,
    *,
    version: int,
    entropy: Entropy,
    ssl_context: ssl.SSLContext | None = None,
    seconds: float = 10.0,
) -> H2Client:
    """Open a ts2021 connection to the control server at ``url`` (http or https; ``ssl_context`` for the latter).

    ``version`` is the capability version to claim, ``entropy`` gives the 32 bytes of the ephemeral key. Raises BadInput
    for a URL that cannot be dialled, Unavailable when nothing answers within ``seconds``, and RemoteProtocolError when
    the server refuses or is not the holder of ``server_public``.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(f"{url!r} is not an http or https address")
    if parts.scheme == "https" and ssl_context is None:
        ssl_context = ssl.create_default_context()
    handshake = ClientHandshake(
        machine, server_public, MachinePrivate.from_entropy(entropy(KEY_SIZE)), version
    )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            _, connection = await loop.create_connection(
                lambda: _ClientConnection(handshake, parts.netloc.rpartition("@")[2]),
                parts.hostname,
                parts.port or (443 if parts.scheme == "https" else 80),
                ssl=ssl_context if parts.scheme == "https" else None,
            )
            try:
                return await connection.ready
            except BaseException:
                connection.abort()
                raise
    except OSError as error:  # TimeoutError is one
        raise Unavailable(
            f"no ts2021 connection to {parts.hostname}: {str(error) or 'no answer in time'}"
        ) from None


class _ClientConnection(asyncio.Protocol):
    """The client's side: the HTTP head, the Noise answer, an early payload if there is one, then HTTP/2."""

    __slots__ = ("_authority", "_client", "_early", "_handshake", "_head", "_transport", "_wire", "ready")

    def __init__(self, handshake: ClientHandshake, authority: str) -> None:
        self._handshake: ClientHandshake | None = handshake
        self._authority = authority
        self._head: bytearray | None = bytearray()
        self._early: EarlyPayloadStripper | None = EarlyPayloadStripper()
        self._wire: _NoiseWire | None = None
        self._client: H2Client | None = None
        self.ready: asyncio.Future[H2Client] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        keep_tcp_alive(self._transport.get_extra_info("socket"))
        assert self._handshake is not None
        initiation = base64.b64encode(self._handshake.initiation).decode()
        self._transport.write(
            (
                f"POST {PATH} HTTP/1.1\r\nHost: {self._authority}\r\nUpgrade: {UPGRADE_TOKEN}\r\n"
                f"Connection: upgrade\r\n{_HEADER}: {initiation}\r\nContent-Length: 0\r\n\r\n"
            ).encode()
        )

    def abort(self) -> None:
        """Give up."""
        abort(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            if self._wire is None:
                data = self._shake(data)
                if self._wire is None:
                    return
            plaintext = self._wire.open(data)
            if self._early is not None:
                plaintext = self._early.receive(plaintext)
                if plaintext:
                    self._early = None
        except RemoteProtocolError as error:
            self._fail(error)
            return
        if self._client is not None:
            self._client.receive(plaintext)

    def _shake(self, data: bytes) -> bytes:
        """Take the HTTP head and the Noise answer; what is behind them, once both are there."""
        if self._head is not None:
            self._head += data
            head, end, data = bytes(self._head).partition(b"\r\n\r\n")
            if not end:
                if len(self._head) > _MAX_HEAD:
                    raise RemoteProtocolError(f"an HTTP head of more than {_MAX_HEAD} bytes")
                return b""
            status = head.partition(b"\r\n")[0].split(b" ", 2)
            if status[:2] != [b"HTTP/1.1", b"101"]:
                raise RemoteProtocolError(
                    f"the server answered {head[:100].decode('latin-1')!r} to the upgrade, expected status 101"
                )
            self._head = None
        assert self._handshake is not None
        answer = self._handshake.receive(data)
        if answer is None:
            return b""
        noise, rest = answer
        self._handshake = None
        self._wire = _NoiseWire(self._transport, noise)
        self._client = H2Client(self._wire, authority=self._authority)
        self._client.start()
        if not self.ready.done():
            self.ready.set_result(self._client)
        return rest

    def _fail(self, error: RemoteProtocolError) -> None:
        abort(self._transport)
        if self._client is not None:
            self._client.lost(error.message)
        self._refuse(error)

    def pause_writing(self) -> None:
        if self._client is not None:
            self._client.pause_writing()

    def resume_writing(self) -> None:
        if self._client is not None:
            self._client.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._client is not None:
            self._client.lost(str(exc or "the server closed the connection"))
        self._refuse(RemoteProtocolError("the server closed the connection during the handshake"))

    def _refuse(self, error: RemoteProtocolError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # whoever dialled may have given up by now, and that is no loss
