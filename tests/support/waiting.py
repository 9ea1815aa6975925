"""Waiting in tests for something that tells nobody when it happens."""

import asyncio
import contextlib
import math
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
    """The same for a question that takes a while itself."""

    async def found() -> bool:
        with contextlib.suppress(LookupError):
            return await holds()
        return False

    async with asyncio.timeout(within):
        while not await found():  # noqa: ASYNC110 - asks a real program, which tells nobody when its answer changes
            await asyncio.sleep(0.05)


ANSWERS = 20  # as many answers of the program that is asked may come before what is promised


async def promptly(holds: Callable[[], Awaitable[bool]], within: float) -> None:
    """As ``eventually`` where the time is a promise.

    On a machine that does much else everything takes its time, also the answers themselves. So what is promised ``within``
    seconds may take as long as 20 answers if that is longer, which it is on no machine that is at leisure.
    """
    now = asyncio.get_running_loop().time
    began, answer = now(), math.inf
    while True:
        asked = now()
        if await holds():
            return
        answer = min(answer, now() - asked)
        if asked - began > max(within, ANSWERS * answer):
            raise TimeoutError(f"not within {within} seconds, nor {ANSWERS} answers of {answer:.2f} seconds")
        await asyncio.sleep(0.02)
