"""What a packet costs the relay, and what it costs derper, in the same run.

Closed loop: each pair keeps 24 packets in flight, below derper's queue of 32, so nobody drops and both do equal work.
A sender's *burst* is the packets that it writes at once: 1 is what a stock client does, 8 is what coalescing would do.
*One at a time* is one packet in flight per pair, the hardest case for TLS. *Rotating* senders write to eight receivers at
once. The cost is the server's own CPU time (user and system), which a busy client on the same machine hardly disturbs.
derper is held to one core. In every round each server has its turn.

*Rate*: the server is pinned to one core and the load client to another, and the row says how busy both were: the one that
was busier is what was measured. The client counts bytes as they come, and compares one read in sixteen with what was sent.
"""

import asyncio
import os
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tests.support.relay import node_key

from bench.machine import CORES
from bench.relays import DERPER, OURS, PLAIN_LOOP, Relay, started, swap, take_turns
from bench.table import Better, Figures, Found, Group, Options, Row
from doorward.protocol import derp

SIZE = 1300  # bytes of a packet
IN_FLIGHT = 24
FAN = 8  # receivers of a rotating sender
FULL = 85  # percent of a core: whoever uses more is what limits
CHECKED = 16  # one read in so many is compared with what was sent


class Loop(asyncio.Protocol):
    """Takes over from receivers after their handshake: sends a burst for every burst that arrived.

    Args:
        frame: what one packet looks like on arrival; its payload is the same in every packet.
        burst: what is written at once, made of ``per_burst`` packets.
    """

    def __init__(self, frame: bytes, burst: bytes, per_burst: int) -> None:
        self.size = len(frame)
        self.burst = burst
        self.per_burst = per_burst
        self.received = 0  # bytes
        self.answered = 0  # packets
        self.sender: asyncio.Transport

    def arrived(self, count: int) -> None:
        """Count, and send what that entitles to."""
        self.received += count
        while self.received // self.size - self.answered >= self.per_burst:
            if self.sender.is_closing():
                break
            self.answered += self.per_burst
            self.sender.write(self.burst)


class Feed(asyncio.Protocol):
    """One receiver of a loop. A connection carries nothing but packets, all alike, so its position says what comes next."""

    def __init__(self, loop: Loop, frame: bytes) -> None:
        self._loop = loop
        self._pattern = memoryview(frame * 200)  # longer than any one read, which has 256 KiB at most
        self._size = len(frame)
        self._position = 0
        self._reads = 0
        self.wrong = 0  # reads that were not what was sent

    def data_received(self, data: bytes) -> None:
        """Count, and look closely now and then."""
        if not self._reads % CHECKED:
            at = self._position % self._size
            self.wrong += data != self._pattern[at : at + len(data)]
        self._reads += 1
        self._position += len(data)
        self._loop.arrived(len(data))


@dataclass(frozen=True)
class Cost:
    """What a server and the client used for some packets."""

    micros: float  # of the server's CPU, a packet
    rate: float  # packets a second
    server: float  # how busy, from 0 to 1
    client: float


