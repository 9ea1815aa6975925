"""The stock relay, ``derper``, on loopback with TLS."""

import asyncio
import json
import re
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.programs import require
from tests.support.relay import HOST, listening, make_leaf

from doorward.engine.derp import DERPClient, pinned_context
from doorward.engine.processes import stop, tied_to_us
from doorward.protocol.keys import NodePrivate


@dataclass(frozen=True)
class Derper:
    """A derper that runs."""

    port: int
    stun_port: int
    pin: str
    log: Path

    def map(self, region: int = 901) -> str:
        """A relay map in which it is the one relay of a region called "second"."""
        relay = {
            "Name": f"{region}a",
            "RegionID": region,
            "HostName": HOST,
            "CertName": self.pin,
            "IPv4": HOST,
            "IPv6": "none",
            "DERPPort": self.port,
            "STUNPort": self.stun_port,
        }
        second = {"RegionID": region, "RegionCode": "second", "RegionName": "Second", "Nodes": [relay]}
        return json.dumps({"Regions": {str(region): second}})

    async def connect(self, key: NodePrivate, entropy: Any, **options: Any) -> DERPClient:
        """A client of ours to it."""
        return await DERPClient.connect(
            HOST, self.port, key, entropy=entropy, context=pinned_context(), pin=self.pin, **options
        )


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((HOST, 0))
        port: int = bound.getsockname()[1]
        return port


@asynccontextmanager
async def running_derper(*flags: str, mesh_key: str = "", trusting: bool = False) -> AsyncIterator[Derper]:
    """Start derper with more flags, wait until it answers, and stop it with the block.

    ``trusting`` makes it accept the certificate that relays of ours show in tests.
    """
    program, leaf = require("derper"), make_leaf()
    with listening() as bound:
        port: int = bound.getsockname()[1]
    stun_port = _free_udp_port()
    with tempfile.TemporaryDirectory(prefix="dw-derper-") as name:
        folder = Path(name)
        (folder / f"{HOST}.crt").write_bytes(leaf.pem)
        (folder / f"{HOST}.key").write_bytes(leaf.key_pem)
        mesh = []
        if mesh_key:
            (folder / "mesh").write_text(mesh_key)
            mesh = [f"-mesh-psk-file={folder / 'mesh'}"]
        trust = {"SSL_CERT_FILE": str(folder / f"{HOST}.crt")} if trusting else {}
        with (folder / "log").open("wb") as log:
            command: list[str | Path] = [
                program,
                f"-a={HOST}:{port}",
                f"-stun-port={stun_port}",
                "-http-port=-1",
                "-certmode=manual",
                f"-certdir={folder}",
                f"-hostname={HOST}",
                f"-c={folder / 'derper.json'}",
                *mesh,
                *flags,
            ]
            process = await asyncio.create_subprocess_exec(
                *tied_to_us(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"HOME": str(folder)} | trust,
            )
        try:
            async with asyncio.timeout(40):
                while not await _listens(port):
                    if process.returncode is not None:
                        raise AssertionError(f"derper ended: {(folder / 'log').read_text()[-2000:]}")
                    await asyncio.sleep(0.02)
            # With an IP address as its name derper makes the certificate's pin itself and says so.
            said = re.search(r"sha256-raw:[0-9a-f]{64}", (folder / "log").read_text())
            yield Derper(port, stun_port, said[0] if said else leaf.pin, folder / "log")
        finally:
            await stop(process, 2)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
