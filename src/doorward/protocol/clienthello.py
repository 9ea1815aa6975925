"""The first message of a TLS connection, read for two things: which host is asked for, and which protocols are offered.

Nothing here decides about security: TLS itself reads the same bytes again. RFC 8446 section 4.1.2 is the message, section
5.1 the record around it, RFC 6066 section 3 the server's name, RFC 7301 section 3.1 the protocols.
"""

from typing import NamedTuple

from doorward.errors import RemoteProtocolError

HEADER = 5  # bytes of a record's header: kind, version, length
LARGEST = HEADER + (1 << 14)  # a record in the clear, RFC 8446 section 5.1

_HANDSHAKE = 22  # a record's kind
_CLIENT_HELLO = 1  # a handshake message's
_SERVER_NAME = 0  # extensions
_ALPN = 16
_HOST_NAME = 0  # a server name's kind


class ClientHello(NamedTuple):
    """What a client asks for.

    Attributes:
        server_name: in lower case; empty where it names none.
        protocols: as offered (ALPN), the best first.
    """

    server_name: str
    protocols: tuple[bytes, ...]


def record_length(data: bytes) -> int:
    """How many bytes the first record has, header included, by its first bytes; HEADER while even those are missing.

    Raises RemoteProtocolError for what is no record of a handshake.
    """
    if data and data[0] != _HANDSHAKE:
        raise RemoteProtocolError("this is not the beginning of TLS")
    if len(data) < HEADER:
        return HEADER
    length = int.from_bytes(data[3:HEADER], "big")
    if not 0 < length <= LARGEST - HEADER:
        raise RemoteProtocolError(f"a TLS record of {length} bytes")
    return HEADER + length


def parse_client_hello(record: bytes) -> ClientHello:
    """The message in a whole record; one that goes on in a second record is refused, which no usual client sends.

    Raises RemoteProtocolError.
    """
    if len(record) < HEADER or len(record) != record_length(record):
        raise RemoteProtocolError("this is not one whole TLS record")
    reader = _Reader(record[HEADER:])
    if reader.number(1) != _CLIENT_HELLO:
        raise RemoteProtocolError("the first message of TLS is not a ClientHello")
    hello = reader.part(3)
    hello.take(2 + 32)  # version and random
    for length in (1, 2, 1):  # session id, cipher suites, compression methods
        hello.part(length)
    name = ""
    protocols: tuple[bytes, ...] = ()
    # A client without extensions is allowed, and asks for nothing.
    extensions = hello.part(2) if hello.left else hello
    while extensions.left:
        kind, content = extensions.number(2), extensions.part(2)
        if kind == _SERVER_NAME:
            name = _server_name(content.part(2))
        elif kind == _ALPN:
            protocols = _protocols(content.part(2))
    return ClientHello(name, protocols)


def _server_name(names: "_Reader") -> str:
    while names.left:
        kind, name = names.number(1), names.part(2)
        if kind == _HOST_NAME:
            return name.take(name.left).decode("ascii", "replace").lower()
    return ""


def _protocols(offered: "_Reader") -> tuple[bytes, ...]:
    found = []
    while offered.left:
        one = offered.part(1)
        found.append(one.take(one.left))
    return tuple(found)


class _Reader:
    """Takes bytes from the front, and never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise RemoteProtocolError("a ClientHello ends in the middle")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def part(self, size: int) -> "_Reader":
        """What follows a length of ``size`` bytes."""
        return _Reader(self.take(self.number(size)))
