"""Waiting in tests for something that tells nobody when it happens."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return as soon as ``holds()``; TimeoutError when it does not within ``seconds``.

    What it looks up and does not find yet (a LookupError) is waited for, too.
    """
    async with asyncio.timeout(seconds):
        while not _found(holds):  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


def _found(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except LookupError:
        return False


async def eventually(holds: Callable[[], Awaitable[bool]], within: float = 30.0) -> None:
    """Wait until an async question is answered with yes; TimeoutError after ``within`` seconds."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - asks a real program, which tells nobody when its answer changes
            await asyncio.sleep(0.05)
