"""The front door: bound sockets to an ASGI app, with the raw connection handed over where a protocol asks for it.

::

    accept ─▶ [TLS] ─▶ [identify, once] ─▶ HTTP/1.1 request ─▶ app            (scope["state"]: listener, identity)
                                              │
                                              ├─ Upgrade: websocket ─▶ app
                                              └─ Upgrade: <a token of takeovers> ─▶ that handler's own asyncio.Protocol

ASGI has no way to give a connection away, and ts2021 and DERP need one, so this is a subclass of uvicorn's httptools
protocol. The seam leans on what uvicorn does not promise (``HOOKS``): uvicorn is pinned to a minor version and
``tests/transport/test_listener.py`` fails when one of them changes.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from doorward.clock import Clock
from doorward.telemetry import counter, log
from doorward.transport.readbuffer import ReadBuffer

_log = log("listener")
_REFUSED = counter(
    "listener_refused_total", "Connections closed before a request was served.", "listener", "why"
)

# uvicorn's own names that the seam calls or overrides; none is part of its documented interface.
HOOKS = (
    "_should_upgrade",
    "_get_upgrade",
    "_unset_keepalive_if_required",
    "_unsupported_upgrade_warning",
    "handle_websocket_upgrade",
    "on_message_begin",
    "on_headers_complete",
    "on_response_complete",
    "send_400_response",
    "data_received",
    "shutdown",
)

# A laptop that was closed is offline to others after this, a map stream's keep-alive and its grace: in under three minutes.
# Three probes fit in, so that no single lost packet ends a good connection.
GONE_AFTER = 90.0

Address = tuple[str, int | None]  # host and port; a Unix socket's own side is (path, None)
Identify = Callable[[Address | None, Address | None], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handler's answer to an upgrade that it does not accept: sent as text, then the connection is closed."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """The whole HTTP/1.1 response."""
        body = self.text.encode()
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """A request that asks for the connection itself.

    The protocol that the handler returns gets ``connection_made(transport)`` and then ``leftover``, the bytes behind
    the request head, through ``data_received``: a handler needs neither, they are here to be looked at.
    """

    method: str
    path: str  # percent-decoded, as ASGI has it
    query: bytes  # raw, without the question mark
    headers: tuple[tuple[bytes, bytes], ...]  # names in lower case
    transport: asyncio.Transport
    peer: Address | None  # None on a Unix socket
    local: Address | None
    listener: str
    identity: Any  # what the listener's identify said; None where nobody is asked
    leftover: bytes

    def get(self, name: str) -> str | None:
        """The first header of that name, any case, as text; None when there is none."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)


Takeover = Callable[[UpgradeRequest], asyncio.Protocol | Refusal]


@runtime_checkable
class Graceful(Protocol):
    """A protocol with a polite end. One without it has its transport closed."""

    def shutdown(self) -> None:
        """Say goodbye, then close the transport; called once, when the server stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSpec:
    """One door. ``sockets`` are bound (listening or not), TCP or Unix, and are closed at the end of ``serve``.

    ``identify`` is awaited once per connection with its peer's and its own address, before a byte of it is read; its
    result is ``scope["state"]["identity"]``. None closes the connection without an answer, as does an exception.
    """

    name: str
    sockets: Sequence[socket.socket]
    ssl_context: ssl.SSLContext | None = None
    identify: Identify | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may take. Seconds and bytes."""

    head_bytes: int = 64 << 10  # request line and headers; browsers stay under 16 KiB with every cookie
    head_seconds: float = 15.0  # from accept, or from a request's first byte, to the end of its head
    keep_alive: int = 75  # an idle connection between two requests; above the usual 60 of proxies
    connections: int = 20_000  # open at once on one listener, taken over or not
    identify: float = 5.0
    tls_handshake: float = 15.0
    shutdown: float = 3.0  # from stop to everything closed
    gone_after: float = GONE_AFTER  # a peer whose system acknowledges nothing for so long is away
    websocket_bytes: int = 1 << 20  # one message


