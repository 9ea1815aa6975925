"""``doorward demo``: a whole tailnet on this machine, to look at and to ssh into.

It starts a real server and two real clients, ``laptop`` and ``server``, all in user space and all below one folder, and
writes an ssh configuration that trusts exactly the host keys that the tailnet vouches for. Started again it resumes; stopped
it leaves nothing running.
"""

import asyncio
import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

from doorward.clock import SystemClock
from doorward.engine.base import Peer
from doorward.engine.processes import stop, tied_to_us
from doorward.engine.programs import ClientPaths, find_client
from doorward.engine.tailscaled import PrivateDaemon
from doorward.errors import Unavailable

STOP_PATIENCE = 6.0  # seconds; doorward promises five
PATIENCE = 40.0  # seconds for everything to come up; a second start takes about two
FROM, TO = "laptop", "server"


def demo(*, data_dir: Path = Path(".demo"), check: bool = False) -> int:
    """Start doorward and two machines on this computer, and show how to ssh from one to the other.

    Everything it makes is below the folder; started again it goes on where it was. Ctrl-C stops it all.

    Example: `doorward demo`, then `ssh -F .demo/ssh_config server` in another terminal.

    Exit codes: 0 stopped as asked or checked well, 1 something did not come up.

    Args:
        data_dir: The folder for everything.
        check: Run one command over ssh, print what it said, stop, and tell by the exit code whether it worked.
    """
    client = find_client(os.environ)
    if client is None:
        raise Unavailable("there is no stock tailscale client", cure="Run: doorward setup client")
    if shutil.which("ssh") is None:
        raise Unavailable("there is no ssh", cure="Install OpenSSH's client (Debian: openssh-client).")
    return asyncio.run(_until_told(_Demo(data_dir.absolute(), client, Console()).run(check=check)))


