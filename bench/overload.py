"""The relay under overload, and with many idle connections; derper beside it.

*Overload*: ten senders in a process of their own (``python -m bench.overload PORT [--tls]``) write as fast as they may,
each to a receiver of its own; beside them one pair exchanges a packet every 5 ms, and what is told is by how much their
delay grows. *Idle* is resident memory of the server per connection, after as many have come and gone.
"""

import argparse
import asyncio
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from functools import partial

import uvloop
from tests.support.relay import node_key

from bench.machine import Process, lift_limits
from bench.relay import SIZE
from bench.relays import DERPER, OURS, PLAIN_LOOP, Relay, started, swap, take_turns
from bench.table import Figures, Found, Group, Options, Row
from doorward.engine.derp import DERPClient
from doorward.engine.processes import tied_to_us
from doorward.protocol import derp

FLOODERS = 10
LIGHT_SECONDS = 0.005  # between two packets of the light flow


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


async def light_flow(relay: Relay, seconds: float, settle: float) -> list[float]:
    """Delays, in seconds, of small packets sent one by one; one that is lost counts as the whole time."""
    sender, receiver = await relay.connect(1), await relay.connect(2)
    light = Light()
    out, back = swap(sender, asyncio.Protocol()), swap(receiver, light)
    now, sent = time.perf_counter, 0  # a loop's own time may stand still for a millisecond
    end = now() + seconds
    while now() < end:
        out.write(derp.send_packet(node_key(2).public().raw, struct.pack(">d", now()) + bytes(92)))
        sent += 1
        await asyncio.sleep(LIGHT_SECONDS)
    await asyncio.sleep(2 * settle)
    out.abort()
    back.abort()
    return light.delays + [seconds] * (sent - len(light.delays))


async def flood(relay: Relay) -> None:
    """Write as fast as the relay takes it, for ever."""

    async def pour(number: int) -> None:
        sender, receiver = await relay.connect(number), await relay.connect(number + 1)
        swap(receiver, asyncio.Protocol())
        frames = derp.send_packet(node_key(number + 1).public().raw, bytes(SIZE)) * 16
        while True:
            sender.send_raw(frames)
            await sender.drain()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(FLOODERS):
            group.create_task(pour(1000 + 2 * number))


async def overload(relay: Relay, *, seconds: float, settle: float) -> tuple[float, float]:
    """Added delay, in milliseconds: the median, and the 99th percentile."""
    quiet = sorted(await light_flow(relay, seconds, settle))
    command = [sys.executable, "-m", "bench.overload", str(relay.port)]
    flooding = await asyncio.create_subprocess_exec(*tied_to_us(command), *(["--tls"] if relay.tls else []))
    try:
        await asyncio.sleep(0.6 + 3 * settle)  # until it has started and every buffer is full
        busy = sorted(await light_flow(relay, seconds, settle))
    finally:
        flooding.kill()
        await flooding.wait()
    await asyncio.sleep(settle)  # the relay notices that they are gone
    middle, worst = (
        max(0.0, busy[int(len(busy) * share)] - quiet[int(len(quiet) * share)]) * 1000
        for share in (0.5, 0.99)
    )
    return middle, worst


def delays(options: Options) -> Found:
    """The added delay, plain and over TLS."""
    found: Found = {}
    seconds, settle = (0.2, 0.02) if options.smoke else (1.5, 0.3)
    for tls in (False, True):
        with ExitStack() as stack:
            relays = {name: stack.enter_context(started(name, tls=tls)) for name in (DERPER, OURS)}
            every = take_turns(relays, options.rounds, partial(overload, seconds=seconds, settle=settle))
        note = f"p50 {statistics.median(each[0] for each in every[OURS]):.1f} ms"
        found["relay-overload-tls" if tls else "relay-overload"] = Figures(
            [each[1] for each in every[OURS]], [each[1] for each in every[DERPER]], note
        )
    return found


async def idle(relay: Relay, *, count: int, settle: float) -> float:
    """Kilobytes per connection."""

    async def many(first: int) -> list[DERPClient]:
        return [await relay.connect(first + index) for index in range(count)]

    for client in await many(1):
        client.close()
    await asyncio.sleep(settle)
    before = relay.process.kilobytes()
    clients = await many(10_000)
    await asyncio.sleep(settle)
    grown = max(0.0, relay.process.kilobytes() - before) / len(clients)  # a few are lost in the noise
    for client in clients:
        client.close()
    return grown


def idles(options: Options) -> Found:
    """Memory per connection. Each time a new server: memory that was used once is not given back."""
    found: Found = {}
    count, settle = (20, 0.05) if options.smoke else (500, 0.3)
    for tls in (False, True):
        values: dict[str, list[float]] = {DERPER: [], OURS: [], PLAIN_LOOP: []}
        for _ in range(options.rounds):
            for name, each in values.items():
                with started(name, tls=tls) as relay:
                    each.append(uvloop.run(idle(relay, count=count, settle=settle)))
        kind = "tls" if tls else "plain"
        found[f"relay-idle-{kind}"] = Figures(values[OURS], values[DERPER])
        found[f"relay-idle-{kind}-asyncio"] = Figures(values[PLAIN_LOOP], values[DERPER])
    return found


def _delay(name: str, kind: str) -> Row:
    what = f"relay under overload, {kind}: added delay of a light flow beside ten floods, p99"
    return Row(id=name, what=what, unit="ms", baseline="stock derper on one core", must=250, aim=30)


def _idle(name: str, what: str) -> Row:
    return Row(id=name, what=what, unit="KB", baseline="stock derper")


GROUPS = (
    Group(
        name="relay, overload",
        rows=(_delay("relay-overload", "plain"), _delay("relay-overload-tls", "TLS")),
        run=delays,
        seconds=130,
    ),
    Group(
        name="relay, idle",
        rows=(
            _idle("relay-idle-plain", "relay, idle connection, plain"),
            _idle("relay-idle-plain-asyncio", "the same on asyncio's loop"),
            _idle("relay-idle-tls", "relay, idle connection, TLS"),
            _idle("relay-idle-tls-asyncio", "the same on asyncio's loop"),
        ),
        run=idles,
        seconds=90,
    ),
)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.overload")
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", action="store_true")
    asked = parser.parse_args()
    lift_limits()
    uvloop.run(flood(Relay(Process(0), asked.port, asked.tls)))