class _Door:
    """What the connections of one listener share."""

    def __init__(
        self,
        spec: ListenerSpec,
        config: Config,
        takeovers: Mapping[bytes, Takeover],
        limits: Limits,
        group: asyncio.TaskGroup,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.config = config
        self.takeovers = takeovers
        self.limits = limits
        self.group = group
        self.state = ServerState()
        self.reading = ReadBuffer()
        self.asking: set[asyncio.Task[None]] = set()
        # Held by transport, because the protocols are other people's objects; swept of closed ones every second.
        self.taken: dict[asyncio.Transport, asyncio.Protocol] = {}

    def connection(self) -> "_Connection":
        return _Connection(self)

    def sweep(self) -> None:
        for transport in [transport for transport in self.taken if transport.is_closing()]:
            del self.taken[transport]

    def refused(self, why: str) -> None:
        _REFUSED.labels(self.name, why).inc()

    def busy(self) -> bool:
        self.sweep()
        return bool(self.taken or self.state.connections or self.state.tasks)


class _Connection(HttpToolsProtocol):
    """One connection while it speaks HTTP/1.1."""

    def __init__(self, door: _Door) -> None:
        super().__init__(
            config=door.config, server_state=door.state, app_state={"listener": door.name, "identity": None}
        )
        self._door = door
        self._head_size = 0
        self._in_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._asking = False  # identify runs; bytes that a loop delivers in spite of the pause wait in _held
        self._upgrading = False  # an accepted upgrade waits for the answers to earlier requests
        self._ended = False  # the answer to an upgrade that nobody takes is the connection's last
        self._held = b""

    # The start: limits, then who it is.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        door = self._door
        door.reading.lend(transport)
        accepted = transport.get_extra_info("socket")
        if accepted.family != socket.AF_UNIX:
            # Not left to inheritance: what waited in the queue since before we listened would have none of it.
            keep_tcp_alive(accepted, door.limits.gone_after)
        if len(self.connections) + len(door.taken) > door.limits.connections:
            door.refused("too many")
            self._answer(Refusal(503, "Too many connections are open. Try again later.\n"))
            return
        self._arm_head_timer()
        if door.spec.identify is not None:
            self._asking = True
            self.flow.pause_reading()
            task = door.group.create_task(self._ask(door.spec.identify))
            door.asking.add(task)
            task.add_done_callback(door.asking.discard)

    async def _ask(self, identify: Identify) -> None:
        identity = None
        try:
            async with asyncio.timeout(self._door.limits.identify):
                identity = await identify(self.client, self.server)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this connection and no other
            _log.warning("identify failed", listener=self._door.name, error=type(error).__name__)
        self._asking = False
        if identity is None:
            self._door.refused("unknown")
            self._cancel_head_timer()
            abort(self.transport)
        elif not self.transport.is_closing():
            self.app_state["identity"] = identity
            self._cancel_head_timer()
            self._arm_head_timer()  # the peer's time begins when we are ready to read
            self.flow.resume_reading()
            held, self._held = self._held, b""
            if held:
                self.data_received(held)

    # Requests: uvicorn parses and answers; here the head is bounded in size and time.

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._asking or self._upgrading:
            self._hold(data)
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._door.refused("bad request")
            self._cancel_head_timer()
            self.send_400_response("This is not an HTTP/1.1 request.")
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > self._door.limits.head_bytes:
                self._door.refused("head too large")
                self._answer(Refusal(431, "The request's headers are too large.\n"))

    def on_url(self, url: bytes) -> None:
        # The library lets other bytes through (RFC 9112 section 3.2 does not), and what reads a query may not.
        if not url.isascii():
            raise httptools.HttpParserError("a target with other characters than ASCII")
        super().on_url(url)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        if self._head_timer is None:
            self._arm_head_timer()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._cancel_head_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.flow.pause_reading()
        if len(self._held) > self._door.limits.head_bytes:
            abort(self.transport)

    def _arm_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._door.limits.head_seconds, self._head_is_late)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._asking and not self.transport.is_closing():
            self._door.refused("slow")
            self.transport.close()

    def _answer(self, refusal: Refusal) -> None:
        self._cancel_head_timer()
        self.transport.write(refusal.encode())
        self.transport.close()

    # The upgrade.

    def _should_upgrade(self) -> bool:
        # True makes uvicorn leave the request alone: it starts no ASGI task for it.
        return self._has_body() or self._get_upgrade() in self._door.takeovers or super()._should_upgrade()

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
            for name, value in self.headers
        )

    def _upgrade(self, rest: bytes) -> None:
        """The parser stopped at an upgrade; ``rest`` are the bytes behind the head."""
        if not self._should_upgrade():
            # uvicorn answers as if the header were not there (RFC 9110 section 7.8). The parser no longer knows where
            # this request ends, so what follows must not be read as the next one: that would be request smuggling.
            self.cycle.keep_alive = False
            self._ended = True
        elif self._get_upgrade() == b"websocket" and not self._has_body():
            self.handle_websocket_upgrade()
        elif getattr(self.cycle, "response_complete", True):
            self._held = rest
            self._hand_over()
        else:  # pipelined behind a request that is still being answered
            self._held = rest
            self._upgrading = True
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._upgrading and self.cycle.response_complete and not self.transport.is_closing():
            self._upgrading = False
            self._unset_keepalive_if_required()
            self._hand_over()

    def _hand_over(self) -> None:
        if self._has_body():
            self._answer(Refusal(400, "A request that asks for an upgrade must not have a body.\n"))
            return
        takeover = self._door.takeovers[self._get_upgrade() or b""]
        target = httptools.parse_url(self.url)
        transport, leftover = self.transport, self._held
        self._held = b""
        outcome = takeover(
            UpgradeRequest(
                method=self.scope["method"],
                path=unquote((target.path or b"").decode("latin-1")),
                query=target.query or b"",
                headers=tuple(self.headers),
                transport=transport,
                peer=self.client,
                local=self.server,
                listener=self._door.name,
                identity=self.app_state["identity"],
                leftover=leftover,
            )
        )
        if isinstance(outcome, Refusal):
            self._answer(outcome)
            return
        # uvicorn must not wait for this connection at shutdown, nor close it when its timer fires.
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        self._cancel_head_timer()
        self._door.taken[transport] = outcome
        # A loop may keep its read callback across a swap, so reading stops and starts around it. It starts before the
        # new protocol runs, so that the protocol may pause it again; no byte arrives before this function returns.
        self.flow.pause_reading()
        transport.set_protocol(outcome)
        self.flow.resume_reading()
        outcome.connection_made(transport)
        if self.flow.write_paused:
            outcome.pause_writing()  # the transport told only us
        if leftover:
            outcome.data_received(leftover)


