"""A whole tailnet in a temporary folder: the real registry over SQLite, and the real API in front of it.

Time stands still until a test moves it, and randomness counts up, so that every answer can be written down.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.clock import FakeClock
from tests.support.nouns import machine_key, node_key

from doorward import __version__
from doorward.api import app as api
from doorward.api import types
from doorward.api.context import ApiContext
from doorward.api.feeds import Feeds
from doorward.errors import Unavailable
from doorward.login.apps import Apps
from doorward.login.doors import Doors
from doorward.login.invitations import Invitations, Way
from doorward.login.means import Means
from doorward.login.sealing import Sealer
from doorward.login.sessions import Sessions
from doorward.login.upstream import Upstream
from doorward.model import Node
from doorward.protocol.auditlog import AuditPrivate, Verdict
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.protocol.tailcfg.register import RegisterAuth, RegisterRequest
from doorward.store import Database, checkpoints
from doorward.tailnet.admission import Outcome
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Settings
from doorward.transport.fetch import Answer, Fetcher

CAPVER = 140
SEALER = Sealer(bytes(32), os.urandom)
AUDIT_KEY = AuditPrivate(bytes(range(32)))


class Nowhere(Fetcher):
    """A network without anybody in it."""

    def __init__(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def request(self, method: str, url: str, **_: Any) -> Answer:
        raise Unavailable(f"the name {urlsplit(url).hostname} has no address", detail=method)


def counting_entropy() -> Callable[[int], bytes]:
    """Bytes that look random and are the same in every run."""
    count = 0

    def take(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.sha256(f"entropy {count}".encode()).digest()[:size]

    return take


class World:
    """A tailnet, and ways to make things happen in it."""

    def __init__(self, registry: Registry, clock: FakeClock, folder: Path) -> None:
        self.registry = registry
        self.clock = clock
        self.folder = folder
        database = registry.writer.database
        self.context = ApiContext(
            registry=registry,
            clock=clock,
            status=self.status,
            doctor=self.doctor,
            verify_audit=self.verify_audit,
            audit_key=AUDIT_KEY.public(),
            ping=self.ping,
            invitations=Invitations(database, clock, registry.writer.entropy),
            means=Means(database, clock),
            ways=(
                Way("https://door.test", "in the tailnet"),
                Way("http://localhost:8080", "on the server", is_here=True),
            ),
            apps=Apps(database, clock, registry.writer.entropy),
            issuer="https://door.tailnet.internal:8443",
            upstream=Upstream(clock, registry.writer.entropy, SEALER, open_fetcher=lambda _: Nowhere()),
            feeds=Feeds(registry, clock),
            visitor=Sessions(registry, Doors("https://door.test", 8080)).visitor,
        )
        self.app: ASGIApp = Starlette(routes=api.create(self.context))
        self.address = ""  # of the HTTP server, where there is one
        self.findings = [types.Finding(level="ok", subject="database", message="SQLite answers")]

    async def status(self) -> types.Status:
        nodes = [node for node in self.registry.snapshot.nodes.values() if not node.system]
        return types.Status(
            version=__version__,
            domain=self.registry.snapshot.settings.domain,
            url="http://127.0.0.1:8080",
            door="https://door.tailnet.internal:8443",
            data_dir="/var/lib/doorward",
            started=self.clock.now(),
            users=len(self.registry.snapshot.users),
            nodes=len(nodes),
            online=sum(node.observed.online for node in nodes),
            waiting=len(await self.registry.list_registrations()),
            parts=(
                types.Part(name="control", state="running", text="http://127.0.0.1:8080"),
                types.Part(
                    name="own node", state="off", text="no tailscaled", cure="Run doorward setup client."
                ),
            ),
        )

    async def doctor(self) -> list[types.Finding]:
        return self.findings

    async def verify_audit(self) -> Verdict:
        return await self.registry.writer.database.read(checkpoints.verify)

    async def ping(self, node: Node, source: Node | None) -> types.Pong:
        """Nodes that are online answer: directly where the one that is asked said where it is, else by the relay."""
        if not node.observed.online:
            raise Unavailable(f"{node.name} is not connected", cure="Is it switched on?")
        if source is None:
            return types.Pong(node=node.name, source="", seconds=0.0123, endpoint="", relay="")
        endpoint = node.observed.endpoints[0] if node.observed.endpoints else ""
        return types.Pong(
            node=node.name,
            source=source.name,
            seconds=0.0042,
            endpoint=endpoint,
            relay="" if endpoint else "home",
        )

    def find(self, level: Any, subject: str, message: str, cure: str) -> None:
        """From now on the doctor finds this, too."""
        self.findings.append(types.Finding(level=level, subject=subject, message=message, cure=cure))

    async def ask(self, number: int, hostname: str, auth_key: str = "", **fields: Any) -> Outcome:
        """What a client with this number does at ``tailscale up``."""
        request = RegisterRequest(
            Version=CAPVER,
            NodeKey=node_key(number),
            Auth=RegisterAuth(AuthKey=auth_key) if auth_key else None,
            Hostinfo=Hostinfo(Hostname=hostname, OS="linux", IPNVersion="1.102.4-ERR-BuildInfo", **fields),
        )
        return await self.registry.admission.register(machine_key(number), request)

    async def join(self, number: int, hostname: str, user: str | None, *tags: str, **fields: Any) -> Node:
        """A node that joined with an auth key."""
        _, secret = await self.registry.create_auth_key("test", user=user, tags=tags)
        outcome = await self.ask(number, hostname, secret, **fields)
        assert outcome.node is not None
        return outcome.node

    async def report(self, node: Node, *endpoints: str) -> None:
        """The node is online, and says where it is."""
        self.registry.observations.connected(node.id)
        hostinfo = self.registry.snapshot.nodes[node.id].observed.hostinfo
        with_relay = Hostinfo(
            **{name: getattr(hostinfo, name) for name in hostinfo.__struct_fields__ if name != "NetInfo"},
            NetInfo=NetInfo(PreferredDERP=900),
        )
        request = MapRequest(
            Version=CAPVER, NodeKey=node.node_key, Endpoints=list(endpoints), Hostinfo=with_relay
        )
        await self.registry.observations.report(node.id, request)

    def as_admin(self) -> ASGIApp:
        """The API as the socket in the data directory offers it."""

        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "state": {"listener": "admin"}}, receive, send)

        return marked

    def client(self, *, admin: bool = True, token: str = "") -> httpx2.AsyncClient:
        """A client of the API: over the socket, or from outside."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.as_admin() if admin else self.app),
            base_url="http://door.test/api/v1",
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    """A tailnet without people or nodes, under the default policy."""
    clock = FakeClock()
    regions = {900: DERPRegion(RegionID=900, RegionCode="home", RegionName="Home")}
    settings = Settings(
        domain="tailnet.internal", url="http://127.0.0.1:8080", derp_map=DERPMap(Regions=regions)
    )
    async with await Database.open(str(folder / "doorward.db"), clock=clock) as database:
        yield World(await Registry.open(database, settings, clock, counting_entropy()), clock, folder)
