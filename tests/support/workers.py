"""The worker, whole and real, in the test's own process: on real sockets, with a clock that can be moved."""

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
from cryptography.hazmat.primitives import serialization

from doorward.clock import Clock, SystemClock
from doorward.config import Settings
from doorward.engine.client import ControlClient
from doorward.engine.derp import DERPClient, pinned_context
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate
from doorward.protocol.tailcfg.capability import OUR_CAPVER
from doorward.protocol.tailcfg.derpmap import DERPNode
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.server import own_daemon, own_reports
from doorward.server.sockets import Bound, bind
from doorward.server.tls import Authority
from doorward.server.worker import Sockets, Worker


class Working:
    """A worker that serves, and ways to talk to it."""

    def __init__(self, bound: Bound, worker: Worker) -> None:
        self.settings = bound.settings
        self.worker = worker
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()

    def admin(self) -> httpx2.AsyncClient:
        """A client of the socket in the data directory."""
        path = str(self.settings.data_dir / "doorward.sock")
        return httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=path), base_url="http://localhost", timeout=40
        )

    def public(self, **arguments: Any) -> httpx2.AsyncClient:
        """A client of the control address."""
        return httpx2.AsyncClient(base_url=self.settings.url, timeout=40, trust_env=False, **arguments)

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        """One operation of the API, as the administrator; what it answered."""
        async with self.admin() as client:
            answer = await client.request(method, f"/api/v1{path}", json=body or None)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def trust(self) -> ssl.SSLContext:
        """Whoever trusts doorward's own authority."""
        return ssl.create_default_context(cafile=str(self.settings.data_dir / "tls" / "authority.pem"))

    @contextlib.asynccontextmanager
    async def node(
        self, name: str, user: str = "alice", version: int = OUR_CAPVER
    ) -> AsyncIterator[ControlClient]:
        """A node that has joined with a key and follows its netmap, of some version of clients."""
        key = await self.ask("POST", "/keys", user=user)
        client = ControlClient(
            self.settings.url,
            machine=MachinePrivate.from_entropy(os.urandom(32)),
            node=NodePrivate.from_entropy(os.urandom(32)),
            disco=DiscoPublic(os.urandom(32)),
            clock=SystemClock(),
            entropy=os.urandom,
            hostinfo=Hostinfo(Hostname=name, OS="linux"),
            version=version,
        )
        async with client, asyncio.TaskGroup() as group:
            await client.join(auth_key=key["secret"])
            following = group.create_task(client.follow())
            try:
                await client.until(lambda _: True)
                yield client
            finally:
                following.cancel()

    async def relayed(self, client: ControlClient) -> DERPClient:
        """The node's connection to our relay, as its own netmap says."""
        relay = relay_of(client)
        return await DERPClient.connect(
            relay.HostName,
            relay.DERPPort,
            client.node,
            entropy=os.urandom,
            context=pinned_context(),
            pin=relay.CertName,
        )


def relay_of(client: ControlClient) -> DERPNode:
    """Our relay, as the node was told of it."""
    derp_map = client.netmap.derp_map
    assert derp_map is not None
    return derp_map.Regions[900].Nodes[0]


def write_certificate(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Files of an operator's own: certificate, key, and the authority that whoever trusts it needs."""
    clock = SystemClock()
    authority = Authority.open(folder / "another authority", clock)
    key, leaf = authority.issue((name,), (), clock.now())
    files = (folder / f"{name}.pem", folder / f"{name}.key")
    files[0].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key)
    return (*files, authority.file)


def settings_in(folder: Path, **given: Any) -> Settings:
    """Settings for a server on loopback and free ports, without a node of its own."""
    return Settings(**{"data_dir": folder, "listen": "127.0.0.1:0", "tailscaled": "off", **given})


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A data directory. In /tmp directly: pytest's folders make paths too long for a socket address."""
    with tempfile.TemporaryDirectory(prefix="dw-work-", dir="/tmp") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def working(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Working]:
    """A worker that serves until the end of the block, stopped as the supervisor would, with the daemon that a parent has."""
    bound = bind(settings, {})
    own_reports.forget(settings.data_dir)
    try:
        running = Working(bound, Worker(bound.settings, Sockets(**bound.sockets), clock))
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(
                running.worker.run(ready=ready.set, stop=running.stop, reload=running.reload)
            )
            waiting = group.create_task(ready.wait())
            await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not ready.is_set():
                waiting.cancel()
                await serving  # it has failed: raises
            daemon = group.create_task(own_daemon.keep(bound.settings, os.environ, SystemClock()))
            try:
                yield running
            finally:
                running.stop.set()
                daemon.cancel()
    except ExceptionGroup as several:
        # One error is itself: tests name the kind that they expect.
        first: Exception = several
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    finally:
        bound.close()
