"""A proxy of HTTP that does to requests what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

_REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.asynccontextmanager
async def passing(to: tuple[str, int], change: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """Start one on loopback, before a server at an address; its port.

    ``change`` makes of the head of a connection's first request what the server gets, or refuses it with None. What follows is
    passed on as it is.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = change(await reader.readuntil(b"\r\n\r\n"))
            if head is None:
                writer.write(_REFUSED)
            else:
                server, pipe = await asyncio.open_connection(*to)
                pipe.write(head)
                await asyncio.gather(copy(reader, pipe), copy(server, writer))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1]


async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends, and end the other side with it."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
