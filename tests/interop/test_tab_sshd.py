"""Terminals and files of a tab on OpenSSH's server, behind a stock node and a stock relay; all that is ours runs in Node.js."""

import getpass
import json
import os
import secrets
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from tests.interop.test_ssh import ssh_policy
from tests.support.clients import StockClient
from tests.support.derper import running_derper
from tests.support.livenode import borrowed, run_live, script
from tests.support.openssh import run
from tests.support.programs import require
from tests.support.relay import HOST, make_leaf
from tests.support.require import missing
from tests.support.server import Server
from tests.support.sshd import Sshd, running_sshd
from tests.support.waiting import eventually

from doorward.protocol.netmapstate import Netmap
from doorward.protocol.tailcfg.node import Node

pytestmark = pytest.mark.interop

KINDS: dict[str, list[str]] = {
    "ed25519": ["-t", "ed25519"],
    "ed25519, sealed": ["-t", "ed25519", "-a", "3", "-N", "correct horse"],
    "ed25519, sealed by GCM": [
        "-t",
        "ed25519",
        "-a",
        "3",
        "-Z",
        "aes256-gcm@openssh.com",
        "-N",
        "correct horse",
    ],
    "ecdsa 256": ["-t", "ecdsa", "-b", "256"],
    "ecdsa 384": ["-t", "ecdsa", "-b", "384"],
    "ecdsa 521, PKCS #8": ["-t", "ecdsa", "-b", "521", "-m", "PKCS8"],
    "rsa": ["-t", "rsa", "-b", "2048"],
    "rsa, PEM": ["-t", "rsa", "-b", "2048", "-m", "PEM"],
}
BULK = 3_000_000


async def _make_keys(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A key of each kind: what to try with it, and its public half."""
    tries, public = [], []
    for number, (name, options) in enumerate(KINDS.items()):
        file = folder / f"key-{number}"
        silent = [] if "-N" in options else ["-N", ""]
        await run([str(require("ssh-keygen")), "-q", *options, *silent, "-f", str(file)])
        one = {"name": name, "keyFile": str(file)}
        tries.append(one | ({"passphrase": "correct horse"} if "-N" in options else {}))
        public.append(file.with_suffix(".pub").read_text().strip())
    return tries, public


def _other(netmap: Netmap) -> Node | None:
    for peer in netmap.peers:
        if peer.HomeDERP == 901 and peer.Hostinfo is not UNSET and peer.Hostinfo.Hostname == "server":
            return peer
    return None


async def test_each_key_a_bulk_with_new_keys_and_files_over_two_relays(tmp_path: Path) -> None:
    tries, public = await _make_keys(tmp_path)
    tries.append({"name": "a stranger's key", "keyFile": str(tmp_path / "stranger")})
    await run([str(require("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "stranger")])
    password = secrets.token_urlsafe(12) if os.geteuid() == 0 else ""
    settings = {"RekeyLimit": "1M", "ClientAliveInterval": "5", "MaxAuthTries": "20"}
    if password:
        settings |= {"PasswordAuthentication": "yes"}
        tries.append({"name": "password", "answers": [password]})
    async with running_sshd(public, settings=settings, password=password) as sshd:
        said = await _all_by_tab(tmp_path, sshd, tries, BULK)
    assert {name: said["tries"][name] for name in KINDS} == {name: [True, 3] for name in KINDS}
    assert said["tries"]["a stranger's key"][0] == "refused"
    if password:
        assert said["tries"]["password"] == [True, 3]
    assert said["size"]
    assert said["bulk"] == BULK
    assert said["same"]
    assert said["told"] == [BULK, BULK]
    assert said["listed"] == [["renamed", BULK]]
    assert said["exclusive"] == "refused"
    assert said["missing"].startswith("There is no such file or folder")
    assert said["givenUp"] == "enough"
    assert said["home"]
    assert said["ping"]
    assert said["relays"] == 2
    assert said["links"][-1] == "up"
    assert said["end"] == {"status": 0, "signal": None, "failure": None}


@pytest.mark.root
async def test_whoever_is_asked_gets_in_by_the_right_answer(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root is missing; to get it: run the tests as root")
    password = secrets.token_urlsafe(12)
    settings = {"KbdInteractiveAuthentication": "yes", "PubkeyAuthentication": "no"}
    tries = [
        {"name": "right", "answers": [password]},
        {"name": "right at last", "answers": ["wrong", password]},
        {"name": "wrong", "answers": ["wrong", "wrong", "wrong", "wrong"]},
    ]
    async with running_sshd([], settings=settings, password=password) as sshd:
        said = await _all_by_tab(tmp_path, sshd, tries, 100_000)
    assert said["tries"]["right"] == said["tries"]["right at last"] == [True, 3]
    assert said["tries"]["wrong"][0] == "refused"


async def _all_by_tab(tmp_path: Path, sshd: Sshd, tries: list[dict[str, Any]], bulk: int) -> Any:
    """Let a tab try all that, on a machine that is at a relay of its own."""
    program, file = script("terminal"), tmp_path / "derp.json"
    environ = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
    (tmp_path / "leaf.pem").write_bytes(make_leaf().pem)
    async with running_derper() as derper:
        file.write_text(derper.map())
        async with (
            Server(environ={"DOORWARD_RELAY_MAPS": str(file)}) as server,
            StockClient("server", environ=environ) as other,
        ):
            await server.user("alice")
            await other.up(server.url, await server.key("--user", "alice"))
            await server.set_policy(ssh_policy(getpass.getuser()))
            await other.cli("debug", "force-prefer-derp", "901")
            await other.cli("debug", "restun")
            async with borrowed(server) as (tab, private):
                await tab.report(home_derp=900)
                netmap = await tab.until(_other, seconds=90)
                peer = _other(netmap) or pytest.fail("the server has gone")

                async def is_known() -> bool:
                    # It may send to the tab as soon as it knows at which relay that is.
                    peers = ((await other.status())["Peer"] or {}).values()
                    return any(one["HostName"] == "tab" and one["Relay"] == "home" for one in peers)

                await eventually(is_known, within=60)
                target = {
                    "machine": 7,
                    "name": "server",
                    "node_key": str(peer.Key),
                    "addresses": [str(one) for one in peer.Addresses],
                    "home_region": 901,
                    "host_keys": sshd.host_keys,
                    "host_keys_from": "pinned",
                }
                answer = {
                    "id": 3,
                    "addresses": [str(one) for one in netmap.node.Addresses],
                    "relays": {
                        "home": 900,
                        "regions": {
                            "900": {
                                "name": "home",
                                "urls": [f"ws{server.url.removeprefix('http')}/derp"],
                            },
                            "901": {"name": "second", "urls": [f"wss://{HOST}:{derper.port}/derp"]},
                        },
                    },
                    "targets": [target],
                }
                task = tmp_path / "task"
                task.write_text(
                    json.dumps(
                        {
                            "private": private.hex(),
                            "tab": answer,
                            "port": sshd.port,
                            "account": getpass.getuser(),
                            "folder": str(sshd.folder),
                            "tries": tries,
                            "bulk": bulk,
                        }
                    )
                )
                trusting = {"NODE_EXTRA_CA_CERTS": str(tmp_path / "leaf.pem")}
                said = await run_live(program, task, trusting)
    return said
