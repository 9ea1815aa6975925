"""Everything between a socket and an application: HTTP/1.1 heads, HTTP/2, ts2021 from both ends, addresses to fetch."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import MutableMapping
from ipaddress import ip_address, ip_network
from typing import Any

import h2.config
import h2.connection
import httpx2
from tests.fuzz.feeding import FakeTransport, feed, in_loop, pieces, text_of
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from doorward.errors import DoorwardError
from doorward.protocol.keys import MachinePrivate
from doorward.protocol.noise import ClientHandshake, ServerHandshake
from doorward.transport import fetch, noise
from doorward.transport.h2 import H2Limits, H2Server
from doorward.transport.listener import Limits, ListenerSpec, Refusal, UpgradeRequest, _Connection, _Door
from doorward.transport.lobby import Guest
from doorward.transport.sources import address_key, forwarded_for, is_among, source_address
from doorward.transport.turns import Turns

COVERS = (
    "transport.fetch:_parse",
    "transport.fetch:_read",
    "transport.fetch:is_public",
    "transport.h2:H2Server._request",
    "transport.h2:H2Server._data",
    "transport.listener:_Connection.data_received",
    "transport.listener:_Connection._hand_over",
    "transport.noise:decode_initiation",
    "transport.noise:_websocket_initiation",
    "transport.noise:Ts2021.takeover",
    "transport.noise:Ts2021._shake",
    "transport.noise:_NoiseWire.open",
    "transport.noise:_ServerConnection.data_received",
    "transport.noise:_MessageWire._read",
    "transport.noise:_ClientConnection.data_received",
    "transport.noise:_ClientConnection._shake",
    "transport.sources:_key_of",
    "transport.sources:forwarded_for",
    "transport.sources:is_among",
    "transport.sources:source_address",
    "transport.streams:Http2.receive",
)
EVERYWHERE = [ip_network("0.0.0.0/0"), ip_network("::/0")]
LIMIT = 256 << 10  # one read of a socket
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and quickly made

SERVER = MachinePrivate(b"\x11" * 32)
CLIENT = MachinePrivate(b"\x22" * 32)
EPHEMERAL = MachinePrivate(b"\x33" * 32)
SHAKEN = ClientHandshake(CLIENT, SERVER.public(), EPHEMERAL, 145)


def _h2_requests() -> bytes:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "POST"), (":authority", "a"), (":scheme", "https"), (":path", "/machine/map?x=%zz")]
    client.send_headers(1, [*head, ("content-length", "5")])
    client.send_data(1, b"hello", end_stream=True)
    client.send_headers(3, head)
    client.send_data(3, bytes(9000))
    client.reset_stream(3)
    client.ping(b"8 bytes.")
    client.increment_flow_control_window(5)
    client.update_settings({1: 0, 4: 70000})
    client.send_headers(5, [*head, ("x", "y" * 300)], end_stream=True)
    client.close_connection()
    return bytes(client.data_to_send())


SEEDS = (
    _h2_requests(),
    b'GET /path?q=1 HTTP/1.1\r\nHost: door.example.com\r\nCookie: a=b; c="d"\r\nAccept: text/html\r\n\r\n',
    b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\n",
    b"POST /ts2021 HTTP/1.1\r\nHost: a\r\nUpgrade: taken\r\nConnection: upgrade\r\nX-Tailscale-Handshake: AAAA\r\n\r\nrest",
    b"GET /derp HTTP/1.1\r\nHost: a\r\nUpgrade: taken\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc",
    (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: derp\r\n\r\n\x82\x85\0\0\0\0hello\x88\x80\0\0\0\0"
    ),
    b"OPTIONS * HTTP/1.0\r\n\r\n",
    base64.b64encode(SHAKEN.initiation),
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    + ServerHandshake(SERVER, EPHEMERAL).receive(SHAKEN.initiation)[2]
    + bytes(9),
    b"X-Tailscale-Handshake=AAAA%2B&x=y",
    b"https://user:pw@host.example:99/a/../b?q#f",
    b"//other.example/path",
    b"64:ff9b::a00:1",
)
WORDS = (
    *(b"HTTP/1.1", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Upgrade: taken\r\n", b"Upgrade: websocket\r\n"),
    *(b"Connection: upgrade\r\n", b"Expect: 100-continue\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
    *(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00", b"\x00\x00\x04\x03\x00\x00\x00\x00\x01", b"\x00\x00\x08\x06\x00\x00\x00\x00\x00"),
    *(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00", b"\x00\x00\x05\x00\x00\x00\x00\x00\x01", b"\x00\x00\x01\x01\x05\x00\x00\x00\x07\x82"),
)  # fmt: skip


async def _app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Reads the whole body, and answers. Text in a scope is text."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "heard"})
        return
    assert isinstance(scope["path"], str)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 100})


async def _http2(data: bytes) -> None:
    transport = FakeTransport()
    async with asyncio.TaskGroup() as group:
        server = H2Server(transport, _app, state={}, client=None, group=group, limits=H2Limits())
        server.start()
        for part in pieces(data):
            server.receive(part)
            await asyncio.sleep(0)
        server.shutdown()
    assert transport.written <= 64 * len(data) + 65536


class _Taken(asyncio.Protocol):
    """Somebody else's protocol."""


