"""STUN, the part that Tailscale clients use to learn their public address (protocol note derp.md, section 10; RFC 8489).

The server answers only requests that carry the software attribute ``tailnode`` and a correct, last FINGERPRINT: what
it sends (32 or 44 bytes) is then hardly ever larger than what it was asked (40 bytes), so it is of no use for
amplifying an attack.
"""

import struct
import zlib
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from doorward.errors import LocalProtocolError, RemoteProtocolError

Address = IPv4Address | IPv6Address

COOKIE: Final = b"\x21\x12\xa4\x42"
TXID_SIZE: Final = 12
HEADER_SIZE: Final = 20
MAX_REQUEST: Final = 1280  # one packet on any path; clients send 40 bytes

BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101

MAPPED_ADDRESS: Final = 0x0001
XOR_MAPPED_ADDRESS: Final = 0x0020
XOR_MAPPED_ADDRESS_OLD: Final = 0x8020  # the number it had in a draft; some servers still send it
SOFTWARE: Final = 0x8022
FINGERPRINT: Final = 0x8028

SOFTWARE_NAME: Final = b"tailnode"
FINGERPRINT_XOR: Final = 0x5354554E  # RFC 8489 section 14.7

_HEADER = struct.Struct(">HH4s12s")
_ATTRIBUTE = struct.Struct(">HH")


def _attributes(message: bytes) -> list[tuple[int, int, bytes]]:
    """Type, offset and value of each attribute; raises RemoteProtocolError where they do not fit."""
    found = []
    position = HEADER_SIZE
    while position < len(message):
        if position + 4 > len(message):
            raise RemoteProtocolError("a STUN attribute without a length")
        kind, size = _ATTRIBUTE.unpack_from(message, position)
        end = position + 4 + size
        if end > len(message):
            raise RemoteProtocolError("a STUN attribute that is longer than its message")
        found.append((kind, position, message[position + 4 : end]))
        position = end + (-size % 4)  # padded to four bytes (RFC 8489 section 14)
    return found


def _open(message: bytes, kind: int) -> bytes:
    """Check the header and return the transaction id."""
    if len(message) < HEADER_SIZE:
        raise RemoteProtocolError(f"{len(message)} bytes are no STUN message")
    seen, length, cookie, txid = _HEADER.unpack_from(message)
    if seen != kind or cookie != COOKIE:
        raise RemoteProtocolError(f"not a STUN message of type {kind:#06x}")
    if HEADER_SIZE + length != len(message):
        raise RemoteProtocolError(f"a STUN message of {len(message)} bytes that says {HEADER_SIZE + length}")
    return bytes(txid)


def _fingerprint(before: bytes) -> bytes:
    return (zlib.crc32(before) ^ FINGERPRINT_XOR).to_bytes(4, "big")


def request(txid: bytes) -> bytes:
    """A binding request of 40 bytes; ``txid`` is 12 random bytes."""
    if len(txid) != TXID_SIZE:
        raise LocalProtocolError(f"a STUN transaction id has {TXID_SIZE} bytes, not {len(txid)}")
    software = _ATTRIBUTE.pack(SOFTWARE, len(SOFTWARE_NAME)) + SOFTWARE_NAME
    before = _HEADER.pack(BINDING_REQUEST, len(software) + 8, COOKIE, txid) + software
    return before + _ATTRIBUTE.pack(FINGERPRINT, 4) + _fingerprint(before)


def parse_request(message: bytes) -> bytes:
    """The transaction id of a request that deserves an answer; RemoteProtocolError for any other."""
    if len(message) > MAX_REQUEST:
        raise RemoteProtocolError(f"a STUN request of {len(message)} bytes")
    txid = _open(message, BINDING_REQUEST)
    attributes = _attributes(message)
    if not attributes or attributes[-1][0] != FINGERPRINT:
        raise RemoteProtocolError("a STUN request whose last attribute is no fingerprint")
    _, start, value = attributes[-1]
    if value != _fingerprint(message[:start]):
        raise RemoteProtocolError("a STUN request with a wrong fingerprint")
    if (SOFTWARE, SOFTWARE_NAME) not in ((kind, value) for kind, _, value in attributes):
        raise RemoteProtocolError("a STUN request from other software than Tailscale's")
    return txid


def unmap(address: Address) -> Address:
    """An IPv4 address that a dual-stack socket shows as ``::ffff:a.b.c.d``, as IPv4."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def response(txid: bytes, address: Address, port: int) -> bytes:
    """The answer: where the request came from. 32 bytes for IPv4, 44 for IPv6."""
    address = unmap(address)
    mask = (COOKIE + txid)[: len(address.packed)]
    value = bytes((0, 1 if address.version == 4 else 2)) + (port ^ 0x2112).to_bytes(2, "big")
    value += bytes(a ^ b for a, b in zip(address.packed, mask, strict=True))
    body = _ATTRIBUTE.pack(XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(BINDING_SUCCESS, len(body), COOKIE, txid) + body


def _read_address(value: bytes, mask: bytes) -> tuple[Address, int]:
    """An address attribute's value; ``mask`` is 16 bytes, zero where nothing is hidden."""
    if len(value) < 4:
        raise RemoteProtocolError(f"a STUN address of {len(value)} bytes")
    size = {1: 4, 2: 16}.get(value[1])
    if size is None or len(value) != 4 + size:
        raise RemoteProtocolError(f"a STUN address of family {value[1]} and {len(value)} bytes")
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(mask[:2], "big")
    raw = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    return (IPv4Address(raw) if size == 4 else IPv6Address(raw)), port


def parse_response(message: bytes, txid: bytes) -> tuple[Address, int]:
    """Our address and port as the server saw them; prefers the hidden form, which no NAT rewrites."""
    if _open(message, BINDING_SUCCESS) != txid:
        raise RemoteProtocolError("a STUN answer to another request")
    values = {kind: value for kind, _, value in reversed(_attributes(message))}  # the first of each type wins
    for kind in (XOR_MAPPED_ADDRESS, XOR_MAPPED_ADDRESS_OLD):
        if kind in values:
            return _read_address(values[kind], COOKIE + txid)
    if MAPPED_ADDRESS in values:
        return _read_address(values[MAPPED_ADDRESS], bytes(16))
    raise RemoteProtocolError("a STUN answer without an address")
