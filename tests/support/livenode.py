"""What a browser's tab speaks, run by Node.js: the scripts of ``web/tests/live``."""

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.bundle import WEB
from tests.support.npm import node
from tests.support.require import missing
from tests.support.server import Server

from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate
from doorward.protocol.tailcfg.hostinfo import Hostinfo


def script(name: str) -> Path:
    """A script, where the packages that it needs are there."""
    if not (WEB / "node_modules/@noble").is_dir():
        missing("the packages of web/ are not there; to get them: make web")
    return WEB / "tests" / "live" / f"{name}.ts"


async def run_live(program: Path, task: Path, environ: Mapping[str, str] | None = None) -> Any:
    """What a script says in the end, about the task in a file."""
    process = await asyncio.create_subprocess_exec(
        node(),
        program,
        task,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode(errors="replace")[-3000:]
    return json.loads(out)


class Borrowed(NamedTuple):
    """A node of ours that lends its key to a script."""

    control: ControlClient
    private: bytes  # the node's key


@contextlib.asynccontextmanager
async def borrowed(server: Server, user: str = "alice") -> AsyncIterator[Borrowed]:
    """Have a node called "tab" join for somebody and follow the map, in the block."""
    private = secrets.token_bytes(32)
    async with ControlClient(
        server.url,
        machine=MachinePrivate(secrets.token_bytes(32)),
        node=NodePrivate(private),
        disco=DiscoPublic(secrets.token_bytes(32)),
        clock=SystemClock(),
        entropy=secrets.token_bytes,
        hostinfo=Hostinfo(Hostname="tab", OS="js"),
    ) as control:
        await control.join(auth_key=await server.key("--user", user))
        async with asyncio.TaskGroup() as group:
            following = group.create_task(control.follow())
            yield Borrowed(control, private)
            following.cancel()
