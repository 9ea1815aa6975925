"""One connection to the relay, from the first byte to the last: the shell between a transport and the hub."""

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from ipaddress import ip_address
from typing import Any, Final, Protocol

from doorward.errors import RemoteProtocolError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePublic
from doorward.relay.connection import Address, Connection
from doorward.relay.hub import Hub, Writes
from doorward.telemetry import log

Admit = Callable[[NodePublic, str], Awaitable[bool] | bool]

HANDSHAKE_SECONDS: Final = 10.0  # section 4: both sides give up after it

# Marks of the transport's write buffer, in bytes: above high the hub queues, below low it hands out what waits. Small,
# because all of it is delay for a slow reader. A TLS transport has another 64 KiB below it that nobody can set.
WRITE_HIGH: Final = 64 * 1024
WRITE_LOW: Final = 16 * 1024
TLS_WRITE_HIGH: Final = 32 * 1024
TLS_WRITE_LOW: Final = 8 * 1024
# What the kernel takes beyond what the path carries right now. With a not-sent mark a fast path still gets its window.
NOT_SENT_BYTES: Final = 64 * 1024
# Without one, the send buffer itself must be small: enough for 50 Mbit/s over 40 ms.
SEND_BUFFER_BYTES: Final = 256 * 1024
# How long a reader may take nothing at all before its connection is ended. Its memory is bounded, so there is no hurry;
# a phone that changes networks is often back within some seconds. Another relay gets longer (section 5): with it, all of
# its clients would be gone.
STALL_SECONDS: Final = 15.0
MESH_STALL_SECONDS: Final = 30.0
# After a read of so many bytes the others have their turn. uvloop otherwise reads from one full socket up to 32 times, 256
# KiB each, before it looks at the next: ten such senders would hold everybody up for a fifth of a second.
READ_TURN: Final = 64 * 1024
# Bytes behind a ClientInfo that a client may send while admission is decided.
MAX_HELD: Final = 128 * 1024

_log = log("relay")


class Wire(Protocol):
    """What a session needs of a transport; asyncio's have it, and so has a WebSocket's stand-in."""

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent."""

    def close(self) -> None:
        """Send what is kept, then close."""

    def abort(self) -> None:
        """Close now."""

    def is_closing(self) -> bool:
        """Whether either was called."""

    def pause_reading(self) -> None:
        """Deliver nothing for now."""

    def resume_reading(self) -> None:
        """Deliver again."""

    def get_write_buffer_size(self) -> int:
        """Bytes that are kept."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's: ``socket`` and ``ssl_object``."""


class End(Protocol):
    """Our end of a connection that bytes are written to: a client's session, or a line to another relay."""

    patience: float  # seconds for which it may take nothing

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent."""

    def unsent(self) -> int:
        """Bytes that are kept."""

    def end(self, why: str) -> None:
        """Close now; ``why`` is for the log."""


class House(Protocol):
    """What a session needs of the relay that it belongs to."""

    key: DERPPrivate
    hub: Hub
    admit: Admit
    entropy: Callable[[int], bytes]

    def now(self) -> float:
        """Monotonic seconds."""

    def spawn(self, work: Awaitable[None]) -> None:
        """Run something in the relay's task group."""

    def opened(self, session: "Session") -> None:
        """A connection is there; watch its handshake."""

    def entered(self, session: "Session") -> None:
        """It was admitted."""

    def stalled(self, end: "End", is_stalled: bool) -> None:
        """Its write buffer is, or is no longer, above the mark."""

    def ended(self, session: "Session") -> None:
        """It is gone."""

    def apply(self, writes: Writes) -> None:
        """Write what the hub decided, and close what it gave up."""


class Stage(Enum):
    """Where a connection is in its life."""

    GREETING = auto()  # ServerKey is sent, ClientInfo is awaited
    ADMITTING = auto()  # the key is proven; may it come in?
    OPEN = auto()
    CLOSED = auto()


