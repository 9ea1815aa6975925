"""Gives back to the system what a burst of work left behind.

After two thousand nodes have joined at once, a twentieth of the process is memory that nobody uses, in pieces between
others that are used. The C library keeps it until it is asked.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

EVERY = 2.0  # seconds between two looks, of some microseconds each
GROWN = 1 << 20  # bytes more than after the last time: then it is worth some milliseconds

_STATM = Path("/proc/self/statm")


async def give_back() -> None:
    """Do it until cancelled. Returns at once where the C library knows no such thing."""
    trim = _trimmer()
    if trim is None:
        return
    known = _resident()
    while True:
        await asyncio.sleep(EVERY)
        now = _resident()
        if now - known >= GROWN:
            trim(0)
            now = _resident()
            known = now
        known = min(known, now)


def _trimmer() -> Callable[[int], object] | None:
    """What glibc, and so Linux, has for it; musl and macOS have none."""
    trim: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
