"""Stock Tailscale clients in user space, each with its own state, socket and proxies."""

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.programs import Client, require, require_client

from doorward.engine.base import EngineError
from doorward.engine.localapi import LocalApi
from doorward.engine.processes import send, stop, tied_to_us


class StockClient:
    """A real ``tailscaled`` and its command. ``async with`` starts the daemon and stops it, and removes its state.

    Args:
        name: the node's hostname, and its log's name.
        client: the programs; those doorward itself uses by default.
        namespace: a network namespace to live in, by name.
        environ: more variables for the daemon (``SSL_CERT_FILE``, ``TS_DEBUG_...``).
    """

    def __init__(
        self,
        name: str,
        *,
        client: Client | None = None,
        namespace: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.client = client or require_client()
        self._prefix = [str(require("ip")), "netns", "exec", namespace] if namespace else []
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("TS_", "DOORWARD_"))
        }
        self._environ = inherited | dict(environ or {})
        # In /tmp directly: pytest's folders make paths too long for a socket address.
        self._temporary = tempfile.TemporaryDirectory(prefix=f"dw-{name[:12]}-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.socket = self.folder / "s"
        self.log = self.folder / "log"
        self.socks_port = 0
        self.http_port = 0
        self._process: asyncio.subprocess.Process | None = None
        self.api = LocalApi(self.socket)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.api.close()
        if self._process is not None:
            await stop(self._process, 20)
        if error is not None and self.log.exists():
            print(f"--- the end of {self.name}'s log ---\n{self.log.read_text(errors='replace')[-4000:]}")  # noqa: T201 - pytest shows it with the failure
        self._temporary.cleanup()

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *, stuck: bool = False) -> None:
        """Start the daemon; returns when it answers. The ports of its proxies stay the same over restarts.

        One that will be ``stuck`` before it has a state of its own is not waited for until it has one.
        """
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tied_to_us(
                    [
                        *self._prefix,
                        self.client.tailscaled,
                        "--tun=userspace-networking",
                        "--no-logs-no-support",
                        "--port=0",
                        f"--statedir={self.folder}",
                        f"--socket={self.socket}",
                        f"--socks5-server=localhost:{self.socks_port}",
                        f"--outbound-http-proxy-listen=localhost:{self.http_port}",
                    ]
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
            )
        async with asyncio.timeout(60):
            while not await self._answers(stuck=stuck):
                assert self._process.returncode is None, f"{self.name} ended:\n{self.log.read_text()[-2000:]}"
                await asyncio.sleep(0.02)
        if self.socks_port == 0:
            said = self.log.read_text(errors="replace")
            self.socks_port, self.http_port = _logged_port(said, "SOCKS5"), _logged_port(said, "HTTP proxy")

    async def up(
        self,
        login_server: str,
        auth_key: str | None = None,
        *,
        ssh: bool = False,
        hostname: str | None = None,
        extra: Sequence[str] = (),
        within: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """``tailscale up``. Without a key it returns when the daemon asks for a login by link, or is Running."""
        arguments = [
            "up",
            f"--login-server={login_server}",
            f"--hostname={hostname or self.name}",
            f"--timeout={within:g}s",
        ]
        if auth_key:
            arguments.append(f"--auth-key={auth_key}")
        if ssh:
            arguments.append("--ssh")
        return await self.cli(*arguments, *extra, within=within + 40, check=check)

    async def cli(
        self, *arguments: str, within: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``tailscale ARGUMENTS``. A non-zero end raises with what it said, unless ``check`` is false."""
        command = [*self._prefix, str(self.client.tailscale), f"--socket={self.socket}", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
        )
        try:
            async with asyncio.timeout(within):
                out, err = await process.communicate()
        finally:
            await stop(process, 1)
        result = subprocess.CompletedProcess(command, process.returncode or 0, out.decode(), err.decode())
        assert not check or result.returncode == 0, f"tailscale {arguments}: {result.stdout}{result.stderr}"
        return result

    async def status(self) -> dict[str, Any]:
        """``tailscale status --json``, which also answers where the backend is stopped."""
        result = await self.cli("status", "--json")
        answer = json.loads(result.stdout)
        assert isinstance(answer, dict)
        return answer

    async def is_well(self) -> bool:
        """Whether it has nothing to complain of, which may take a moment after it has started."""
        return not (await self.status())["Health"]

    async def wait_until(self, state: str, within: float = 40) -> dict[str, Any]:
        """Wait for a backend state such as ``Running`` or ``NeedsLogin``; the status then."""
        async with asyncio.timeout(within):
            while (await self.api.status(peers=False)).backend_state != state:  # noqa: ASYNC110 - the bus would do, and hide a daemon that died
                await asyncio.sleep(0.02)
        return await self.status()

    async def ping(self, peer: str, *extra: str, tries: int = 5) -> str:
        """What ``tailscale ping -c 1`` said; raises when nobody answered.

        A ping may be lost as any packet may, and is for certain where one of the two does not yet know at which relay the
        other is: so it is tried again.
        """
        command = ("ping", "-c", "1", "--until-direct=false", "--timeout=10s", *extra, peer)
        for left in reversed(range(tries)):
            done = await self.cli(*command, check=left == 0)
            if done.returncode == 0 or "timed out" not in done.stdout + done.stderr:
                break
        assert done.returncode == 0, f"tailscale {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def proxy_command(self) -> str:
        """An ``ssh -o ProxyCommand`` that connects through this node."""
        return " ".join(
            [*self._prefix, str(self.client.tailscale), f"--socket={self.socket}", "nc", "%h", "%p"]
        )

    def ssh_command(self, target: str, command: str, *, known_hosts: Path | None = None) -> list[str]:
        """OpenSSH's arguments that run ``command`` at ``USER@HOST`` through this node and ask nothing."""
        options = [f"ProxyCommand={self.proxy_command()}", "BatchMode=yes", "LogLevel=ERROR"]
        if known_hosts is None:
            options += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        else:
            options += ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={known_hosts}"]
        return [
            "ssh",
            "-F",
            "none",
            *(part for option in options for part in ("-o", option)),
            target,
            command,
        ]

    async def kill(self) -> None:
        """``kill -9`` the daemon and wait until it is gone; the state stays."""
        assert self._process is not None
        send(self._process, signal.SIGKILL)
        await self._process.wait()

    async def restart(self) -> None:
        """Stop the daemon in its own way and start it again with the same state."""
        assert self._process is not None
        await stop(self._process, 20)
        await self.start()

    async def _answers(self, *, stuck: bool) -> bool:
        try:
            return (await self.api.status(peers=False)).backend_state != "NoState" or stuck
        except EngineError:
            return False


def _logged_port(text: str, proxy: str) -> int:
    """The port of a proxy out of the daemon's log, or 0."""
    found = re.search(rf"{proxy} listening on \S+:(\d+)", text)
    return int(found[1]) if found else 0
