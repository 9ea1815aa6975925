"""Waiting in tests for something that tells nobody when it happens."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Return as soon as ``holds()``; TimeoutError when it does not within ``seconds``."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)
