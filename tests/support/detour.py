"""Another way to a server on loopback: from an address of its own, and with a proxy's word if asked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


@contextlib.asynccontextmanager
async def detour(url: str, *, source: str = "127.0.0.2", says: str = "") -> AsyncIterator[str]:
    """A URL whose connections reach ``url`` from ``source``. ``says`` is put into their X-Forwarded-For."""
    goal = urlsplit(url)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead, behind = await asyncio.open_connection(goal.hostname, goal.port, local_addr=(source, 0))
        behind.write(await reader.readline())
        if says:
            behind.write(f"X-Forwarded-For: {says}\r\n".encode())
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(reader, behind))
            group.create_task(carry(ahead, writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
