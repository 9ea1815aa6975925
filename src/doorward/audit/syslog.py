"""Events to a syslog server: RFC 5424, over a Unix socket, UDP (RFC 5426), TCP (RFC 6587, counted octets) or TLS (RFC 5425).

Syslog has no word for "I have it". Over TCP and TLS each batch is a connection of its own, which we end and the server ends
in answer: then it has read all of it. Over UDP nobody knows, and what is lost on the way stays lost.

TLS and datagrams are sent by threads: asyncio's TLS keeps to itself whether the other side has ended it or broken off.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from doorward.api.audit_types import Event
from doorward.audit.destinations import line_of, name_of
from doorward.errors import BadInput, Unavailable

PRIORITY = 13 * 8 + 6  # facility "log audit", severity "informational" (RFC 5424, section 6.2.1)
DATAGRAM = 8192  # bytes; RFC 5426 section 3.2 has receivers take 2048 at least, and those in use take this
SECONDS = 10.0  # for one batch
_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
_SEQUENCE_MAX = 2**31 - 1  # RFC 5424, section 7.3.1: then it begins again with 1
_DATAGRAM_SECONDS = 2.0  # a local socket whose reader sleeps is waited for no longer


class Address(NamedTuple):
    """Where a syslog server is; ``kind`` is unix, udp, tcp or tls, and ``host`` a path for the first."""

    kind: str
    host: str
    port: int


def parse_address(text: str) -> Address:
    """Read ``unix:/dev/log``, ``udp://HOST[:PORT]``, ``tcp://...`` or ``tls://...``. Raises BadInput."""
    refused = BadInput(
        f"{text!r} is not the address of a syslog server",
        cure="Write unix:/dev/log, udp://HOST:514, tcp://HOST:601 or tls://HOST:6514.",
    )
    kind, _, path = text.partition(":")
    if kind == "unix" and path.startswith("/") and not path.startswith("//"):
        return Address(kind, path, 0)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refused from None
    if parts.scheme not in _PORTS or not host or parts.path or parts.query or parts.fragment or "@" in text:
        raise refused
    return Address(parts.scheme, host, _PORTS[parts.scheme] if port is None else port)


def message(event: Event, hostname: str, *, limit: int | None = None) -> bytes:
    """An event as a syslog message; the text is what an export has. Beyond ``limit`` bytes its details are left out."""
    line = line_of(event)
    head = (
        f"<{PRIORITY}>1 {event.at:%Y-%m-%dT%H:%M:%S.%f}Z {_name(hostname, 255)} doorward - {_name(event.action, 32)}"
        f' [meta sequenceId="{(event.seq - 1) % _SEQUENCE_MAX + 1}"] '
    )
    whole = (head + line).encode()
    if limit is not None and len(whole) > limit:
        # The number says where the whole of it is to be found, and the digest that it is the same.
        short = msgspec.structs.replace(event, details={"left_out": len(line)})
        whole = (head + line_of(short)).encode()[:limit]
    return whole


def _name(text: str, longest: int) -> str:
    """A header field: printable ASCII without spaces, never empty (RFC 5424, section 6)."""
    return "".join(c for c in text if "!" <= c <= "~")[:longest] or "-"


class SyslogDestination:
    """A syslog server.

    Args:
        address: see ``parse_address``.
        hostname: what we call ourselves in each message.
        ssl_context: whom to trust, for TLS.
    """

    kind = "syslog"
    most = 200

    def __init__(self, address: str, hostname: str, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._address = parse_address(address)
        self._hostname = hostname
        self._ssl = ssl_context
        self._open: socket.socket | None = None  # that a thread waits for
        self.shown = address
        self.name = name_of(self.kind, address)

    async def deliver(self, events: Sequence[Event]) -> None:
        """See Destination."""
        kind = self._address.kind
        try:
            if kind == "udp" or (kind == "unix" and await asyncio.to_thread(self._takes_datagrams)):
                content = [message(event, self._hostname, limit=DATAGRAM) for event in events]
                await asyncio.to_thread(self._send_datagrams, content)
                return
            if kind == "tls":
                await asyncio.to_thread(
                    self._send_tls, _framed([message(event, self._hostname) for event in events])
                )
                return
            async with asyncio.timeout(SECONDS):
                await self._send_stream(_framed([message(event, self._hostname) for event in events]))
        except TimeoutError:
            raise Unavailable(f"the syslog server {self.shown} does not answer") from None
        except ssl.SSLError as error:
            raise Unavailable(
                f"the syslog server {self.shown} is not trusted: {error.reason or error}",
                cure="Name its authority in audit.authority.",
            ) from None
        except OSError as error:
            raise Unavailable(f"the syslog server {self.shown}: {error.strerror or error}") from None

    async def close(self) -> None:
        """See Destination. A thread that waits for the server is not waited for."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                # Past TLS, which is not made for two threads.
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)

    def _takes_datagrams(self) -> bool:
        """Whether a Unix socket is one of datagrams, as /dev/log mostly is, or of streams."""
        try:
            self._connect_datagram().close()
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:
                return False
            raise
        return True

    def _connect_datagram(self) -> socket.socket:
        kind, host, port = self._address
        if kind == "unix":
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            where: str | tuple[object, ...] = host
        else:
            family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.settimeout(_DATAGRAM_SECONDS)
            opened.connect(where)
        except BaseException:
            opened.close()
            raise
        return opened

    def _send_datagrams(self, content: Sequence[bytes]) -> None:
        with self._connect_datagram() as opened:
            for one in content:
                opened.send(one)  # raises where a port of this machine, or the one before, was found closed
            if self._address.kind == "udp":
                opened.settimeout(0.05)  # an answer would be ICMP's: nobody listens there
                with contextlib.suppress(TimeoutError):
                    opened.recv(1)

    def _send_tls(self, content: bytes) -> None:
        _, host, port = self._address
        context = self._ssl or ssl.create_default_context()
        with socket.create_connection((host, port), timeout=SECONDS) as plain:
            self._open = plain
            with context.wrap_socket(plain, server_hostname=host) as opened:
                self._open = opened
                opened.sendall(content)
                # Waits for the server's own end (RFC 5425, section 4.4). One that only ends the connection has read it, too;
                # one that breaks it off is another OSError.
                with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    opened.unwrap()
        self._open = None

    async def _send_stream(self, content: bytes) -> None:
        kind, host, port = self._address
        if kind == "unix":
            reader, writer = await asyncio.open_unix_connection(host)
        else:
            reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(content)
            await writer.drain()
            writer.write_eof()
            while await reader.read(4096):
                pass  # a server has nothing to say; whatever it says, its end means that it has read ours
        finally:
            writer.close()


def _framed(messages: Sequence[bytes]) -> bytes:
    """Each behind its length in bytes (RFC 6587, section 3.4.1)."""
    return b"".join(b"%d %s" % (len(one), one) for one in messages)