async def _http1(data: bytes) -> None:
    """A connection of the front door, where an upgrade to ``taken`` is somebody's."""
    config = Config(
        _app,
        http=HttpToolsProtocol,
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    config.load()

    def takeover(request: UpgradeRequest) -> asyncio.Protocol | Refusal:
        request.get("X-Tailscale-Handshake")
        return _Taken() if request.path != "/refused" else Refusal(404, "no")

    async with asyncio.TaskGroup() as group:
        spec, proxies = ListenerSpec(name="public", sockets=[]), [ip_network("192.0.2.0/24")]
        door = _Door(spec, config, {b"taken": takeover}, Limits(), group, Turns(), proxies)
        connection = _Connection(door, Guest())
        transport = FakeTransport()
        connection.connection_made(transport)
        for part in pieces(data):
            if transport.closing or door.taken:
                break
            connection.data_received(part)
            await asyncio.sleep(0)
        connection.connection_lost(None)
        for task in door.state.tasks:
            task.cancel()


async def _ts2021(data: bytes) -> None:
    """As a server: an upgrade with this handshake, these bytes behind a good one, and the same over a WebSocket."""
    async with noise.Ts2021(_app, SERVER, entropy=bytes) as service:
        value = data[:2000].replace(b"\r", b"").replace(b"\n", b"")
        for header in (value, base64.b64encode(SHAKEN.initiation)):
            transport = FakeTransport()
            request = UpgradeRequest(
                method="POST",
                path="/ts2021",
                query=b"",
                headers=((b"x-tailscale-handshake", header),),
                transport=transport,
                peer=("192.0.2.1", 1),
                local=None,
                listener="public",
                identity=None,
                leftover=b"",
            )
            outcome = service.takeover(request)
            if isinstance(outcome, asyncio.Protocol):
                outcome.connection_made(transport)
                if hasattr(outcome, "shutdown"):
                    for part in pieces(data):
                        outcome.data_received(part)
                    outcome.connection_lost(None)
        for query in (
            value,
            b"X-Tailscale-Handshake=" + base64.b64encode(SHAKEN.initiation).replace(b"+", b"%2B"),
        ):
            await service.websocket(
                {"query_string": query, "subprotocols": [noise.UPGRADE_TOKEN]}, *_messages(data)
            )


def _messages(data: bytes) -> tuple[Any, Any]:
    waiting: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    waiting += [{"type": "websocket.receive", "bytes": part} for part in pieces(data)]
    waiting.append({"type": "websocket.disconnect"})

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "websocket.disconnect"}

    async def send(_: Any) -> None:
        return

    return receive, send


async def _dialled(data: bytes) -> None:
    """As a client: this is the server's answer to the upgrade, and all that follows."""
    connection = noise._ClientConnection(
        ClientHandshake(CLIENT, SERVER.public(), EPHEMERAL, 145), "control:443"
    )
    transport = FakeTransport()
    connection.connection_made(transport)
    for part in pieces(data):
        if not transport.closing:
            connection.data_received(part)
    connection.connection_lost(None)
    connection.ready.exception()  # it is read, whatever it is


async def _nowhere(_: str, __: int) -> list[fetch.Address]:
    return [ip_address("192.0.2.1")]


async def _fetched(data: bytes) -> None:
    """A server that we fetch from: its body, its encoding, and where it redirects to."""
    location = data[:2000].replace(b"\r", b"").replace(b"\n", b"")
    status = 302 if len(data) % 2 else 200

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, headers=[(b"location", location)], stream=httpx2.ByteStream(data))

    async with fetch.Fetcher(allow_private=True, resolve=_nowhere, ssl_context=PLAIN) as fetcher:
        await fetcher._client.aclose()
        fetcher._client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        for host in ("relay.example", text_of(location)):
            with contextlib.suppress(DoorwardError):
                await fetcher.get(f"https://{host}/map", limit=1 << 16)


def fuzz(data: bytes) -> None:
    """A peer that breaks the rules loses its connection or its request, and nothing else happens."""
    text = text_of(data)
    feed(text, noise.decode_initiation, fetch._parse)
    with contextlib.suppress(ValueError):
        fetch.is_public(ip_address(text))
    peer = forwarded_for([(b"x-forwarded-for", data[:2000])])
    assert peer is None or is_among(peer, EVERYWHERE)
    address_key((text, 1))
    source_address((text, 1))
    is_among((text, 1), EVERYWHERE)

    async def all_of_them() -> None:
        for side in (_http1, _http2, _ts2021, _dialled, _fetched):
            await side(data)

    in_loop(all_of_them)
