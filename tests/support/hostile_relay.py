"""What stands between a page and its relay, and means harm: it loses, repeats, swaps and forges packets, and says nonsense.

A proxy as a browser has them: what is no WebSocket passes as it is.
"""

import asyncio
import contextlib
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator
from random import Random

from tests.support.passing import copy

from doorward.protocol.derp import HEADER_SIZE, MAX_SERVER_PAYLOAD, RECV_PACKET, FrameReader, frame
from doorward.protocol.keys import KEY_SIZE

_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_BINARY, _CLOSE = 2, 8
_KEPT = 50  # old packets, of which one comes again now and then
_SELDOM = 0.02  # how often each of its wiles is used, of all packets


class HostileRelay:
    """The proxy.

    Attributes:
        port: where it listens on loopback, once it runs.
        done: how often it did what.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.port = 0
        self.done: Counter[str] = Counter()
        self._server = server
        self._chance = Random(20)
        self._old: deque[bytes] = deque(maxlen=_KEPT)
        self._pages: set[asyncio.StreamWriter] = set()

    def babble(self) -> None:
        """Say something to each page that is no DERP at all."""
        for writer in self._pages:
            writer.write(_message(_BINARY, b"\xff" * 64))
        self.done["babbled"] += len(self._pages)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, to its end."""
        server, pipe = await asyncio.open_connection(*self._server)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            tunnels = head.startswith(b"CONNECT ")
            if tunnels:
                writer.write(_CONNECTED)
                asked = await reader.readuntil(b"\r\n\r\n")
                # Compressed, nothing of it could be read here.
                rows = [
                    row for row in asked.split(b"\r\n") if not row.lower().startswith(b"sec-websocket-ext")
                ]
                head = b"\r\n".join(rows)
            pipe.write(head)
            back = self._relay(server, writer) if tunnels else copy(server, writer)
            await asyncio.gather(copy(reader, pipe), back)
        for one in (pipe, writer):
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def _relay(self, server: asyncio.StreamReader, page: asyncio.StreamWriter) -> None:
        page.write(await server.readuntil(b"\r\n\r\n"))
        frames = FrameReader(MAX_SERVER_PAYLOAD)
        held: bytes | None = None
        self._pages.add(page)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while (message := await _read(server))[0] != _CLOSE:
                    for kind, payload in frames.frames(message[1]):
                        whole = frame(kind, payload)
                        said = self._spoil(whole) if kind == RECV_PACKET else [whole]
                        if held is not None:
                            said, held = [*said, held], None
                        elif kind == RECV_PACKET and self._does("swapped"):
                            held = said.pop() if said else None
                        for one in said:
                            page.write(_message(_BINARY, one))
                    await page.drain()
        finally:
            self._pages.discard(page)
            page.close()

    def _does(self, what: str) -> bool:
        if self._chance.random() >= _SELDOM:
            return False
        self.done[what] += 1
        return True

    def _spoil(self, packet: bytes) -> list[bytes]:
        """What comes of a packet."""
        if self._does("lost"):
            return []
        said = [packet]
        if self._does("repeated"):
            said.append(packet)
        if self._old and self._does("repeated late"):
            said.append(self._chance.choice(self._old))
        if self._does("forged"):
            # From the machine, as it says, but for one bit of what is inside.
            forged = bytearray(packet)
            forged[self._chance.randrange(HEADER_SIZE + KEY_SIZE, len(forged))] ^= (
                1 << self._chance.randrange(8)
            )
            said.append(bytes(forged))
        if self._does("made up"):
            sender = packet[HEADER_SIZE : HEADER_SIZE + KEY_SIZE]
            said.append(frame(RECV_PACKET, sender + self._chance.randbytes(self._chance.randrange(1500))))
        self._old.append(packet)
        return said


@contextlib.asynccontextmanager
async def hostile_relay(server: tuple[str, int]) -> AsyncIterator[HostileRelay]:
    """Start one on loopback, before the relay of a server."""
    relay = HostileRelay(server)
    async with asyncio.TaskGroup() as group:

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(relay.answer(reader, writer))

        async with await asyncio.start_server(begin, "127.0.0.1", 0) as proxy:
            relay.port = proxy.sockets[0].getsockname()[1]
            yield relay


async def _read(server: asyncio.StreamReader) -> tuple[int, bytes]:
    """One frame of a WebSocket as servers send them (RFC 6455 section 5.2); the server of these tests splits no message."""
    first, second = await server.readexactly(2)
    size = second & 127
    if size == 126:
        (size,) = struct.unpack(">H", await server.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await server.readexactly(8))
    return first & 15, await server.readexactly(size)


def _message(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((128 | kind, size)) + payload
    if size < 1 << 16:
        return bytes((128 | kind, 126)) + size.to_bytes(2) + payload
    return bytes((128 | kind, 127)) + size.to_bytes(8) + payload
