"""What a browser's tab will speak, against a stock node: DERP, WireGuard, TCP, SSH and SFTP in TypeScript, run by Node.js."""

import getpass
import json
from pathlib import Path

import pytest
from msgspec import UNSET
from tests.interop.test_ssh import ssh_policy
from tests.support.livenode import borrowed, run_live, script
from tests.support.machines import machines
from tests.support.server import Server

from doorward.protocol.netmapstate import Netmap
from doorward.protocol.tailcfg.node import Node

pytestmark = pytest.mark.interop


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
    program = script("session")
    async with machines(server, "server") as (other,):
        await server.set_policy(ssh_policy(me))
        await other.cli("set", "--ssh")
        async with borrowed(server) as (tab, private):
            netmap = await tab.until(_server, seconds=90)
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
            said = await run_live(program, task)
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
