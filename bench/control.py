"""What nodes cost the coordination server.

One real ``doorward serve`` (store on SQLite with fsync, policy, audit), and simulated clients in another process that speak
ts2021 over loopback, each with its own keys, a Hostinfo of a usual size, and an open map stream. Server cost is the worker's
own CPU time; wall times include the clients, which share the machine, so they are upper bounds.

*star*: everyone sees one hub, and the hub changes. *teams*: people with 50 nodes each, who see their own. *mesh*: everyone
sees everyone.
"""

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
from tests.support.server import Server
from tests.support.simulated import administrator

from bench.machine import Process
from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.engine.controlconn import fetch_server_key
from doorward.protocol.keys import DiscoPrivate, MachinePrivate, NodePrivate
from doorward.protocol.mapstream import KEEP_ALIVE
from doorward.protocol.tailcfg.hostinfo import Hostinfo, Service

TEAM = 50
AT_ONCE = 64  # clients that join at the same time

POLICIES = {
    "star": '{"tagOwners": {"tag:hub": []}, "grants": [{"src": ["*"], "dst": ["tag:hub"], "ip": ["*"]}]}',
    "teams": '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}',
    "mesh": '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}',
}


@dataclass
class Taken:
    """What one server with its fleet gave: seconds, CPU seconds of the worker, megabytes."""

    count: int
    joined: float = 0.0  # until everyone was registered
    joined_cpu: float = 0.0
    joined_client: float = 0.0  # CPU seconds of the clients meanwhile
    first: float = 0.0  # until everyone had a first map
    first_cpu: float = 0.0
    settled: float = 0.0  # everyone said where it is, and everyone who may know was told
    settled_cpu: float = 0.0
    messages: int = 0  # since the start
    megabytes: float = 0.0  # of JSON
    memory: int = 0  # of the worker, with every stream open
    seers: int = 0  # of one node's change
    changes: list[float] = field(default_factory=list)  # until the last of them knew
    change_cpu: list[float] = field(default_factory=list)  # for each of them
    back: float = 0.0  # after the worker was killed, until all had a full map again
    back_cpu: float = 0.0
    back_client: float = 0.0

    @property
    def rate(self) -> float:
        """Registrations a second."""
        return self.count / self.joined

    @property
    def whole_cpu(self) -> float:
        """From nothing until everyone has everyone."""
        return self.joined_cpu + self.first_cpu + self.settled_cpu


class Fleet:
    """Simulated clients, and when each last heard something. The first and the last keep their netmaps."""

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self.count = count
        self.clients: list[ControlClient] = []
        self.heard: list[float] = [0.0] * count
        self.messages = 0
        self.bytes = 0

    async def make(self) -> None:
        """The clients, without a connection yet."""
        key = await fetch_server_key(self.url)
        for number in range(self.count):
            hostinfo = Hostinfo(
                Hostname=f"bench-{number}",
                OS="linux",
                OSVersion="6.1.0-31-amd64",
                Distro="debian",
                DistroVersion="12.11",
                IPNVersion="1.102.4",
                GoArch="amd64",
                GoVersion="go1.26.8",
                Services=[Service("peerapi4", 40000), Service("peerapi6", 40000)],
            )
            self.clients.append(
                ControlClient(
                    self.url,
                    machine=MachinePrivate.from_entropy(os.urandom(32)),
                    node=NodePrivate.from_entropy(os.urandom(32)),
                    disco=DiscoPrivate.from_entropy(os.urandom(32)).public(),
                    clock=SystemClock(),
                    entropy=os.urandom,
                    hostinfo=hostinfo,
                    server_key=key,
                    keep_netmap=number in {0, self.count - 1},
                    on_payload=lambda payload, number=number: self._heard(number, payload),  # type: ignore[misc]
                )
            )

    def _heard(self, number: int, payload: bytes) -> None:
        if payload == KEEP_ALIVE:
            return
        self.heard[number] = time.perf_counter()
        self.messages += 1
        self.bytes += len(payload)

    async def join(self, keys: list[str]) -> float:
        """Everyone registers; returns the wall seconds."""
        began = time.perf_counter()
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await self.clients[number].join(auth_key=keys[number % len(keys)])

        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(one(number))
        return time.perf_counter() - began

    async def report(self, number: int, port: int) -> None:
        """One client says that it has another endpoint."""
        await self.clients[number].report(home_derp=900, endpoints=[f"192.0.2.1:{port}"])

    async def quiet(self, seconds: float = 1.0, patience: float = 120.0) -> None:
        """Wait until nobody has heard anything for so long."""
        end = time.perf_counter() + patience
        while time.perf_counter() - max(self.heard) < seconds and time.perf_counter() < end:
            await asyncio.sleep(0.1)


