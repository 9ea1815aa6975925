"""What a packet costs the relay, and what it costs derper, in the same run.

    python -m bench.relay [--rounds 5] [--seconds 2] [--smoke] [--derper PATH]

Closed loop: each pair keeps 24 packets in flight, below derper's queue of 32, so nobody drops and both do equal work.
*burst* is the packets in one write of a sender: 1 is what a stock client does, 8 is what coalescing would do. *trickle* is
one packet in flight per pair, the hardest case for TLS. *rotating* senders write to eight receivers at once. The cost is
the server's own CPU time (user and system), which a busy client on the same machine hardly disturbs; the rate is a lower
bound for that reason. derper is held to one core.

*overload*: ten senders in a process of their own write as fast as they may, each to a receiver of its own; beside them one
pair exchanges a packet every 5 ms, and what is told is by how much their delay grows. *idle* is resident memory of the
server per connection, after as many have come and gone.

Each figure is the median of the rounds; in every round each server has its turn.
"""

import argparse
import asyncio
import os
import platform
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from tests.support.programs import require
from tests.support.relay import HOST, listening, make_leaf, node_key, running_relay

from doorward.engine.derp import DERPClient, pinned_context
from doorward.protocol import derp

IN_FLIGHT = 24
FAN = 8  # receivers of a rotating sender
FLOODERS = 10
LIGHT_SECONDS = 0.005  # between two packets of the light flow
TICK = os.sysconf("SC_CLK_TCK")

DERPER, OURS, PLAIN_LOOP = "derper", "doorward", "on asyncio"


@dataclass(frozen=True)
class Server:
    """A relay process."""

    pid: int
    port: int
    tls: bool

    def cpu(self) -> float:
        """User and system time, in seconds, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> float:
        """Resident kilobytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1024

    async def connect(self, number: int, **options: Any) -> DERPClient:
        """A client with a key of that number."""
        if self.tls:
            options["context"] = pinned_context()
        return await DERPClient.connect(HOST, self.port, node_key(number), entropy=os.urandom, **options)


