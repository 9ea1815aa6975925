"""Disco, the packets by which nodes find paths to each other (protocol note derp.md, section 11).

A packet is a magic, the sender's disco key, a nonce and a box sealed between the two disco keys. Here is what a node
needs that is reached through relays only: recognise a packet, open a ping, answer it with a pong. Other types open as
``Other`` and may be ignored.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import Box
from nacl.public import PrivateKey as NaClPrivate
from nacl.public import PublicKey as NaClPublic

from doorward.errors import LocalProtocolError, RemoteProtocolError
from doorward.protocol.derp import address_bytes, read_address
from doorward.protocol.keys import KEY_SIZE, DiscoPrivate, DiscoPublic, NodePublic

MAGIC: Final = b"TS\xf0\x9f\x92\xac"
NONCE_SIZE: Final = 24
HEADER_SIZE: Final = len(MAGIC) + KEY_SIZE + NONCE_SIZE
TXID_SIZE: Final = 12

PING: Final = 0x01
PONG: Final = 0x02
CALL_ME_MAYBE: Final = 0x03
VERSION: Final = 0

# The address that a pong names for a ping that came through a relay; the port is the region's number.
DERP_ADDRESS: Final = IPv4Address("127.3.3.40")

Endpoint = tuple[IPv4Address | IPv6Address, int]


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? ``node_key`` is missing from old clients; ``padding`` zero bytes probe the path's MTU."""

    txid: bytes
    node_key: NodePublic | None = None
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to the ping with the same ``txid``: where it was seen to come from."""

    txid: bytes
    source: Endpoint


@dataclass(frozen=True, slots=True)
class CallMeMaybe:
    """Ping me at these endpoints, so that our firewalls open at the same time. Sent through a relay only."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """A message of a type that is not read here."""

    kind: int
    body: bytes


Message = Ping | Pong | CallMeMaybe | Other


def looks_like_disco(packet: bytes) -> bool:
    """True for a packet with disco's header; what a relay tells apart from data without any key."""
    return packet.startswith(MAGIC) and len(packet) >= HEADER_SIZE


def sender(packet: bytes) -> DiscoPublic:
    """The disco key that a packet claims to come from; proven only by ``open_message``."""
    if not looks_like_disco(packet):
        raise RemoteProtocolError(f"{len(packet)} bytes that are no disco packet")
    return DiscoPublic(packet[len(MAGIC) : len(MAGIC) + KEY_SIZE])


def _endpoint(endpoint: Endpoint) -> bytes:
    return address_bytes(endpoint[0]) + endpoint[1].to_bytes(2, "big")


def _read_endpoint(data: bytes) -> Endpoint:
    return read_address(data[:16]) or IPv6Address(0), int.from_bytes(data[16:18], "big")


def _encode(message: Message) -> bytes:
    match message:
        case Ping(txid, node_key, padding):
            if node_key is None and padding:
                raise LocalProtocolError("a disco ping with padding needs the node key before it")
            return bytes((PING, VERSION)) + txid + (node_key.raw if node_key else b"") + bytes(padding)
        case Pong(txid, source):
            return bytes((PONG, VERSION)) + txid + _endpoint(source)
        case CallMeMaybe(endpoints):
            return bytes((CALL_ME_MAYBE, VERSION)) + b"".join(map(_endpoint, endpoints))
        case Other(kind, body):
            return bytes((kind, VERSION)) + body


def _decode(text: bytes) -> Message:
    if len(text) < 2:
        raise RemoteProtocolError("a disco message without a type")
    kind, version, body = text[0], text[1], text[2:]
    if version != VERSION:
        return Other(kind, body)
    match kind:
        case 0x01 if len(body) >= TXID_SIZE:
            rest = body[TXID_SIZE:]
            if len(rest) < KEY_SIZE:
                return Ping(body[:TXID_SIZE])
            return Ping(body[:TXID_SIZE], NodePublic(rest[:KEY_SIZE]), len(rest) - KEY_SIZE)
        case 0x02 if len(body) >= TXID_SIZE + 18:
            return Pong(body[:TXID_SIZE], _read_endpoint(body[TXID_SIZE : TXID_SIZE + 18]))
        case 0x03:
            return CallMeMaybe(
                tuple(_read_endpoint(body[at : at + 18]) for at in range(0, len(body) // 18 * 18, 18))
            )
        case 0x01 | 0x02:
            raise RemoteProtocolError(f"a disco message of type {kind} with {len(body)} bytes")
        case _:
            return Other(kind, body)


def seal_message(message: Message, private: DiscoPrivate, to: DiscoPublic, nonce: bytes) -> bytes:
    """The packet for a message. ``nonce`` is 24 random bytes, never used twice."""
    if len(nonce) != NONCE_SIZE:
        raise LocalProtocolError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
    try:
        box = Box(NaClPrivate(private.raw), NaClPublic(to.raw))
    except CryptoError:  # a key of small order, which makes a secret that everybody knows
        raise RemoteProtocolError("a disco key that cannot be used for a key exchange") from None
    return MAGIC + private.public().raw + bytes(box.encrypt(_encode(message), nonce))


def open_message(packet: bytes, private: DiscoPrivate) -> tuple[DiscoPublic, Message]:
    """Who sent a packet to us, proven, and what it says.

    The caller must know the sender's key from its netmap; anybody can make a disco key.
    """
    who = sender(packet)
    try:
        text = Box(NaClPrivate(private.raw), NaClPublic(who.raw)).decrypt(packet[len(MAGIC) + KEY_SIZE :])
    except (CryptoError, ValueError):
        raise RemoteProtocolError("a disco packet that does not open with our key") from None
    return who, _decode(text)


def answer_ping(ping: Ping, region: int) -> Pong:
    """The pong for a ping that came through the relay of ``region``."""
    return Pong(ping.txid, (DERP_ADDRESS, region))
