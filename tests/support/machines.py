"""Stock clients that have joined a real server."""

import contextlib
from collections.abc import AsyncIterator

from tests.support.clients import StockClient
from tests.support.server import Server
from tests.support.waiting import eventually


@contextlib.asynccontextmanager
async def machines(server: Server, *names: str, user: str = "alice") -> AsyncIterator[list[StockClient]]:
    """Clients that have joined, for one user."""
    await server.user(user)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(StockClient(name)) for name in names]
        for client in clients:
            await client.up(server.url, await server.key("--user", user))
        await all_ready(clients)
        yield clients


async def all_ready(clients: list[StockClient]) -> None:
    """Wait until every client's engine knows every other: a moment after its netmap does."""

    async def is_ready() -> bool:
        counts = []
        for client in clients:
            peers = ((await client.status())["Peer"] or {}).values()
            counts.append(sum(peer["InMagicSock"] and peer["HostName"] != "doorward" for peer in peers))
        return bool(min(counts) >= len(clients) - 1)

    await eventually(is_ready)
