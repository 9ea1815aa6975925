"""``POST /machine/map``: lite updates, and the stream of netmaps (control.md, sections 11 to 15).

A stream begins with the full map and goes on with the smallest differences. Between two messages it holds nothing but a
reference to the snapshot that its client knows: a slow client gets one larger difference later, never a queue.
"""

import asyncio
import random
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from doorward.errors import NotFound, NotPermitted
from doorward.model import Node
from doorward.protocol.keys import MachinePublic
from doorward.protocol.mapstream import MapWriter
from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.map import MapRequest, MapResponse
from doorward.tailnet.changes import Subscription
from doorward.tailnet.mapsession import MapSession
from doorward.tailnet.registry import Registry
from doorward.telemetry import gauge, histogram, log

KEEP_ALIVE = 50.0  # seconds, and up to as many more as the next line says; clients give up after 120
KEEP_ALIVE_JITTER = 9.0
MERGE = 0.02  # seconds between two differences of one stream, in which further changes gather

_KEEP_ALIVE = encode(MapResponse(KeepAlive=True))
_log = log("control")
_streams = gauge("map_streams", "Open map streams.")
_first_bytes = histogram("map_first_bytes", "Size of full maps, in bytes before compression.")


class Map:
    """The endpoint."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def __call__(self, request: Request) -> Response:
        """Answer a lite update at once, a stream for as long as the client stays."""
        wanted = decode_request(await request.body(), MapRequest)
        node = self._node(request.state.machine_key, wanted)
        if wanted.Stream:
            return StreamingResponse(self._stream(node, wanted), media_type="application/octet-stream")
        if not wanted.ReadOnly:
            await self._registry.observations.report(node.id, wanted)
        if wanted.OmitPeers:
            return Response(status_code=200)
        writer = self._registry.writer
        session = MapSession(node.id, wanted.Version, writer.cache)
        frames = MapWriter(compress=wanted.Compress == "zstd")
        return Response(frames.frame(session.first(writer.snapshot, writer.now())))

    def _node(self, machine_key: MachinePublic, wanted: MapRequest) -> Node:
        """The node that asks. Its key must belong to the machine that Noise has proven."""
        snapshot = self._registry.snapshot
        node = snapshot.node_by_key(wanted.NodeKey)
        if node is None:
            raise NotFound("this node is not known here")
        if node.machine_key != machine_key:
            raise NotPermitted("this node key belongs to another machine")
        if snapshot.suspended(node):
            raise NotPermitted(f"{snapshot.owner_name(node)} is suspended")
        return node

    async def _stream(self, node: Node, wanted: MapRequest) -> AsyncIterator[bytes]:
        writer, observations = self._registry.writer, self._registry.observations
        # Subscribed before the first map is made, so that no change can fall between the two.
        subscription = writer.changes.subscribe(node.id)
        observations.connected(node.id)
        session = MapSession(node.id, wanted.Version, writer.cache)
        frames = MapWriter(compress=wanted.Compress == "zstd")
        _streams.inc()
        _log.debug("map stream opened", node=node.stable_id, capver=wanted.Version)
        try:
            if self._is_over(subscription, wanted):
                return
            subscription.take()
            first = session.first(writer.snapshot, writer.now())
            _first_bytes.observe(len(first))
            yield frames.frame(first)
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE + random.random() * KEEP_ALIVE_JITTER):  # noqa: S311 - no secret: it spreads load
                        await subscription.wait()
                except TimeoutError:
                    yield frames.frame(_KEEP_ALIVE)
                    continue
                if self._is_over(subscription, wanted):
                    return
                # All of it is made before any of it is sent: the node may be gone by the time the client has read a part.
                messages = subscription.take_messages()
                difference = session.next(writer.snapshot, subscription.take())
                if difference is not None:
                    messages.append(difference)
                for message in messages:
                    yield frames.frame(message)
                if messages:
                    await asyncio.sleep(MERGE)
        finally:
            _streams.dec()
            if writer.changes.unsubscribe(subscription):
                observations.disconnected(node.id)

    def _is_over(self, subscription: Subscription, wanted: MapRequest) -> bool:
        """True when a newer stream took over, the node is gone or has another key, or its person is shut out."""
        snapshot = self._registry.snapshot
        node = snapshot.nodes.get(subscription.node_id)
        return (
            subscription.ended or node is None or node.node_key != wanted.NodeKey or snapshot.suspended(node)
        )
