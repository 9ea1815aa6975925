"""Telling the map streams what changed: one task for all of them, and one clock.

::

    a change ─▶ Subscription ─▶ ready ─▶ a round: each stream's difference, framed once for all who get the same bytes
                                           └ no room at the client: *late*. Its own task waits, then it gets one larger one

The first change after a pause is told at once; those that follow gather for MERGE seconds, or for as long as the round
before took, so that telling never takes more than half of the process. Between two messages a stream holds a reference to
the snapshot that its client knows, and neither a timer nor a queue. That snapshot is kept young: each has its own policy
with indexes over all nodes, and ten thousand quiet streams that each hold another one would hold the memory of them all.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from doorward.model import Node
from doorward.protocol.mapstream import MapWriter, writer_for
from doorward.protocol.tailcfg.map import MapRequest
from doorward.tailnet.mapsession import MapSession
from doorward.tailnet.registry import Registry
from doorward.telemetry import counter, gauge, histogram, log

KEEP_ALIVE = 50.0  # seconds, and up to as many more as the next line says; clients give up after 120
KEEP_ALIVE_JITTER = 9.0
MERGE = 0.02  # seconds between two rounds at least, in which further changes gather
MERGE_MOST = 0.25  # and at most, however long the round before took
AT_ONCE = 100  # streams told before others have a turn: some two milliseconds
TICK = 1.0  # seconds between two looks at the clock
CATCH_UP = 500  # quiet streams that are compared with the present in one tick; some hundredths of a second

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = log("control")
_streams = gauge("map_streams", "Open map streams.")
_first_bytes = histogram("map_first_bytes", "Size of full maps, in bytes before compression.")
_late = counter("map_late_total", "Times that a map stream's client had no room for what it was to be told.")


class Outlet(Protocol):
    """What carries a stream's bytes without waiting: the ``doorward.stream`` extension of the HTTP/2 server."""

    def push(self, data: bytes) -> bool:
        """Send all of it now, or nothing and say False."""

    def writable(self) -> bool:
        """True when there is room for a message of usual size."""

    async def drained(self) -> None:
        """Wait until ``writable``; raises when the stream is over."""


