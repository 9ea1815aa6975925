"""What a packet costs the relay, and what it costs derper, in the same run.

    python -m bench.relay [--seconds 2] [--pairs 10] [--size 1300] [--derper PATH]

Closed loop: each pair keeps 24 packets in flight, below derper's queue of 32, so nobody drops and both do equal work.
*burst* is the packets in one write of a sender: 1 is what a stock client does, 8 is what coalescing would do, and
*trickle* is one packet in flight per pair, the hardest case for TLS. The cost is the server's own CPU time (user and
system), which a busy client on the same machine hardly disturbs; the rate is a lower bound for that reason.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from tests.support.relay import HOST, listening, make_leaf, node_key, running_relay

from doorward.engine.derp import DERPClient, pinned_context
from doorward.protocol import derp

IN_FLIGHT = 24
TICK = os.sysconf("SC_CLK_TCK")


class Counter(asyncio.Protocol):
    """Takes over from a client after its handshake: counts bytes, and sends as many packets as arrived."""

    def __init__(self, frame: bytes, burst: int) -> None:
        self.size = len(frame)
        self.burst = burst
        self.bursts = frame * burst
        self.received = 0  # bytes
        self.answered = 0  # packets
        self.sender: asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """Count, and send what that entitles to."""
        self.received += len(data)
        while self.received // self.size - self.answered >= self.burst:
            self.answered += self.burst
            self.sender.write(self.bursts)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def swap(client: DERPClient, protocol: asyncio.Protocol) -> Any:
    transport = client._transport  # noqa: SLF001 - the handshake was its work, the load is ours
    assert transport is not None
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()
    return transport


async def load(port: int, pid: int, options: argparse.Namespace, tls: bool, burst: int, flight: int) -> str:
    """Run one scenario; return its line of the table."""
    extra: dict[str, Any] = {"context": pinned_context()} if tls else {}
    counters = []
    for number in range(options.pairs):
        keys = [node_key(1 + 2 * number + side) for side in (0, 1)]
        ends = [await DERPClient.connect(HOST, port, key, entropy=os.urandom, **extra) for key in keys]
        counter = Counter(derp.send_packet(keys[1].public().raw, bytes(options.size)), burst)
        counter.sender = swap(ends[0], asyncio.Protocol())
        swap(ends[1], counter)
        counters.append(counter)
    for counter in counters:
        for _ in range(flight // burst):
            counter.sender.write(counter.bursts)
    await asyncio.sleep(0.3)  # warm
    loop = asyncio.get_running_loop()
    start, cpu = loop.time(), cpu_seconds(pid)
    before = sum(counter.received for counter in counters)
    await asyncio.sleep(options.seconds)
    packets = (sum(counter.received for counter in counters) - before) // counters[0].size
    used, passed = cpu_seconds(pid) - cpu, loop.time() - start
    return f"{used / packets * 1e6:6.1f} us/packet {packets / passed / 1000:7.0f} k/s"


@contextmanager
def derper(program: str, tls: bool) -> Iterator[tuple[int, int]]:
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
            yield port, process.pid
            process.kill()


@contextmanager
def ours(loop: str, tls: bool) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "bench.relay", "--serve", loop] + (["--tls"] if tls else [])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
        process.kill()


async def serve(tls: bool) -> None:
    async with running_relay(tls=tls) as relay:
        print(relay.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--size", type=int, default=1300)
    parser.add_argument("--derper", default="derper")
    parser.add_argument("--serve", choices=("uvloop", "asyncio"), help=argparse.SUPPRESS)
    parser.add_argument("--tls", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run = uvloop.run if options.serve == "uvloop" else asyncio.run
        run(serve(options.tls))
        return
    for tls in (False, True):
        for name, burst, flight in (("burst 1", 1, IN_FLIGHT), ("burst 8", 8, IN_FLIGHT), ("trickle", 1, 1)):
            servers = {
                "derper, one thread": derper(options.derper, tls),
                "doorward, uvloop": ours("uvloop", tls),
                "doorward, asyncio": ours("asyncio", tls),
            }
            for server, running in servers.items():
                with running as (port, pid):
                    line = uvloop.run(retrying(port, pid, options, tls, burst, flight))
                print(f"{'TLS' if tls else 'plain':5} {name:8} {server:20} {line}", flush=True)


async def retrying(
    port: int, pid: int, options: argparse.Namespace, tls: bool, burst: int, flight: int
) -> str:
    """Wait until the server listens, then load it."""
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return await load(port, pid, options, tls, burst, flight)
    raise SystemExit("the server does not start")


if __name__ == "__main__":
    main()
