"""OpenSSH, unmodified, through a stock client: host keys come from the netmap, and nothing is ever asked or skipped."""

import asyncio
import contextlib
import pwd
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.support.clients import StockClient
from tests.support.programs import require
from tests.support.require import missing
from tests.support.waiting import eventually

from doorward.engine.processes import stop

MESSAGES = "LogLevel=INFO"  # at ERROR, OpenSSH hides what the server says before it lets somebody in
_SHELLS = ("bash", "sh", "dash")


class OpenSSH:
    """ssh and its relatives from one node to another, with exactly the host keys that the netmap vouches for."""

    def __init__(self, client: StockClient, host: str, known_hosts: Path) -> None:
        self.host = host
        self._options = [
            *("-F", "none"),
            *("-o", f"ProxyCommand={client.proxy_command()}"),
            *("-o", "BatchMode=yes"),
            *("-o", MESSAGES),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null"),
        ]

    @classmethod
    async def between(cls, client: StockClient, host: str) -> "OpenSSH":
        """Wait until the client knows the host's keys, and write them where ssh looks."""

        async def keys() -> list[str]:
            for peer in ((await client.status())["Peer"] or {}).values():
                if peer["DNSName"].split(".")[0] == host and peer["Online"]:
                    return peer.get("sshHostKeys") or []
            return []

        async def are_known() -> bool:
            return bool(await keys())

        await eventually(are_known, 90)
        file = client.folder / f"known-{host}"
        file.write_text("".join(f"{host} {key}\n" for key in await keys()), encoding="utf-8")
        return cls(client, host, file)

    def command(self, program: str, *arguments: str) -> list[str]:
        """``program`` (ssh, scp or sftp) with the options and more arguments."""
        return [str(require(program)), *self._options, *arguments]

    async def run(
        self, account: str, *command: str, check: bool = True, program: str = "ssh"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command at the host as an account."""
        return await run(self.command(program, f"{account}@{self.host}", *command), check=check)

    @contextlib.asynccontextmanager
    async def session(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """An ssh that goes on, with pipes; ended with the block."""
        process = await asyncio.create_subprocess_exec(
            *self.command("ssh", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            await stop(process, 1)


async def run(
    command: Sequence[str], *, check: bool = True, within: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; one that fails raises with what it said, unless ``check`` is false."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate()
    finally:
        await stop(process, 1)
    done = subprocess.CompletedProcess(list(command), process.returncode or 0, out.decode(), err.decode())
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def another_account() -> str:
    """An account of this machine that is not root and has a real shell."""
    found = [
        account.pw_name
        for account in pwd.getpwall()
        if account.pw_uid != 0 and Path(account.pw_shell).name in _SHELLS and Path(account.pw_shell).exists()
    ]
    if not found:
        missing("there is no account with a shell but root; PostgreSQL's package brings one")
    return found[0]
