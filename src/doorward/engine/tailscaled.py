"""Our own place on the tailnet by a stock ``tailscaled``: the host's, or a private one in user space that we start.

The private one keeps its state in ``DATA_DIR/tailscaled``, opens no tunnel interface and needs no rights. It forwards
every tailnet connection to the same port on 127.0.0.1 and remembers whose it was, which is what ``whois`` asks. It is
started again when it dies, ends when we do, and logs in by an auth key that control makes for it::

    async with asyncio.TaskGroup() as group:
        group.create_task(daemon.run())        # until cancelled
        await daemon.up("http://127.0.0.1:8080", make_key)

``up`` asks for a key only when the kept state does not do. Who runs the daemon and who logs it in may be two processes:
the latter needs no more than its folder (``JoinedDaemon``).
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from doorward.clock import Clock
from doorward.config import socket_path
from doorward.engine.base import EngineError, Ping, Status, Stream, WhoIs
from doorward.engine.localapi import DEFAULT_SOCKET, WATCH_STATE, LocalApi
from doorward.engine.processes import Backoff, BoundedLog, stop, tied_to_us
from doorward.engine.programs import ClientPaths
from doorward.telemetry import counter, log

_log = log("engine")
_deaths = counter("engine_daemon_deaths_total", "Times the private tailscaled ended by itself")

LOG_LIMIT = 1024 * 1024
# tailscaled needs about 0.2 s to write its state and go.
STOP_PATIENCE = 3.0
START_PATIENCE = 15.0
_NEEDS_LOGIN = 2  # control.md section 24


class _Daemon:
    """A daemon reached over its LocalAPI: what is the same for the host's and for a private one."""

    def __init__(self, api: LocalApi, device: str) -> None:
        self.api = api
        self.device = device

    async def whois(self, address: str, protocol: str = "tcp") -> WhoIs | None:
        """Whose ``address`` (``IP:PORT``) is; see ``Engine``."""
        return await self.api.whois(address, protocol)

    async def status(self, *, peers: bool = True) -> Status:
        """The daemon's state."""
        return await self.api.status(peers=peers)

    async def ping(self, address: str, kind: str = "disco") -> Ping:
        """Ping a tailnet address."""
        return await self.api.ping(address, kind)

    async def dial(self, host: str, port: int) -> Stream:
        """Connect to a tailnet name or address over TCP."""
        return await self.api.dial(host, port)

    async def close(self) -> None:
        """Let go of the daemon."""
        await self.api.close()


class HostDaemon(_Daemon):
    """The host's own daemon. It is not ours: we neither start it nor change its settings."""


async def find_host_daemon(login_url: str, path: Path = DEFAULT_SOCKET) -> HostDaemon | None:
    """The host's daemon when it runs and is logged in at ``login_url``, else None."""
    api = LocalApi(path)
    try:
        prefs, status = await api.prefs(), await api.status(peers=False)
    except EngineError as error:
        _log.debug("the host's tailscaled does not serve", reason=error.message)
        await api.close()
        return None
    if not status.running or str(prefs.get("ControlURL", "")).rstrip("/") != login_url.rstrip("/"):
        await api.close()
        return None
    return HostDaemon(api, _device_of(status) if status.tun else "")


