"""Which worker of one ``doorward serve --workers N`` has what."""

import asyncio
import json
import re
from collections import Counter

from tests.support.clients import StockClient
from tests.support.postgres import Cluster
from tests.support.server import Server

_HELD = """SELECT nodes.name, processes.installation FROM nodes
    JOIN node_observations ON node_observations.node_id = nodes.id
    JOIN processes ON processes.id = node_observations.held_by
    WHERE node_observations.online AND NOT nodes.system"""


def held(postgres: Cluster, database: str) -> dict[str, int]:
    """The number of the worker that has each node's map stream, as the store has it."""
    name = database.partition("@/")[2].partition("?")[0]
    rows = postgres.execute(name, _HELD)
    return {str(node): int(str(one).partition("/")[2] or 1) for node, one in rows}


async def admin(server: Server, method: str, path: str, body: object = None) -> None:
    """One operation of the API, without the time that a command takes; whichever worker it comes to."""
    content = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(server.folder / "doorward.sock")
    head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.split(" ", 2)[1].startswith("2"), answer


async def metrics(server: Server, number: int) -> dict[str, float]:
    """What one worker counts; nothing while it starts."""
    try:
        reader, writer = await asyncio.open_unix_connection(server.folder / f"worker-{number}.sock")
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            text = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        return {}
    return {
        name: float(value) for name, value in re.findall(r"^(doorward_\S+) (\S+)\r?$", text, re.MULTILINE)
    }


async def all_metrics(server: Server, name: str) -> list[float]:
    """One number of each worker."""
    numbers = range(1, server.workers + 1)
    return [(await metrics(server, number)).get(f"doorward_{name}", 0.0) for number in numbers]


async def relayed(server: Server) -> list[int]:
    """How many nodes each worker's relay has, without the other workers' lines to it."""
    found = await all_metrics(server, "relay_clients")
    return [max(0, int(clients) - (server.workers - 1)) for clients in found]


async def spread(
    server: Server, postgres: Cluster, database: str, clients: list[StockClient]
) -> dict[str, int]:
    """Have clients connect again until neither all their streams nor all their relay connections are at one worker.

    The kernel spreads them by chance. Doorward's own node has a relay connection, too: that it is elsewhere than all the
    others is not enough. Returns whose stream is where.
    """
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(1.1)  # the relays count every second
            where = held(postgres, database)
            relays = await relayed(server)
            apart = sum(relays) - max(relays) > 1
            if len(where) == len(clients) and len(set(where.values())) > 1 and apart:
                return where
            common, _ = Counter(where.values()).most_common(1)[0]
            for client in clients:
                if where.get(client.name, common) == common:
                    await client.restart()
                    await client.wait_until("Running")
                    break
