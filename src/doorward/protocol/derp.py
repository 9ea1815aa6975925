"""DERP frames: how a relay and its clients talk (protocol note derp.md, sections 3 to 6).

A frame is a type (one byte), a length (four bytes, big-endian) and a payload. The conversation::

    server                                   client
      ServerKey     magic, server's key  ->
                                         <-  ClientInfo    client's key, nonce, box(JSON)
      ServerInfo    nonce, box(JSON)     ->
      RecvPacket    source, packet      <->  SendPacket    destination, packet

and beside the packets: keep-alives, pings, who is gone, and words for mesh peers. Both sides skip types they do not
know. Packets are opaque here. ``FrameReader`` cuts the stream; the functions make and read single frames. Reading
raises RemoteProtocolError for whatever breaks the rules; after that the connection is of no further use.
"""

import struct
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import Box
from nacl.public import PrivateKey as NaClPrivate
from nacl.public import PublicKey as NaClPublic

from doorward.errors import LocalProtocolError, RemoteProtocolError
from doorward.protocol.keys import KEY_SIZE, DERPPrivate, DERPPublic, NodePrivate, NodePublic

VERSION: Final = 2
MAGIC: Final = b"DERP\xf0\x9f\x94\x91"

# The common name of a meta certificate: this, then the relay's key in hex (section 2).
META_PREFIX: Final = "derpkey"
# What a DERP map's CertName starts with when it pins a certificate; the hex digest of its DER follows.
PIN_PREFIX: Final = "sha256-raw:"

SERVER_KEY: Final = 0x01
CLIENT_INFO: Final = 0x02
SERVER_INFO: Final = 0x03
SEND_PACKET: Final = 0x04
RECV_PACKET: Final = 0x05
KEEP_ALIVE: Final = 0x06
NOTE_PREFERRED: Final = 0x07
PEER_GONE: Final = 0x08
PEER_PRESENT: Final = 0x09
FORWARD_PACKET: Final = 0x0A
WATCH_CONNS: Final = 0x10
CLOSE_PEER: Final = 0x11
PING: Final = 0x12
PONG: Final = 0x13
HEALTH: Final = 0x14
RESTARTING: Final = 0x15

HEADER: Final = struct.Struct(">BI")
HEADER_SIZE: Final = HEADER.size
NONCE_SIZE: Final = 24
PING_SIZE: Final = 8
MAX_PING: Final = 1000  # what a server tolerates; it echoes the first eight bytes

MAX_PACKET: Final = 65536
# What a server reads from a client once it is known: the largest is ForwardPacket, two keys and a packet.
MAX_CLIENT_PAYLOAD: Final = 2 * KEY_SIZE + MAX_PACKET
# Before that it reads a ClientInfo and nothing else.
MAX_CLIENT_INFO: Final = 256 * 1024
MIN_CLIENT_INFO: Final = KEY_SIZE + NONCE_SIZE
# What a client reads from a server.
MAX_SERVER_PAYLOAD: Final = 1024 * 1024

GONE_DISCONNECTED: Final = 0
GONE_NOT_HERE: Final = 1


class PresenceFlag(IntFlag):
    """What PeerPresent says of a connection."""

    REGULAR = 1
    MESH_PEER = 2
    PROBER = 4
    NOT_IDEAL = 8  # it is here because its region's first node could not be reached


class ClientInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client says of itself; unknown members are ignored."""

    version: int = 0
    mesh_key: str = msgspec.field(default="", name="meshKey")  # 64 hex digits; a secret
    can_ack_pings: bool = msgspec.field(default=False, name="CanAckPings")  # it answers the server's pings
    is_prober: bool = msgspec.field(default=False, name="IsProber")
    app_name: str = msgspec.field(default="", name="AppName")

    def __repr__(self) -> str:
        return f"ClientInfo(version={self.version}, mesh={bool(self.mesh_key)})"


class ServerInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a server says of itself. A client told a rate keeps to it by dropping what it would send beyond."""

    version: int = 0
    bytes_per_second: int = msgspec.field(default=0, name="TokenBucketBytesPerSecond")
    bytes_burst: int = msgspec.field(default=0, name="TokenBucketBytesBurst")


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """A peer that a watcher is told of; address and port are those of its connection, where known."""

    peer: NodePublic
    address: IPv4Address | IPv6Address | None = None
    port: int = 0
    flags: PresenceFlag = PresenceFlag.REGULAR


