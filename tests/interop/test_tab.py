"""What a browser's tab will speak, against a stock node: DERP, WireGuard, TCP, SSH and SFTP in TypeScript, run by Node.js."""

import asyncio
import getpass
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from tests.interop.test_ssh import ssh_policy
from tests.support.machines import machines
from tests.support.npm import node
from tests.support.require import missing
from tests.support.server import Server

from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate
from doorward.protocol.netmapstate import Netmap
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.node import Node

pytestmark = pytest.mark.interop

WEB = Path(__file__).parents[2] / "web"


def _script() -> Path:
    if not (WEB / "node_modules/@noble").is_dir():
        missing("the packages of web/ are not there; to get them: make web")
    return WEB / "tests/live/session.ts"


def _server(netmap: Netmap) -> tuple[Node, list[str]] | None:
    """The peer that has SSH on, and its host keys."""
    for peer in netmap.peers:
        if peer.HomeDERP and peer.Hostinfo is not UNSET and peer.Hostinfo.sshHostKeys:
            return peer, peer.Hostinfo.sshHostKeys
    return None


@pytest.mark.parametrize(("family", "loss"), [(0, 0.0), (1, 0.02)])
async def test_a_shell_and_files_on_a_stock_node(
    server: Server, tmp_path: Path, family: int, loss: float
) -> None:
    me = getpass.getuser()
    script = _script()
    async with machines(server, "server") as (other,):
        await server.set_policy(ssh_policy(me))
        await other.cli("set", "--ssh")
        private = secrets.token_bytes(32)
        async with ControlClient(
            server.url,
            machine=MachinePrivate(secrets.token_bytes(32)),
            node=NodePrivate(private),
            disco=DiscoPublic(secrets.token_bytes(32)),
            clock=SystemClock(),
            entropy=secrets.token_bytes,
            hostinfo=Hostinfo(Hostname="tab", OS="js"),
        ) as tab:
            await tab.join(auth_key=await server.key("--user", "alice"))
            async with asyncio.TaskGroup() as group:
                following = group.create_task(tab.follow())
                netmap = await tab.until(_server, seconds=30)
                assert netmap.derp_map is not None
                await tab.report(home_derp=next(iter(netmap.derp_map.Regions)))
                peer, keys = _server(netmap) or pytest.fail("the server has gone")
                task = tmp_path / "task"
                task.write_text(
                    json.dumps(
                        {
                            "url": server.url,
                            "private": private.hex(),
                            "peer": str(peer.Key).removeprefix("nodekey:"),
                            "local": str(netmap.node.Addresses[family]).partition("/")[0],
                            "remote": str(peer.Addresses[family]).partition("/")[0],
                            "keys": [line.split()[1] for line in keys],
                            "user": me,
                            "loss": loss,
                            "folder": str(tmp_path),
                        }
                    )
                )
                said = await run_live(script, task)
                following.cancel()
    answer = "42\n"
    assert said["server"] == "SSH-2.0-Tailscale"
    assert said["status"] == ["out\n", {"status": 3}]
    assert said["size"][0].strip() == "37 101"
    assert said["term"][0].strip() == "xterm-256color"
    assert set(said["ways"].values()) == {answer}
    assert len(said["ways"]) >= 5
    assert said["same"]
    assert said["entry"] in {300_000, 3_000_000}
    assert said["stranger"] == "host-key"


async def run_live(script: Path, task: Path, environ: Mapping[str, str] | None = None) -> Any:
    """What a script of ``web/tests/live`` says in the end, about the task in a file."""
    process = await asyncio.create_subprocess_exec(
        node(),
        script,
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
