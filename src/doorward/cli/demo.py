"""``doorward demo``: a whole tailnet on this machine, to look at, to ssh into, and to be signed in by.

It starts a real server and three real clients, all in user space and all below one folder, and writes an ssh configuration
that trusts exactly the host keys that the tailnet vouches for. From ``laptop`` one gets into ``server`` at once, and into
``vault`` when one has said yes. On ``server`` there is an app (``demo_app``) that knows who opens it. Started again it resumes;
stopped it leaves nothing running.
"""

import asyncio
import contextlib
import functools
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from doorward.api import app_types, types
from doorward.cli import demo_app, demo_console
from doorward.cli.ssh_browser import Pages, watch
from doorward.clock import SystemClock
from doorward.engine.base import Peer
from doorward.engine.processes import stop, tied_to_us
from doorward.engine.programs import ClientPaths, find_client
from doorward.engine.tailscaled import PrivateDaemon
from doorward.errors import Unavailable
from doorward.protocol.tailcfg.capability import DOOR

STOP_PATIENCE = 6.0  # seconds; doorward promises five
PATIENCE = 40.0  # seconds for everything to come up; a second start takes about two
FROM, TO, ASKS = "laptop", "server", "vault"
TAG = "tag:vault"


def demo(*, data_dir: Path = Path(".demo"), check: bool = False) -> int:
    """Start doorward and three machines on this computer, and show how to ssh from one to the others.

    Everything it makes is below the folder; started again it goes on where it was. Ctrl-C stops it all.

    Example: `doorward demo`, then `ssh -F .demo/ssh_config server` in another terminal.

    Exit codes: 0 stopped as asked or checked well, 1 something did not come up.

    Args:
        data_dir: The folder for everything.
        check: Run one command over ssh on each machine and open the app, print what they said, stop, and tell by the exit
            code whether it worked.
    """
    client = find_client(os.environ)
    if client is None:
        raise Unavailable("there is no stock tailscale client", cure="Run: doorward setup client")
    if shutil.which("ssh") is None:
        raise Unavailable("there is no ssh", cure="Install OpenSSH's client (Debian: openssh-client).")
    return asyncio.run(_until_told(_Demo(data_dir.absolute(), client, Console()).run(check=check)))


