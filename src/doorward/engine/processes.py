"""Child processes that never outlive us, and how long to wait before one that died is started again."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1

# Run by a bare interpreter that then becomes the program. Safer than a function between fork and exec, which runs in a
# copy of a process that may have threads holding locks. The parent may die before the request reaches the kernel: the
# second line of defence is that a child whose parent has changed leaves by itself.
_SHIM = """\
import ctypes, os, sys
parent, program = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != parent:
    os._exit(1)
os.execv(program[0], program)
"""


def tied_to_us(program: Sequence[str | Path]) -> list[str]:
    """The arguments that run ``program`` so that the kernel kills it when this process ends, however it ends.

    The process id stays the program's. To be started by the thread that lives longest: the kernel watches the thread
    that forked. Where the system knows no such thing (anything but Linux) the program runs as it is.
    """
    arguments = [str(one) for one in program]
    if sys.platform != "linux":
        return arguments
    return [sys.executable, "-I", "-S", "-c", _SHIM, str(os.getpid()), *arguments]


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when ``parent``, which started it, ends; ends it if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


async def stop(process: asyncio.subprocess.Process, patience: float) -> None:
    """Ask ``process`` to end, and make it after ``patience`` seconds. Returns once it has."""
    if process.returncode is None:
        send(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            send(process, signal.SIGKILL)
    await process.wait()


def send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a child; one that has ended already needs none.

    Not by the process object's own method: that one looks first whether the child has ended, and so takes its exit code
    away from the loop, which then reports 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


class BoundedLog:
    """A log file that starts anew at ``limit`` bytes and keeps the one before it as ``NAME.1``: at most twice ``limit``."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._file = path.open("ab")

    def write(self, content: bytes) -> None:
        """Append; a write never ends up in two files."""
        if self._file.tell() + len(content) > self._limit and self._file.tell():
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab")
        self._file.write(content)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Backoff:
    """How long to wait before the next start: at once after a steady life, longer after each quick death.

    Args:
        first: seconds to wait after the first quick death; doubled by each that follows.
        longest: seconds beyond which the wait does not grow.
        steady: a life of this many seconds counts as a good start.
    """

    def __init__(self, first: float, longest: float, steady: float) -> None:
        self._first = first
        self._longest = longest
        self._steady = steady
        self.quick_deaths = 0

    def after(self, lived: float) -> float:
        """Seconds to wait, after a life of ``lived`` seconds."""
        if lived >= self._steady:
            self.quick_deaths = 0
            return 0.0
        self.quick_deaths += 1
        # The exponent is bounded, or a year of deaths would overflow.
        return min(self._first * 2.0 ** min(self.quick_deaths - 1, 32), self._longest)
