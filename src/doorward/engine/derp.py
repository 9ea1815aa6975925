"""A relay client: one node's connection to one DERP relay, ours or another's (protocol note derp.md, sections 1 to 4).

::

    client = await DERPClient.connect(host, port, key, entropy=os.urandom, context=context)
    client.send(peer, packet)
    event = await client.recv()      # a Packet, or news about peers
    client.close()

It answers the relay's pings by itself. What is not taken with ``recv`` stops being read from the connection, so a slow
caller slows the relay's side and nothing grows. With ``on_packet`` packets go to a function instead, without a queue:
the form for thousands of clients in one process.
"""

import asyncio
import hashlib
import hmac
import re
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509

from doorward.errors import DoorwardError, RemoteProtocolError, Unavailable
from doorward.protocol import derp
from doorward.protocol.keys import DERPPublic, NodePrivate, NodePublic

CONNECT_SECONDS: Final = 10.0  # section 8: TCP, TLS, HTTP and handshake together
SILENCE_SECONDS: Final = 120.0  # without a frame for so long, a relay is dead: it sends one every minute

_MAX_HTTP_HEAD: Final = 8192
# Object identifier of a common name, a string type, its length of 71, and the text.
_META_NAME: Final = re.compile(
    rb"\x06\x03\x55\x04\x03[\x0c\x13]\x47" + derp.META_PREFIX.encode() + rb"([0-9a-f]{64})"
)
# Events that wait for ``recv`` before reading stops, and with how few it starts again.
_EVENTS_HIGH: Final = 512
_EVENTS_LOW: Final = 128


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from another node."""

    source: NodePublic
    data: bytes


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A peer is not at this relay; ``reason`` is GONE_DISCONNECTED or GONE_NOT_HERE."""

    peer: NodePublic
    reason: int


@dataclass(frozen=True, slots=True)
class Health:
    """What the relay says is wrong; empty when all is well again."""

    problem: str


Event = Packet | PeerGone | derp.PeerPresent | Health
OnPacket = Callable[[bytes, bytes], None]  # the source's raw key, the packet


def pinned_context() -> ssl.SSLContext:
    """A TLS context for a relay whose certificate is pinned: give the pin to ``connect``, which checks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Not unverified: the pin names the one certificate that is accepted, which is stricter than any chain.
    context.verify_mode = ssl.CERT_NONE
    return context


def read_meta_certificate(certificate: bytes) -> DERPPublic | None:
    """The relay's key in a meta certificate (DER; section 2), or None for any other certificate."""
    # Looked for in the bytes: the library warns of a common name of 71 characters, which this one always has.
    found = _META_NAME.search(certificate)
    try:
        if found is None or x509.load_der_x509_certificate(certificate).serial_number > 255:
            return None
    except (ValueError, x509.InvalidVersion):
        return None
    return DERPPublic(bytes.fromhex(found[1].decode()))