class Loop(asyncio.Protocol):
    """Takes over from receivers after their handshake: sends a burst for every burst that arrived."""

    def __init__(self, size: int, burst: bytes, per_burst: int) -> None:
        self.size = size
        self.burst = burst
        self.per_burst = per_burst
        self.received = 0  # bytes
        self.answered = 0  # packets
        self.sender: asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Count, and send what that entitles to."""
        self.received += len(data)
        while self.received // self.size - self.answered >= self.per_burst:
            self.answered += self.per_burst
            self.sender.write(self.burst)


class Feed(asyncio.Protocol):
    """One of several receivers of a loop."""

    def __init__(self, loop: Loop) -> None:
        self.data_received = loop.data_received  # type: ignore[method-assign]


def swap(client: DERPClient, protocol: asyncio.Protocol) -> Any:
    transport = client._transport  # noqa: SLF001 - the handshake was its work, the load is ours
    assert transport is not None
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()
    return transport


@dataclass(frozen=True)
class Load:
    """A closed loop of ``groups`` senders."""

    name: str
    tls: bool
    groups: int = 10
    burst: int = 1
    flight: int = IN_FLIGHT
    fan: int = 1
    must: float = 1.0
    aim: float = 0.6

    async def run(self, server: Server, options: argparse.Namespace) -> tuple[float, float]:
        """Microseconds of CPU per packet, and thousands of packets a second."""
        loops, number = [], 1
        for _ in range(self.groups):
            sender = await server.connect(number)
            receivers = [await server.connect(number + 1 + index) for index in range(self.fan)]
            number += 1 + self.fan
            frames = [
                derp.send_packet(node_key(number - self.fan + index).public().raw, bytes(options.size))
                for index in range(self.fan)
            ]
            burst = b"".join(frames) * max(1, self.burst // self.fan)
            loop = Loop(len(frames[0]), burst, len(burst) // len(frames[0]))
            loop.sender = swap(sender, asyncio.Protocol())
            for receiver in receivers:
                swap(receiver, Feed(loop))
            loops.append(loop)
        for loop in loops:
            for _ in range(self.flight // loop.per_burst):
                loop.sender.write(loop.burst)
        await asyncio.sleep(options.settle)  # warm
        clock = asyncio.get_running_loop()
        start, cpu = clock.time(), server.cpu()
        before = sum(loop.received for loop in loops)
        await asyncio.sleep(options.seconds)
        packets = (sum(loop.received for loop in loops) - before) // loops[0].size
        used, passed = server.cpu() - cpu, clock.time() - start
        if not packets:
            raise SystemExit(f"{self.name}: nothing arrives")
        return used / packets * 1e6, packets / passed / 1000


# Targets are of CPU time against derper's.
LOADS = (
    Load("plain, burst 1", tls=False),
    Load("plain, burst 8", tls=False, burst=8),
    Load("plain, trickle", tls=False, flight=1, must=1.3, aim=1.0),
    Load("plain, rotating", tls=False, groups=5, burst=8, fan=FAN),
    Load("TLS, burst 1", tls=True, must=1.2, aim=0.75),
    Load("TLS, burst 8", tls=True, burst=8, must=1.2, aim=0.75),
    Load("TLS, trickle", tls=True, flight=1, must=3.0, aim=1.3),
    Load("TLS, rotating", tls=True, groups=5, burst=8, fan=FAN, must=1.2, aim=0.75),
)


# --- Overload


class Light(asyncio.Protocol):
    """The receiver of the light flow: how long each packet took."""

    def __init__(self) -> None:
        self.reader = derp.FrameReader(derp.MAX_SERVER_PAYLOAD)
        self.delays: list[float] = []

    def data_received(self, data: bytes) -> None:
        """Each packet begins with the time at which it was sent."""
        for kind, payload in self.reader.frames(data):
            if kind == derp.RECV_PACKET:
                (sent,) = struct.unpack_from(">d", payload, 32)
                self.delays.append(time.perf_counter() - sent)


async def light_flow(server: Server, options: argparse.Namespace) -> list[float]:
    """Delays, in seconds, of small packets sent one by one; one that is lost counts as the whole time."""
    sender, receiver = await server.connect(1), await server.connect(2)
    light = Light()
    out, back = swap(sender, asyncio.Protocol()), swap(receiver, light)
    now, sent = time.perf_counter, 0  # a loop's own time may stand still for a millisecond
    end = now() + options.seconds
    while now() < end:
        out.write(derp.send_packet(node_key(2).public().raw, struct.pack(">d", now()) + bytes(92)))
        sent += 1
        await asyncio.sleep(LIGHT_SECONDS)
    await asyncio.sleep(2 * options.settle)
    out.abort()
    back.abort()
    return light.delays + [options.seconds] * (sent - len(light.delays))


async def flood(server: Server, size: int) -> None:
    """Write as fast as the relay takes it, for ever; say how much arrived whenever a line is read."""

    class Sink(asyncio.Protocol):
        received = 0

        def data_received(self, data: bytes) -> None:
            Sink.received += len(data)

    async def pour(number: int) -> None:
        sender, receiver = await server.connect(number), await server.connect(number + 1)
        swap(receiver, Sink())
        frames = derp.send_packet(node_key(number + 1).public().raw, bytes(size)) * 16
        while True:
            sender.send_raw(frames)
            await sender.drain()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(FLOODERS):
            group.create_task(pour(1000 + 2 * number))


async def overload(server: Server, options: argparse.Namespace) -> tuple[float, float]:
    """Added delay, in milliseconds: the median, and the 99th percentile."""
    quiet = sorted(await light_flow(server, options))
    command = [sys.executable, "-m", "bench.relay", "--flood", str(server.port), "--size", str(options.size)]
    flooding = await asyncio.create_subprocess_exec(*command, *(["--tls"] if server.tls else []))
    try:
        await asyncio.sleep(1 + 3 * options.settle)  # until it has started and every buffer is full
        busy = sorted(await light_flow(server, options))
    finally:
        flooding.kill()
        await flooding.wait()
    await asyncio.sleep(options.settle)  # the relay notices that they are gone
    return tuple(  # type: ignore[return-value]
        max(0.0, busy[int(len(busy) * share)] - quiet[int(len(quiet) * share)]) * 1000
        for share in (0.5, 0.99)
    )


async def idle(server: Server, options: argparse.Namespace) -> float:
    """Kilobytes per connection."""

    async def many(first: int) -> list[DERPClient]:
        return [await server.connect(first + index) for index in range(options.idle)]

    for client in await many(1):
        client.close()
    await asyncio.sleep(options.settle)
    before = server.memory()
    clients = await many(10_000)
    await asyncio.sleep(options.settle)
    grown = (server.memory() - before) / len(clients)
    for client in clients:
        client.close()
    return grown


# --- Servers


@contextmanager
def derper(program: str, tls: bool) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as name, listening() as bound:
        port = bound.getsockname()[1]
        bound.close()
        folder, leaf = Path(name), make_leaf()
        (folder / f"{HOST}.crt").write_bytes(leaf.pem)
        (folder / f"{HOST}.key").write_bytes(leaf.key_pem)
        command = [
            program,
            f"-a={HOST}:{port}",
            "-http-port=-1",
            "-stun=false",
            f"-c={folder}/c",
            f"-hostname={HOST}",
        ]
        command += ["-certmode=manual", f"-certdir={folder}"] if tls else []
        with subprocess.Popen(
            command, env={"GOMAXPROCS": "1", "HOME": name}, stderr=subprocess.DEVNULL
        ) as process:
            uvloop.run(listens(port))
            yield Server(process.pid, port, tls)
            process.kill()


async def listens(port: int) -> None:
    """Wait until somebody does."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise SystemExit("the server does not start")


