"""What nodes cost the coordination server: ``python -m bench.control [--nodes N] [--topology star|teams|mesh] [--rounds N]``.

One real ``doorward serve`` (store on SQLite with fsync, policy, audit), and simulated clients in another process that speak
ts2021 over loopback, each with its own keys, a Hostinfo of a usual size, and an open map stream. Server cost is the worker's
own CPU time; wall times include the clients, which share the machine, so they are upper bounds.

*star*: everyone sees one hub, and the hub changes. *teams*: people with 50 nodes each, who see their own. *mesh*: everyone
sees everyone.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import time
from pathlib import Path

import uvloop
from tests.support.server import Server

from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.engine.controlconn import fetch_server_key
from doorward.protocol.keys import DiscoPrivate, MachinePrivate, NodePrivate
from doorward.protocol.tailcfg.hostinfo import Hostinfo, Service
from doorward.telemetry import configure

TEAM = 50
AT_ONCE = 64  # clients that join at the same time

POLICIES = {
    "star": '{"tagOwners": {"tag:hub": []}, "grants": [{"src": ["*"], "dst": ["tag:hub"], "ip": ["*"]}]}',
    "teams": '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}',
    "mesh": '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}',
}


class Process:
    """What the kernel says of a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """CPU seconds so far, user and system, of the threads that live: to the nanosecond, where ``stat`` has hundredths."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return (
            sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads)
            / 1e9
        )

    def memory(self) -> int:
        """Resident megabytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024
        return 0


class Fleet:
    """Simulated clients, and when each last heard something."""

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
                    keep_netmap=False,
                    on_payload=lambda payload, number=number: self._heard(number, payload),  # type: ignore[misc]
                )
            )

    def _heard(self, number: int, payload: bytes) -> None:
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


def line(what: str, value: str) -> None:
    """One row."""
    print(f"| {what} | {value} |", flush=True)


async def measure(topology: str, count: int, rounds: int) -> None:
    """All rows of one topology."""
    async with Server(environ={"DOORWARD_TAILSCALED": "off"}, level="warning") as server:
        await server.set_policy(POLICIES[topology])
        keys = await _keys(server, topology, count)
        worker = Process(server.worker_pid())
        line("worker, memory before", f"{worker.memory()} MB")
        fleet = Fleet(server.url, count)
        await fleet.make()
        cpu = worker.cpu()
        wall = await fleet.join(keys)
        used = worker.cpu() - cpu
        line("registrations, durable", f"{count / wall:.0f}/s, {1000 * used / count:.2f} CPU-ms each")
        async with asyncio.TaskGroup() as group:
            cpu, began = worker.cpu(), time.perf_counter()
            following = [group.create_task(client.follow()) for client in fleet.clients]
            while not all(fleet.heard):
                await asyncio.sleep(0.05)
            line("first maps to all", f"{time.perf_counter() - began:.2f} s, {worker.cpu() - cpu:.2f} CPU-s")
            cpu, began = worker.cpu(), time.perf_counter()
            room = asyncio.Semaphore(AT_ONCE)

            async def say(number: int) -> None:
                async with room:
                    await fleet.report(number, 40000)

            async with asyncio.TaskGroup() as reports:
                for number in range(count):
                    reports.create_task(say(number))
            await fleet.quiet()
            line(
                "every node reports itself, until all is quiet",
                f"{max(fleet.heard) - began:.2f} s, {worker.cpu() - cpu:.2f} CPU-s",
            )
            line("sent since the start", f"{fleet.messages} messages, {fleet.bytes / 1e6:.1f} MB of JSON")
            await _one_change(fleet, worker, topology, rounds)
            line("worker, memory with all streams", f"{worker.memory()} MB")
            await _storm(fleet, server, worker)
            for task in following:
                task.cancel()


async def _keys(server: Server, topology: str, count: int) -> list[str]:
    """Keys so that client number i has the owner that the topology wants."""
    if topology == "star":
        await server.user("alice")
        key = await server.key("--user", "alice", "--reusable")
        hub = await server.key("--tag", "tag:hub", "--reusable")
        return [hub, *([key] * (count - 1))]
    if topology == "mesh":
        await server.user("alice")
        return [await server.key("--user", "alice", "--reusable")]
    keys = []
    for number in range((count + TEAM - 1) // TEAM):
        await server.user(f"user{number}")
        keys.append(await server.key("--user", f"user{number}", "--reusable"))
    return keys


async def _one_change(fleet: Fleet, worker: Process, topology: str, rounds: int) -> None:
    """One node has another endpoint: until the last who sees it knows, and what that costs for each of them."""
    seers = (
        len(range(0, fleet.count, max(1, fleet.count // TEAM))) - 1
        if topology == "teams"
        else fleet.count - 1
    )
    walls, costs = [], []
    for number in range(rounds):
        await asyncio.sleep(0.3)
        before, cpu = fleet.messages, worker.cpu()
        began = time.perf_counter()
        await fleet.report(0, 41000 + number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while fleet.messages - before < seers:
                    await asyncio.sleep(0.002)
        walls.append(max(fleet.heard) - began)
        await asyncio.sleep(0.3)
        costs.append(1e6 * (worker.cpu() - cpu) / max(1, fleet.messages - before))
    line(
        f"one change to the last of {seers} streams",
        f"{statistics.median(walls):.3f} s, {statistics.median(costs):.0f} CPU-us for each",
    )


async def _storm(fleet: Fleet, server: Server, worker: Process) -> None:
    """The worker is killed, and everyone comes back at once: new handshakes, streams and full maps."""
    fleet.heard = [0.0] * fleet.count
    began = time.perf_counter()
    os.kill(worker.pid, signal.SIGKILL)
    while not all(fleet.heard):
        await asyncio.sleep(0.05)
    wall = time.perf_counter() - began
    following = Process(server.worker_pid())
    line("worker killed, until all have a full map again", f"{wall:.2f} s, {following.cpu():.2f} CPU-s")
    await fleet.quiet(2.0)
    line("and until all is quiet", f"{max(fleet.heard) - began:.2f} s, {following.cpu():.2f} CPU-s")
    line("worker, memory then", f"{following.memory()} MB")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.control", description="What nodes cost.")
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--topology", choices=sorted(POLICIES), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    configure(level="warning")
    for topology in asked.topology or ["star", "teams", "mesh"]:
        print(f"\n{asked.nodes} nodes, {topology}\n\n| what | measured |\n| --- | --- |", flush=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(topology, asked.nodes, asked.rounds))


if __name__ == "__main__":
    main()
