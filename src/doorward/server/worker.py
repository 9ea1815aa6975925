"""The process that does everything: it opens the store, wires the services together and serves.

The listening sockets come from outside (``supervisor`` holds them), so that a worker that dies leaves nobody with a refused
connection. Every part that may fail by itself (doorward's own node, renewals) runs beside the rest and says in ``status``
what is wrong with it and what helps.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from doorward import __version__
from doorward.api import app as api
from doorward.api.context import ApiContext
from doorward.api.types import Finding, Part, Status
from doorward.asgi import SecurityHeaders, StripIdentityHeaders
from doorward.clock import Clock, SystemClock
from doorward.config import Settings
from doorward.control import Control
from doorward.errors import DoorwardError
from doorward.login import pages
from doorward.login.whoami import whoami_route
from doorward.protocol.keys import DERPPrivate, MachinePrivate, NodePublic
from doorward.protocol.tailcfg.capability import CAPVER_RELAY_PIN
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.relay import Relay
from doorward.relay.certificate import meta_certificate
from doorward.relay.stun import STUNServer
from doorward.server import relays, tls
from doorward.server.child import Child
from doorward.server.own_node import OwnNode
from doorward.store import Database, secrets
from doorward.tailnet.addresses import Pool
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Settings as TailnetSettings
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import configure, exposition, log
from doorward.transport.listener import ListenerSpec, serve
from doorward.transport.noise import PATH, UPGRADE_TOKEN, Ts2021

ADMIN, PUBLIC, DOOR, RELAY = "admin", "public", "door", "relay"
REFRESH = 3600.0  # seconds between looks at certificates
REGION = 900  # our own relay's region; 900 to 999 are set aside for self-hosted relays

_log = log("server")


@dataclass(frozen=True, kw_only=True)
class Sockets:
    """What the worker serves on; all are bound."""

    public: Sequence[socket.socket]
    door: Sequence[socket.socket]
    admin: Sequence[socket.socket]
    relay: Sequence[socket.socket] = ()
    stun: Sequence[socket.socket] = ()


async def work(child: Child) -> None:
    """What the supervisor starts; ``child.payload`` are the settings, complete and with the bound ports."""
    settings = msgspec.json.decode(child.payload, type=Settings, dec_hook=lambda kind, value: kind(value))
    configure(level=settings.log.level, json=settings.log.json)
    given = {part.name: child.sockets.get(part.name, []) for part in fields(Sockets)}
    await Worker(settings, Sockets(**given)).run(ready=child.ready, stop=child.stop, reload=child.reload)


class Worker:
    """Everything of one process, from open to closed.

    Args:
        settings: complete and settled: with the ports that are bound.
        sockets: what to serve on.
        clock: the time of everything.
    """

    def __init__(self, settings: Settings, sockets: Sockets, clock: Clock | None = None) -> None:
        self._settings = settings
        self._sockets = sockets
        self._clock = clock or SystemClock()
        self._started: datetime = self._clock.now()
        self._authority = tls.Authority.open(settings.data_dir / "tls", self._clock)
        self._derp_key = DERPPrivate.parse(
            secrets.load_or_create(
                settings.data_dir / "relay.key", lambda: DERPPrivate.from_entropy(os.urandom(32)).serialize()
            )
        )
        self._noise_key = MachinePrivate.parse(
            secrets.load_or_create(
                settings.data_dir / "noise.key",
                lambda: MachinePrivate.from_entropy(os.urandom(32)).serialize(),
            )
        )
        self._certificates = _Certificates(settings, self._authority, self._clock, self._derp_key)

    async def run(self, *, ready: Callable[[], None], stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Serve until ``stop`` is set. ``ready`` is called once connections are accepted.

        Raises DoorwardError, with its cure, when it cannot start.
        """
        async with self._registry() as registry, contextlib.AsyncExitStack() as closing:
            relay = self._relay(registry)
            own_node = OwnNode(self._settings, registry, self._clock)
            control = Control(registry, self._noise_key.public(), os.urandom)
            noise = await closing.enter_async_context(
                Ts2021(control.inside, self._noise_key, entropy=os.urandom)
            )
            stun = STUNServer(self._sockets.stun)
            closing.callback(stun.close)
            stun.start()
            accepting = asyncio.Event()
            app = self._app(registry, control, relay, own_node, noise)
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(registry.run()),
                    group.create_task(relay.run()),
                    group.create_task(self._refresh(registry, reload)),
                ]
                server = group.create_task(
                    serve(
                        self._listeners(own_node),
                        app,
                        {UPGRADE_TOKEN: noise.takeover, "derp": relay.takeover},
                        clock=self._clock,
                        stop=stop,
                        ready=accepting,
                    )
                )
                await accepting.wait()
                ready()
                background.append(group.create_task(own_node.run()))
                await stop.wait()
                registry.writer.changes.end_all()
                for task in reversed(background):
                    task.cancel()
                await server

    @contextlib.asynccontextmanager
    async def _registry(self) -> AsyncIterator[Registry]:
        settings = self._settings
        location = settings.database.url or settings.data_dir / "doorward.db"
        async with await Database.open(
            str(location).removeprefix("sqlite:///"), clock=self._clock
        ) as database:
            registry = await Registry.open(database, await self._tailnet(), self._clock, os.urandom)
            if settings.policy.file is not None:
                await registry.own_policy(settings.policy.file)
            yield registry

    async def _tailnet(self) -> TailnetSettings:
        settings = self._settings
        door = urlsplit(settings.door)
        pool = Pool(settings.addresses.ipv4, settings.addresses.ipv6)
        pool.check()
        return TailnetSettings(
            domain=settings.domain,
            url=settings.url,
            door_host=door.hostname or "",
            door_ports=(settings.ports.door,),
            derp_map=await self._derp_map(),
            pool=pool,
            random_addresses=settings.addresses.order == "random",
        )

    async def _derp_map(self) -> DERPMap:
        """Our own region, and those of other maps."""
        settings = self._settings
        regions: dict[int, DERPRegion] = {}
        if settings.relay.enabled:
            node = relay_node(settings, self._certificates.relay.pin, self._certificates.public is not None)
            regions[REGION] = DERPRegion(
                RegionID=REGION, RegionCode="home", RegionName="doorward", Nodes=[node]
            )
        regions |= await relays.load(settings.relay.maps)
        return DERPMap(Regions=regions, omitDefaultRegions=True)

    def _relay(self, registry: Registry) -> Relay:
        """The relay, which admits the nodes of this tailnet and throws out those that no longer are."""

        def good(snapshot: Snapshot, key: NodePublic) -> bool:
            node = snapshot.node_by_key(key)
            return node is not None and not node.expired(self._clock.now()) and not snapshot.suspended(node)

        def admit(key: NodePublic, _source: str) -> bool:
            return good(registry.snapshot, key)

        relay = Relay(self._derp_key, admit, self._clock, os.urandom)

        def changed(before: Snapshot, after: Snapshot, touched: frozenset[int] | None) -> None:
            for node_id in before.nodes if touched is None else touched:
                known = before.nodes.get(node_id)
                if known is not None and not good(after, known.node_key):
                    relay.disconnect(known.node_key)

        registry.writer.watch(changed)
        return relay

    def _listeners(self, own_node: OwnNode) -> list[ListenerSpec]:
        certificates = self._certificates
        public = certificates.public
        listeners = [
            ListenerSpec(name=ADMIN, sockets=self._sockets.admin),
            ListenerSpec(
                name=PUBLIC,
                sockets=self._sockets.public,
                ssl_context=None if public is None else public.context,
            ),
            ListenerSpec(
                name=DOOR,
                sockets=self._sockets.door,
                ssl_context=certificates.door.context,
                identify=own_node.identify,
            ),
        ]
        if self._sockets.relay:
            relay = ListenerSpec(
                name=RELAY, sockets=self._sockets.relay, ssl_context=certificates.relay.context
            )
            listeners.append(relay)
        return listeners

    def _app(
        self, registry: Registry, control: Control, relay: Relay, own_node: OwnNode, noise: Ts2021
    ) -> Starlette:
        """What the listeners serve: all the same paths, and each endpoint looks at where the request came in."""
        context = ApiContext(
            registry=registry,
            clock=self._clock,
            status=lambda: self._status(registry, own_node),
            doctor=lambda: self._doctor(registry, own_node),
        )
        routes: list[BaseRoute] = [
            *control.routes,
            WebSocketRoute(PATH, _Endpoint(noise.websocket)),
            *relay.routes(),
            *api.create(context),
            whoami_route(lambda: registry.snapshot),
            *pages.routes(),
            Route("/ca.pem", self._ca, methods=["GET"]),
            Route("/metrics", _metrics, methods=["GET"]),
        ]
        return Starlette(
            routes=routes, middleware=[Middleware(StripIdentityHeaders), Middleware(SecurityHeaders)]
        )

    async def _ca(self, _: Request) -> Response:
        """The authority's certificate, which anyone may have."""
        return Response(self._authority.pem, media_type="application/x-pem-file")

    async def _refresh(self, registry: Registry, reload: asyncio.Event) -> None:
        """Renew what is due every hour, and at once when asked to reload."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH):
                    await reload.wait()
            asked = reload.is_set()
            reload.clear()
            try:
                if self._certificates.refresh():
                    await registry.set_derp_map(await self._derp_map())
                if asked:
                    await self._reload(registry)
            except DoorwardError as error:
                _log.error("not reloaded", reason=error.sentence(), place=error.place)

    async def _reload(self, registry: Registry) -> None:
        if self._settings.policy.file is not None:
            await registry.own_policy(self._settings.policy.file)
        await registry.set_derp_map(await self._derp_map())
        _log.info(
            "reloaded certificates, relay maps and the policy file; "
            "other settings count from the next start of doorward"
        )

    async def _status(self, registry: Registry, own_node: OwnNode) -> Status:
        settings, snapshot = self._settings, registry.snapshot
        people = [node for node in snapshot.nodes.values() if not node.system]
        parts = [
            Part(name="control", state="running", text=settings.url),
            Part(name="relay", state="running", text=f"{settings.listen}, TLS on {settings.ports.relay}")
            if settings.relay.enabled
            else Part(name="relay", state="off", text="relay.enabled is false"),
            Part(name="database", state="running", text=registry.writer.database.where),
            own_node.part(),
        ]
        return Status(
            version=__version__,
            domain=settings.domain,
            url=settings.url,
            door=settings.door,
            data_dir=str(settings.data_dir),
            started=self._started,
            users=len(snapshot.users),
            nodes=len(people),
            online=sum(node.observed.online for node in people),
            waiting=len(await registry.list_registrations()),
            parts=tuple(parts),
        )

    async def _doctor(self, registry: Registry, own_node: OwnNode) -> list[Finding]:
        findings: list[Finding] = []
        broken = await registry.verify_audit()
        findings.append(
            Finding(level="ok", subject="audit", message="the chain of audit events is unbroken")
            if broken is None
            else Finding(
                level="error",
                subject="audit",
                message=f"event {broken} does not follow from the one before it",
                cure="Somebody changed the database. Compare with a backup: `doorward audit export`.",
            )
        )
        for name, certificate in self._certificates.named():
            left = certificate.expires - self._clock.now()
            message = f"the certificate of the {name} ends in {left.days} days"
            if left > timedelta(days=14):
                findings.append(Finding(level="ok", subject="certificates", message=message))
            else:
                cure = "Renew its files; doorward reads them again within the hour, or on SIGHUP."
                findings.append(Finding(level="warning", subject="certificates", message=message, cure=cure))
        findings += own_node.findings()
        findings += _old_clients(registry.snapshot)
        return findings


class _Certificates:
    """What the listeners present."""

    def __init__(
        self, settings: Settings, authority: tls.Authority, clock: Clock, derp_key: DERPPrivate
    ) -> None:
        url_host, door_host = _host(settings.url), _host(settings.door)
        self.public: tls.ServerCertificate | None = None
        own = settings.tls.url
        if own.cert is not None and own.key is not None:
            self.public = tls.OwnCertificate(own.cert, own.key, url_host, clock)
        own = settings.tls.door
        self.door: tls.ServerCertificate
        if own.cert is not None and own.key is not None:
            self.door = tls.OwnCertificate(own.cert, own.key, door_host, clock)
        else:
            self.door = tls.IssuedCertificate(authority, "door", clock, names=(door_host,))
        address = _address(url_host)
        self.relay: tls.ServerCertificate = tls.IssuedCertificate(
            authority,
            "relay",
            clock,
            names=() if address else (url_host,),
            addresses=(address,) if address else (),
            extra=lambda now: meta_certificate(derp_key.public(), now),
        )
        if self.public is not None:
            tls.choose_by_name(self.public, {door_host: self.door})

    def named(self) -> list[tuple[str, tls.ServerCertificate]]:
        """Each with what people call it."""
        named = [("door", self.door), ("relay", self.relay)]
        return named if self.public is None else [("control address", self.public), *named]

    def refresh(self) -> bool:
        """Renew what is due; True when the relay's pin is another one now."""
        before = self.relay.pin
        for name, certificate in self.named():
            if certificate.refresh():
                _log.info("certificate renewed", of=name, until=certificate.expires.isoformat())
        return self.relay.pin != before