class FrameReader:
    """Cuts a stream of bytes into frames. Work is linear in the bytes, however they are split.

    Args:
        max_payload: the longest payload in bytes that is read; a longer one is refused at its header.
    """

    __slots__ = ("_need", "_partial", "max_payload")

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self._partial = bytearray()
        self._need = 0  # with less than this in hand there is no whole frame

    def spans(self, data: bytes) -> tuple[bytes, list[tuple[int, int, int]]]:
        """Take what was read; return a buffer and ``(type, start, end)`` of each payload in it.

        The form for the relay's hot path: it copies nothing but a frame that was split. Raises RemoteProtocolError
        when a header announces more than ``max_payload``; frames before that header are then lost with the rest.
        """
        if self._partial:
            self._partial += data
            if len(self._partial) < self._need:
                return b"", []
            data = bytes(self._partial)
            self._partial.clear()
        found: list[tuple[int, int, int]] = []
        position, size, limit = 0, len(data), self.max_payload
        unpack = HEADER.unpack_from
        while size - position >= HEADER_SIZE:
            kind, length = unpack(data, position)
            if length > limit:
                raise RemoteProtocolError(f"a DERP frame of {length} bytes; at most {limit} are read here")
            end = position + HEADER_SIZE + length
            if end > size:
                self._need = end - position
                self._partial += data[position:]
                return data, found
            found.append((kind, position + HEADER_SIZE, end))
            position = end
        if position < size:
            self._need = HEADER_SIZE
            self._partial += data[position:]
        return data, found

    def frames(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what was read; return ``(type, payload)`` of each whole frame. Raises as ``spans`` does."""
        buffer, spans = self.spans(data)
        return [(kind, buffer[start:end]) for kind, start, end in spans]

    def first(self, data: bytes) -> tuple[int, bytes, bytes] | None:
        """Take what was read; return the first frame's type and payload and all bytes after it, or None so far.

        For a handshake, after which another reader with other limits goes on with the rest.
        """
        self._partial += data
        if len(self._partial) < HEADER_SIZE:
            return None
        kind, length = HEADER.unpack_from(self._partial)
        if length > self.max_payload:
            raise RemoteProtocolError(
                f"a DERP frame of {length} bytes; at most {self.max_payload} are read here"
            )
        end = HEADER_SIZE + length
        if len(self._partial) < end:
            self._need = end
            return None
        payload, rest = bytes(self._partial[HEADER_SIZE:end]), bytes(self._partial[end:])
        self._partial.clear()
        return kind, payload, rest


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame of any type."""
    return HEADER.pack(kind, len(payload)) + payload


def _exactly(payload: bytes, size: int, name: str) -> None:
    if len(payload) != size:
        raise RemoteProtocolError(f"a {name} frame of {len(payload)} bytes, where {size} are expected")


# --- The handshake (section 4)


def server_key(public: DERPPublic) -> bytes:
    """The ServerKey frame, sent as soon as the connection is open."""
    return frame(SERVER_KEY, MAGIC + public.raw)


def read_server_key(payload: bytes) -> DERPPublic:
    """The key in a ServerKey frame; bytes after the key are left for later versions."""
    if len(payload) < len(MAGIC) + KEY_SIZE or not payload.startswith(MAGIC):
        raise RemoteProtocolError(
            "this is no DERP server: its first frame holds no key",
            cure="Check the address and port of the relay.",
        )
    return DERPPublic(payload[len(MAGIC) : len(MAGIC) + KEY_SIZE])


def _box(private: DERPPrivate | NodePrivate, public: DERPPublic | NodePublic) -> Box:
    try:
        return Box(NaClPrivate(private.raw), NaClPublic(public.raw))
    except CryptoError:  # a key of small order, which makes a secret that everybody knows
        raise RemoteProtocolError("a key that cannot be used for a key exchange") from None


def _seal(box: Box, nonce: bytes, message: msgspec.Struct) -> bytes:
    if len(nonce) != NONCE_SIZE:
        raise LocalProtocolError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
    return bytes(box.encrypt(msgspec.json.encode(message), nonce))  # nonce, then the box


def client_info(info: ClientInfo, private: NodePrivate, server: DERPPublic, nonce: bytes) -> bytes:
    """The ClientInfo frame. ``nonce`` is 24 random bytes, never used twice."""
    public = private.public()
    return frame(CLIENT_INFO, public.raw + _seal(_box(private, server), nonce, info))


def open_client_info(payload: bytes, private: DERPPrivate) -> tuple[NodePublic, ClientInfo]:
    """Open a ClientInfo: the client's key, proven by the box, and what it says of itself."""
    if not MIN_CLIENT_INFO <= len(payload) <= MAX_CLIENT_INFO:
        raise RemoteProtocolError(f"a ClientInfo of {len(payload)} bytes")
    public = NodePublic(payload[:KEY_SIZE])
    try:
        text = _box(private, public).decrypt(payload[KEY_SIZE:])
    except (CryptoError, ValueError):
        # ValueError: the box is too short; CryptoError: it was sealed with another key.
        raise RemoteProtocolError(
            "a ClientInfo that does not open: the client does not hold its key"
        ) from None
    try:
        return public, msgspec.json.decode(text, type=ClientInfo)
    except (ValueError, RecursionError):  # msgspec and UTF-8 say the first, depth the second
        raise RemoteProtocolError("a ClientInfo that is not the JSON we know") from None


def server_info(info: ServerInfo, private: DERPPrivate, client: NodePublic, nonce: bytes) -> bytes:
    """The ServerInfo frame. ``nonce`` is 24 random bytes, never used twice."""
    return frame(SERVER_INFO, _seal(_box(private, client), nonce, info))


def open_server_info(payload: bytes, private: NodePrivate, server: DERPPublic) -> ServerInfo:
    """Open a ServerInfo, which proves that the server holds its key."""
    try:
        text = _box(private, server).decrypt(payload)
    except (CryptoError, ValueError):
        raise RemoteProtocolError("a ServerInfo that does not open") from None
    try:
        return msgspec.json.decode(text, type=ServerInfo)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("a ServerInfo that is not the JSON we know") from None


# --- Packets and the rest


def send_packet(destination: bytes, packet: bytes) -> bytes:
    """The SendPacket frame. ``destination`` is the raw key; raises LocalProtocolError above MAX_PACKET."""
    if len(packet) > MAX_PACKET:
        raise LocalProtocolError(f"a packet of {len(packet)} bytes; DERP carries at most {MAX_PACKET}")
    return HEADER.pack(SEND_PACKET, KEY_SIZE + len(packet)) + destination + packet


def forward_packet(source: bytes, destination: bytes, packet: bytes) -> bytes:
    """The ForwardPacket frame of a mesh peer; raises LocalProtocolError above MAX_PACKET."""
    if len(packet) > MAX_PACKET:
        raise LocalProtocolError(f"a packet of {len(packet)} bytes; DERP carries at most {MAX_PACKET}")
    return HEADER.pack(FORWARD_PACKET, 2 * KEY_SIZE + len(packet)) + source + destination + packet


def read_recv_packet(payload: bytes) -> tuple[bytes, bytes]:
    """Source (raw key) and packet of a RecvPacket frame."""
    if len(payload) < KEY_SIZE:
        raise RemoteProtocolError(f"a RecvPacket of {len(payload)} bytes, less than a key")
    return payload[:KEY_SIZE], payload[KEY_SIZE:]


def note_preferred(home: bool) -> bytes:
    """The NotePreferred frame: whether this relay is the client's home."""
    return frame(NOTE_PREFERRED, b"\x01" if home else b"\x00")


def read_note_preferred(payload: bytes) -> bool:
    """True when this relay is the client's home."""
    _exactly(payload, 1, "NotePreferred")
    return payload != b"\x00"


def ping(data: bytes) -> bytes:
    """The Ping frame with eight bytes that the Pong repeats."""
    return frame(PING, data)


def pong_for(payload: bytes) -> bytes:
    """The Pong frame that answers a Ping."""
    if not PING_SIZE <= len(payload) <= MAX_PING:
        raise RemoteProtocolError(f"a Ping of {len(payload)} bytes, where {PING_SIZE} are expected")
    return frame(PONG, payload[:PING_SIZE])


def peer_gone(peer: bytes, reason: int) -> bytes:
    """The PeerGone frame: ``reason`` is GONE_DISCONNECTED or GONE_NOT_HERE, ``peer`` a raw key."""
    return HEADER.pack(PEER_GONE, KEY_SIZE + 1) + peer + bytes((reason,))


def read_peer_gone(payload: bytes) -> tuple[bytes, int]:
    """Raw key and reason; the oldest servers send no reason, which means disconnected."""
    if len(payload) < KEY_SIZE:
        raise RemoteProtocolError(f"a PeerGone of {len(payload)} bytes, less than a key")
    return payload[:KEY_SIZE], payload[KEY_SIZE] if len(payload) > KEY_SIZE else GONE_DISCONNECTED


def address_bytes(address: IPv4Address | IPv6Address | None) -> bytes:
    """The 16 bytes of an address, IPv4 mapped into IPv6; zero for none."""
    if address is None:
        return bytes(16)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def read_address(data: bytes) -> IPv4Address | IPv6Address | None:
    """The address in 16 bytes, a mapped one as IPv4; None for zero."""
    if not any(data):
        return None
    address = ip_address(data)
    assert isinstance(address, IPv6Address)
    return address.ipv4_mapped or address


def peer_present(present: PeerPresent) -> bytes:
    """The PeerPresent frame, 51 bytes of payload."""
    return frame(
        PEER_PRESENT,
        present.peer.raw
        + address_bytes(present.address)
        + present.port.to_bytes(2, "big")
        + bytes((present.flags,)),
    )


def read_peer_present(payload: bytes) -> PeerPresent:
    """Read a PeerPresent of 51 bytes or of one of the older, shorter forms (32 and 50); more is left unread."""
    if len(payload) < KEY_SIZE:
        raise RemoteProtocolError(f"a PeerPresent of {len(payload)} bytes, less than a key")
    peer = NodePublic(payload[:KEY_SIZE])
    if len(payload) < KEY_SIZE + 18:
        return PeerPresent(peer)
    address, port = read_address(payload[32:48]), int.from_bytes(payload[48:50], "big")
    flags = PresenceFlag(payload[50]) if len(payload) > 50 else PresenceFlag.REGULAR
    return PeerPresent(peer, address, port, flags)


def close_peer(peer: bytes) -> bytes:
    """The ClosePeer frame of a mesh peer; ``peer`` is a raw key."""
    return frame(CLOSE_PEER, peer)


def read_key(payload: bytes, name: str) -> bytes:
    """The raw key that is the whole payload of a frame."""
    _exactly(payload, KEY_SIZE, name)
    return payload


def health(problem: str) -> bytes:
    """The Health frame: a sentence that the client shows, or empty for healthy again."""
    return frame(HEALTH, problem.encode())


def restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    """The Restarting frame: come back after so many milliseconds, and keep trying for so many."""
    return frame(RESTARTING, struct.pack(">II", reconnect_in_ms, try_for_ms))


def read_restarting(payload: bytes) -> tuple[int, int]:
    """Milliseconds to wait, and milliseconds to keep trying for."""
    _exactly(payload, 8, "Restarting")
    reconnect_in, try_for = struct.unpack(">II", payload)
    return reconnect_in, try_for


# --- The HTTP request and its answer (section 1)


def upgrade_request(host: str, *, fast_start: bool = False, ideal_node: str = "") -> bytes:
    """The client's HTTP request. ``fast_start`` only over TLS 1.3 to a server whose meta certificate was seen."""
    lines = ["GET /derp HTTP/1.1", f"Host: {host}", "Upgrade: DERP", "Connection: Upgrade"]
    if fast_start:
        lines.append("Derp-Fast-Start: 1")
    if ideal_node:
        lines.append(f"Ideal-Node: {ideal_node}")
    if any("\r" in line or "\n" in line for line in lines):
        raise LocalProtocolError("a line break in a value of an HTTP header")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def upgrade_response(public: DERPPublic) -> bytes:
    """The server's answer without fast start."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: DERP\r\n"
        "Connection: Upgrade\r\n"
        f"Derp-Version: {VERSION}\r\n"
        f"Derp-Public-Key: {public.raw.hex()}\r\n"
        "\r\n"
    ).encode()


def wants_derp(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the (lower-case) headers of a request ask for DERP over the raw connection."""
    return any(name == b"upgrade" and value.strip().lower() == b"derp" for name, value in headers)


def wants_fast_start(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the client wants no HTTP response at all."""
    return any(name == b"derp-fast-start" and value.strip() == b"1" for name, value in headers)


def is_not_ideal(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the client says that it would rather be on another node of the region."""
    return any(name == b"ideal-node" and value.strip() for name, value in headers)
