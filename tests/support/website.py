"""A web server on loopback that answers with raw bytes, so that it may do what no server should."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

HOST = "127.0.0.1"
Reply = Callable[[str, dict[str, str]], bytes | None]


class Web:
    """A server that answers a request's target and headers with raw bytes; None says nothing."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    def url(self, path: str = "/", host: str = HOST, scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@contextlib.asynccontextmanager
async def web(
    reply: Reply, *, tls: ssl.SSLContext | None = None, unix: Path | None = None
) -> AsyncIterator[Web]:
    site: Web

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:])
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            site.seen.append((head[0], headers, body))
            said = reply(head[0].split()[1], headers)
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    if unix:
        server = await asyncio.start_unix_server(one, unix)
        site = Web(0)
    else:
        server = await asyncio.start_server(one, HOST, 0, ssl=tls)
        site = Web(server.sockets[0].getsockname()[1])
    try:
        yield site
    finally:
        server.close()
        await server.wait_closed()


def ok(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers, "", ""]).encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n".encode()