async def measure(topology: str, count: int, changes: int, *, storm: bool = False) -> Taken:
    """One server and one fleet, from nothing to ``changes`` changes, and on to everyone's return with ``storm``."""
    taken = Taken(count)
    async with Server(environ={"DOORWARD_TAILSCALED": "off"}, level="warning") as server:
        async with administrator(server) as api:
            (await api.put("/policy", json={"text": POLICIES[topology]})).raise_for_status()
            keys = await _keys(api, topology, count)
        worker = Process(server.worker_pid())
        fleet = Fleet(server.url, count)
        await fleet.make()
        cpu, own = worker.cpu(), time.process_time()
        taken.joined = await fleet.join(keys)
        taken.joined_cpu, taken.joined_client = worker.cpu() - cpu, time.process_time() - own
        async with asyncio.TaskGroup() as group:
            cpu, began = worker.cpu(), time.perf_counter()
            following = [group.create_task(client.follow()) for client in fleet.clients]
            while not all(fleet.heard):
                await asyncio.sleep(0.05)
            taken.first, taken.first_cpu = time.perf_counter() - began, worker.cpu() - cpu
            cpu, began = worker.cpu(), time.perf_counter()
            await _everyone_reports(fleet)
            taken.settled, taken.settled_cpu = max(fleet.heard) - began, worker.cpu() - cpu
            taken.messages, taken.megabytes = fleet.messages, fleet.bytes / 1e6
            await _one_change(fleet, worker, topology, changes, taken)
            _check(fleet, topology, taken)
            taken.memory = worker.memory()
            if storm:
                await _storm(fleet, server, worker, taken)
            for task in following:
                task.cancel()
    return taken


async def _everyone_reports(fleet: Fleet) -> None:
    """Every node says where it is, until all is quiet."""
    room = asyncio.Semaphore(AT_ONCE)

    async def say(number: int) -> None:
        async with room:
            await fleet.report(number, 40000)

    async with asyncio.TaskGroup() as reports:
        for number in range(fleet.count):
            reports.create_task(say(number))
    await fleet.quiet()


def _check(fleet: Fleet, topology: str, taken: Taken) -> None:
    """The netmaps that are kept are whole: whoever was measured was told everything."""
    for client, peers in (
        (fleet.clients[0], taken.seers),
        (fleet.clients[-1], 1 if topology == "star" else taken.seers),
    ):
        if len(client.netmap.peers) != peers:
            raise ValueError(f"a node of {topology} has {len(client.netmap.peers)} peers, expected {peers}")


async def _keys(api: httpx2.AsyncClient, topology: str, count: int) -> list[str]:
    """Keys so that client number i has the owner that the topology wants."""

    async def ask(path: str, **body: Any) -> Any:
        return (await api.post(path, json=body)).raise_for_status().json()

    async def key(**whose: Any) -> str:
        return str((await ask("/keys", reusable=True, **whose))["secret"])

    owners = [f"user{number}" for number in range((count + TEAM - 1) // TEAM if topology == "teams" else 1)]
    for owner in owners:
        await ask("/users", name=owner)
    keys = [await key(user=owner) for owner in owners]
    return [await key(tags=["tag:hub"]), *(keys * (count - 1))] if topology == "star" else keys


class Parked(asyncio.Protocol):
    """Stands in for a client's connection while a change goes round: notes when bytes come, and keeps them for later.

    To open, parse and count ten thousand messages takes a client longer than it takes a server to send them. So the client
    does that afterwards, and what is measured is when the last bytes came.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.at = 0.0
        self._kept: list[bytes] = []
        self._transport = transport
        self._inner = cast("asyncio.Protocol", transport.get_protocol())
        transport.set_protocol(self)
        self.pause_writing = self._inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = self._inner.resume_writing  # type: ignore[method-assign]
        self.connection_lost = self._inner.connection_lost  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        """Nothing but this."""
        self.at = time.perf_counter()
        self._kept.append(data)

    def release(self) -> None:
        """The client has its connection again, and reads what came."""
        self._transport.set_protocol(self._inner)
        if self._kept:
            self._inner.data_received(b"".join(self._kept))


async def _one_change(fleet: Fleet, worker: Process, topology: str, rounds: int, taken: Taken) -> None:
    """One node has another endpoint: until the last who sees it knows, and what that costs for each of them."""
    step = max(1, fleet.count // TEAM) if topology == "teams" else 1
    seers = fleet.clients[step::step]
    taken.seers = len(seers)
    for number in range(rounds):
        await asyncio.sleep(0.3)
        before, cpu = fleet.messages, worker.cpu()
        parked = [Parked(_transport(client)) for client in seers]
        began = time.perf_counter()
        await fleet.report(0, 41000 + number)
        async with asyncio.timeout(30):
            while not all(one.at for one in parked):
                await asyncio.sleep(0.02)
        for one in parked:
            one.release()
        taken.changes.append(max(one.at for one in parked) - began)
        await asyncio.sleep(0.3)
        if fleet.messages - before < taken.seers:
            raise ValueError(f"{fleet.messages - before} messages of a change that {taken.seers} nodes see")
        taken.change_cpu.append((worker.cpu() - cpu) / (fleet.messages - before))


def _transport(client: ControlClient) -> asyncio.Transport:
    connection = client._connection._connection  # noqa: SLF001 - the load is ours, and no client has use for a way to it
    assert connection is not None
    wire: Any = connection.wire
    return cast("asyncio.Transport", wire.transport)


async def _storm(fleet: Fleet, server: Server, worker: Process, taken: Taken) -> None:
    """The worker is killed, and everyone comes back at once: new handshakes, streams and full maps."""
    fleet.heard = [0.0] * fleet.count
    began, own = time.perf_counter(), time.process_time()
    os.kill(worker.pid, signal.SIGKILL)
    while not all(fleet.heard):
        await asyncio.sleep(0.05)
    taken.back = time.perf_counter() - began
    taken.back_cpu, taken.back_client = Process(server.worker_pid()).cpu(), time.process_time() - own