class DERPClient(asyncio.Protocol):
    """One connection to a relay. Make it with ``connect``."""

    __slots__ = (
        "_drained",
        "_events",
        "_failure",
        "_greeted",
        "_head",
        "_heard",
        "_info",
        "_key",
        "_nonce",
        "_on_packet",
        "_pin",
        "_pongs",
        "_reader",
        "_reading",
        "_transport",
        "_waiter",
        "_watch",
        "server_info",
        "server_key",
    )

    def __init__(
        self,
        key: NodePrivate,
        nonce: bytes,
        info: derp.ClientInfo,
        on_packet: OnPacket | None,
        pin: str = "",
    ) -> None:
        self.server_key: DERPPublic | None = None
        self.server_info: derp.ServerInfo | None = None
        self._key = key
        self._nonce = nonce
        self._info = info
        self._on_packet = on_packet
        self._pin = pin
        self._reader = derp.FrameReader(derp.MAX_SERVER_PAYLOAD)
        self._transport: asyncio.Transport | None = None
        self._heard = 0.0  # when the relay last said something, by the loop's time
        self._watch: asyncio.TimerHandle | None = None
        self._head: bytes | None = b""  # of the HTTP response, until it is whole; None: no response comes
        self._events: deque[Event] = deque()
        self._reading = True
        self._failure: DoorwardError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Event | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs: dict[bytes, asyncio.Future[None]] = {}

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        key: NodePrivate,
        *,
        entropy: Callable[[int], bytes],
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        pin: str = "",
        fast_start: bool | None = None,
        mesh_key: str = "",
        on_packet: OnPacket | None = None,
        unix_socket: Path | None = None,
    ) -> Self:
        """Connect and shake hands, within CONNECT_SECONDS.

        Args:
            host: the relay's name or address.
            port: its TCP port.
            key: the node's key.
            entropy: gives so many random bytes.
            context: for TLS; None is plain HTTP, for tests.
            server_name: the name for TLS where it is not ``host``.
            pin: what the DERP map's CertName says, with ``pinned_context()``.
            fast_start: send no HTTP request that is waited for. None: where the relay's certificates allow it (which
                Python can tell from 3.13 on).
            mesh_key: 64 hex digits, to be a mesh peer.
            on_packet: takes packets instead of ``recv``.
            unix_socket: connect there; ``host`` is then only what the request names.

        Raises Unavailable when the relay cannot be reached, does not answer, is not the pinned one or closes the
        connection, which is how relays refuse a node; RemoteProtocolError when it is no relay.
        """
        info = derp.ClientInfo(version=derp.VERSION, mesh_key=mesh_key, can_ack_pings=True)
        client = cls(key, entropy(derp.NONCE_SIZE), info, on_packet, pin)
        loop = asyncio.get_running_loop()
        name = (server_name or host) if context else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if unix_socket is not None:
                    await loop.create_unix_connection(
                        lambda: client, str(unix_socket), ssl=context, server_hostname=name
                    )
                else:
                    await loop.create_connection(
                        lambda: client, host, port, ssl=context, server_hostname=name
                    )
                client._start(f"{host}:{port}", fast_start)
                await client._greeted
        except TimeoutError:
            client.close()
            raise Unavailable(f"the relay at {host}:{port} does not answer") from None
        except OSError as error:
            client.close()
            raise Unavailable(f"the relay at {host}:{port} cannot be reached: {error}") from None
        except BaseException:
            client.close()
            raise
        return client

    # --- Verbs

    def send(self, destination: NodePublic, packet: bytes) -> None:
        """Send a packet of at most MAX_PACKET bytes. Whether it arrives, nobody says. See ``drain``."""
        self._write(derp.send_packet(destination.raw, packet))

    def send_raw(self, frames: bytes) -> None:
        """Send frames that the caller made; for load tests and mesh peers."""
        self._write(frames)

    async def drain(self) -> None:
        """Wait until the connection takes more, as one must between many ``send``."""
        if self._drained is not None:
            await self._drained.wait()
        if self._failure is not None:
            raise self._failure

    def note_preferred(self, home: bool) -> None:
        """Say whether this relay is the node's home."""
        self._write(derp.note_preferred(home))

    async def ping(self, data: bytes) -> None:
        """Send eight bytes and wait, without a limit of its own, for them to come back."""
        pong = self._pongs[data] = asyncio.get_running_loop().create_future()
        try:
            self._write(derp.ping(data))
            await pong
        finally:
            self._pongs.pop(data, None)

    async def recv(self) -> Event:
        """The next packet or news. Raises, once all that came is taken, what ended the connection.

        Raises Unavailable when the relay is silent for SILENCE_SECONDS, and closes.
        """
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        if not self._reading and len(self._events) <= _EVENTS_LOW:
            self._reading = True
            if self._failure is None and self._transport is not None:
                self._heard = asyncio.get_running_loop().time()
                self._transport.resume_reading()
        return event

    def close(self) -> None:
        """Send what is written, then close; harmless when it is closed already."""
        self._fail(Unavailable("the connection to the relay was closed"), abort=False)

    @property
    def is_open(self) -> bool:
        """False once the connection has ended, whoever ended it."""
        return self._failure is None

    # --- The transport's side

    def connection_made(self, transport: Any) -> None:
        """The connection is there, TLS included; ``connect`` goes on, unless it is not the pinned relay."""
        self._transport = transport
        if self._pin:
            # Here and not in ``connect``, which runs later: a false relay could speak first, and would be told our mesh key.
            try:
                _check_pin(transport.get_extra_info("ssl_object"), self._pin)
            except Unavailable as error:
                self._fail(error)

    def data_received(self, data: bytes) -> None:
        """Read the HTTP response, then frames."""
        if self._failure is not None:
            return
        self._heard = asyncio.get_running_loop().time()
        try:
            if self._head is not None:
                data = self._read_head(data)
            for kind, payload in self._reader.frames(data):
                self._frame(kind, payload)
        except DoorwardError as error:
            self._fail(error)

    def pause_writing(self) -> None:
        """The write buffer is full: ``drain`` waits."""
        self._drained = asyncio.Event()

    def resume_writing(self) -> None:
        """The write buffer has room: ``drain`` goes on."""
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        reason = f": {exc}" if exc else ""
        self._fail(Unavailable(f"the relay closed the connection{reason}"))

    # --- Inside

    def _start(self, host: str, fast_start: bool | None) -> None:
        if self._failure is not None:
            return
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        if fast_start is None:
            fast_start = tls is not None and _meta_key(tls) is not None
        if fast_start:
            self._head = None
        self._write(derp.upgrade_request(host, fast_start=fast_start))
        self._heard = asyncio.get_running_loop().time()
        self._listen_for_silence()

    def _write(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        assert self._transport is not None
        self._transport.write(data)

    def _read_head(self, data: bytes) -> bytes:
        """Take bytes of the HTTP response; return those behind it."""
        head = (self._head or b"") + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            if len(head) > _MAX_HTTP_HEAD:
                raise RemoteProtocolError("the relay's HTTP answer does not end")
            self._head = head
            return b""
        status = head[:end].split(b"\r\n", 1)[0]
        if status.split(b" ")[1:2] != [b"101"]:
            shown = status[:80].decode("latin-1")
            raise RemoteProtocolError(
                f"the relay answered {shown!r}, where 101 is expected",
                cure="Check the address and port of the relay.",
            )
        self._head = None
        return head[end + 4 :]

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == derp.RECV_PACKET and self._greeted.done():
            source, packet = derp.read_recv_packet(payload)
            if self._on_packet is not None:
                self._on_packet(source, packet)
            else:
                self._event(Packet(NodePublic(source), packet))
        elif self.server_key is None:
            if kind != derp.SERVER_KEY:
                raise RemoteProtocolError(f"a DERP frame of type {kind:#04x} before the server's key")
            self.server_key = derp.read_server_key(payload)
            self._write(derp.client_info(self._info, self._key, self.server_key, self._nonce))
        elif not self._greeted.done():
            if kind == derp.SERVER_INFO:
                self.server_info = derp.open_server_info(payload, self._key, self.server_key)
                self._greeted.set_result(None)
        else:
            self._news(kind, payload)

    def _news(self, kind: int, payload: bytes) -> None:
        match kind:
            case derp.PING:
                self._write(derp.pong_for(payload))
            case derp.PONG:
                waiting = self._pongs.pop(payload, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            case derp.PEER_GONE:
                peer, reason = derp.read_peer_gone(payload)
                self._event(PeerGone(NodePublic(peer), reason))
            case derp.PEER_PRESENT:
                self._event(derp.read_peer_present(payload))
            case derp.HEALTH:
                self._event(Health(payload.decode(errors="replace")))
            case _:  # KeepAlive, Restarting (which clients may ignore), and what later versions bring
                pass

    def _event(self, event: Event) -> None:
        self._events.append(event)
        if self._reading and self._transport is not None and len(self._events) >= _EVENTS_HIGH:
            self._reading = False
            self._transport.pause_reading()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _listen_for_silence(self) -> None:
        """Look again when the relay would be silent for too long, counted from its last word."""
        loop = asyncio.get_running_loop()
        due = self._heard + SILENCE_SECONDS
        # A caller who does not take events stopped the reading; that silence is not the relay's.
        if self._reading and loop.time() >= due:
            self._fail(Unavailable(f"the relay was silent for {SILENCE_SECONDS:.0f} seconds"))
        else:
            self._watch = loop.call_at(max(due, loop.time() + 1.0), self._listen_for_silence)

    def _fail(self, error: DoorwardError, *, abort: bool = True) -> None:
        if self._failure is not None:
            return
        self._failure = error
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            if abort:
                self._transport.abort()
            else:
                self._transport.close()
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()  # it is read by ``connect``, if that still waits
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(error)
        if self._drained is not None:
            self._drained.set()
        self._wake()


def _check_pin(tls: ssl.SSLObject | None, pin: str) -> None:
    leaf = tls.getpeercert(binary_form=True) if tls else None
    seen = derp.PIN_PREFIX + hashlib.sha256(leaf or b"").hexdigest()
    if leaf is None or not hmac.compare_digest(seen, pin):
        raise Unavailable(
            "the relay shows another certificate than the pinned one",
            cure="Fetch the DERP map again: the relay may have a new certificate.",
        )


def _meta_key(tls: ssl.SSLObject) -> DERPPublic | None:
    chain: Callable[[], list[bytes]] | None = getattr(tls, "get_unverified_chain", None)
    if chain is None or tls.version() != "TLSv1.3":
        return None
    return next((key for key in map(read_meta_certificate, chain()) if key), None)
