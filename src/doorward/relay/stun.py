"""STUN on UDP: tells a node where its packets come from (protocol note derp.md, section 10).

The answer leaves from the very address that was asked, also on a machine with several and a socket bound to all of
them: the kernel says which address a packet came to, and is told to answer from it. Without that, a client drops the
answer, and no NAT would let it pass.
"""

import asyncio
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any, Final

from doorward.errors import RemoteProtocolError, Unavailable
from doorward.protocol import stun
from doorward.telemetry import counter

_REQUESTS = counter("stun_requests_total", "STUN packets, by what became of them.", "outcome")

# Packets answered for one wake-up of a socket, so that a flood leaves time for everything else.
_BATCH: Final = 64
# Linux's number; the socket module names it only from Python 3.14 on.
_IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_HAS_PKTINFO: Final = sys.platform == "linux"


def bind_stun(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """A UDP socket for each address. Raises Unavailable, with the address, where one cannot be bound."""
    with ExitStack() as undo:
        bound = []
        for address in addresses:
            family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
            made = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                made.bind((address, port))
            except OSError as error:
                raise Unavailable(
                    f"UDP port {port} on {address} cannot be used for STUN: {error.strerror}",
                    cure="Choose another STUN port, or stop what uses it.",
                ) from None
            bound.append(made)
        undo.pop_all()
        return bound


class STUNServer:
    """Answers on bound UDP sockets, which it owns from ``start`` on and closes in ``close``."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = list(sockets)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Answer from now on, in the running loop."""
        self._loop = asyncio.get_running_loop()
        for bound in self._sockets:
            bound.setblocking(False)
            if _HAS_PKTINFO:
                if bound.family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                else:
                    bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._loop.add_reader(bound, self._readable, bound)

    def close(self) -> None:
        """Stop and close the sockets."""
        for bound in self._sockets:
            if self._loop is not None and bound.fileno() >= 0:
                self._loop.remove_reader(bound)
            bound.close()

    def _readable(self, bound: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _flags, peer = bound.recvmsg(stun.MAX_REQUEST + 1, 256)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an earlier answer; it says nothing about this socket
            try:
                txid = stun.parse_request(data)
            except RemoteProtocolError:
                _REQUESTS.labels("refused").inc()
                continue
            # An IPv6 peer on a link carries its scope behind a percent sign, which is no part of the address.
            answer = stun.response(txid, ip_address(peer[0].partition("%")[0]), peer[1])
            try:
                bound.sendmsg([answer], [entry for entry in map(_from, ancillary) if entry], 0, peer)
            except OSError:  # no buffer space, or no way back: UDP may lose any packet, the client asks again
                _REQUESTS.labels("unsent").inc()
                continue
            _REQUESTS.labels("answered").inc()


def _from(entry: tuple[int, int, bytes]) -> tuple[int, int, Any] | None:
    """What a received packet's control message says of its destination, as "send from there"."""
    level, kind, data = entry
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
        # struct in_pktinfo: interface index, local address (what we send from), header's destination. With the index
        # left at zero the kernel's routes choose the way out.
        return level, kind, bytes(4) + data[4:8] + bytes(4)
    if (level, kind) == (socket.IPPROTO_IPV6, getattr(socket, "IPV6_PKTINFO", 50)):
        # struct in6_pktinfo: address, interface index. A link-local address needs its interface.
        link_local = data[:2] == b"\xfe\x80"
        return level, kind, data if link_local else data[:16] + bytes(4)
    return None
