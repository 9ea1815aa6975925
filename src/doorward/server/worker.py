"""The process that does everything, or one of several that do: it opens the store, wires the services together and serves.

The listening sockets come from outside (``supervisor`` holds them), so that a worker that dies leaves nobody with a refused
connection. Every part that may fail by itself (doorward's own node, renewals) runs beside the rest and says in ``status``
what is wrong with it and what helps.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from doorward.api import app as api
from doorward.api.access import ALLOWED, Permission
from doorward.api.context import ApiContext
from doorward.api.feeds import Feeds
from doorward.asgi import ByPath, NumberRequests, SecurityHeaders, StripIdentityHeaders
from doorward.audit import Auditing
from doorward.clock import Clock, SystemClock
from doorward.config import Settings
from doorward.console import Console
from doorward.control import Control
from doorward.control.join import JoinPage
from doorward.errors import BadInput, DoorwardError
from doorward.issuer import Issuer
from doorward.login import pages
from doorward.login.apps import Apps
from doorward.login.asking import Askings
from doorward.login.doors import Doors, place_of
from doorward.login.entrance import Entrance
from doorward.login.invitations import Invitations
from doorward.login.links import SignInLinks
from doorward.login.me import Me
from doorward.login.means import Means
from doorward.login.prefix import Prefixed, check_prefix, not_here
from doorward.login.providers import Providers
from doorward.login.sealing import Sealer
from doorward.login.sessions import Sessions
from doorward.login.upstream import Upstream
from doorward.login.whoami import whoami_route
from doorward.model import Process, Role
from doorward.policy.posture import CountryOf
from doorward.protocol.keys import DERPPrivate, MachinePrivate, NodePublic
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.relay import Relay
from doorward.relay.mesh import Mesh, Peer
from doorward.relay.stun import STUNServer
from doorward.server import descriptors, tls
from doorward.server.certificates import Certificates
from doorward.server.child import Child
from doorward.server.countries import countries_of
from doorward.server.first_link import FirstLink, ways
from doorward.server.memory import give_back
from doorward.server.outgoing import open_fetch, trust_of
from doorward.server.outside import Keys, Outside
from doorward.server.own_node import OwnNode
from doorward.server.relays import OtherRelays, own_region
from doorward.server.report import Report
from doorward.server.siblings import Siblings
from doorward.server.sockets import ADMIN, DOOR, PUBLIC, RELAY, WORKER
from doorward.server.team import Team, decode_payload
from doorward.ssh import Attempts
from doorward.ssh.page import CheckPage
from doorward.store import Database, secrets
from doorward.tailnet.addresses import Pool
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Decide
from doorward.tailnet.settings import Settings as TailnetSettings
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import configure, exposition, gauge, log
from doorward.transport.listener import Limits, ListenerSpec, serve
from doorward.transport.noise import PATH, UPGRADE_TOKEN, Ts2021
from doorward.transport.turns import Turns

if TYPE_CHECKING:
    from doorward.server.acme.service import Acme

REFRESH = 3600.0  # seconds between looks at certificates

_log = log("server")
_tasks = gauge("tasks", "Tasks of the worker's event loop.")


@dataclass(frozen=True, kw_only=True)
class Sockets:
    """What the worker serves on; all are bound."""

    public: Sequence[socket.socket]
    door: Sequence[socket.socket]
    admin: Sequence[socket.socket]
    relay: Sequence[socket.socket] = ()
    acme: Sequence[socket.socket] = ()  # plain, for http-01
    stun: Sequence[socket.socket] = ()
    worker: Sequence[socket.socket] = ()  # ours alone, where there are several workers


async def work(child: Child) -> None:
    """What the supervisor starts; ``child.payload`` has the settings, complete and with the bound ports, and which worker we are."""
    settings, team = decode_payload(child.payload)
    configure(level=settings.log.level, json=settings.log.json)
    given = {part.name: child.sockets.get(part.name, []) for part in fields(Sockets)}
    await Worker(settings, Sockets(**given), team=team).run(
        ready=child.ready, stop=child.stop, reload=child.reload
    )


class Worker:
    """Everything of one process, from open to closed.

    Args:
        settings: complete and settled: with the ports that are bound.
        sockets: what to serve on.
        clock: the time of everything.
        team: which worker of how many this is.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        clock: Clock | None = None,
        *,
        team: Team | None = None,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._clock = clock or SystemClock()
        self._team = team or Team()
        self._started: datetime = self._team.started or self._clock.now()
        self._look = asyncio.Event()  # another worker has something new for the listeners to present
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
        self._certificates = Certificates(settings, self._authority, self._clock, self._derp_key)
        self._others = OtherRelays(settings.relay.maps, self._own_region())
        self._outside = Outside(
            settings,
            Keys(self._noise_key, self._derp_key.public()),
            self._own_region,
            self._authority.pem,
            self._clock,
            os.urandom,
        )

    async def run(self, *, ready: Callable[[], None], stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Serve until ``stop`` is set. ``ready`` is called once connections are accepted.

        Raises DoorwardError, with its cure, when it cannot start.
        """
        async with self._registry() as registry, contextlib.AsyncExitStack() as closing:
            relay = self._relay(registry)
            own_node = OwnNode(self._settings, registry)
            askings, invitations = self._askings(registry), self._invitations(registry)
            auditing = Auditing(self._settings, registry, self._clock)
            closing.push_async_callback(auditing.aclose)  # when nothing writes any more
            attempts = Attempts(registry, self._clock, self._settings.door)
            control = Control(registry, self._noise_key.public(), os.urandom, attempts.answer)
            turns = Turns()
            mesh = Mesh(relay, self._team.mesh_key, [Peer(unix_socket=path) for path in self._team.others()])
            noise = await closing.enter_async_context(
                Ts2021(control.inside, self._noise_key, entropy=os.urandom, turns=turns)
            )
            stun = STUNServer(self._sockets.stun)
            closing.callback(stun.close)
            stun.start()
            fetch = open_fetch(self._settings, registry, self._clock, self._authority)
            upstream = self._upstream()
            issuer = Issuer(
                askings,
                self._clock,
                self._noise_key.raw,
                fetch=fetch,
                provider_keys=upstream.keys,
                trust=trust_of(self._settings),
                numbers=self._settings.known_numbers(),
            )
            acme = self._acme(registry)
            accepting = asyncio.Event()
            feeds = Feeds(registry, self._clock)
            app = self._app(
                registry,
                control,
                relay,
                own_node,
                noise,
                askings,
                issuer,
                invitations,
                acme,
                auditing,
                upstream,
                feeds,
            )
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(registry.run()),
                    group.create_task(control.run()),
                    group.create_task(relay.run()),
                    group.create_task(give_back()),
                    group.create_task(mesh.run()),
                    group.create_task(auditing.run()),
                    group.create_task(issuer.run()),
                    group.create_task(self._refresh(registry, reload, acme)),
                    group.create_task(self._follow_siblings(registry)),
                ]
                server = group.create_task(
                    serve(
                        self._listeners(own_node, acme),
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
                if acme is not None:
                    group.create_task(acme.serve(self._sockets.acme, stop))
                await accepting.wait()
                ready()
                background.append(group.create_task(own_node.run()))
                if self._team.number == 1:
                    background.append(group.create_task(self._first_link(invitations).run()))
                if acme is not None:
                    background.append(group.create_task(acme.keeper.run()))
                await stop.wait()
                registry.writer.changes.end_all()
                feeds.end_all()
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
                self._tailnet(await countries_of(settings.geoip)),
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
            installation=self._team.installation(
                secrets.load_or_create(folder / "process.id", lambda: os.urandom(16).hex())
            ),
            boot=int.from_bytes(os.urandom(7)),
            label=f"{socket.gethostname()}:{folder}",
            noise_key=self._noise_key.public(),
            door_port=self._settings.ports.door,
            region=self._own_region(),
        )

    def _tailnet(self, country_of: CountryOf | None) -> TailnetSettings:
        settings = self._settings
        door = urlsplit(settings.door)
        pool = Pool(settings.addresses.ipv4, settings.addresses.ipv6)
        pool.check()
        return TailnetSettings(
            domain=settings.domain,
            url=settings.url,
            door=settings.door.rstrip("/"),
            door_host=door.hostname or "",
            door_ports=(settings.ports.door,),
            derp_map=self._derp_map(),
            pool=pool,
            country_of=country_of,
            random_addresses=settings.addresses.order == "random",
            tab_grace=timedelta(seconds=settings.console.grace),
            tabs_of_person=settings.console.tabs,
            tabs_of_session=settings.console.tabs_of_session,
            ssh_decide=Decide(settings.ssh.decide),
            ssh_fallback=timedelta(seconds=settings.ssh.fallback),
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
            shut = snapshot.policy.roster.blocked  # suspended, or waiting for an administrator
            return node is not None and not node.expired(self._clock.now()) and node.id not in shut

        def admit(key: NodePublic, _source: str) -> bool | Awaitable[bool]:
            known = registry.neighbours is None or registry.snapshot.node_by_key(key) is not None
            return good(registry.snapshot, key) if known else look_for(key)

        async def look_for(key: NodePublic) -> bool:
            # Another process may have let it in a moment ago. Without a store the snapshot decides.
            with contextlib.suppress(DoorwardError):
                await registry.writer.find(key)
            return good(registry.snapshot, key)

        relay = Relay(
            self._derp_key,
            admit,
            self._clock,
            os.urandom,
            mesh_key=self._team.mesh_key,
            origins=self._doors().origins | set(self._settings.console.origins),
        )

        def changed(before: Snapshot, after: Snapshot, touched: frozenset[int] | None) -> None:
            for node_id in before.nodes if touched is None else touched:
                known = before.nodes.get(node_id)
                if known is not None and not good(after, known.node_key):
                    relay.disconnect(known.node_key)

        registry.writer.watch(changed)
        registry.tabs.region = self._settings.relay.region if self._settings.relay.enabled else 0
        relay.arrived, relay.went = registry.tabs.arrived, registry.tabs.went
        return relay

    def _askings(self, registry: Registry) -> Askings:
        """Who sits before a browser, at the door and on this machine."""
        doors = self._doors()
        return Askings(registry, Sessions(registry, doors), doors, self._clock)

    def _doors(self) -> Doors:
        """Where people come in."""
        here = next((way for way in ways(self._settings) if way.is_here), None)
        return Doors(self._settings.door, 0 if here is None else place_of(here.address).port)

    def _invitations(self, registry: Registry) -> Invitations:
        return Invitations(registry.writer.database, self._clock, os.urandom)

    def _acme(self, registry: Registry) -> "Acme | None":
        """What orders certificates, where the settings want any."""
        if self._certificates.acme is None:
            return None
        from doorward.server.acme.service import Acme  # noqa: PLC0415 - most have no use for it

        return Acme(self._settings, self._certificates, registry, self._noise_key.raw, self._clock)

    def _listeners(self, own_node: OwnNode, acme: "Acme | None") -> list[ListenerSpec]:
        certificates = self._certificates
        proof = None
        if acme is not None and self._settings.tls.acme.challenge == "tls-alpn-01":
            proof = acme.answers.proof
        public = certificates.public
        listeners = [
            ListenerSpec(name=ADMIN, sockets=self._sockets.admin),
            ListenerSpec(
                name=PUBLIC,
                sockets=self._sockets.public,
                ssl_context=None if public is None else public.context,
                proof=None if public is None else proof,
            ),
            ListenerSpec(
                name=DOOR,
                sockets=self._sockets.door,
                ssl_context=certificates.door.context,
                identify=own_node.identify,
                proof=proof,
            ),
        ]
        if self._sockets.relay:
            relay = ListenerSpec(
                name=RELAY, sockets=self._sockets.relay, ssl_context=certificates.relay.context
            )
            listeners.append(relay)
        if self._sockets.worker:
            listeners.append(ListenerSpec(name=WORKER, sockets=self._sockets.worker))
        return listeners

    def _upstream(self) -> Upstream:
        return Upstream(
            self._clock,
            os.urandom,
            Sealer(self._noise_key.raw, os.urandom),
            loopback_http=self._settings.login.loopback_http,
        )

    def _app(
        self,
        registry: Registry,
        control: Control,
        relay: Relay,
        own_node: OwnNode,
        noise: Ts2021,
        askings: Askings,
        issuer: Issuer,
        invitations: Invitations,
        acme: "Acme | None",
        auditing: Auditing,
        upstream: Upstream,
        feeds: Feeds,
    ) -> Starlette:
        """What the listeners serve: all the same paths, and each endpoint looks at where the request came in."""
        siblings = Siblings(self._team, registry, control.questions.reach)
        report = Report(
            self._settings,
            registry,
            own_node,
            auditing,
            certificates=self._certificates,
            keeper=None if acme is None else acme.keeper,
            others=self._others,
            own_region=self._own_region,
            outside=self._outside,
            team=self._team,
            started=self._started,
            clock=self._clock,
        )
        context = ApiContext(
            registry=registry,
            clock=self._clock,
            status=report.status,
            doctor=report.doctor,
            verify_audit=auditing.verify,
            audit_key=auditing.public_key,
            ping=siblings.ping,
            invitations=invitations,
            means=Means(registry.writer.database, self._clock),
            ways=ways(self._settings),
            apps=Apps(registry.writer.database, self._clock, os.urandom),
            issuer=askings.doors.main.base,
            upstream=upstream,
            feeds=feeds,
            origins=frozenset(self._settings.console.origins),
            visitor=askings.sessions.visitor,
        )
        # What programs know by its path, whatever the door's is.
        known: list[BaseRoute] = [
            *control.routes,
            WebSocketRoute(PATH, _Endpoint(noise.websocket)),
            *relay.routes(),
            *([] if acme is None else acme.answers.routes()),
            Route("/ca.pem", self._ca, methods=["GET"]),
        ]
        routes: list[BaseRoute] = [
            *known,
            *siblings.routes,
            *self._outside.routes(),
            *JoinPage(askings, self._clock).routes(),
            *CheckPage(askings, self._clock).routes(),
            *api.create(context),
            whoami_route(lambda: registry.snapshot, self._clock),
            *Entrance(askings, invitations, self._clock).routes(),
            *SignInLinks(askings, self._clock).routes(),
            *Providers(askings, upstream, self._clock).routes(),
            *Me(askings, self._clock, _makes_tokens).routes(),
            *issuer.routes(),
            *pages.routes(),
            *Console(askings, feeds).routes(),
            Route("/metrics", _metrics, methods=["GET"]),
        ]
        doors = askings.doors
        check_prefix(doors.main.path, routes)
        app = Starlette(
            middleware=[
                Middleware(NumberRequests),
                Middleware(StripIdentityHeaders),
                Middleware(SecurityHeaders),
                Middleware(Prefixed, doors=doors, outside=ByPath([*known, not_here(doors)])),
            ]
        )
        app.router = ByPath(routes)
        return app

    def _first_link(self, invitations: Invitations) -> FirstLink:
        settings = self._settings
        return FirstLink(invitations, ways(settings), settings.data_dir, self._started)

    async def _ca(self, _: Request) -> Response:
        """The authority's certificate, which anyone may have."""
        return Response(self._authority.pem, media_type="application/x-pem-file")

    async def _refresh(self, registry: Registry, reload: asyncio.Event, acme: "Acme | None") -> None:
        """Renew what is due every hour, and at once when asked to reload. What fails leaves everything as it was."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH):
                    await reload.wait()
            asked = reload.is_set()
            reload.clear()
            self._certificates.refresh()
            if asked and acme is not None:
                acme.keeper.ask()
            if asked:
                await self._read_countries_again(registry)
            try:
                if asked and self._settings.policy.file is not None:
                    await registry.own_policy(self._settings.policy.file)
                if asked or self._others.missing:
                    await self._others.read()
                if asked:
                    _log.info(
                        "reloaded certificates, relay maps, countries and the policy file; "
                        "other settings count from the next start of doorward"
                    )
            except DoorwardError as error:
                _log.error("not reloaded", reason=error.sentence(), place=error.place)
            # In any case: the relay may have another certificate, and clients go by the pin they were told.
            try:
                await registry.set_derp_map(self._derp_map(), self._own_region())
            except DoorwardError as error:
                _log.error("other processes not told of our relay", reason=error.sentence())

    async def _read_countries_again(self, registry: Registry) -> None:
        try:
            registry.set_countries(await countries_of(self._settings.geoip))
        except DoorwardError as error:
            _log.error(
                "not reloaded, the countries stay as they were", reason=error.sentence(), place=error.place
            )

    async def _follow_siblings(self, registry: Registry) -> None:
        """Take up at once the relay's certificate that another worker has renewed: clients are told of one pin."""
        if registry.neighbours is None or self._team.size == 1:
            return
        registry.neighbours.told = self._look.set
        while True:
            await self._look.wait()
            self._look.clear()
            own = self._own_region()
            if any(one.region != own for one in registry.neighbours.siblings):
                self._certificates.refresh()
                with contextlib.suppress(DoorwardError):  # said again within the hour
                    await registry.set_derp_map(self._derp_map(), self._own_region())


def _makes_tokens(role: Role) -> bool:
    return Permission.TOKENS in ALLOWED[role]


class _Endpoint:
    """An ASGI callable as Starlette wants one: any object that is no function."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        await self._endpoint(scope, receive, send)


async def _metrics(request: Request) -> Response:
    """For Prometheus, on the administrator's sockets alone: numbers tell who is there and when."""
    if request.scope["state"]["listener"] not in {ADMIN, WORKER}:
        return PlainTextResponse("metrics are served on the administrator's socket\n", status_code=403)
    _tasks.set(len(asyncio.all_tasks()))
    return Response(exposition(), media_type="text/plain; version=0.0.4")
