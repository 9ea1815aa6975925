"""The front door: bound sockets to an ASGI app, with the raw connection handed over where a protocol asks for it.

::

    accept ─▶ [turn, TLS] ─▶ [identify, once] ─▶ HTTP/1.1 request ─▶ app      (scope["state"]: listener, identity, guest)
                                              │
                                              ├─ Upgrade: websocket ─▶ app
                                              └─ Upgrade: <a token of takeovers> ─▶ that handler's own asyncio.Protocol

ASGI has no way to give a connection away, and ts2021 and DERP need one, so this is a subclass of uvicorn's httptools
protocol. Every connection has a place in the lobby (``lobby``), and TLS begins in turn (``turns``). The seam leans on what uvicorn does not promise (``HOOKS``): uvicorn is pinned to a minor version and
``tests/transport/test_listener.py`` fails when one of them changes.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from doorward.clock import Clock
from doorward.telemetry import counter, log, silence
from doorward.transport.accepting import GONE_AFTER, Acceptor, abort, keep_tcp_alive
from doorward.transport.lobby import Guest, Lobby
from doorward.transport.peeking import Parting
from doorward.transport.readbuffer import ReadBuffer
from doorward.transport.sources import Networks, address_key, forwarded_for, is_among
from doorward.transport.turns import Turns

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

# What a TLS handshake costs, in Noise handshakes (see ``turns``).
TLS_COST = 2.0
# Connections to a Unix socket: its owner's own programs.
LOCAL_ROOM = 128

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
    source: str = ""  # who it comes from, for limits (``sources.address_key``); a trusted proxy's word counts
    guest: Guest = field(default_factory=Guest)  # to be settled once it has shown whose it is
    client: Address | None = None  # whose request it is: the peer, or whom a trusted proxy speaks for

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
    ``proof`` is asked before TLS: a context that it names is presented instead, and the connection closed after that.
    """

    name: str
    sockets: Sequence[socket.socket]
    ssl_context: ssl.SSLContext | None = None
    identify: Identify | None = None
    proof: Callable[[socket.socket], Awaitable[ssl.SSLContext | None]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may take. Seconds and bytes."""

    head_bytes: int = 64 << 10  # request line and headers; browsers stay under 16 KiB with every cookie
    head_seconds: float = 15.0  # from accept, or from a request's first byte, to the end of its head
    keep_alive: int = 75  # an idle connection between two requests; above the usual 60 of proxies
    connections: int = 20_000  # open at once on all TCP listeners
    guests: int = 2048  # of these, from peers that have not shown whose they are
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
        turns: Turns,
        proxies: Networks,
    ) -> None:
        self.name = spec.name
        self.spec = spec
        self.config = config
        self.takeovers = takeovers
        self.limits = limits
        self.group = group
        self.turns = turns
        # Whom the own daemon forwards comes from loopback, as a proxy here does, and writes into headers what it likes.
        self.proxies = proxies if spec.identify is None else ()
        self.state = ServerState()
        self.reading = ReadBuffer()
        self.asking: set[asyncio.Task[None]] = set()
        # Held by transport, because the protocols are other people's objects; swept of closed ones every second.
        self.taken: dict[asyncio.Transport, asyncio.Protocol] = {}
        self.guests: dict[asyncio.Transport, Guest] = {}
        self._starting: set[asyncio.Task[None]] = set()

    def listen(self, bound: socket.socket, lobby: Lobby) -> Acceptor:
        """Take connections of one socket."""

        def arrived(accepted: socket.socket, peer: Any) -> None:
            self._arrived(accepted, peer if isinstance(peer, tuple) else None, lobby)

        return Acceptor(
            bound,
            arrived,
            gate=lambda: not self.turns.crowded,
            exhausted=lambda: lobby.make_room("descriptors"),
        )

    def _arrived(self, accepted: socket.socket, peer: tuple[Any, ...] | None, lobby: Lobby) -> None:
        guest = lobby.enter(address_key(peer))
        if guest is None:
            self.refused("too many")
            if self.spec.ssl_context is None:
                with contextlib.suppress(OSError):
                    accepted.send(Refusal(503, "Too many connections are open. Try again later.\n").encode())
            accepted.close()
            return
        if is_among(peer, self.proxies):
            guest.settle()  # it is answerable for its own clients, and its idle connections serve many
        if self.spec.ssl_context is None:
            self._start(accepted, guest)
        else:
            guest.wait()
            self.turns.ask(guest.source, lambda: self._start(accepted, guest), TLS_COST)

    def _start(self, accepted: socket.socket, guest: Guest) -> None:
        guest.go_on()
        task = self.group.create_task(self._begin(accepted, guest))
        guest.closes_by(task.cancel)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _begin(self, accepted: socket.socket, guest: Guest) -> None:
        """From a socket to a connection, TLS included."""
        encrypted = self.spec.ssl_context
        try:
            proof = None if self.spec.proof is None else await self.spec.proof(accepted)
            encrypted = proof or encrypted
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Parting(guest.leave) if proof else _Connection(self, guest),
                accepted,
                ssl=encrypted,
                ssl_handshake_timeout=self.limits.tls_handshake if encrypted else None,
            )
        except asyncio.CancelledError:
            guest.leave()
            accepted.close()
            raise
        except Exception:  # noqa: BLE001 - whatever its TLS was, it costs this connection and no other
            self.refused("tls")
            guest.leave()
            accepted.close()

    def sweep(self) -> None:
        for held in (self.taken, self.guests):
            for transport in [transport for transport in held if transport.is_closing()]:
                gone = held.pop(transport)
                if isinstance(gone, Guest):
                    gone.leave()

    def refused(self, why: str) -> None:
        _REFUSED.labels(self.name, why).inc()

    def busy(self) -> bool:
        self.sweep()
        return bool(self.taken or self.state.connections or self.state.tasks)

    def starting(self) -> list[asyncio.Task[None]]:
        return [*self._starting, *self.asking]


class _Connection(HttpToolsProtocol):
    """One connection while it speaks HTTP/1.1."""

    def __init__(self, door: _Door, guest: Guest) -> None:
        super().__init__(
            config=door.config,
            server_state=door.state,
            app_state={"listener": door.name, "identity": None, "guest": guest},
        )
        self._door = door
        self._guest = guest
        self._source = guest.source
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
        self._guest.closes_by(lambda: abort(transport))
        door.guests[transport] = self._guest
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
        self._guest.touch()
        if is_among(self.client, self._door.proxies) and (named := forwarded_for(self.headers)) is not None:
            self.scope["client"] = named
            self._source = address_key(named)
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._guest.leave()
        self._door.guests.pop(self.transport, None)
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
            if self.scope["client"] != self.client:  # the protocol that takes over knows the peer only
                self.app_state["client"] = self.scope["client"]
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
                source=self._source,
                guest=self._guest,
                client=self.scope["client"],
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
    turns: Turns | None = None,
    proxies: Networks = (),
) -> None:
    """Serve ``app`` on every listener until ``stop`` is set, then end within ``limits.shutdown`` seconds.

    ``takeovers`` maps an Upgrade token, any case, to its handler; ``websocket`` is the app's own. ``ready`` is set when
    connections are accepted. ``turns`` are shared with whoever else has costly beginnings in this process; of a peer in
    ``proxies`` X-Forwarded-For is believed, for limits and logs, but where ``identify`` says who comes. Installs no signal handlers. Stopping closes the listening sockets first, lets requests
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
    # It says so, as of a fault, wherever a WebSocket is refused with an answer.
    silence("uvicorn.error", "ASGI callable returned without completing handshake.")
    turns = turns or Turns()
    lobby = Lobby(guests=limits.guests, room=limits.connections)
    # A place of their own: whoever administers gets in however full it is.
    local = Lobby(guests=LOCAL_ROOM, room=LOCAL_ROOM, name="local")
    async with asyncio.TaskGroup() as group:
        doors = [_Door(spec, config, registry, limits, group, turns, proxies) for spec in listeners]
        acceptors: list[Acceptor] = []
        ticking = group.create_task(_tick(doors, clock))
        try:
            for door in doors:
                for bound in door.spec.sockets:
                    place = local if bound.family == socket.AF_UNIX else lobby
                    acceptors.append(door.listen(bound, place))
                    acceptors[-1].start()
            if ready is not None:
                ready.set()
            await stop.wait()
            await _stop_gently(doors, acceptors, limits.shutdown)
        finally:
            ticking.cancel()
            for acceptor in acceptors:
                acceptor.stop()
            for spec in listeners:
                for bound in spec.sockets:
                    bound.close()
            await _cut(doors)


async def _tick(doors: Sequence[_Door], clock: Clock) -> None:
    """Keep the Date header right, and forget taken-over connections that are gone."""
    while True:
        date = format_datetime(clock.now(), usegmt=True).encode()
        for door in doors:
            door.state.default_headers = [(b"date", date)]
            door.sweep()
        await asyncio.sleep(1)


async def _stop_gently(doors: Sequence[_Door], acceptors: Sequence[Acceptor], seconds: float) -> None:
    for acceptor in acceptors:
        acceptor.close()
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
        tasks = [*door.state.tasks, *door.starting()]
        for task in tasks:
            task.cancel()
        for connection in list(door.state.connections):
            abort(connection.transport)
        for transport in list(door.taken):
            abort(transport)
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)
