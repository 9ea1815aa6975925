"""What ``test_supervisor`` does not see: a system whose kernel does not end a worker with its parent."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from doorward.engine.processes import stop
from doorward.server.supervisor import READY, Order, Told

WITHOUT_THE_KERNEL = (
    "import sys; from doorward.server import child; child.die_with = lambda parent: None; "
    "sys.exit(child.run(child._order(int(sys.argv[1]))))"
)


class _Started(NamedTuple):
    worker: asyncio.subprocess.Process
    go: IO[bytes]
    ready: IO[bytes]
    alive: IO[bytes]


@contextlib.asynccontextmanager
async def _started(payload: bytes = b"deaf") -> AsyncIterator[_Started]:
    """A worker that waits for its byte, with our ends of its pipes."""
    with contextlib.ExitStack() as closing:

        def pipe() -> tuple[IO[bytes], IO[bytes]]:
            # As files: to close one twice closes nobody else's.
            there, here = os.pipe()
            return closing.enter_context(os.fdopen(there, "rb", 0)), closing.enter_context(
                os.fdopen(here, "wb", 0)
            )

        (go_end, go), (ready, ready_end), (alive_end, alive) = pipe(), pipe(), pipe()
        listener = closing.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        told = closing.enter_context(tempfile.TemporaryFile())
        order = Order(
            main="tests.support.tiny_worker:main",
            posts=[Told(payload=payload, sockets={"public": [listener.fileno()]})],
            go=go_end.fileno(),
            ready=ready_end.fileno(),
            parent=1,  # not its parent, which the kernel's way would notice
            alive=alive_end.fileno(),
        )
        told.write(msgspec.json.encode(order))
        told.seek(0)
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WITHOUT_THE_KERNEL,
            str(told.fileno()),
            pass_fds=[one.fileno() for one in (listener, told, go_end, ready_end, alive_end)],
            cwd=Path(__file__).parents[2],
        )
        for end in (go_end, ready_end, alive_end):
            end.close()
        try:
            yield _Started(worker, go, ready, alive)
        finally:
            await stop(worker, 0)


async def test_the_end_of_the_pipe_alone_ends_the_worker() -> None:
    async with _started() as child:
        child.go.write(bytes([0]))
        assert await asyncio.to_thread(child.ready.read, 100) == READY
        assert await asyncio.to_thread(child.ready.read, 100) == b""  # and the end of it was closed
        assert child.worker.returncode is None
        child.alive.close()
        async with asyncio.timeout(5):
            assert await child.worker.wait() == 1


async def test_one_that_is_never_told_to_go_does_nothing_and_ends_in_peace() -> None:
    # Had it begun, this payload would have made it end with 3.
    async with _started(b"exit") as child:
        child.go.close()
        async with asyncio.timeout(20):
            assert await child.worker.wait() == 0
        assert child.ready.read(100) == b""