class JoinedDaemon(_Daemon):
    """A private ``tailscaled`` that another process of ours runs: it can be asked, and logged in.

    Args:
        data_dir: doorward's; the state lives in its folder ``tailscaled``.
        hostname: what the node calls itself.
        environ: says where sockets may lie whose path is too long, as to the process that runs it.
    """

    def __init__(self, data_dir: Path, *, hostname: str, environ: Mapping[str, str]) -> None:
        self.folder = data_dir / "tailscaled"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__(LocalApi(socket_path(self.folder, "tailscaled.sock", environ)), "")
        self.log_file = self.folder / "tailscaled.log"
        self._hostname = hostname

    async def up(
        self, login_url: str, auth_key: Callable[[], Awaitable[str]], *, within: float = 30.0
    ) -> Status:
        """Be on the tailnet of ``login_url``: wait for the daemon and log it in if its kept state does not do.

        Args:
            login_url: the control server.
            auth_key: makes the key to log in with; awaited at most once.
            within: seconds for the whole.

        Returns:
            The status once it is Running.

        Raises:
            EngineError: with control's own sentence when the login was refused.
        """
        try:
            async with asyncio.timeout(within):
                status = await self._answering()
                kept = str((await self.api.prefs()).get("ControlURL", "")).rstrip("/") == login_url.rstrip(
                    "/"
                )
                if not (kept and status.have_node_key and await self._resumed()):
                    await self._log_in(login_url, await auth_key(), fresh=not status.have_node_key)
                return await self.api.status(peers=False)
        except TimeoutError:
            raise EngineError(
                f"doorward's own node did not come up at {login_url} within {within:g} s",
                cure=f"Its log may say why: {self.log_file}",
            ) from None

    async def until_login_needed(self) -> None:
        """Return when the login is no longer good (deleted, expired, logged out), however often the daemon dies before."""
        while True:
            with contextlib.suppress(EngineError):
                async with contextlib.aclosing(self.api.watch(WATCH_STATE)) as bus:
                    async for notify in bus:
                        if notify.browse_to_url or notify.state == _NEEDS_LOGIN:
                            return
            await asyncio.sleep(0.2)

    async def _answering(self) -> Status:
        """Wait until the daemon answers and knows its own state."""
        async with asyncio.timeout(START_PATIENCE):
            while True:
                with contextlib.suppress(EngineError):
                    status = await self.api.status(peers=False)
                    if status.backend_state != "NoState":
                        return status
                await asyncio.sleep(0.02)

    async def _resumed(self) -> bool:
        """Come up with the kept login; False when that is no longer good."""
        await self.api.set_prefs(WantRunning=True, Hostname=self._hostname)
        while True:
            status = await self.api.status(peers=False)
            if is_up(status):
                return True
            if status.auth_url or status.backend_state in {"NeedsLogin", "NeedsMachineAuth"}:
                return False
            await asyncio.sleep(0.02)

    async def _log_in(self, login_url: str, key: str, *, fresh: bool) -> None:
        prefs = private_prefs(login_url, self._hostname)
        async with asyncio.TaskGroup() as group:
            begun = asyncio.Event()
            refused = group.create_task(self._refusal(begun))
            await begun.wait()
            try:
                await self.api.start(prefs=prefs, auth_key=key)
                # With a node key in its state ``start`` logs in by itself, and a second login would find the auth key
                # used up.
                if fresh:
                    await self.api.login_interactive()
            except EngineError as error:
                # Raised below: an error inside the group would come out wrapped.
                failure: EngineError | None = error
            else:
                failure = await self._outcome(refused)
            refused.cancel()
        if failure is not None:
            raise failure

    async def _outcome(self, refused: asyncio.Task[EngineError]) -> EngineError | None:
        """None once the node is up, else why it was refused."""
        while not refused.done():
            with contextlib.suppress(EngineError):
                if is_up(await self.api.status(peers=False)):
                    return None
            await asyncio.sleep(0.02)
        return refused.result()

    async def _refusal(self, begun: asyncio.Event) -> EngineError:
        """Wait for the reason why a login does not come about; ``begun`` is set when none can be missed any more."""
        try:
            async with contextlib.aclosing(self.api.watch(WATCH_STATE)) as bus:
                async for notify in bus:
                    # The first message tells of what was before.
                    if not begun.is_set():
                        begun.set()
                    elif notify.err_message:
                        return EngineError(f"doorward's own node was refused: {notify.err_message}")
                    elif notify.browse_to_url:
                        return EngineError(
                            "doorward's own node was asked to log in by hand: its key was not taken"
                        )
        except EngineError as error:
            _log.debug("the daemon's bus broke off", reason=error.message)
        finally:
            begun.set()
        return EngineError(
            "tailscaled ended while it was logging in", cure=f"Its log may say why: {self.log_file}"
        )


