"""Servers that collect what an audit log sends: a webhook, and syslog over streams."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Request:
    """What was posted."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Webhook:
    """Answers with the next of ``answers``: a status, and headers; then with 204."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    answers: list[tuple[int, str]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        status, more = self.answers.pop(0) if self.answers else (204, "")
        self.requests.append(Request(first.split(" ")[1], headers, body))
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n{more}Connection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def webhook(ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Webhook]:
    """A webhook on a free port."""
    made = Webhook()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=ssl_context)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@dataclass
class Collector:
    """A syslog server over streams, which reads counted octets (RFC 6587, section 3.4.1) up to the end of each."""

    port: int = 0
    messages: list[bytes] = field(default_factory=list)
    dies: bool = False  # it ends each connection in the middle

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.dies:
            await reader.read(10)
            # As of a process that is killed while there is more to read.
            opened = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        while count := await self._count(reader):
            self.messages.append(await reader.readexactly(count))
        writer.close()

    async def _count(self, reader: asyncio.StreamReader) -> int:
        try:
            return int(await reader.readuntil(b" "))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return 0


@asynccontextmanager
async def collector(*, path: str = "", ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    """A syslog server on a free port, or on a Unix socket."""
    made = Collector()
    if path:
        server = await asyncio.start_unix_server(made.serve, path)
    else:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=ssl_context)
        made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