def relay_node(settings: Settings, pin: str, public_tls: bool) -> DERPNode:
    """Our own relay, as clients are told of it.

    Where the control address has a certificate of its own, the relay shares that listener; else it has its own port with a
    pinned certificate. ``none`` for a family that it does not have saves every joining client 3 seconds (derp.md 13).
    """
    split = urlsplit(settings.url)
    host = split.hostname or "127.0.0.1"
    address = _address(host)
    ipv4 = ipv6 = ""  # a name's addresses are looked up by the client
    if host == "localhost":
        host, address = "127.0.0.1", _address("127.0.0.1")
    if address is not None:
        ipv4, ipv6 = (host, "none") if address.version == 4 else ("none", host)
    return DERPNode(
        Name=f"{REGION}a",
        RegionID=REGION,
        HostName=host,
        CertName="" if public_tls else pin,
        STUNPort=settings.ports.stun,
        DERPPort=(split.port or 443) if public_tls else settings.ports.relay,
        IPv4=ipv4,
        IPv6=ipv6,
    )


def _host(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return "127.0.0.1" if host == "localhost" else host


def _address(host: str) -> tls.Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _old_clients(snapshot: Snapshot) -> list[Finding]:
    """Nodes whose client cannot check the relay by its pin."""
    old = [
        node.name
        for node in snapshot.nodes.values()
        if 0 < node.observed.cap_version < CAPVER_RELAY_PIN and not node.system
    ]
    if not old:
        return []
    return [
        Finding(
            level="warning",
            subject="clients",
            message=f"{', '.join(sorted(old)[:5])}: older than 1.82, which cannot check the relay by its pin",
            cure="Update them, or let them trust the authority that `doorward ca` prints.",
        )
    ]


class _Endpoint:
    """An ASGI callable as Starlette wants one: any object that is no function."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        await self._endpoint(scope, receive, send)


async def _metrics(request: Request) -> Response:
    """For Prometheus, on the administrator's socket alone: numbers tell who is there and when."""
    if request.scope["state"]["listener"] != ADMIN:
        return PlainTextResponse("metrics are served on the administrator's socket\n", status_code=403)
    return Response(exposition(), media_type="text/plain; version=0.0.4")
