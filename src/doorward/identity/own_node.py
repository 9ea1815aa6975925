"""A node of a tailnet that is one program: a private stock daemon in user space, and an ASGI app behind it.

::

    start daemon ─▶ log in, shields up ─▶ serve: look at the packet filter ─▶ shields down ─▶ ... ─▶ shields up, stop
                                                         │        ▲
                                                         ▼        │ looked at again every second
                                              more than our port: shields up

A daemon in user space hands every tailnet connection that its packet filter lets in to the same port of 127.0.0.1, where databases
and other people's programs listen too. So nothing gets in until the policy is seen to allow the app's port alone; when it allows
more, the shields go up again at the next look, a second later.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn

from doorward.clock import SystemClock
from doorward.engine import EngineError, Status, find_client
from doorward.engine.localapi import WATCH_STATE, LocalApi, Opening
from doorward.engine.tailscaled import START_PATIENCE, PrivateDaemon, is_up, private_prefs
from doorward.errors import BadInput
from doorward.identity.connection import Tailnet
from doorward.identity.middleware import App, IdentityMiddleware, Receive, Scope, Send
from doorward.telemetry import log
from doorward.transport.listener import ListenerSpec, serve

TAILSCALE = "https://controlplane.tailscale.com"
LOOK = 1.0  # seconds between two looks at the packet filter, on which this computer's loopback depends
RENEW = 12 * 3600.0  # seconds between two looks at the certificate, which is good for weeks
_CERTIFICATE_PATIENCE = 120.0  # an authority proves the name by DNS first
_log = log("identity")


class OwnNode:
    """A node that is up. Made by ``doorward.identity.node``.

    Attributes:
        name: the full name that control gave it, such as ``wiki.example.ts.net``.
        addresses: its tailnet addresses.
    """

    def __init__(
        self, daemon: PrivateDaemon, status: Status, port: int | None, *, share_loopback: bool
    ) -> None:
        own = status.self_node
        self.name = own.dns_name.rstrip(".") if own else ""
        self.addresses = status.addresses
        self._domain = next(iter(status.cert_domains or ()), "")
        self._port = port if port is not None else 443 if self._domain else 80
        self._share = share_loopback
        self._daemon = daemon
        self._api = daemon.api
        self._shut = True  # as the daemon was told at its login

    @property
    def url(self) -> str:
        """Where people of the tailnet find the app. Over http it is WireGuard that encrypts."""
        scheme, usual = ("https", 443) if self._domain else ("http", 80)
        host = self._domain or self.name
        return f"{scheme}://{host}" + ("" if self._port == usual else f":{self._port}")

    async def serve(self, app: App, *, ready: asyncio.Event | None = None) -> None:
        """Serve ``app`` to the tailnet until cancelled; each request has its caller in the scope (``caller``).

        Args:
            app: any ASGI app. Its lifespan runs; requests without an identity never reach it.
            ready: set when requests are served.

        Raises:
            EngineError: when the port cannot be had, when the policy lets the tailnet reach more of this computer than the
                app, or when the app does not start.
        """
        bound = self._bind()
        with contextlib.closing(bound):
            if not self._share and (wide := await self._wide()):
                raise EngineError(
                    f"the policy lets others reach {wide} of this node, and with it of this computer's own 127.0.0.1",
                    cure=f"Give the node a tag, and let the policy allow tcp:{self._port} of it alone;"
                    " or say share_loopback=True where nothing else listens here.",
                )
            context = await self._certificate() if self._domain else None
            lifespan = LifespanOn(Config(app, lifespan="auto", log_config=None))
            await lifespan.startup()
            if lifespan.should_exit:
                raise EngineError("the app did not start", cure="Its own log says why.")
            try:
                await self._serve(app, bound, context, lifespan.state, ready or asyncio.Event())
            finally:
                with contextlib.suppress(EngineError):  # a daemon that is gone lets nobody in
                    await self._shields(up=True)
                await lifespan.shutdown()

    async def _serve(
        self, app: App, bound: socket.socket, context: ssl.SSLContext | None, state: Any, ready: asyncio.Event
    ) -> None:
        tailnet = Tailnet(self._api.socket)

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        spec = ListenerSpec(name="identity", sockets=[bound], ssl_context=context, identify=tailnet.identify)
        async with asyncio.TaskGroup() as group:
            listening = asyncio.Event()
            serving = group.create_task(
                serve(
                    [spec],
                    IdentityMiddleware(with_state, tailnet=tailnet),
                    {},
                    clock=SystemClock(),
                    stop=asyncio.Event(),
                    ready=listening,
                )
            )
            renewing = group.create_task(self._renew(context)) if context else None
            try:
                await listening.wait()
                await self._guard(ready)
            finally:
                serving.cancel()
                if renewing is not None:
                    renewing.cancel()

    def _bind(self) -> socket.socket:
        bound = socket.socket()
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", self._port))
        except OSError as error:
            bound.close()
            raise EngineError(
                f"port {self._port} of 127.0.0.1 cannot be had: {error.strerror}",
                cure="Choose another port; those below 1024 need a right to them.",
            ) from None
        bound.setblocking(False)
        return bound

    async def _guard(self, ready: asyncio.Event) -> None:
        """Keep the shields as the packet filter wants them, until cancelled. Whoever cannot look lets nobody in."""
        clock = asyncio.get_running_loop()
        while True:
            began = clock.time()
            try:
                wide = "" if self._share else await self._wide()
            except EngineError as error:
                wide = f"what cannot be seen ({error.message})"
            if bool(wide) != self._shut:
                try:
                    await self._shields(up=bool(wide))
                except EngineError as error:
                    # A daemon that has ended keeps what it was told last: looked at again at once when it is back.
                    _log.warning("the node's daemon does not answer", reason=error.message)
                if wide:
                    _log.warning("the policy opens more than the app: nobody is let in", opens=wide)
            ready.set()
            # Nobody tells us when the filter changes. The map of a large tailnet takes its time, and not all of ours.
            await asyncio.sleep(max(LOOK, 20 * (clock.time() - began)))

    async def _shields(self, *, up: bool) -> None:
        await self._api.set_prefs(ShieldsUp=up)
        self._shut = up

    async def _wide(self) -> str:
        """What besides our port others may connect to; empty when nothing."""
        ours = [ip_address(text) for text in self.addresses]
        for one in await self._api.packet_filter():
            if _meets(one, ours) and (one.first, one.last) != (self._port, self._port):
                return f"port {one.first}" if one.first == one.last else f"ports {one.first} to {one.last}"
        return ""

    async def _certificate(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        await self._load(context)
        return context

    async def _load(self, context: ssl.SSLContext) -> None:
        pair = await LocalApi(self._api.socket, timeout=_CERTIFICATE_PATIENCE).certificate(self._domain)
        await asyncio.to_thread(load_pair, context, pair)

    async def _renew(self, context: ssl.SSLContext) -> None:
        """The daemon renews what it keeps; here it is only taken over, for the connections that come."""
        while True:
            await asyncio.sleep(RENEW)
            try:
                await self._load(context)
            except EngineError as error:
                _log.warning("certificate not renewed", reason=error.message)


def load_pair(context: ssl.SSLContext, pair: bytes) -> None:
    """Have a context present a key and chain in PEM. Raises EngineError for what is none."""
    # The library reads files only; this one is ours alone, and gone at once.
    with tempfile.NamedTemporaryFile(prefix="doorward-") as file:
        file.write(pair)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except (ssl.SSLError, ValueError):
            raise EngineError("the daemon gave a certificate that cannot be used") from None


def _meets(opening: Opening, ours: list[IPv4Address | IPv6Address]) -> bool:
    """Whether it is about one of our addresses; what cannot be read is."""
    try:
        if "-" in opening.address:
            low, _, high = opening.address.partition("-")
            ends = ip_address(low), ip_address(high)
            return any(
                ends[0].version == one.version and int(ends[0]) <= int(one) <= int(ends[1]) for one in ours
            )
        network = ip_network(opening.address, strict=False)
        return any(one in network for one in ours if one.version == network.version)
    except ValueError:
        return True


@contextlib.asynccontextmanager
async def open_node(
    name: str,
    *,
    control: str,
    auth_key: str,
    port: int | None,
    folder: Path | None,
    on_link: Callable[[str], Awaitable[None]] | None,
    share_loopback: bool,
    within: float,
) -> AsyncIterator[OwnNode]:
    """See ``doorward.identity.node``, whose defaults these are."""
    environ = os.environ
    if not name or not name.isascii() or not name.replace("-", "").isalnum() or name.startswith("-"):
        raise BadInput(f"{name!r} is no name for a node", cure="Use letters, digits and hyphens.")
    client = await asyncio.to_thread(find_client, environ)
    if client is None:
        raise EngineError(
            "there is no tailscaled here",
            cure="Install the stock client, 1.80 or newer, or run: doorward setup client",
        )
    place = folder or _state_home() / "doorward" / "nodes" / name
    daemon = PrivateDaemon(client, place, hostname=name, clock=SystemClock(), environ=environ)
    await daemon.wait_for_socket()
    joining = _Joining(
        daemon,
        name,
        control=(control or environ.get("TS_CONTROL_URL") or TAILSCALE).rstrip("/"),
        auth_key=auth_key or environ.get("TS_AUTHKEY", ""),
        on_link=on_link or _show_link,
    )
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        try:
            status = await joining.up(within)
            yield OwnNode(daemon, status, port, share_loopback=share_loopback)
        except Exception as error:  # noqa: BLE001 - raised below, where the group does not wrap it
            failure = error
        finally:
            running.cancel()
    await daemon.close()
    if failure is not None:
        raise failure


class _Joining:
    """One login: by the kept state, else by an auth key, else by a link that a person opens."""

    def __init__(
        self,
        daemon: PrivateDaemon,
        name: str,
        *,
        control: str,
        auth_key: str,
        on_link: Callable[[str], Awaitable[None]],
    ) -> None:
        self._daemon = daemon
        self._api = daemon.api
        self._prefs = private_prefs(control, name, shields_up=True)
        self._control = control
        self._key = auth_key
        self._on_link = on_link
        self._begun = False
        self._link = ""
        self._refused = ""
        self._hears = asyncio.Event()

    async def up(self, within: float) -> Status:
        """The status once control has the node. Raises EngineError."""
        failure: EngineError | None = None
        try:
            async with asyncio.timeout(within) as limit, asyncio.TaskGroup() as group:
                hearing = group.create_task(self._hear())
                try:
                    await self._come_up(limit)
                except EngineError as error:
                    # Raised below: an error inside the group would come out wrapped.
                    failure = error
                finally:
                    hearing.cancel()
        except TimeoutError:
            failure = EngineError(
                f"the node did not come up at {self._control} within {within:g} s",
                cure=f"Its log may say why: {self._daemon.log_file}",
            )
        if failure is not None:
            raise failure
        return await self._api.status(peers=False)

    async def _come_up(self, limit: asyncio.Timeout) -> None:
        status = await self._answering()
        await self._hears.wait()
        kept = str((await self._api.prefs()).get("ControlURL", "")).rstrip("/") == self._control
        if kept and status.have_node_key:
            await self._api.set_prefs(WantRunning=True, ShieldsUp=True, Hostname=self._prefs["Hostname"])
        else:
            await self._log_in(status)
        while not is_up(status := await self._api.status(peers=False)):
            if self._refused:
                raise EngineError(f"the node was refused: {self._refused}")
            await self._go_on(status, limit)
            await asyncio.sleep(0.05)

    async def _hear(self) -> None:
        """Keep what the daemon says of a refusal."""
        while True:
            with contextlib.suppress(EngineError):
                async with contextlib.aclosing(self._api.watch(WATCH_STATE)) as bus:
                    await anext(bus, None)  # tells of what was before
                    self._hears.set()
                    async for notify in bus:
                        self._refused = notify.err_message or self._refused
            await asyncio.sleep(0.1)

    async def _go_on(self, status: Status, limit: asyncio.Timeout) -> None:
        waits = status.backend_state == "NeedsLogin" or bool(status.auth_url)
        if waits and not self._begun:
            await self._log_in(status)  # the kept login is no longer good
        elif status.auth_url and self._key:
            raise EngineError(
                "the auth key was not taken: control asks for a login by hand", cure="Make another key."
            )
        elif status.auth_url and status.auth_url != self._link:
            self._link = status.auth_url
            limit.reschedule(None)  # people take their time
            await self._on_link(status.auth_url)
        elif status.backend_state == "NeedsMachineAuth":
            limit.reschedule(None)

    async def _log_in(self, status: Status) -> None:
        self._begun = True
        await self._api.start(prefs=self._prefs, auth_key=self._key)
        # With a node key in its state ``start`` logs in by itself, and a second login would find the auth key used up.
        if not status.have_node_key or not self._key:
            await self._api.login_interactive()

    async def _answering(self) -> Status:
        async with asyncio.timeout(START_PATIENCE):
            while True:
                with contextlib.suppress(EngineError):
                    status = await self._api.status(peers=False)
                    if status.backend_state != "NoState":
                        return status
                await asyncio.sleep(0.02)


async def _show_link(link: str) -> None:
    """The default: where whoever started the program looks."""
    sys.stderr.write(f"To let this node into the tailnet, open {link}\n")
    sys.stderr.flush()


def _state_home() -> Path:
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    return base if base.is_absolute() else Path.home() / ".local" / "state"
