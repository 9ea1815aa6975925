"""Connections that stay open and carry something all the time, so that it is seen when they are cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

EVERY = 0.05  # seconds between two lines


class Flow:
    """Lines go out, and the other end sends each back. ``last`` is when one last came, by the loop's clock."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.last = 0.0
        self.ended = False  # the connection is over; one that is cut mostly only falls silent
        self._reader, self._writer = reader, writer

    @property
    def flows(self) -> bool:
        """True while lines come back."""
        return not self.ended and asyncio.get_running_loop().time() - self.last < 10 * EVERY

    async def send(self) -> None:
        """Send lines until cancelled or until the connection ends."""
        with contextlib.suppress(OSError):
            while True:
                self._writer.write(b"tick\n")
                await asyncio.sleep(EVERY)

    async def receive(self) -> None:
        """Note each line that comes back, until the connection ends."""
        with contextlib.suppress(OSError):
            while await self._reader.readline():
                self.last = asyncio.get_running_loop().time()
        self.ended = True


@contextlib.asynccontextmanager
async def flowing(*flows: Flow) -> AsyncIterator[None]:
    """Keep these busy for the length of the block."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(act()) for flow in flows for act in (flow.send, flow.receive)]
        try:
            yield
        finally:
            for each in running:
                each.cancel()


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    """A server on 127.0.0.1 that sends everything back; its port."""

    writers: list[asyncio.StreamWriter] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def through_socks(
    proxy_port: int, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection through a SOCKS5 proxy on this machine that asks for no password (RFC 1928)."""
    reader, writer = await asyncio.open_connection("localhost", proxy_port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    name = host.encode()
    writer.write(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + port.to_bytes(2))
    answer = await reader.readexactly(4)
    assert answer[1] == 0, f"the proxy answers {answer[1]}"
    await reader.readexactly({1: 4, 4: 16}[answer[3]] + 2)
    return reader, writer
