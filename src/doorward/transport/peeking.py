"""A look at the first message of a TLS connection, which is left where it is, for the TLS that follows to read.

Python's ``ssl`` tells a server which host a client asks for, but not which protocols it offers, and a proof that a name is
ours (RFC 8737) needs both. So while one is asked for, each new connection is looked at before its TLS begins.
"""

import asyncio
import socket
from collections.abc import Callable

from doorward.errors import RemoteProtocolError
from doorward.protocol.clienthello import HEADER, ClientHello, parse_client_hello, record_length

PATIENCE = 5.0  # seconds for the first message; it comes in one or two packets


async def client_hello(accepted: socket.socket) -> ClientHello | None:
    """What the peer asks for, None where it says nothing that can be read, or not in time. The bytes stay unread."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await _look(accepted)
    except (TimeoutError, OSError, RemoteProtocolError):
        return None  # whatever it is, TLS will say so


async def _look(accepted: socket.socket) -> ClientHello:
    wanted, before = HEADER, -1
    try:
        while True:
            await _enough(accepted, wanted)
            seen = accepted.recv(wanted, socket.MSG_PEEK)
            if len(seen) < wanted and len(seen) == before:
                raise RemoteProtocolError("the connection ended before its first message")
            before = len(seen)
            wanted = record_length(seen)
            if len(seen) >= wanted:
                return parse_client_hello(seen[:wanted])
    finally:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _enough(accepted: socket.socket, count: int) -> None:
    """Wait until so many bytes are there, or the peer has ended: what is only looked at would else be ready at once, again and again."""
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(accepted.fileno(), _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(accepted.fileno())


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Parting(asyncio.Protocol):
    """A connection that is over when its TLS has begun: the beginning was the proof."""

    def __init__(self, left: Callable[[], None]) -> None:
        self._left = left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say goodbye."""
        transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Give up its place."""
        del error
        self._left()
