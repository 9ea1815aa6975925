"""``POST /machine/map``: lite updates, and the stream of netmaps (control.md, sections 11 to 15)."""

from ipaddress import IPv4Address, IPv6Address

from doorward.control.fanout import Fanout, MapStream
from doorward.errors import NotFound, NotPermitted
from doorward.model import Node
from doorward.protocol.keys import MachinePublic
from doorward.protocol.mapstream import writer_for
from doorward.protocol.tailcfg.codec import decode_request
from doorward.protocol.tailcfg.map import MapRequest
from doorward.tailnet.mapsession import MapSession
from doorward.tailnet.registry import Registry
from doorward.transport.lobby import Guest


class Map:
    """The endpoint."""

    media_type = b"application/octet-stream"

    def __init__(self, registry: Registry, fanout: Fanout) -> None:
        self._registry = registry
        self._fanout = fanout

    async def __call__(
        self,
        machine_key: MachinePublic,
        body: bytes,
        came_from: IPv4Address | IPv6Address | None,  # noqa: ARG002 - a stream is told when it runs
        guest: Guest,  # noqa: ARG002 - who has a stream open for it settles it
    ) -> bytes | MapStream:
        """Answer a lite update at once; a stream lasts for as long as the client stays."""
        wanted = decode_request(body, MapRequest)
        await self._registry.writer.find(wanted.NodeKey)
        node = self._node(machine_key, wanted)
        if wanted.Stream:
            return MapStream(self._fanout, node, wanted)
        if not wanted.ReadOnly:
            await self._registry.observations.report(node.id, wanted)
            # Answered once it is stored: a client that was told 200 does not say it again, not even after we crashed.
            await self._registry.observations.stored(node.id)
        if wanted.OmitPeers:
            return b""
        writer = self._registry.writer
        session = MapSession(node.id, wanted.Version, writer.cache)
        return writer_for(wanted.Compress).frame(session.first(writer.snapshot, writer.now()))

    def _node(self, machine_key: MachinePublic, wanted: MapRequest) -> Node:
        """The node that asks. Its key must belong to the machine that Noise has proven."""
        snapshot = self._registry.snapshot
        node = snapshot.node_by_key(wanted.NodeKey)
        if node is None:
            raise NotFound("this node is not known here")
        if node.machine_key != machine_key or node.tab is not None:
            raise NotPermitted("this node key belongs to another machine")
        if snapshot.suspended(node):
            raise NotPermitted(snapshot.who_is_suspended(node))
        return node