@dataclass(frozen=True)
class Load:
    """A closed loop of ``groups`` senders."""

    id: str
    what: str
    tls: bool
    groups: int = 10
    burst: int = 1
    flight: int = IN_FLIGHT
    fan: int = 1
    must: float | None = None
    aim: float | None = None

    async def run(self, relay: Relay, *, seconds: float, settle: float) -> Cost:
        """Run it for so many seconds, after ``settle`` to warm up. Raises ValueError when packets do not come through whole."""
        loops, feeds, number = [], [], 1
        payload = os.urandom(SIZE)
        for _ in range(self.groups):
            sender = await relay.connect(number)
            keys = [node_key(number + 1 + index) for index in range(self.fan)]
            receivers = [await relay.connect(number + 1 + index) for index in range(self.fan)]
            source = node_key(number).public().raw
            arriving = derp.frame(derp.RECV_PACKET, source + payload)
            number += 1 + self.fan
            frames = [derp.send_packet(key.public().raw, payload) for key in keys]
            burst = b"".join(frames) * max(1, self.burst // self.fan)
            loop = Loop(arriving, burst, len(burst) // len(frames[0]))
            loop.sender = swap(sender, asyncio.Protocol())
            for receiver in receivers:
                feeds.append(Feed(loop, arriving))
                swap(receiver, feeds[-1])
            loops.append(loop)
        for loop in loops:
            for _ in range(self.flight // loop.per_burst):
                loop.sender.write(loop.burst)
        await asyncio.sleep(settle)
        before = sum(loop.received for loop in loops)
        start, cpu, own = time.perf_counter(), relay.process.cpu(), time.process_time()
        await asyncio.sleep(seconds)
        packets = (sum(loop.received for loop in loops) - before) // loops[0].size
        used, mine = relay.process.cpu() - cpu, time.process_time() - own
        passed = time.perf_counter() - start
        wrong = sum(feed.wrong for feed in feeds)
        if not packets or wrong:
            raise ValueError(f"{self.what}: {packets} packets arrived, {wrong} reads were not what was sent")
        for loop in loops:
            loop.sender.abort()
        await asyncio.sleep(settle)  # what is on its way has nobody to answer it, and no more comes
        return Cost(used / packets * 1e6, packets / passed, used / passed, mine / passed)

    def row(self) -> Row:
        """Targets are of CPU time against derper's."""
        base = "stock derper on one core"
        return Row(
            id=self.id,
            what=self.what,
            unit="us CPU a packet",
            baseline=base,
            must=self.must,
            aim=self.aim,
            by_ratio=True,
        )


LOADS = (
    Load("relay-plain", "relay, plain, 1 packet a write", tls=False, must=1.0, aim=0.6),
    Load("relay-plain-8", "relay, plain, 8 packets a write", tls=False, burst=8),
    Load("relay-plain-single", "relay, plain, one packet at a time", tls=False, flight=1),
    Load("relay-plain-rotating", "relay, plain, 8 receivers in turn", tls=False, groups=5, burst=8, fan=FAN),
    Load("relay-tls", "relay, TLS, 1 packet a write", tls=True, must=1.2, aim=0.75),
    Load("relay-tls-8", "relay, TLS, 8 packets a write", tls=True, burst=8),
    Load("relay-tls-single", "relay, TLS, one packet at a time", tls=True, flight=1, must=3.0, aim=1.3),
    Load("relay-tls-rotating", "relay, TLS, 8 receivers in turn", tls=True, groups=5, burst=8, fan=FAN),
)
# Many pairs, so that neither side waits for the other.
RATES = (
    Load("relay-rate", "", tls=True, groups=40, burst=8, flight=64),
    Load("relay-rate-1", "", tls=True, groups=100, flight=24),
)


def costs(tls: bool, options: Options) -> Found:
    """CPU per packet of every load; on asyncio's own loop for the first."""
    found: Found = {}
    seconds, settle = (0.1, 0.02) if options.smoke else (1.0, 0.2)
    with ExitStack() as stack:
        relays = {name: stack.enter_context(started(name, tls=tls)) for name in (DERPER, OURS)}
        other = stack.enter_context(started(PLAIN_LOOP, tls=tls))
        for load in (load for load in LOADS if load.tls is tls):
            extra = {PLAIN_LOOP: other} if load.burst == load.fan == 1 else {}
            every = take_turns(
                relays | extra, options.rounds, partial(load.run, seconds=seconds, settle=settle)
            )
            rates = {
                name: statistics.median(cost.rate for cost in each) / 1000 for name, each in every.items()
            }
            note = f"{rates[OURS]:.0f} k/s, derper {rates[DERPER]:.0f} k/s"
            if extra:
                note += f"; on asyncio {statistics.median(cost.micros for cost in every[PLAIN_LOOP]):.1f} us"
            found[load.id] = Figures(
                [cost.micros for cost in every[OURS]], [cost.micros for cost in every[DERPER]], note
            )
    return found


def rates(options: Options) -> Found:
    """Packets a second over TLS, with the server on one core."""
    found: Found = {}
    seconds, settle = (0.1, 0.05) if options.smoke else (2.0, 0.5)
    with ExitStack() as stack:
        relays: dict[str, Any] = {
            name: stack.enter_context(started(name, tls=True)) for name in (DERPER, OURS)
        }
        if len(CORES) > 1 and not options.smoke:
            for relay in relays.values():
                relay.process.pin(CORES[0])
            os.sched_setaffinity(0, {CORES[1]})
        for load in (replace(load, groups=4) if options.smoke else load for load in RATES):
            every = take_turns(relays, options.rounds, partial(load.run, seconds=seconds, settle=settle))
            server, client = (
                100 * statistics.median(getattr(cost, side) for cost in every[OURS])
                for side in ("server", "client")
            )
            note = f"relay {server:.0f} % of a core, client {client:.0f} %; limit: {_limit(server, client)}"
            found[load.id] = Figures(
                [cost.rate for cost in every[OURS]], [cost.rate for cost in every[DERPER]], note
            )
    return found


def _limit(server: float, client: float) -> str:
    """What kept the rate from being higher, by how busy (in percent) each had its core."""
    if max(server, client) < FULL:
        return "neither, others had the cores or each waited for the other; a lower bound"
    return "the relay" if server >= client else "the load client, so a lower bound"


RATE = Row(
    id="relay-rate",
    what="relay over TLS on one core, 8 packets a write",
    unit="packets/s",
    baseline="stock derper on the same core",
    must=40_000,
    aim=120_000,
    better=Better.MORE,
)
RATE_1 = Row(
    id="relay-rate-1",
    what="the same, 1 packet a write",
    unit="packets/s",
    baseline="stock derper on the same core",
    must=40_000,
    aim=120_000,
    better=Better.MORE,
)

GROUPS = (
    Group(
        name="relay, plain",
        rows=tuple(load.row() for load in LOADS if not load.tls),
        run=partial(costs, False),
        seconds=70,
    ),
    Group(
        name="relay, TLS",
        rows=tuple(load.row() for load in LOADS if load.tls),
        run=partial(costs, True),
        seconds=75,
    ),
    Group(name="relay, rate", rows=(RATE, RATE_1), run=rates, seconds=60),
)
