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
    """Wait until every client can send to every other.

    That is a moment after its netmap has them: once its engine knows them, and the relay that they have chosen has come
    through. Until then there is no way at all to a peer that has just joined, and a ping is lost.
    """

    async def is_ready() -> bool:
        counts = []
        for client in clients:
            peers = ((await client.status())["Peer"] or {}).values()
            reached = (
                peer["InMagicSock"] and peer["Relay"] and peer["HostName"] != "doorward" for peer in peers
            )
            counts.append(sum(map(bool, reached)))
        return bool(min(counts) >= len(clients) - 1)

    await eventually(is_ready, 90)


async def knows_door(client: StockClient) -> None:
    """Wait until a client can send to doorward's own node; the server says that it is up before clients have heard of it."""

    async def is_ready() -> bool:
        peers = ((await client.status())["Peer"] or {}).values()
        return any(peer["HostName"] == "doorward" and peer["InMagicSock"] and peer["Relay"] for peer in peers)

    await eventually(is_ready, 90)