async def _until_told(run: Coroutine[Any, Any, int]) -> int:
    """Run it until it ends or a signal says stop; the exit code. A second signal does not cut the tidying short."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(run)

            def stop_once() -> None:
                if not told.is_set():
                    told.set()
                    running.cancel()

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop_once)
    except ExceptionGroup as several:
        # From whatever depth: the first says it all, and what it broke off says nothing more.
        first: Exception = several
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from None
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
        # Ways into the tailnet as one of the machines, for programs of this computer.
        self._proxies = {name: _free_port() for name in (FROM, TO)}

    async def run(self, *, check: bool) -> int:
        """The whole demo, until it is cancelled or checked; the exit code."""
        self._server_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with self._serving() as (process, url), asyncio.TaskGroup() as group:
            machines = [self._machine(name) for name in (FROM, TO, ASKS)]
            running = [group.create_task(machine.run()) for machine in machines]
            try:
                with self._console.status("three machines join ..."):
                    door = await self._come_up(url, *machines)
                async with self._board(machines[0], door) as board:
                    if check:
                        return await self._check(board) or await demo_console.check(
                            demo_console.link_in(Path(await self._sign_in_file())), TO, self._console
                        )
                    self._explain(url, await self._console_link(), await self._link(), board)
                    running.append(group.create_task(self._announce(machines[0], door, url)))
                    await process.wait()
                    raise Unavailable("doorward ended by itself", cure=self._where_to_look())
            finally:
                if not check:
                    self._console.print("\nstopping ...")
                for task in running:
                    task.cancel()

    async def _come_up(self, url: str, laptop: PrivateDaemon, *others: PrivateDaemon) -> str:
        """Wait until all machines are in and the laptop sees the others, and write what ssh needs to know; the door."""
        try:
            async with asyncio.timeout(PATIENCE):
                user = await self._user()
                async with asyncio.TaskGroup() as joining:
                    for machine in (laptop, *others[:-1]):
                        joining.create_task(machine.up(url, functools.partial(self._key, "--user", user)))
                    await self._set_policy()  # without which nobody has the tag
                    joining.create_task(others[-1].up(url, functools.partial(self._key, "--tag", TAG)))
                for machine in others:
                    await machine.api.set_prefs(RunSSH=True)
                self._write_ssh_files(laptop, [await self._seen(laptop, name) for name in (TO, ASKS)])
                return str((await laptop.status()).capability(DOOR)[0])
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
            self._client,
            self._folder / name,
            hostname=name,
            clock=SystemClock(),
            environ=environ,
            proxy=self._proxies.get(name, 0),
        )

    @contextlib.asynccontextmanager
    async def _board(self, laptop: PrivateDaemon, door: str) -> AsyncIterator[demo_app.Place | None]:
        """The app on ``server``, until the end of the block; None where the library is missing that it signs people in with.

        Tailnet connections to that machine arrive at the same port of 127.0.0.1. The app is made anew each time, so its
        secret is in no file.
        """
        if not demo_app.available():
            yield None
            return
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
            host = (await self._seen(laptop, TO)).dns_name.rstrip(".")
            place = demo_app.Place(
                url=f"https://{host}:{listening.getsockname()[1]}",
                proxy=self._proxy(TO),
                authority=self._server_dir / "tls" / "authority.pem",
            )
            if f'"{demo_app.NAME}"' in await self._doorward("apps", "list", "--json"):
                await self._doorward("apps", "delete", demo_app.NAME)
            said = await self._doorward(
                "apps", "create", demo_app.NAME, "--redirect", place.callback, "--json"
            )
            made = msgspec.json.decode(said, type=app_types.MadeApp)
            board = demo_app.Board(
                place.callback,
                issuer=door,
                client_id=made.app.client_id,
                secret=made.secret,
                client=place.client(),
            )
            context = await asyncio.to_thread(self._certificate, host)
            async with demo_app.serving(board, listening, context):
                yield place

    def _certificate(self, host: str) -> ssl.SSLContext:
        """TLS for one of the machines, by the demo's own authority."""
        from doorward.server import tls  # noqa: PLC0415 - it loads the cryptography that no other command needs

        clock = SystemClock()
        authority = tls.Authority.open(self._server_dir / "tls", clock)
        return tls.IssuedCertificate(authority, demo_app.NAME, clock, names=[host]).context

    def _proxy(self, name: str) -> str:
        return f"http://localhost:{self._proxies[name]}"

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

    async def _set_policy(self) -> None:
        """At the first run, a machine that asks; what somebody has made of the policy since then stays."""
        if TAG in await self._doorward("policy", "get"):
            return
        everybody = ("--src", "autogroup:member", "--dst", TAG)
        await self._doorward("policy", "add-tag-owner", TAG, "autogroup:admin")
        await self._doorward("policy", "add-grant", *everybody, "--ip", "tcp:22")
        # Named, so that the console need not ask as whom: the machines run as nobody else.
        as_me = () if self._account == "root" else (self._account,)
        await self._doorward(
            "policy", "add-ssh", *everybody, "--users", "autogroup:nonroot", "root", *as_me, "--check"
        )
        if as_me:
            own = ("--src", "autogroup:member", "--dst", "autogroup:self")
            await self._doorward("policy", "add-ssh", *own, "--users", *as_me)

    async def _key(self, *owner: str) -> str:
        return await self._doorward("keys", "create", *owner)

    async def _seen(self, laptop: PrivateDaemon, name: str) -> Peer:
        """A machine as the laptop sees it, once it is online and has told its host keys."""
        while True:
            status = await laptop.status()
            for peer in (status.peers or {}).values():
                if peer.dns_name.split(".", 1)[0] == name and peer.online and peer.ssh_host_keys:
                    return peer
            await asyncio.sleep(0.05)

    def _write_ssh_files(self, laptop: PrivateDaemon, others: Sequence[Peer]) -> None:
        """An ssh configuration that goes through the laptop and trusts only what the tailnet vouches for."""
        nc = f"{_quoted(self._client.tailscale)} --socket={_quoted(laptop.api.socket)} nc %h %p"
        known: list[str] = []
        hosts: list[str] = []
        for peer in others:
            fqdn = peer.dns_name.rstrip(".")
            name = fqdn.split(".", 1)[0]
            names = ",".join((name, fqdn, *(peer.tailscale_ips or ())))
            known += [f"{names} {key}\n" for key in peer.ssh_host_keys or ()]
            hosts.append(
                f"Host {name}\n"
                f"    HostName {fqdn}\n"
                f"    User {self._account}\n"
                f"    ProxyCommand {nc}\n"
                f'    UserKnownHostsFile "{_literal(self._known_hosts)}"\n'
                "    GlobalKnownHostsFile /dev/null\n"
                "    StrictHostKeyChecking yes\n"
                "    UpdateHostKeys no\n"
                "    PubkeyAuthentication no\n"
                "    PasswordAuthentication no\n"
            )
        self._known_hosts.write_text("".join(known), encoding="utf-8")
        self._config.write_text("".join(hosts), encoding="utf-8")

    async def _check(self, board: demo_app.Place | None) -> int:
        """One command on each machine, by the very lines that people are shown, and the app; what asks gets its yes."""
        worked = True
        for name in (TO, ASKS):
            command = ["ssh", "-F", str(self._config), name]
            process = await asyncio.create_subprocess_exec(
                *command,
                "echo I am $(whoami) on a machine of the tailnet, without a key",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                    said = group.create_task(process.communicate())
                    # Not asked a second time within the period: then it ends by itself.
                    while name == ASKS and not said.done():
                        await self._approve()
            finally:
                await stop(process, 0)
            out, err = (text.decode().strip() for text in said.result())
            self._console.print(f"$ ssh -F {_short(self._config)} {name} ...", highlight=False)
            self._console.print(out or err, highlight=False, markup=False)
            worked = worked and process.returncode == 0
        if board is not None:
            name = await self._visit(board)
            self._console.print(
                f"{board.url}, opened from {FROM}, knows {name}: without a click",
                highlight=False,
                soft_wrap=True,
            )
        return 0 if worked else 1

    async def _visit(self, board: demo_app.Place) -> str:
        """Whom the app knows. Doorward's own node, where the door is, may come up after the three."""
        last = Unavailable("the board did not answer")
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        return await demo_app.visit(board, self._proxy(FROM))
                    except Unavailable as error:
                        last = error
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise last from None

    async def _approve(self) -> None:
        """Say yes to whatever waits, as one would on the server."""
        waiting = await self._doorward("ssh", "checks", "list", "--json")
        for each in msgspec.json.decode(waiting, type=list[types.Check]):
            await self._doorward("ssh", "checks", "approve", str(each.id))

    async def _announce(self, laptop: PrivateDaemon, door: str, url: str) -> None:
        """Show the page of an ssh that waits, at the address at which this computer's browser finds it."""
        local = f"http://localhost:{url.rpartition(':')[2]}"

        async def show(link: str) -> None:
            self._console.print(
                f"An ssh to {ASKS} waits for you: [bold]{local}{link.removeprefix(door)}[/bold]",
                highlight=False,
                soft_wrap=True,
            )

        await watch(laptop.api, Pages(door), show, lambda _: None)

    async def _sign_in_file(self) -> str:
        """Make a link that signs the person in on this computer; the file that it is in."""
        return await self._doorward("users", "sign-in", await self._user())

    async def _console_link(self) -> str:
        """How the person opens the console."""
        return demo_console.told_of(Path(await self._sign_in_file()), shown=self._console.is_terminal)

    async def _link(self) -> str:
        """How the person comes in by a browser, while they have no way to sign in; empty once they do."""
        user = await self._user()
        known = msgspec.json.decode(await self._doorward("users", "show", user, "--json"), type=types.User)
        if known.passkeys or known.identities:
            return ""
        return self._told_of(Path(await self._doorward("users", "invite", user)))

    def _told_of(self, file: Path) -> str:
        """The link in a file. It is a secret: on what is no screen only where it is gets said."""
        if not self._console.is_terminal:
            return f"The link to make one, good once, is in {_short(file)}\n\n"
        local = [line for line in file.read_text(encoding="utf-8").splitlines() if "//localhost:" in line]
        return f"Make one on this computer, by a link that works once:\n\n    [bold green]{local[0]}[/bold green]\n\n"

    def _told_of_board(self, board: demo_app.Place | None) -> str:
        """How to open the app from ``laptop``."""
        if board is None:
            return (
                "There is an app to open, too, where Python finds Authlib: pip install 'doorward[demo]'\n\n"
            )
        tls, port = board.authority.parent, self._proxies[FROM]
        pins = ",".join(demo_app.pin(tls / f"{name}.pem") for name in ("door", demo_app.NAME))
        browser = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
        profile = shlex.quote(_short(self._folder / "browser"))
        headers = " ".join(f"-H '{name}: {value}'" for name, value in demo_app.BROWSER.items())
        return (
            f"Open an app on {TO} in a browser that is on {FROM}: it knows you, and nothing asks.\n\n"
            f"    [bold green]{browser} --user-data-dir={profile} --proxy-server=socks5://localhost:{port} "
            f"--ignore-certificate-errors-spki-list={pins} {board.url}/[/bold green]\n\n"
            "Or without a browser, with what one would say:\n\n"
            f"    curl -sL --cookie '' --proxy socks5h://localhost:{port} --cacert "
            f"{shlex.quote(_short(board.authority))} {headers} {board.url}/\n\n"
            f"(At localhost:{port} every program of this computer is on {FROM}, while this runs.)\n\n"
        )

    def _explain(self, url: str, console: str, link: str, board: demo_app.Place | None) -> None:
        """The screen that says what runs and what to do with it."""
        doorward = f"{_short(Path(sys.executable).with_name('doorward'))}"
        where = f"--data-dir {_short(self._server_dir)}"
        ssh = f"ssh -F {_short(self._config)}"
        self._console.print(
            f"\n[bold]doorward runs at {url}[/bold], and three machines have joined: {FROM}, {TO} and {ASKS}.\n\n"
            f"{console}"
            f"Get into {TO} from {FROM}, without a key or a password, in another terminal:\n\n"
            f"    [bold green]{ssh} {TO}[/bold green]\n\n"
            f"Get into {ASKS}, which asks first: it shows a code and waits.\n\n"
            f"    [bold green]{ssh} {ASKS}[/bold green]\n\n"
            "Say yes on its page, whose address appears here; there a passkey says who you are.\n\n"
            f"{link}"
            "Or say yes as the administrator:\n\n"
            f"    {doorward} ssh checks list {where}\n"
            f"    {doorward} ssh checks approve 1 {where}\n\n"
            f"{self._told_of_board(board)}"
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


def _free_port() -> int:
    """One that nobody has at this moment, below those that the kernel gives to any connection: it stays free until it is used."""
    while True:
        port = secrets.choice(range(20000, 32768))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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
