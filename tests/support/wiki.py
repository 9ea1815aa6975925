"""The guide's app with a node of its own: what is reachable of it, and what is not."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.server import free_port
from tests.support.waiting import eventually

from doorward.engine.processes import stop, tied_to_us


@contextlib.asynccontextmanager
async def other_program() -> AsyncIterator[int]:
    """Something else that listens on this computer's loopback; its port."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nprivate")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield port


async def get(laptop: StockClient, url: str, *options: str, seconds: int = 3) -> str | None:
    """What the app says to somebody at the laptop; None where nobody is reached."""
    proxy = f"socks5h://127.0.0.1:{laptop.socks_port}"
    try:
        return (await fetch(url, "--proxy", proxy, "--max-time", str(seconds), *options)).text
    except AssertionError:
        return None


async def greets_alice_and_opens_nothing_else(
    program: Path,
    laptop: StockClient,
    set_policy: Callable[[str], Awaitable[object]],
    *,
    control: str,
    key: str,
    url: str,
    within: float,
) -> None:
    """Run the guide's wiki beside another program, and see that a policy which lets people reach both shuts the app instead.

    Args:
        program: the guide's, with a port of this test's.
        laptop: Alice's, which is up.
        set_policy: lets people reach these ports of the wiki's node: one, or ``*``.
        control: the address of the server that the node is to join.
        key: that lets it in.
        url: where the app says that it is.
        within: seconds in which a change has come through.
    """
    there, _, port = url.rpartition(":")
    environ = os.environ | {
        "TS_CONTROL_URL": control,
        "TS_AUTHKEY": key,
        "XDG_STATE_HOME": str(program.parent),
    }
    async with other_program() as other:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([sys.executable, program]), stdout=asyncio.subprocess.PIPE, env=environ
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                assert (await process.stdout.readline()).decode().strip() == url

            async def greeted() -> bool:
                return await get(laptop, url, "-H", "Tailscale-User-Login: eve") == "This is the wiki, alice"

            async def shut() -> bool:
                return await get(laptop, url, seconds=1) is None

            await eventually(greeted, within)
            assert await get(laptop, f"{there}:{other}", seconds=1) is None
            # A program of this computer comes without an identity.
            with pytest.raises(httpx2.HTTPError):
                httpx2.get(f"http://127.0.0.1:{port}", trust_env=False)
            await set_policy("*")
            await eventually(shut, within)
            assert await get(laptop, f"{there}:{other}", seconds=1) is None
            await set_policy(port)
            await eventually(greeted, within)
        finally:
            await stop(process, 6)
