"""The process that does everything: it opens the store, wires the services together and serves.

The listening sockets come from outside (``supervisor`` holds them), so that a worker that dies leaves nobody with a refused
connection. Every part that may fail by itself (doorward's own node, renewals) runs beside the rest and says in ``status``
what is wrong with it and what helps.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

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
from doorward.config import Settings, decode
from doorward.control import Control
from doorward.errors import BadInput, DoorwardError, Unavailable
from doorward.login import pages
from doorward.login.whoami import whoami_route
from doorward.model import Process
from doorward.protocol.keys import DERPPrivate, MachinePrivate, NodePublic
from doorward.protocol.tailcfg.capability import CAPVER_RELAY_PIN
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.relay import Relay
from doorward.relay.certificate import meta_certificate
from doorward.relay.stun import STUNServer
from doorward.server import descriptors, tls
from doorward.server.child import Child
from doorward.server.own_node import OwnNode
from doorward.server.relays import OtherRelays, address_of, host_of, own_region, relay_host
from doorward.store import Database, secrets
from doorward.tailnet.addresses import Pool
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Settings as TailnetSettings
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import configure, exposition, gauge, log
from doorward.transport.listener import Limits, ListenerSpec, serve
from doorward.transport.noise import PATH, UPGRADE_TOKEN, Ts2021
from doorward.transport.turns import Turns

ADMIN, PUBLIC, DOOR, RELAY = "admin", "public", "door", "relay"
REFRESH = 3600.0  # seconds between looks at certificates
LITTLE_ROOM = 256 << 20  # bytes free; a database and its log grow by a few megabytes a month

_log = log("server")
_tasks = gauge("tasks", "Tasks of the worker's event loop.")


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
    settings = decode(child.payload)
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
        self._others = OtherRelays(settings.relay.maps, self._own_region())

    async def run(self, *, ready: Callable[[], None], stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Serve until ``stop`` is set. ``ready`` is called once connections are accepted.

        Raises DoorwardError, with its cure, when it cannot start.
        """
        async with self._registry() as registry, contextlib.AsyncExitStack() as closing:
            relay = self._relay(registry)
            own_node = OwnNode(self._settings, registry, self._clock)
            control = Control(registry, self._noise_key.public(), os.urandom)
            turns = Turns()
            noise = await closing.enter_async_context(
                Ts2021(control.inside, self._noise_key, entropy=os.urandom, turns=turns)
            )
            stun = STUNServer(self._sockets.stun)
            closing.callback(stun.close)
            stun.start()
            accepting = asyncio.Event()
            app = self._app(registry, control, relay, own_node, noise)
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(registry.run()),
                    group.create_task(control.run()),
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
                        limits=Limits(connections=descriptors.room_for_connections()),
                        turns=turns,
                        proxies=self._settings.proxies(),
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
        await self._others.read()
        async with await Database.open(
            str(location).removeprefix("sqlite:///"), clock=self._clock
        ) as database:
            registry = await Registry.open(
                database,
                self._tailnet(),
                self._clock,
                os.urandom,
                self._process() if database.kind == "postgresql" else None,
            )
            if settings.policy.file is not None:
                await registry.own_policy(settings.policy.file)
            yield registry

    def _process(self) -> Process:
        """Who we are to other processes on the same database."""
        folder = self._settings.data_dir
        return Process(
            id=0,
            installation=secrets.load_or_create(folder / "process.id", lambda: os.urandom(16).hex()),
            boot=int.from_bytes(os.urandom(7)),
            label=f"{socket.gethostname()}:{folder}",
            noise_key=self._noise_key.public(),
            door_port=self._settings.ports.door,
            region=self._own_region(),
        )

    def _tailnet(self) -> TailnetSettings:
        settings = self._settings
        door = urlsplit(settings.door)
        pool = Pool(settings.addresses.ipv4, settings.addresses.ipv6)
        pool.check()
        return TailnetSettings(
            domain=settings.domain,
            url=settings.url,
            door_host=door.hostname or "",
            door_ports=(settings.ports.door,),
            derp_map=self._derp_map(),
            pool=pool,
            random_addresses=settings.addresses.order == "random",
        )

    def _own_region(self) -> DERPRegion | None:
        if not self._settings.relay.enabled:
            return None
        certificates = self._certificates
        return own_region(self._settings, certificates.relay.pin, shared=certificates.relay_is_public)

    def _derp_map(self) -> DERPMap:
        """Our own region, and those of other maps."""
        own = self._own_region()
        regions = self._others.regions | ({own.RegionID: own} if own else {})
        if not regions:
            raise BadInput(
                "there is no relay, and without one no client ever comes up",
                cure="Remove relay.enabled = false, or name a DERP map in relay.maps.",
            )
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
            ping=control.questions.reach,
        )
        routes: list[BaseRoute] = [
            *control.routes,
            WebSocketRoute(PATH, _Endpoint(noise.websocket)),
            *relay.routes(),
            *api.create(context),
            whoami_route(lambda: registry.snapshot, self._clock),
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
        """Renew what is due every hour, and at once when asked to reload. What fails leaves everything as it was."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH):
                    await reload.wait()
            asked = reload.is_set()
            reload.clear()
            self._certificates.refresh()
            try:
                if asked and self._settings.policy.file is not None:
                    await registry.own_policy(self._settings.policy.file)
                if asked or self._others.missing:
                    await self._others.read()
                if asked:
                    _log.info(
                        "reloaded certificates, relay maps and the policy file; "
                        "other settings count from the next start of doorward"
                    )
            except DoorwardError as error:
                _log.error("not reloaded", reason=error.sentence(), place=error.place)
            # In any case: the relay may have another certificate, and clients go by the pin they were told.
            try:
                await registry.set_derp_map(self._derp_map(), self._own_region())
            except DoorwardError as error:
                _log.error("other processes not told of our relay", reason=error.sentence())

    async def _status(self, registry: Registry, own_node: OwnNode) -> Status:
        settings, snapshot = self._settings, registry.snapshot
        people = [node for node in snapshot.nodes.values() if not node.system]
        parts = [
            Part(name="control", state="running", text=settings.url),
            self._relay_part(),
            _database_part(registry.writer.database),
            await _policy_part(registry),
            own_node.part(),
            *_beside(registry),
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
            waiting=await _waiting(registry),
            parts=tuple(parts),
        )

    def _relay_part(self) -> Part:
        if (own := self._own_region()) is None:
            return Part(
                name="relay", state="off", text="relay.enabled is false", cure="Remove it from the settings."
            )
        node = own.Nodes[0]
        text = f"{node.HostName}, TLS on port {node.DERPPort}, STUN on port {node.STUNPort}"
        return Part(name="relay", state="running", text=text)

    async def _doctor(self, registry: Registry, own_node: OwnNode) -> list[Finding]:
        findings: list[Finding] = []
        findings += await _store_findings(registry)
        findings += _disk_findings(self._settings.data_dir)
        for name, certificate in self._certificates.named():
            left = certificate.expires - self._clock.now()
            message = f"the certificate of the {name} ends in {left.days} days"
            if left > timedelta(days=14):
                findings.append(Finding(level="ok", subject="certificates", message=message))
            else:
                cure = "Renew its files; doorward reads them again within the hour, or on SIGHUP."
                findings.append(Finding(level="warning", subject="certificates", message=message, cure=cure))
        findings += [
            Finding(
                level="warning",
                subject="relays",
                message=f"the DERP map {source} is not to be had: {reason}",
                cure="It is asked for again every hour, and on SIGHUP. Correct relay.maps if it is gone for good.",
            )
            for source, reason in self._others.missing.items()
        ]
        findings += own_node.findings()
        findings += _old_clients(registry.snapshot)
        return findings


class _Certificates:
    """What the listeners present."""

    def __init__(
        self, settings: Settings, authority: tls.Authority, clock: Clock, derp_key: DERPPrivate
    ) -> None:
        url_host, door_host = host_of(settings.url), host_of(settings.door)
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
        # A relay with an address of its own has a listener of its own, too.
        self.relay_is_public = self.public is not None and not settings.relay.host
        host = relay_host(settings)
        address = address_of(host)
        self.relay: tls.ServerCertificate = tls.IssuedCertificate(
            authority,
            "relay",
            clock,
            names=() if address else (host,),
            addresses=(address,) if address else (),
            extra=lambda now: meta_certificate(derp_key.public(), now),
        )
        if self.public is not None:
            tls.choose_by_name(self.public, {door_host: self.door})

    def named(self) -> list[tuple[str, tls.ServerCertificate]]:
        """Each with what people call it."""
        named = [("door", self.door), ("relay", self.relay)]
        return named if self.public is None else [("control address", self.public), *named]

    def refresh(self) -> None:
        """Renew what is due. One that cannot be, such as a file of the operator's, keeps none of the others back."""
        for name, certificate in self.named():
            try:
                if certificate.refresh():
                    _log.info("certificate renewed", of=name, until=certificate.expires.isoformat())
            except (DoorwardError, OSError) as error:
                _log.error("certificate not renewed", of=name, reason=str(error))


async def _policy_part(registry: Registry) -> Part:
    """Which policy is in force, and where it is changed."""
    file = registry.policy_file
    owner = "" if file is None else f", owned by {file}"
    try:
        version = await registry.current_policy()
    except Unavailable:  # which the database's own part explains
        return Part(name="policy", state="running", text=f"the one that was last read{owner}")
    return Part(name="policy", state="running", text=f"version {version.id}, set by {version.actor}{owner}")


def _beside(registry: Registry) -> list[Part]:
    """The other processes on the same database, if there are any."""
    others = [] if registry.neighbours is None else [one.label for one in registry.neighbours.others]
    return [Part(name="beside", state="running", text=", ".join(others))] if others else []


def _database_part(database: Database) -> Part:
    if (trouble := database.trouble) is None:
        return Part(name="database", state="running", text=database.where)
    return Part(
        name="database", state="failing", text=f"{database.where}: {trouble.message}", cure=trouble.cure
    )


async def _waiting(registry: Registry) -> int:
    """How many wait for approval; none that we could know of while the database is away."""
    try:
        return len(await registry.list_registrations())
    except Unavailable:
        return 0


async def _store_findings(registry: Registry) -> list[Finding]:
    if (trouble := registry.writer.database.trouble) is not None:
        return [
            Finding(
                level="error",
                subject="database",
                message=f"{trouble.message}: what is set up goes on, changes are refused",
                cure=f"{trouble.cure} doorward notices by itself when it is mended.",
            )
        ]
    try:
        broken = await registry.verify_audit()
    except Unavailable as error:
        return [Finding(level="error", subject="database", message=error.message, cure=error.cure)]
    if broken is None:
        return [Finding(level="ok", subject="audit", message="the chain of audit events is unbroken")]
    return [
        Finding(
            level="error",
            subject="audit",
            message=f"event {broken} does not follow from the one before it",
            cure="Somebody changed the database. Compare with a backup: `doorward audit export`.",
        )
    ]


def _disk_findings(folder: Path) -> list[Finding]:
    """Room for what has to be written: it is said while there still is some."""
    free = shutil.disk_usage(folder).free
    if free >= LITTLE_ROOM:
        return []
    return [
        Finding(
            level="warning",
            subject="disk",
            message=f"the disk of {folder} has {free >> 20} MiB left",
            cure="Free space on it: without any, changes are refused.",
        )
    ]


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
    _tasks.set(len(asyncio.all_tasks()))
    return Response(exposition(), media_type="text/plain; version=0.0.4")
