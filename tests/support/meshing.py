"""Lines of a relay under test to others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.relay import RunningRelay

from doorward.relay.mesh import Mesh, Peer

MESH_KEY = "5a" * 32
_QUICK = (0.01, 0.05)  # seconds between attempts


@asynccontextmanager
async def meshed(
    relay: RunningRelay, *peers: Peer, mesh_key: str = MESH_KEY
) -> AsyncIterator[asyncio.Task[None]]:
    """Keep a relay's lines for the length of the block."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(Mesh(relay.relay, mesh_key, peers, seconds=_QUICK).run())
        try:
            yield running
        finally:
            running.cancel()
