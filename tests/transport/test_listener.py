"""The front door: the seam to uvicorn on both loops, plain and TLS, and what a bad peer may try."""

import asyncio
import contextlib
import inspect
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast
from unittest.mock import ANY

import pytest
import uvicorn
from tests.support.certificates import tls_contexts
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from doorward.clock import SystemClock
from doorward.transport import listener as seam
from doorward.transport.listener import Limits, ListenerSpec, Refusal, Takeover, UpgradeRequest, serve
from doorward.transport.sources import Networks
from doorward.transport.turns import Turns

HOST = "127.0.0.1"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def bound() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, 0))
    return sock


class App:
    """Answers with the path and the body's length, and remembers the scopes."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.release = asyncio.Event()
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            with contextlib.suppress(asyncio.CancelledError):
                while (await receive())["type"] != "websocket.disconnect":
                    await send({"type": "websocket.send", "text": "heard"})
            return
        length = 0
        while True:
            message = await receive()
            length += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        if scope["path"] == "/wait":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        body = f"{scope['path']} {length}".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Echo(asyncio.Protocol):
    """A protocol of our own: repeats what it reads, with its own greeting first."""

    made: list["Echo"]

    def __init__(self, request: UpgradeRequest) -> None:
        self.request = request
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self.transport.write(b"hello ")

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Polite(Echo):
    def shutdown(self) -> None:
        self.transport.write(b"goodbye")
        self.transport.close()


class Door:
    """A running server and ways to talk to it."""

    def __init__(self, app: App, port: int, stop: asyncio.Event, done: Callable[[], Awaitable[None]]) -> None:
        self.app = app
        self.port = port
        self.stop = stop
        self.stopped = done
        self.echoes: list[Echo] = []
        self.tls: ssl.SSLContext | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            HOST, self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None
        )


@contextlib.asynccontextmanager
async def running(
    *,
    tls: bool = False,
    identify: seam.Identify | None = None,
    limits: Limits = Limits(shutdown=0.5),  # noqa: B008 - frozen
    echo: type[Echo] = Echo,
    proxies: Networks = (),
    turns: Turns | None = None,
) -> AsyncIterator[Door]:
    sock = bound()
    app, stop, ready, done = App(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    door = Door(app, sock.getsockname()[1], stop, lambda: _wait(done))

    def take(request: UpgradeRequest) -> asyncio.Protocol | Refusal:
        if request.path != "/raw":
            return Refusal(404, "not here")
        if request.method != "POST":
            return Refusal(405, "POST only", (("allow", "POST"),))
        door.echoes.append(echo(request))
        return door.echoes[-1]

    takeovers: dict[str, Takeover] = {"Derp": take}
    server_tls, client_tls = tls_contexts()
    door.tls = client_tls if tls else None
    spec = ListenerSpec(
        name="public", sockets=[sock], ssl_context=server_tls if tls else None, identify=identify
    )

    async def run() -> None:
        await serve(
            [spec],
            app,
            takeovers,
            clock=SystemClock(),
            stop=stop,
            ready=ready,
            limits=limits,
            proxies=proxies,
            turns=turns,
        )
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(run())
        await ready.wait()
        try:
            yield door
        finally:
            stop.set()
            app.release.set()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def request(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *headers, "", ""]).encode() + body


UPGRADE = request(
    "/raw?a=b%20c", "Upgrade: DERP", "Connection: keep-alive, Upgrade", "X-One: 1", method="POST"
)


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


def test_the_names_of_uvicorn_that_the_seam_uses_are_as_they_were() -> None:
    assert uvicorn.__version__.startswith("0.54."), "look at every name in HOOKS again, then move this line"
    for name in seam.HOOKS:
        assert inspect.isfunction(getattr(HttpToolsProtocol, name, None)), name
        assert name in vars(HttpToolsProtocol), f"{name} has moved to another class"
    assert list(inspect.signature(HttpToolsProtocol).parameters) == [
        "config",
        "server_state",
        "app_state",
        "_loop",
    ]
    assert set(vars(ServerState())) == {"total_requests", "connections", "tasks", "default_headers"}
    source = inspect.getsource(HttpToolsProtocol.on_headers_complete)
    assert "if self.parser.should_upgrade() and self._should_upgrade():\n            return" in source
    for text in ("self.headers", "self.scope", "self.cycle", "self.flow", "self.url", "self.app_state"):
        assert text in inspect.getsource(HttpToolsProtocol), text


async def test_a_request_is_answered_and_knows_its_listener(tls: bool) -> None:
    async with running(tls=tls) as door:
        reader, writer = await door.connect()
        writer.write(request("/a%20b", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"))
        status, headers, body = await response(reader)
        assert (status, body) == (200, b"/a b 0")
        assert headers["date"].endswith("gmt")
        assert "server" not in headers
        scope = door.app.scopes[0]
        assert scope["state"] == {"listener": "public", "identity": None, "guest": ANY}
        assert scope["scheme"] == ("https" if tls else "http")
        assert scope["client"] == writer.get_extra_info("sockname")[:2]  # no header moves it
        await close(writer)


async def test_a_connection_is_handed_over_after_an_ordinary_request(tls: bool) -> None:
    async with running(tls=tls) as door:
        reader, writer = await door.connect()
        writer.write(request("/first"))
        assert (await response(reader))[2] == b"/first 0"
        writer.write(UPGRADE + b"early")
        assert await reader.readexactly(11) == b"hello early"
        writer.write(b"later")
        assert await reader.readexactly(5) == b"later"
        seen = door.echoes[0].request
        assert (seen.method, seen.path, seen.query) == ("POST", "/raw", b"a=b%20c")
        assert (seen.get("X-ONE"), seen.get("absent")) == ("1", None)
        assert (seen.listener, seen.identity, seen.leftover) == ("public", None, b"early")
        assert seen.peer == writer.get_extra_info("sockname")[:2]
        assert seen.local == (HOST, door.port)
        await close(writer)
        await door.echoes[0].lost.wait()


async def test_an_upgrade_in_pieces_of_seven_bytes(tls: bool) -> None:
    async with running(tls=tls) as door:
        reader, writer = await door.connect()
        wire = request("/first") + UPGRADE + b"early bytes"
        for at in range(0, len(wire), 7):
            writer.write(wire[at : at + 7])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await response(reader))[2] == b"/first 0"
        assert await reader.readexactly(17) == b"hello early bytes"
        await close(writer)


async def test_an_upgrade_pipelined_behind_slow_requests_waits_for_their_answers(tls: bool) -> None:
    async with running(tls=tls) as door:
        reader, writer = await door.connect()
        writer.write(request("/wait") + request("/second") + UPGRADE + b"early")
        await asyncio.sleep(0.02)
        writer.write(b" and late")
        await asyncio.sleep(0.02)
        assert door.echoes == []
        door.app.release.set()
        assert (await response(reader))[2] == b"/wait 0"
        assert (await response(reader))[2] == b"/second 0"
        assert await reader.readexactly(20) == b"hello early and late"
        await close(writer)


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/elsewhere", 404), ("GET", "/raw", 405)])
async def test_a_refused_upgrade_gets_an_ordinary_answer(method: str, path: str, status: int) -> None:
    async with running() as door:
        reader, writer = await door.connect()
        writer.write(request(path, "Upgrade: derp", "Connection: upgrade", method=method))
        assert (await response(reader))[0] == status
        assert await reader.read() == b""
        await close(writer)


async def test_an_upgrade_that_nobody_takes_is_answered_by_the_app_and_ends_the_connection() -> None:
    async with running() as door:
        reader, writer = await door.connect()
        writer.write(request("/raw", "Upgrade: h2c", "Connection: upgrade") + request("/smuggled"))
        status, headers, body = await response(reader)
        assert (status, headers["connection"], body) == (200, "close", b"/raw 0")
        assert await reader.read() == b""
        assert [scope["path"] for scope in door.app.scopes] == ["/raw"]
        await close(writer)


async def test_the_upgrade_header_alone_asks_for_nothing() -> None:
    async with running() as door:
        reader, writer = await door.connect()
        writer.write(request("/raw", "Upgrade: derp", "Content-Length: 4", method="POST", body=b"body"))
        assert (await response(reader))[2] == b"/raw 4"
        assert door.echoes == []
        await close(writer)


@pytest.mark.parametrize("token", ["derp", "h2c", "websocket"])
@pytest.mark.parametrize("header", ["Content-Length: 4", "Transfer-Encoding: chunked"])
async def test_an_upgrade_with_a_body_is_refused(token: str, header: str) -> None:
    async with running() as door:
        reader, writer = await door.connect()
        writer.write(request("/raw", f"Upgrade: {token}", "Connection: upgrade", header, method="POST"))
        assert (await response(reader))[0] == 400
        assert await reader.read() == b""
        assert (door.echoes, door.app.scopes) == ([], [])
        await close(writer)


async def test_a_websocket_is_the_apps_own() -> None:
    async with running() as door:
        reader, writer = await door.connect()
        writer.write(
            request(
                "/socket",
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            )
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"\x81\x82\0\0\0\0hi")
        assert await reader.readexactly(7) == b"\x81\x05heard"
        assert door.app.scopes[0]["state"] == {"listener": "public", "identity": None, "guest": ANY}
        await close(writer)


def test_websocket_cannot_be_taken_over() -> None:
    async def attempt() -> None:
        def take(_: UpgradeRequest) -> Refusal:
            return Refusal(404, "")

        await serve([], App(), {"WebSocket": take}, clock=SystemClock(), stop=asyncio.Event())

    with pytest.raises(ValueError, match="websocket"):
        asyncio.run(attempt())


async def test_identity_is_asked_once_per_connection_before_any_request(tls: bool) -> None:
    asked: list[Any] = []
    go = asyncio.Event()

    async def identify(peer: seam.Address | None, local: seam.Address | None) -> str:
        asked.append((peer, local))
        await go.wait()
        return "node-1"

    async with running(tls=tls, identify=identify) as door:
        reader, writer = await door.connect()
        writer.write(request("/one"))
        await asyncio.sleep(0.02)
        assert door.app.scopes == []
        go.set()
        assert (await response(reader))[2] == b"/one 0"
        writer.write(request("/two"))
        assert (await response(reader))[2] == b"/two 0"
        writer.write(UPGRADE)
        assert await reader.readexactly(6) == b"hello "
        assert [scope["state"]["identity"] for scope in door.app.scopes] == ["node-1", "node-1"]
        assert door.echoes[0].request.identity == "node-1"
        assert asked == [(writer.get_extra_info("sockname")[:2], (HOST, door.port))]
        await close(writer)


@pytest.mark.parametrize("outcome", ["none", "error", "late"])
async def test_an_unknown_caller_is_closed_without_an_answer(outcome: str) -> None:
    async def identify(peer: seam.Address | None, local: seam.Address | None) -> str | None:
        if outcome == "error":
            raise OSError("the daemon is gone")
        if outcome == "late":
            await asyncio.Event().wait()
        return None

    async with running(identify=identify, limits=Limits(identify=0.05, shutdown=0.5)) as door:
        reader, writer = await door.connect()
        writer.write(request("/one"))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert door.app.scopes == []
        await close(writer)


async def test_stopping_does_not_wait_for_a_question_without_answer() -> None:
    async def identify(peer: seam.Address | None, local: seam.Address | None) -> None:
        await asyncio.Event().wait()

    async with running(identify=identify, limits=Limits(identify=60, shutdown=0.1)) as door:
        _, writer = await door.connect()
        await asyncio.sleep(0.02)
        door.stop.set()
        async with asyncio.timeout(2):
            await door.stopped()
        await close(writer)


async def test_a_unix_socket_is_a_door_too(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    path = tmp_path / "s"
    sock.bind(str(path))
    app, stop, ready = App(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        spec = ListenerSpec(name="local", sockets=[sock])
        group.create_task(serve([spec], app, {}, clock=SystemClock(), stop=stop, ready=ready))
        await ready.wait()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request("/unix"))
        assert (await response(reader))[2] == b"/unix 0"
        assert app.scopes[0]["state"]["listener"] == "local"
        assert app.scopes[0]["client"] is None
        await close(writer)
        stop.set()


async def test_a_head_without_end_is_cut_at_its_limit(tls: bool) -> None:
    async with running(tls=tls, limits=Limits(head_bytes=4096, shutdown=0.5)) as door:
        reader, writer = await door.connect()
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        writer.write(b"y" * 4096)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 431 ")
        await close(writer)


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET /first HTTP/1.1\r\nhost: x\r\n\r\nGET"])
async def test_a_half_open_connection_is_closed_in_time(start: bytes) -> None:
    async with running(limits=Limits(head_seconds=0.1, shutdown=0.5)) as door:
        reader, writer = await door.connect()
        writer.write(start)
        async with asyncio.timeout(5):
            rest = await reader.read()
        assert rest.count(b"HTTP/1.1 ") == start.count(b"first")
        await close(writer)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /a/?\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_garbage_gets_a_400_and_the_end(data: bytes) -> None:
    async with running() as door:
        reader, writer = await door.connect()
        writer.write(data)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        await close(writer)


async def test_connections_over_the_limit_are_told_so_and_taken_over_ones_count() -> None:
    async with running(limits=Limits(connections=1, shutdown=0.5)) as door:
        reader, writer = await door.connect()
        writer.write(UPGRADE)
        assert await reader.readexactly(6) == b"hello "
        door.echoes[0].request.guest.settle()  # else it would have to make room
        second, other = await door.connect()
        assert (await response(second))[0] == 503
        await close(other)
        await close(writer)
        await door.echoes[0].lost.wait()
        await asyncio.sleep(1.1)  # the sweep of closed ones runs every second
        third, again = await door.connect()
        again.write(request("/free"))
        assert (await response(third))[0] == 200
        await close(again)


async def test_stopping_lets_a_request_finish_and_closes_the_rest(tls: bool) -> None:
    async with running(tls=tls, limits=Limits(shutdown=3)) as door:
        busy, busy_writer = await door.connect()
        busy_writer.write(request("/wait"))
        idle, idle_writer = await door.connect()
        raw, raw_writer = await door.connect()
        raw_writer.write(UPGRADE)
        await raw.readexactly(6)
        door.stop.set()
        assert await idle.read() == b""
        assert await raw.read() == b""
        await door.echoes[0].lost.wait()
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, by system
            await door.connect()
        door.app.release.set()
        assert (await response(busy))[2] == b"/wait 0"
        await door.stopped()
        for writer in (busy_writer, idle_writer, raw_writer):
            await close(writer)


async def test_stopping_says_goodbye_where_the_protocol_can() -> None:
    async with running(echo=Polite) as door:
        reader, writer = await door.connect()
        writer.write(UPGRADE)
        await reader.readexactly(6)
        door.stop.set()
        assert await reader.read() == b"goodbye"
        await close(writer)


async def test_what_does_not_end_is_cut_when_the_time_is_up() -> None:
    async with running(limits=Limits(shutdown=0.2)) as door:
        _, busy = await door.connect()
        busy.write(request("/wait"))
        reader, deaf = await door.connect()
        deaf.write(UPGRADE)
        await reader.readexactly(6)
        door.echoes[0].transport.write(bytes(30 << 20))  # more than any socket buffer, and nobody reads it
        await asyncio.sleep(0.05)
        before = time.monotonic()
        door.stop.set()
        await door.stopped()
        assert time.monotonic() - before < 1.5
        assert door.app.cancelled
        for writer in (busy, deaf):
            await close(writer)


async def test_a_protocol_may_pause_its_reading_while_it_takes_over() -> None:
    class Paused(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async with running(echo=Paused) as door:
        reader, writer = await door.connect()
        writer.write(UPGRADE)
        assert await reader.readexactly(6) == b"hello "
        writer.write(b"held")
        await asyncio.sleep(0.05)
        assert reader._buffer == b""  # type: ignore[attr-defined]
        door.echoes[0].transport.resume_reading()
        assert await reader.readexactly(4) == b"held"
        await close(writer)


async def test_strangers_make_room_for_strangers_in_the_middle_of_tls_too(tls: bool) -> None:
    async with running(tls=tls, limits=Limits(guests=3, shutdown=0.5)) as door:
        silent = [await asyncio.open_connection(HOST, door.port) for _ in range(6)]
        for reader, writer in silent[:3]:
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.transport.abort()
        reader, writer = await door.connect()
        writer.write(request("/in"))
        assert (await response(reader))[2] == b"/in 0"
        await close(writer)
        for _, writer in silent[3:]:
            writer.transport.abort()


async def test_only_a_trusted_proxy_says_for_whom_it_speaks() -> None:
    networks = [ip_network("127.0.0.1/32")]
    said = request("/", "X-Forwarded-For: 198.51.100.1, 203.0.113.9")
    for proxies, expected in ((networks, ("203.0.113.9", 0)), ([ip_network("192.0.2.0/24")], None)):
        async with running(proxies=proxies) as door:
            reader, writer = await door.connect()
            writer.write(said)
            assert (await response(reader))[0] == 200
            own = writer.get_extra_info("sockname")[:2]
            assert door.app.scopes[0]["client"] == (expected or own)
            writer.write(
                request(
                    "/raw",
                    "Upgrade: DERP",
                    "Connection: Upgrade",
                    "X-Forwarded-For: 203.0.113.9",
                    method="POST",
                )
            )
            await reader.readexactly(6)
            assert door.echoes[0].request.source == (expected[0] if expected else HOST)
            assert door.echoes[0].request.guest.is_settled == (expected is not None)
            await close(writer)


async def test_whoever_comes_by_the_tailnet_speaks_for_nobody_else() -> None:
    async def identify(*_: object) -> str:
        return "a node"

    # On the same machine as the proxy: its own daemon's connections come from loopback as well.
    async with running(proxies=[ip_network("127.0.0.0/8")], identify=identify) as door:
        reader, writer = await door.connect()
        writer.write(request("/", "X-Forwarded-For: 203.0.113.9"))
        assert (await response(reader))[0] == 200
        assert door.app.scopes[0]["client"] == writer.get_extra_info("sockname")[:2]
        writer.write(
            request(
                "/raw", "Upgrade: DERP", "Connection: Upgrade", "X-Forwarded-For: 203.0.113.9", method="POST"
            )
        )
        await reader.readexactly(6)
        assert door.echoes[0].request.client == writer.get_extra_info("sockname")[:2]
        assert not door.echoes[0].request.guest.is_settled
        await close(writer)


async def test_a_crowd_at_the_handshakes_keeps_others_waiting_outside() -> None:
    turns = Turns(rate=0.001, burst=1, crowd=2)
    async with running(turns=turns) as door:
        for _ in range(3):
            turns.ask("flood", lambda: None)
        reader, writer = await door.connect()
        writer.write(request("/later"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        turns._queues.clear()
        turns._length = 0
        assert (await response(reader))[2] == b"/later 0"
        await close(writer)