class Fanout:
    """All map streams. ``run`` is its work; without it streams get their first map and nothing after."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._streams: dict[MapStream, None] = {}
        self._ready: dict[MapStream, None] = {}
        self._work = asyncio.Event()
        self._framed: dict[tuple[bytes, bool], bytes] = {}

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def busy(self) -> bool:
        """True while streams wait for the next round."""
        return bool(self._ready)

    async def run(self) -> None:
        """Tell every stream what changed, and keep them alive, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_changes())
            group.create_task(self._tick())

    def add(self, stream: "MapStream") -> None:
        """A stream is open."""
        self._streams[stream] = None
        _streams.inc()

    def remove(self, stream: "MapStream") -> None:
        """A stream is over."""
        del self._streams[stream]
        _streams.dec()

    def tell(self, stream: "MapStream") -> None:
        """Have a stream told in the next round."""
        self._ready[stream] = None
        self._work.set()

    def frame(self, writer: MapWriter, payload: bytes) -> bytes:
        """A message, compressed and framed once for all streams of the round that get the same."""
        key = (payload, writer.compress)
        framed = self._framed.get(key)
        if framed is None:
            framed = self._framed[key] = writer.frame(payload)
        return framed

    async def _tell_changes(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            began = loop.time()
            ready, self._ready = self._ready, {}
            for number, stream in enumerate(ready, 1):
                _guarded(stream, stream.tell)
                if not number % AT_ONCE:
                    await asyncio.sleep(0)
            self._framed.clear()
            self.registry.writer.cache.end_moment()
            await asyncio.sleep(min(MERGE_MOST, max(MERGE, loop.time() - began)))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.look_at_clock(asyncio.get_running_loop().time())

    def look_at_clock(self, now: float) -> None:
        """Send the keep-alives that are due at ``now`` (of the loop's clock), and let quiet streams catch up."""
        snapshot = self.registry.snapshot
        to_compare = CATCH_UP
        for stream in list(self._streams):
            if stream.due <= now:
                _guarded(stream, stream.keep_alive)
            elif to_compare and not stream.catch_up(snapshot):
                self.tell(stream)
                to_compare -= 1


def _guarded(stream: "MapStream", act: Callable[[], None]) -> None:
    """One stream's trouble must not stop the rest: it ends, and its client comes back for a full map."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - see above
        _log.error("map stream failed", node=stream.node_id, error=repr(error), exc_info=True)
        stream.finish()


class MapStream:
    """One node's stream: a full map, then differences. Made for each request, used once by ``run``."""

    __slots__ = (
        "_fanout",
        "_is_late",
        "_outlet",
        "_over",
        "_parked",
        "_session",
        "_subscription",
        "_unsent",
        "_writer",
        "due",
        "node_id",
        "node_key",
    )

    def __init__(self, fanout: Fanout, node: Node, wanted: MapRequest) -> None:
        self.node_id = node.id
        self.node_key = node.node_key
        self.due = float("inf")  # when the next keep-alive is, by the loop's clock
        self._fanout = fanout
        self._writer = writer_for(wanted.Compress)
        self._session = MapSession(node.id, wanted.Version, fanout.registry.writer.cache)
        self._outlet: Outlet | None = None
        self._is_late = True  # its own task sends or waits: rounds pass it by
        self._unsent = b""
        self._over = False
        self._parked: asyncio.Future[None] | None = None

    async def run(
        self, outlet: Outlet, send: Send, came_from: IPv4Address | IPv6Address | None = None
    ) -> None:
        """Serve the stream until it has to end. The response has started; ``send`` takes its body's messages."""
        registry = self._fanout.registry
        self._outlet = outlet
        # Subscribed before the first map is made, so that no change can fall between the two.
        self._subscription = registry.writer.changes.subscribe(self.node_id, self._woken)
        self._fanout.add(self)
        try:
            registry.observations.arrived(self.node_id, came_from)
            if self._has_to_end():
                return
            self._make_first()
            _log.debug("map stream opened", node=self.node_id)
            # From here on this task waits where the client makes us wait; all else is done by the rounds.
            while not self._over:
                if self._unsent:
                    await send(self._take_unsent())
                else:
                    await outlet.drained()
                self._is_late = False
                self.tell()
                while not (self._is_late or self._over):
                    self._parked = asyncio.get_running_loop().create_future()
                    await self._parked
        finally:
            self._over = True
            self._fanout.remove(self)
            if registry.writer.changes.unsubscribe(self._subscription):
                registry.observations.disconnected(self.node_id)

    def _make_first(self) -> None:
        writer = self._fanout.registry.writer
        self._subscription.take()
        first = self._session.first(writer.snapshot, writer.now())
        _first_bytes.observe(len(first))
        self._unsent = self._writer.frame(first)
        self._postpone()

    def _take_unsent(self) -> MutableMapping[str, Any]:
        unsent, self._unsent = self._unsent, b""
        return {"type": "http.response.body", "body": unsent, "more_body": True}

    def tell(self) -> None:
        """Send what the client does not know yet. Where it has no room the stream's own task takes over."""
        if self._is_late or self._over:
            return
        if self._has_to_end():
            self._tell_the_end()
            self.finish()
            return
        assert self._outlet is not None
        if not self._outlet.writable():
            self._give_to_task(b"")
            return
        # All of it is made before any of it is sent: the node may be gone by the time the client has read a part.
        frames = [self._writer.frame(message) for message in self._subscription.take_messages()]
        changed = self._subscription.take()
        difference = self._session.next(self._fanout.registry.snapshot, changed)
        if difference is not None:
            frames.append(self._fanout.frame(self._writer, difference))
        if frames:
            self._send(frames[0] if len(frames) == 1 else b"".join(frames))

    def _tell_the_end(self) -> None:
        """Who is shut out or deleted has no peers any more, and is told so before its stream ends.

        The others do not listen to it, whatever it knows. But two of them would go on with each other.
        """
        writer = self._fanout.registry.writer
        node = writer.snapshot.nodes.get(self.node_id)
        if node is None:
            last: bytes | None = self._session.farewell(writer.now())
        elif node.node_key != self.node_key or self._subscription.ended:
            return
        else:
            last = self._session.next(writer.snapshot, self._subscription.take())
        assert self._outlet is not None
        if last is not None and self._outlet.writable():
            self._outlet.push(self._fanout.frame(self._writer, last))

    def keep_alive(self) -> None:
        """Show the client that we are there."""
        if self._is_late or self._over:
            return
        self._send(self._writer.keep_alive)

    def catch_up(self, snapshot: Any) -> bool:
        """Let go of an older snapshot than this one; False if that takes a comparison, which ``tell`` makes."""
        if self._is_late or self._over or not self._subscription.is_empty():
            return True
        return self._session.skip_to(snapshot)

    def finish(self) -> None:
        """End the stream."""
        self._over = True
        self._unpark()

    def _send(self, data: bytes) -> None:
        assert self._outlet is not None
        self._postpone()
        if not self._outlet.push(data):
            self._give_to_task(data)

    def _postpone(self) -> None:
        """Something is sent, so no keep-alive is due for a while."""
        spread = random.random() * KEEP_ALIVE_JITTER  # noqa: S311 - no secret: it spreads load
        self.due = asyncio.get_running_loop().time() + KEEP_ALIVE + spread

    def _give_to_task(self, unsent: bytes) -> None:
        _late.inc()
        self._is_late = True
        self._unsent = unsent
        self._unpark()

    def _woken(self) -> None:
        """By the subscription: something changed, or the stream has to end."""
        gone = self.node_id not in self._fanout.registry.snapshot.nodes
        if self._subscription.ended and (self._is_late or not gone):
            self.finish()
        elif not self._is_late:
            self._fanout.tell(self)

    def _unpark(self) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(None)

    def _has_to_end(self) -> bool:
        """True when a newer stream took over, the node is gone or has another key, or it or its person is suspended."""
        snapshot = self._fanout.registry.snapshot
        node = snapshot.nodes.get(self.node_id)
        return (
            self._subscription.ended
            or node is None
            or node.node_key != self.node_key
            or snapshot.suspended(node)
        )
