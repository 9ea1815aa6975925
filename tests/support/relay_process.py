"""``doorward relay`` as a user starts it."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.relay import HOST

from doorward.engine.derp import DERPClient, pinned_context
from doorward.engine.processes import stop, tied_to_us
from doorward.protocol.keys import NodePrivate

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class RelayProcess:
    """A relay that runs by itself."""

    process: asyncio.subprocess.Process
    folder: Path  # the relay's own, within its data directory
    host: str
    port: int
    pin: str
    log: Path

    async def connect(self, key: NodePrivate, **options: Any) -> DERPClient:
        """A client of ours to it."""
        return await DERPClient.connect(
            self.host, self.port, key, entropy=os.urandom, context=pinned_context(), pin=self.pin, **options
        )

    async def metrics(self, shard: int = 0) -> dict[str, float]:
        """What one shard counts."""
        reader, writer = await asyncio.open_unix_connection(self.folder / f"shard-{shard}.sock")
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            text = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return {
            name: float(value) for name, value in re.findall(r"^(doorward_\S+) (\S+)\r?$", text, re.MULTILINE)
        }

    def worker_of(self, client: DERPClient) -> int:
        """The process id of the shard that serves a client."""
        assert client._transport is not None
        port = client._transport.get_extra_info("sockname")[1]
        wanted = f"{_hex(self.host, self.port)} {_hex(self.host, port)} 01"
        (line,) = (line for line in Path("/proc/net/tcp").read_text().splitlines() if wanted in line)
        inode = f"socket:[{line.split()[9]}]"
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if any(_link(each) == inode for each in Path(f"/proc/{child}/fd").iterdir()):
                return int(child)
        raise AssertionError("no shard has this connection")


def _hex(host: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # closed since it was listed
        return ""


@asynccontextmanager
async def relay_process(
    data_dir: Path,
    *flags: str,
    host: str = HOST,
    port: int = 0,
    stun: str = "off",
    command: tuple[str, ...] = (),
) -> AsyncIterator[RelayProcess]:
    """Run ``doorward relay`` on a free port unless told otherwise; SIGTERM and a look at how it ended at the end.

    ``command`` comes before it, to run it in a namespace.
    """
    data_dir.mkdir(exist_ok=True)  # noqa: ASYNC240 - a local folder
    log = data_dir / "log"
    arguments = [
        f"--hostname={host}",
        f"--listen={host}:{port}",
        f"--data-dir={data_dir}",
        f"--stun={stun}",
        *flags,
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DOORWARD_")}
    with log.open("wb") as writing:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([*command, sys.executable, "-m", "doorward", "relay", *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=writing,
            cwd=ROOT,
            env=environ,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("ready https://"), log.read_text()
        said = re.search(r"sha256-raw:[0-9a-f]{64}", log.read_text())
        port = int(line.rpartition(":")[2])
        yield RelayProcess(process, data_dir / "relay", host, port, said[0] if said else "", log)
    finally:
        await stop(process, 30)
    assert process.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text()