class PrivateDaemon(JoinedDaemon):
    """A ``tailscaled`` in user space that we start, watch and stop.

    Args:
        client: the programs.
        data_dir: doorward's; the state lives in its folder ``tailscaled``.
        hostname: what the node calls itself.
        clock: tells how long each daemon lived.
        environ: the environment it is given, without our own ``TS_*`` variables, which would change what it does. For
            a daemon older than 1.82 add ``SSL_CERT_FILE``: it knows no pins, so it must trust the relay's authority.
        proxy: a port of localhost at which every program of this computer may use the tailnet as this node, by SOCKS5 and as
            an HTTP proxy; 0 for none.
    """

    def __init__(
        self,
        client: ClientPaths,
        data_dir: Path,
        *,
        hostname: str,
        clock: Clock,
        environ: Mapping[str, str],
        proxy: int = 0,
    ) -> None:
        super().__init__(data_dir, hostname=hostname, environ=environ)
        self.pid: int | None = None  # of the daemon that runs now
        self._client = client
        self._clock = clock
        self._proxies = (
            (f"--socks5-server=localhost:{proxy}", f"--outbound-http-proxy-listen=localhost:{proxy}")
            if proxy
            else ()
        )
        self._environ = {name: value for name, value in environ.items() if not name.startswith("TS_")}

    async def run(self) -> None:
        """Keep a daemon running until cancelled, and stop it then. Raises EngineError when the folder is in use."""
        await self.wait_for_socket()
        backoff = Backoff(first=0.1, longest=10.0, steady=30.0)
        with contextlib.closing(BoundedLog(self.log_file, LOG_LIMIT)) as output:
            while True:
                started = self._clock.monotonic()
                code = await self._run_once(output)
                wait = backoff.after(self._clock.monotonic() - started)
                _deaths.inc()
                _log.warning(
                    "tailscaled ended and is started again", code=code, wait=wait, log=str(self.log_file)
                )
                await asyncio.sleep(wait)

    async def _run_once(self, output: BoundedLog) -> int:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(
                (
                    self._client.tailscaled,
                    "--tun=userspace-networking",
                    "--no-logs-no-support",
                    "--port=0",
                    f"--statedir={self.folder}",
                    f"--state={self.folder / 'tailscaled.state'}",
                    f"--socket={self.api.socket}",
                    *self._proxies,
                )
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environ,
            # Ctrl-C on a terminal goes to everything in its session; we decide when the daemon ends.
            start_new_session=True,
        )
        assert process.stdout is not None
        self.pid = process.pid
        try:
            while content := await process.stdout.read(16 * 1024):
                output.write(content)
            return await process.wait()
        finally:
            self.pid = None
            await stop(process, STOP_PATIENCE)

    async def wait_for_socket(self) -> None:
        """Let the daemon of a doorward that was killed this moment go; one that stays is somebody else's."""
        try:
            async with asyncio.timeout(STOP_PATIENCE):
                while _answers(self.api.socket):  # noqa: ASYNC110 - it is not our child: nobody tells us
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise EngineError(
                f"another tailscaled uses {self.folder}",
                cure="Stop it, or choose another data directory.",
                place=str(self.folder),
            ) from None


def private_prefs(login_url: str, hostname: str, *, shields_up: bool = False) -> dict[str, Any]:
    """The whole preferences of a private daemon, as the daemon names them."""
    return {
        "ControlURL": login_url,
        "WantRunning": True,
        "Hostname": hostname,
        # Ours must not use the tailnet's resolver or routes: control has to find things outside the tailnet.
        "CorpDNS": False,
        "RouteAll": False,
        "ShieldsUp": shields_up,
        "NetfilterMode": 0,
        "NoStatefulFiltering": True,
        "AutoUpdate": {"Check": False, "Apply": False},
    }


def is_up(status: Status) -> bool:
    """Whether the node is on the tailnet as control has it.

    Running alone says little: newer daemons start so from their own memory, and hear from control a moment later that the
    node was deleted. One that is online has its map from control.
    """
    return status.running and not status.auth_url and status.self_node is not None and status.self_node.online


def _answers(path: Path) -> bool:
    """Whether anybody listens on the socket; one that was left by a daemon that was killed is refused at once."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _device_of(status: Status) -> str:
    """The interface that carries our IPv6 tailnet address."""
    ours = {ip_address(text) for text in status.addresses}
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            digits, *_, device = line.split()
            if IPv6Address(int(digits, 16)) in ours:
                return device
    return "tailscale0"
