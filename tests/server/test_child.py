"""What ``test_supervisor`` does not see: a system whose kernel does not end a worker with its parent."""

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path

import msgspec

from doorward.server.supervisor import READY, Order

WITHOUT_THE_KERNEL = (
    "import sys; from doorward.server import child; child.die_with = lambda parent: None; "
    "sys.exit(child.run(child._order(int(sys.argv[1]))))"
)


async def test_the_end_of_the_pipe_alone_ends_the_worker() -> None:
    alive, ours = os.pipe()
    ready, ready_end = os.pipe()
    go_end, go = os.pipe()
    with socket.socket() as listener, tempfile.TemporaryFile() as told:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        order = Order(
            main="tests.support.tiny_worker:main",
            payload=b"deaf",
            sockets={"public": [listener.fileno()]},
            go=go_end,
            ready=ready_end,
            parent=1,  # not its parent, which the kernel's way would notice
            alive=alive,
        )
        told.write(msgspec.json.encode(order))
        told.seek(0)
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WITHOUT_THE_KERNEL,
            str(told.fileno()),
            pass_fds=(listener.fileno(), told.fileno(), go_end, ready_end, alive),
            cwd=Path(__file__).parents[2],
        )
        os.close(ready_end)
        os.close(go_end)
        os.write(go, b"\n")
        os.close(go)
        assert await asyncio.to_thread(os.read, ready, 100) == READY
        assert await asyncio.to_thread(os.read, ready, 100) == b""  # and the end of it was closed
        assert worker.returncode is None
        os.close(ours)
        async with asyncio.timeout(5):
            assert await worker.wait() == 1
    os.close(alive)
    os.close(ready)