class Session(asyncio.Protocol):
    """One connection.

    Args:
        house: the relay.
        source: the client's address as text, for admission.
        port: the client's port, told to mesh watchers.
        greeting: bytes before the first frame: the HTTP response, or nothing (fast start, WebSocket).
        not_ideal: the client would rather be elsewhere.
        settle: called once it is admitted.
    """

    def __init__(
        self,
        house: House,
        *,
        source: str,
        port: int = 0,
        greeting: bytes = b"",
        not_ideal: bool = False,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._settle = settle
        self.stage = Stage.GREETING
        self.connection: Connection | None = None
        self.patience = STALL_SECONDS
        self.deadline = house.now() + HANDSHAKE_SECONDS
        self.source = source
        self.left = False  # whoever is at its other end has said that they will not come back
        self._house = house
        self._port = port
        self._greeting = greeting
        self._not_ideal = not_ideal
        self._reader = derp.FrameReader(derp.MAX_CLIENT_INFO)
        self._held = b""
        self._write_paused = False
        self._wire: Wire

    # --- What the transport says

    def connection_made(self, transport: Any) -> None:
        """Greet: the HTTP response if there is one, and the server's key, in one write."""
        self._wire = transport
        tune(transport)
        self._house.opened(self)
        transport.write(self._greeting + derp.server_key(self._house.key.public()))

    def data_received(self, data: bytes) -> None:
        """Route packets; before that, shake hands."""
        try:
            if self.stage is Stage.OPEN:
                self._route(data)
            elif self.stage is Stage.GREETING:
                self._greet(data)
            elif self.stage is Stage.ADMITTING:
                self._hold(data)
        except RemoteProtocolError as error:
            self.end(error.message)

    def pause_writing(self) -> None:
        """The write buffer is above its mark."""
        self._write_paused = True
        if self.connection is not None:
            self._house.hub.pause(self.connection)
        self._house.stalled(self, is_stalled=True)

    def resume_writing(self) -> None:
        """The write buffer has room."""
        self._write_paused = False
        self._house.stalled(self, is_stalled=False)
        if self.connection is not None:
            self._house.apply(self._house.hub.resume(self.connection))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The transport is gone."""
        self._forget()

    def shutdown(self) -> None:
        """The server stops: close politely. Clients come back by themselves."""
        if not self._wire.is_closing():
            self._wire.close()

    # --- The handshake

    def _greet(self, data: bytes) -> None:
        found = self._reader.first(data)
        if found is None:
            return
        kind, payload, rest = found
        if kind != derp.CLIENT_INFO:
            raise RemoteProtocolError(f"a DERP frame of type {kind:#04x} before ClientInfo")
        key, info = derp.open_client_info(payload, self._house.key)
        self._held = rest
        if self._house.hub.knows_mesh_key(info.mesh_key):
            self._enter(key, info, mesh=True)
            return
        answer = self._house.admit(key, self.source)
        if inspect.isawaitable(answer):
            self.stage = Stage.ADMITTING
            self._wire.pause_reading()
            self._house.spawn(self._admission(key, info, answer))
        elif answer:
            self._enter(key, info)
        else:
            self._refuse(key)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MAX_HELD:
            raise RemoteProtocolError("too much was sent before the server's answer")

    async def _admission(self, key: NodePublic, info: derp.ClientInfo, answer: Awaitable[bool]) -> None:
        try:
            admitted = await answer
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this connection and no other
            _log.warning("admission failed", node=key.short(), error=type(error).__name__)
            admitted = False
        if self.stage is not Stage.ADMITTING or self._wire.is_closing():
            return  # it left while we asked
        if not admitted:
            self._refuse(key)
            return
        self._wire.resume_reading()
        try:
            self._enter(key, info)
        except RemoteProtocolError as error:
            self.end(error.message)

    def _refuse(self, key: NodePublic) -> None:
        # No frame says why (section 7): clients know none for it.
        _log.info("node refused by the relay", node=key.short(), source=self.source)
        self.end("not admitted")

    def _enter(self, key: NodePublic, info: derp.ClientInfo, *, mesh: bool = False) -> None:
        house = self._house
        flags = derp.PresenceFlag.MESH_PEER if mesh else derp.PresenceFlag.REGULAR
        if info.is_prober:
            flags |= derp.PresenceFlag.PROBER
        if self._not_ideal:
            flags |= derp.PresenceFlag.NOT_IDEAL
        answer = derp.ServerInfo(version=derp.VERSION)
        self._wire.write(derp.server_info(answer, house.key, key, house.entropy(derp.NONCE_SIZE)))
        self.connection, writes = house.hub.connect(
            key, house.now(), owner=self, address=_address(self.source), port=self._port, flags=flags
        )
        self.stage = Stage.OPEN
        self._settle()
        house.entered(self)
        if mesh:
            self.patience = MESH_STALL_SECONDS
            _set_user_timeout(self._wire, MESH_STALL_SECONDS)
        if self._write_paused:
            house.hub.pause(self.connection)
        house.apply(writes)
        held, self._held = self._held, b""
        if held:
            self._route(held)

    # --- Packets

    def _route(self, data: bytes) -> None:
        house, connection = self._house, self.connection
        assert connection is not None
        now = house.now()
        house.apply(house.hub.receive(connection, data, now))
        wait = house.hub.charge(connection, len(data), now)
        if (wait or len(data) >= READ_TURN) and not self._wire.is_closing():
            self._wire.pause_reading()
            asyncio.get_running_loop().call_later(wait, self._read_again)

    def _read_again(self) -> None:
        if self.stage is Stage.OPEN and not self._wire.is_closing():
            self._wire.resume_reading()

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, unless it is on its way out."""
        if not self._wire.is_closing():
            self._wire.write(data)

    def unsent(self) -> int:
        """Bytes in the transport's write buffer."""
        return self._wire.get_write_buffer_size()

    # --- The end

    def end(self, why: str) -> None:
        """Close now; ``why`` is for the log."""
        if self.stage is Stage.CLOSED:
            return
        _log.debug("relay connection ended", source=self.source, why=why)
        self._forget()
        self._wire.abort()

    def _forget(self) -> None:
        if self.stage is Stage.CLOSED:
            return
        self.stage = Stage.CLOSED
        self._held = b""
        self._house.ended(self)
        if self.connection is not None:
            self._house.apply(self._house.hub.disconnect(self.connection))


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None  # a Unix socket's peer has none


def tune(transport: Any, patience: float = STALL_SECONDS) -> None:
    """Small buffers, and notice of a dead peer after ``patience`` seconds. A stand-in without a socket looks after itself."""
    found = transport.get_extra_info("socket")
    if found is None:
        return
    if transport.get_extra_info("ssl_object") is not None:
        transport.set_write_buffer_limits(high=TLS_WRITE_HIGH, low=TLS_WRITE_LOW)
    else:
        transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
    if found.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    not_sent = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if not_sent is not None:
        found.setsockopt(socket.IPPROTO_TCP, not_sent, NOT_SENT_BYTES)
    else:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    _set_user_timeout(transport, patience)


def _set_user_timeout(transport: Any, seconds: float) -> None:
    """Let the kernel end the connection when nothing was acknowledged for so long (derper: 15 s too)."""
    found = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and found is not None and found.family in {socket.AF_INET, socket.AF_INET6}:
        found.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))