@contextmanager
def ours(loop: str, tls: bool) -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.relay", "--serve", loop] + (["--tls"] if tls else [])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(process.pid, int(process.stdout.readline()), tls)
        process.kill()


async def serve(tls: bool) -> None:
    async with running_relay(tls=tls) as relay:
        print(relay.port, flush=True)
        await asyncio.Event().wait()


# --- The table


def table(options: argparse.Namespace) -> None:
    chosen = [load for load in LOADS if not options.only or options.only in load.name]
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"median (range) of {options.rounds}; {options.size} bytes a packet\n")
    print(
        f"| {'':18} | {DERPER:>22} | {OURS:>22} | {'ratio':>5} | must | aim  | {PLAIN_LOOP:>22} | k/s derper, ours |"
    )
    print("|---" * 8 + "|")
    for tls in (False, True):
        loads = [load for load in chosen if load.tls is tls]
        kind = "TLS" if tls else "plain"
        with ExitStack() as stack:
            servers = {
                DERPER: stack.enter_context(derper(options.derper or str(require("derper")), tls)),
                OURS: stack.enter_context(ours("uvloop", tls)),
            }
            if not options.smoke:
                servers[PLAIN_LOOP] = stack.enter_context(ours("asyncio", tls))
            for load in loads:
                found = rounds(servers, options, partial(load.run, options=options))
                cost = {name: [each[0] for each in every] for name, every in found.items()}
                rates = [statistics.median(each[1] for each in found[name]) for name in (DERPER, OURS)]
                row(load.name, cost, "us", load.must, load.aim, " ".join(f"{rate:.0f}" for rate in rates))
            if not options.only or options.only in "overload":
                found = rounds(servers, options, partial(overload, options=options))
                for index, share in enumerate(("p50", "p99")):
                    delay = {name: [each[index] for each in every] for name, every in found.items()}
                    row(f"{kind}, overload {share}", delay, "ms")
            if options.smoke:
                row(f"{kind}, idle", rounds(servers, options, partial(idle, options=options)), "KB")
                continue
        if not options.only or options.only in "idle":
            row(f"{kind}, idle", idle_rounds(tls, options), "KB")


def rounds(
    servers: dict[str, Server], options: argparse.Namespace, measure: Callable[[Server], Any]
) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, server in servers.items():
            found[name].append(uvloop.run(measure(server)))
    return found


def idle_rounds(tls: bool, options: argparse.Namespace) -> dict[str, list[float]]:
    """Each time a new server: memory that was used once is not given back."""
    found: dict[str, list[float]] = {DERPER: [], OURS: [], PLAIN_LOOP: []}
    for _ in range(min(options.rounds, 3)):
        for name, values in found.items():
            program = options.derper or str(require("derper"))
            made = (
                derper(program, tls) if name == DERPER else ours("uvloop" if name == OURS else "asyncio", tls)
            )
            with made as server:
                values.append(uvloop.run(idle(server, options)))
    return found


def row(
    name: str, found: dict[str, list[float]], unit: str, must: float = 0, aim: float = 0, rates: str = ""
) -> None:
    def cell(name: str) -> str:
        values = found.get(name, [])
        if not values:
            return ""
        return f"{statistics.median(values):.1f} {unit} ({min(values):.1f}-{max(values):.1f})"

    base = statistics.median(found[DERPER])
    ratio = f"{statistics.median(found[OURS]) / base:.2f}" if base else ""
    targets = [f"{target:.2f}" if target else "" for target in (must, aim)]
    cells = (f"{name:18}", f"{cell(DERPER):>22}", f"{cell(OURS):>22}", f"{ratio:>5}")
    print(f"| {' | '.join((*cells, *targets, f'{cell(PLAIN_LOOP):>22}', rates))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--size", type=int, default=1300, help="bytes of a packet")
    parser.add_argument("--idle", type=int, default=1000, help="idle connections")
    parser.add_argument("--only", default="", help="only rows with this in their name")
    parser.add_argument(
        "--smoke", action="store_true", help="every row, shortly, for its working and not its figures"
    )
    parser.add_argument("--derper", default="", help="the program; without it the one that the tests use")
    parser.set_defaults(settle=0.3)
    parser.add_argument("--serve", choices=("uvloop", "asyncio"), help=argparse.SUPPRESS)
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tls", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.serve:
        run = uvloop.run if options.serve == "uvloop" else asyncio.run
        run(serve(options.tls))
    elif options.flood:
        uvloop.run(flood(Server(0, options.flood, options.tls), options.size))
    else:
        if options.smoke:
            options.rounds, options.seconds, options.idle = 1, 0.1, 50
            options.settle = 0.05
        table(options)


if __name__ == "__main__":
    main()