async def serve(
    listeners: Sequence[ListenerSpec],
    app: Any,
    takeovers: Mapping[str, Takeover],
    *,
    clock: Clock,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
    limits: Limits = Limits(),
) -> None:
    """Serve ``app`` on every listener until ``stop`` is set, then end within ``limits.shutdown`` seconds.

    ``takeovers`` maps an Upgrade token, any case, to its handler; ``websocket`` is the app's own. ``ready`` is set when
    connections are accepted. Installs no signal handlers. Stopping closes the listening sockets first, lets requests
    that run finish, and closes idle and taken-over connections (``Graceful`` ones say goodbye); what is left at the
    end of the time is cut. When cancelled, everything is cut at once. Raises ValueError for a takeover of websocket.
    """
    registry = {token.lower().encode(): takeover for token, takeover in takeovers.items()}
    if b"websocket" in registry:
        raise ValueError("websocket upgrades belong to the app")
    config = Config(
        app,
        http=HttpToolsProtocol,
        ws="websockets-sansio",
        ws_max_size=limits.websocket_bytes,
        ws_per_message_deflate=False,  # control.md section 5.3; and nothing secret is ever compressed
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # uvicorn would believe X-Forwarded-For of any local process
        server_header=False,
        timeout_keep_alive=limits.keep_alive,
    )
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        doors = [_Door(spec, config, registry, limits, group) for spec in listeners]
        servers: list[asyncio.Server] = []
        ticking = group.create_task(_tick(doors, clock))
        try:
            for door in doors:
                servers += [await _listen(loop, door, bound) for bound in door.spec.sockets]
            if ready is not None:
                ready.set()
            await stop.wait()
            await _stop_gently(doors, servers, limits.shutdown)
        finally:
            ticking.cancel()
            for server in servers:
                server.close()
            for spec in listeners:
                for bound in spec.sockets:
                    bound.close()
            await _cut(doors)