async def _until_told(run: Coroutine[Any, Any, int]) -> int:
    """Run it until it ends or a signal says stop; the exit code. A second signal does not cut the tidying short."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run)
        loop = asyncio.get_running_loop()
        told = asyncio.Event()

        def stop_once() -> None:
            if not told.is_set():
                told.set()
                running.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop_once)
        await asyncio.wait([running])
    return 0 if running.cancelled() else running.result()


class _Demo:
    """One run of the demo."""

    def __init__(self, folder: Path, client: ClientPaths, console: Console) -> None:
        self._folder = folder
        self._client = client
        self._console = console
        self._account = _account()
        self._server_dir = folder / "doorward"
        self._config = folder / "ssh_config"
        self._known_hosts = folder / "known_hosts"

    async def run(self, *, check: bool) -> int:
        """The whole demo, until it is cancelled or checked; the exit code."""
        self._server_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            async with self._serving() as (process, url), asyncio.TaskGroup() as group:
                machines = [self._machine(name) for name in (FROM, TO)]
                running = [group.create_task(machine.run()) for machine in machines]
                try:
                    with self._console.status("two machines join ..."):
                        await self._come_up(url, *machines)
                    if check:
                        return await asyncio.to_thread(self._check)
                    self._explain(url)
                    await process.wait()
                    raise Unavailable("doorward ended by itself", cure=self._where_to_look())
                finally:
                    if not check:
                        self._console.print("\nstopping ...")
                    for task in running:
                        task.cancel()
        except ExceptionGroup as several:
            # From whatever depth: the first says it all, and what it broke off says nothing more.
            first: Exception = several
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            raise first from None

    async def _come_up(self, url: str, laptop: PrivateDaemon, server: PrivateDaemon) -> None:
        """Wait until both machines are in and see each other, and write what ssh needs to know."""
        try:
            async with asyncio.timeout(PATIENCE):
                user = await self._user()
                async with asyncio.TaskGroup() as joining:
                    for machine in (laptop, server):
                        joining.create_task(machine.up(url, lambda: self._key(user)))
                await server.api.set_prefs(RunSSH=True)
                self._write_ssh_files(laptop, await self._seen(laptop))
        except TimeoutError:
            raise Unavailable(
                f"the demo did not come up within {PATIENCE:.0f} s", cure=self._where_to_look()
            ) from None

    def _where_to_look(self) -> str:
        return f"The logs below {self._folder} say why; to begin anew, remove that folder."

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
        """The server, as its own process, until the end of the block; and its address.

        Port 0 means a free one at the first start, and the same at every other, so that the machines find it again.
        """
        command = [sys.executable, "-m", "doorward", "serve", "--data-dir", str(self._server_dir)]
        command += ["--listen", "127.0.0.1:0"]
        with (self._folder / "doorward.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *tied_to_us(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                # Ctrl-C is ours to hand on, after the machines.
                start_new_session=True,
            )
        assert process.stdout is not None
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    line = (await process.stdout.readline()).decode()
            except TimeoutError:
                line = ""
            if not line.startswith("ready "):
                raise Unavailable("doorward did not start", cure=self._where_to_look())
            yield process, line.removeprefix("ready ").strip()
        finally:
            await stop(process, STOP_PATIENCE)

    def _machine(self, name: str) -> PrivateDaemon:
        environ = dict(os.environ)
        if not self._client.knows_pins:
            environ["SSL_CERT_FILE"] = str(self._server_dir / "tls" / "authority.pem")
        return PrivateDaemon(
            self._client, self._folder / name, hostname=name, clock=SystemClock(), environ=environ
        )

    async def _doorward(self, *arguments: str) -> str:
        """Run one of our own commands, as a person would."""
        command = [sys.executable, "-m", "doorward", *arguments, "--data-dir", str(self._server_dir)]
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        finally:
            await stop(process, 0)
        if process.returncode:
            said = " ".join(err.decode().split())
            raise Unavailable(
                f"`doorward {' '.join(arguments[:2])}` failed: {said}", cure=self._where_to_look()
            )
        return out.decode().strip()

    async def _user(self) -> str:
        """The person of this tailnet, named like the account; made at the first run."""
        name = re.sub(r"[^a-z0-9._-]", "", self._account.lower()).lstrip("._-") or "demo"
        if f'"{name}"' not in await self._doorward("users", "list", "--json"):
            await self._doorward("users", "create", name, "--role", "owner")
        return name

    async def _key(self, user: str) -> str:
        return await self._doorward("keys", "create", "--user", user)

    async def _seen(self, laptop: PrivateDaemon) -> Peer:
        """The server as the laptop sees it, once it is online and has told its host keys."""
        while True:
            status = await laptop.status()
            for peer in (status.peers or {}).values():
                if peer.dns_name.split(".", 1)[0] == TO and peer.online and peer.ssh_host_keys:
                    return peer
            await asyncio.sleep(0.05)

    def _write_ssh_files(self, laptop: PrivateDaemon, server: Peer) -> None:
        """An ssh configuration that goes through the laptop and trusts only what the tailnet vouches for."""
        fqdn = server.dns_name.rstrip(".")
        names = ",".join((TO, fqdn, *(server.tailscale_ips or ())))
        lines = [f"{names} {key}\n" for key in server.ssh_host_keys or ()]
        self._known_hosts.write_text("".join(lines), encoding="utf-8")
        nc = f"{_quoted(self._client.tailscale)} --socket={_quoted(laptop.api.socket)} nc %h %p"
        self._config.write_text(
            f"Host {TO}\n"
            f"    HostName {fqdn}\n"
            f"    User {self._account}\n"
            f"    ProxyCommand {nc}\n"
            f'    UserKnownHostsFile "{_literal(self._known_hosts)}"\n'
            "    GlobalKnownHostsFile /dev/null\n"
            "    StrictHostKeyChecking yes\n"
            "    UpdateHostKeys no\n"
            "    PubkeyAuthentication no\n"
            "    PasswordAuthentication no\n",
            encoding="utf-8",
        )

    def _check(self) -> int:
        """One command over ssh, by the very line that people are shown."""
        command = [
            "ssh",
            "-F",
            str(self._config),
            TO,
            "echo I am $(whoami) on a machine of the tailnet, without a key",
        ]
        done = subprocess.run(  # noqa: S603 - ssh, found on PATH, with arguments of ours
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        self._console.print(f"$ ssh -F {_short(self._config)} {TO} ...", highlight=False)
        self._console.print(done.stdout.strip() or done.stderr.strip(), highlight=False, markup=False)
        return 0 if done.returncode == 0 else 1

    def _explain(self, url: str) -> None:
        """The screen that says what runs and what to do with it."""
        doorward = f"{_short(Path(sys.executable).with_name('doorward'))}"
        where = f"--data-dir {_short(self._server_dir)}"
        self._console.print(
            f"\n[bold]doorward runs at {url}[/bold], and two machines have joined: {FROM} and {TO}.\n\n"
            f"Get into {TO} from {FROM}, without a key or a password, in another terminal:\n\n"
            f"    [bold green]ssh -F {_short(self._config)} {TO}[/bold green]\n\n"
            "Look around:\n\n"
            f"    {doorward} nodes list {where}\n"
            f"    {doorward} policy get {where}\n"
            f"    {doorward} audit list {where}\n\n"
            "Ctrl-C stops everything; `make demo` goes on from here.\n",
            highlight=False,
            soft_wrap=True,
        )


def _account() -> str:
    """The account we run as: whoever is asked for by another name, only root could become."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise Unavailable(
            f"user {os.geteuid()} has no name in the account database, so ssh cannot get in as it",
            cure="Run the demo as a user that has one.",
        ) from None


def _literal(path: Path) -> str:
    """For ssh_config, where a percent sign begins a token."""
    return str(path).replace("%", "%%")


def _quoted(path: Path) -> str:
    """The same, for the shell that ProxyCommand is run by."""
    return shlex.quote(_literal(path))


def _short(path: Path) -> str:
    """The path as one would type it here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
