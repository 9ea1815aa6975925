"""What ``doorward ssh setup`` writes, used by the real programs: the published host keys are trusted, and no others."""

import asyncio
import contextlib
import getpass
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.openssh import run
from tests.support.programs import require
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

ME = getpass.getuser()


@contextlib.asynccontextmanager
async def _daemon(path: Path, status: Any) -> AsyncIterator[None]:
    """Somebody who answers like the daemon, and says this."""
    body = json.dumps(status).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield


def _program(config: Path, name: str, *arguments: str) -> list[str]:
    return [str(require(name)), "-F", str(config), "-o", "BatchMode=yes", *arguments]


async def _keys(client: StockClient, name: str) -> list[str]:
    peers = ((await client.status())["Peer"] or {}).values()
    return next((peer.get("sshHostKeys") or [] for peer in peers if peer["HostName"] == name), [])


async def test_ssh_and_its_relatives_trust_exactly_what_the_node_published(server: Server) -> None:
    async with machines(server, "laptop", "server", "plain") as (laptop, other, _):
        await other.cli("set", "--ssh")

        async def published() -> bool:
            return bool(await _keys(laptop, "server"))

        await eventually(published)
        home = laptop.folder / "a home"
        home.mkdir()
        config = home / "config"
        mine = "Host box\n    HostName server.tailnet.internal\n"
        config.write_text(mine)
        setup = ("ssh", "setup", "--no-browser", "--ssh-config", str(config), "--socket")
        shown = await run(_doorward(*setup, str(laptop.socket), "--dry-run"))
        assert "+Include" in shown.stdout
        assert config.read_text() == mine
        for said in ("Written", "nothing to change"):
            done = await run(_doorward(*setup, str(laptop.socket)))
            assert said in done.stdout

        for host in ("server", "server.tailnet.internal", "box", (await other.status())["TailscaleIPs"][0]):
            done = await run(_program(config, "ssh", f"{ME}@{host}", "echo in"))
            assert (done.stdout, done.stderr) == ("in\n", "")
        there, back = laptop.folder / "there", laptop.folder / "back"
        await run(_program(config, "scp", str(config), f"{ME}@server:{there}"))
        (laptop.folder / "batch").write_text(f"get {there} {back}\n")
        await run(_program(config, "sftp", "-b", str(laptop.folder / "batch"), f"{ME}@server"))
        assert back.read_text() == config.read_text()
        again = laptop.folder / "again"
        shell = f"ssh -F '{config}' -o BatchMode=yes"
        await run([str(require("rsync")), "--rsh", shell, str(config), f"{ME}@server:{again}"])
        assert again.read_text() == config.read_text()
        git = str(require("git"))
        await run([git, "init", "--quiet", "--bare", str(laptop.folder / "git")])
        over = f"core.sshCommand={shell}"
        await run([git, "-c", over, "ls-remote", f"ssh://{ME}@server{laptop.folder}/git"])
        # A node that publishes no keys, and any other host, are ssh's own business.
        for host in ("plain", "elsewhere.example.com"):
            read = (await run([*_program(config, "ssh", "-G", host)])).stdout
            assert "stricthostkeychecking ask" in read
            assert "/dev/null" not in read

        # Now the netmap vouches for another key, while the node has the one that it had.
        strangers = laptop.folder / "strangers"
        await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(strangers)])
        key = strangers.with_suffix(".pub").read_text().rpartition(" ")[0]
        status = await laptop.status()
        for peer in status["Peer"].values():
            if peer["HostName"] == "server":
                peer["sshHostKeys"] = [key]
        known = home / "known_hosts"
        known.write_text("".join(f"server {good}\n" for good in await _keys(laptop, "server")))
        async with _daemon(laptop.folder / "liar", status):
            await run(_doorward(*setup, str(laptop.folder / "liar")))
            # It connects as before, for only the keys come from the liar.
            nc = f"ProxyCommand={laptop.proxy_command()}"
            for host in ("server", "box"):
                refused = await run(_program(config, "ssh", "-o", nc, f"{ME}@{host}", "echo in"), check=False)
                assert (refused.returncode, refused.stdout) == (255, "")
                assert "Host key verification failed" in refused.stderr
        # With nobody to ask, ssh does what it would do without us.
        alone = await run(
            _program(
                config, "ssh", "-o", nc, "-o", f'UserKnownHostsFile="{known}"', f"{ME}@server", "echo in"
            ),
            check=False,
        )
        assert alone.stdout == "in\n"

        removed = await run(_doorward("ssh", "setup", "--remove", "--ssh-config", str(config)))
        assert "Removed" in removed.stdout
        assert config.read_text() == mine
        assert not (home / "doorward").exists()


def _doorward(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "doorward", *arguments]
