"""What targets share: bytes as the text that a network or a command line makes of them, and stand-ins for transports."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from doorward.errors import DoorwardError


def text_of(data: bytes) -> str:
    """As it comes out of JSON, a header or a path: any characters, but no half of a pair."""
    return data.decode("utf-8", "replace")


def argument_of(data: bytes) -> str:
    """As it comes off a command line or out of a file name: bytes that are no UTF-8 are halves of pairs."""
    return data.decode("utf-8", "surrogateescape")


def feed(given: Any, *readers: Callable[[Any], object], refusal: type[Exception] = DoorwardError) -> None:
    """Give it to each; they may refuse it, and raise nothing else."""
    for read in readers:
        with contextlib.suppress(refusal):
            read(given)


def in_loop(work: Callable[[], Awaitable[object]]) -> None:
    """Run it in an event loop of its own. What a callback or a forgotten task raises is raised here."""
    faults: list[BaseException] = []

    def heard(_: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        fault = told.get("exception") or AssertionError(told["message"])
        if not isinstance(fault, asyncio.CancelledError):
            faults.append(fault)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(heard)
        await work()

    with asyncio.Runner() as runner:
        runner.run(main())
    if faults:
        raise faults[0]


def pieces(data: bytes) -> Iterable[bytes]:
    """The same bytes as several reads: a first byte alone, then halves."""
    middle = len(data) // 2
    return (part for part in (data[:1], data[1:middle], data[max(middle, 1) :]) if part)


class FakeSocket:
    """A socket whose peer has no address, and that takes any option."""

    family = socket.AF_UNIX

    def setsockopt(self, *_: Any) -> None:
        return

    def getsockname(self) -> str:
        return ""

    def getpeername(self) -> str:
        return ""


class FakeTransport(asyncio.Transport):
    """Takes what is written, and forgets it."""

    def __init__(self) -> None:
        super().__init__({"socket": FakeSocket()})
        self.written = 0
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += len(data)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        return