async def _listen(loop: asyncio.AbstractEventLoop, door: _Door, bound: socket.socket) -> asyncio.Server:
    encrypted = door.spec.ssl_context
    timeout = door.limits.tls_handshake if encrypted else None
    if bound.family == socket.AF_UNIX:
        return await loop.create_unix_server(
            door.connection, sock=bound, ssl=encrypted, ssl_handshake_timeout=timeout, backlog=1024
        )
    return await loop.create_server(
        door.connection, sock=bound, ssl=encrypted, ssl_handshake_timeout=timeout, backlog=1024
    )


def keep_tcp_alive(sock: socket.socket, seconds: float = GONE_AFTER) -> None:
    """Let the kernel end a connection whose peer has acknowledged nothing for ``seconds``, whether or not we send.

    Probes alone would not do: none is sent while data waits to be acknowledged, and a map stream's own keep-alive always
    does. Without the second limit (RFC 5482) the kernel repeats that data for a quarter of an hour.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle, interval = max(1, int(seconds * 2 / 3)), max(1, int(seconds / 6))
    for option, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", 2),  # where the next line's option exists, it decides
        ("TCP_USER_TIMEOUT", int(seconds * 1000)),
    ):
        if hasattr(socket, option):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def abort(transport: asyncio.BaseTransport) -> None:
    """Cut a connection, whatever state it is in."""
    with contextlib.suppress(RuntimeError):  # uvloop raises for one that is gone already
        cast("asyncio.WriteTransport", transport).abort()


async def _tick(doors: Sequence[_Door], clock: Clock) -> None:
    """Keep the Date header right, and forget taken-over connections that are gone."""
    while True:
        date = format_datetime(clock.now(), usegmt=True).encode()
        for door in doors:
            door.state.default_headers = [(b"date", date)]
            door.sweep()
        await asyncio.sleep(1)


async def _stop_gently(doors: Sequence[_Door], servers: Sequence[asyncio.Server], seconds: float) -> None:
    for server in servers:
        server.close()
    for door in doors:
        for connection in list(door.state.connections):
            connection.shutdown()
        for transport, protocol in list(door.taken.items()):
            if isinstance(protocol, Graceful):
                protocol.shutdown()
            else:
                transport.close()
    try:
        async with asyncio.timeout(seconds):
            while any(door.busy() for door in doors):  # noqa: ASYNC110 - uvicorn's sets signal nothing
                await asyncio.sleep(0.02)
    except TimeoutError:
        _log.warning("connections cut at shutdown", count=sum(len(door.taken) for door in doors))


async def _cut(doors: Sequence[_Door]) -> None:
    for door in doors:
        tasks = [*door.state.tasks, *door.asking]
        for task in tasks:
            task.cancel()
        for connection in list(door.state.connections):
            abort(connection.transport)
        for transport in list(door.taken):
            abort(transport)
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)
