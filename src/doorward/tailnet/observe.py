"""What nodes report of themselves and whether they are there: announced at once, written lazily.

That a tab has come is written at once: nothing else tells one that was there from one that never came, for how long it may
be away hangs on that, and it has no control connection by which it would come back to the next process.

A report can also change state: another hostname renames a node that no administrator named, and an advertised route that
the policy approves by itself becomes approved. Those two are written, and audited, like any other change.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

import msgspec

from doorward.errors import DoorwardError, NotFound
from doorward.model import ChangeKind, Node, Observed
from doorward.policy import Policy
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.store import Connection, audit, feed, nodes
from doorward.tailnet import approval, names, units
from doorward.tailnet.reported import merged, relay_of, usable_endpoints, usable_hostinfo
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import advertised
from doorward.tailnet.writer import Effect, Writer
from doorward.telemetry import log

Address = IPv4Address | IPv6Address

OFFLINE_GRACE = 10.0  # seconds without a map stream before others are told: a reconnecting client is not away
START_GRACE = 20.0  # the same after our own start, when everybody has to come back
FLUSH_INTERVAL = 1.0  # seconds of observations that a crash may lose
SHARED_FLUSH_INTERVAL = 0.05  # the same where other processes learn of them through the store
GATHER = 0.005  # seconds in which tabs that come are gathered: a storm of them makes some hundred commits a second, not thousands

_log = log("tailnet")


class Observations:
    """Reports and presence of nodes."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._leaving: dict[int, asyncio.TimerHandle] = {}
        # Where the streams that are open here come from, for rows that another process wrote meanwhile.
        self._from: dict[int, Address | None] = {}
        # Which other processes live; told by ``neighbours``.
        self.alive: frozenset[int] = frozenset()
        self._relayed: set[int] = set()  # tabs, whose presence is that at our relay
        self._came: set[int] = set()  # tabs that have just come, which the store does not know yet
        self._some_came = asyncio.Event()
        self._storing = asyncio.Lock()

    @property
    def _me(self) -> int | None:
        process = self._writer.process
        return None if process is None else process.id

    async def report(self, node_id: int, request: MapRequest) -> None:
        """Take in a lite update. Raises NotFound for a node that is gone."""
        before = self._node(node_id).observed
        await self._take_in(
            node_id,
            request.Hostinfo,
            msgspec.structs.replace(
                before,
                endpoints=usable_endpoints(request.Endpoints),
                disco_key=before.disco_key if request.DiscoKey.is_zero() else request.DiscoKey,
                cap_version=request.Version,
            ),
        )

    async def introduced(self, node_id: int, hostinfo: Hostinfo | None, cap_version: int) -> None:
        """Take in what a known node says of itself as it registers again. Raises NotFound for one that is gone."""
        before = self._node(node_id).observed
        await self._take_in(node_id, hostinfo, msgspec.structs.replace(before, cap_version=cap_version))

    async def _take_in(self, node_id: int, said: Hostinfo | None, seen: Observed) -> None:
        """Publish what a node was seen to be, with what it says of its host, and do what follows from that."""
        node = self._node(node_id)
        before = node.observed.hostinfo
        hostinfo = before if said is None else merged(before, usable_hostinfo(said))
        home = relay_of(hostinfo, seen.home_derp)
        self._set(node, msgspec.structs.replace(seen, hostinfo=hostinfo, home_derp=home))
        if names.label_of(hostinfo.Hostname) != names.label_of(before.Hostname) and not node.renamed:
            settings = self._writer.snapshot.settings
            await self._writer.apply(_rename, node_id, hostinfo.Hostname, settings, self._writer.now())
        if hostinfo.RoutableIPs and hostinfo.RoutableIPs != before.RoutableIPs:
            await self._approve_routes(node_id)

    async def _approve_routes(self, node_id: int) -> None:
        """What autoApprovers allow a node to route, it may route as soon as it advertises it."""
        node, policy = self._writer.snapshot.nodes.get(node_id), self._writer.snapshot.policy
        if node is None:
            return
        if frozenset(policy.auto_approved(node, advertised(node))) - frozenset(node.approved_routes):
            await self._writer.apply(_approve_routes, node, policy, self._writer.now())

    def arrived(self, node_id: int, came_from: Address | None) -> None:
        """A map stream of the node begins, and comes from there; None where nobody knows, which no posture is content with."""
        self._from[node_id] = came_from
        self.connected(node_id)

    def at_relay(self, node_id: int, region: int, came_from: Address | None) -> None:
        """A tab is connected to our relay, in this region: its peers are to send there."""
        self._relayed.add(node_id)
        node = self._writer.snapshot.nodes.get(node_id)
        if node is not None and node.observed.home_derp != region:
            self._set(node, msgspec.structs.replace(node.observed, home_derp=region))
        if node is not None and not node.observed.online:
            self._came.add(node_id)
            self._some_came.set()
        self.arrived(node_id, came_from)

    def off_relay(self, node_id: int) -> None:
        """It is no longer; unless it is back soon, others are told."""
        self._relayed.discard(node_id)
        self.disconnected(node_id)

    def connected(self, node_id: int) -> None:
        """The node has a map stream."""
        if (timer := self._leaving.pop(node_id, None)) is not None:
            timer.cancel()
        node = self._writer.snapshot.nodes.get(node_id)
        if node is not None:
            came_from = self._from.get(node_id, node.observed.came_from)
            here = msgspec.structs.replace(
                node.observed, online=True, last_seen=None, held_by=self._me, came_from=came_from
            )
            self._set(node, here, claim=True)

    def disconnected(self, node_id: int, *, grace: float = OFFLINE_GRACE) -> None:
        """The node's map stream is over; unless it is back within the grace, others are told."""
        self._from.pop(node_id, None)
        if (timer := self._leaving.pop(node_id, None)) is not None:
            timer.cancel()
        self._leaving[node_id] = asyncio.get_running_loop().call_later(grace, self._left, node_id)

    def started(self) -> None:
        """Nodes that were online when the last process ended get a moment to come back."""
        for node in self._writer.snapshot.nodes.values():
            if self._is_lost(node):
                self.disconnected(node.id, grace=START_GRACE)

    def neighbours(self, alive: frozenset[int]) -> None:
        """Other processes came or went. The nodes of one that is gone get a moment to come back, here or elsewhere."""
        if alive == self.alive:
            return
        self.alive = alive
        self._expect(self._writer.snapshot.nodes.values())

    def settle(self, node_ids: Iterable[int]) -> None:
        """Rows said where these nodes are: end a stream that went on elsewhere, and stand by one that we do have."""
        nodes, changes = self._writer.snapshot.nodes, self._writer.changes
        found = [node for node_id in node_ids if (node := nodes.get(node_id)) is not None]
        for node in found:
            if not changes.connected(node.id):
                continue
            if node.observed.online and node.observed.held_by in self.alive:
                changes.end(node.id)  # a client has only one stream: the newer is the other's
            else:
                self.connected(node.id)
        self._expect(found)

    def _expect(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.id not in self._leaving and self._is_lost(node):
                self.disconnected(node.id)

    def _is_lost(self, node: Node) -> bool:
        """Called online, yet no process that lives has its stream."""
        seen = node.observed
        here = node.id in self._relayed or self._writer.changes.connected(node.id)
        return seen.online and seen.held_by not in self.alive and not here

    def _left(self, node_id: int) -> None:
        self._leaving.pop(node_id, None)
        node = self._writer.snapshot.nodes.get(node_id)
        if node is not None and self._is_lost(node):
            gone = msgspec.structs.replace(
                node.observed, online=False, last_seen=self._writer.now(), held_by=None
            )
            self._set(node, gone, claim=True)

    def _node(self, node_id: int) -> Node:
        node = self._writer.snapshot.nodes.get(node_id)
        if node is None:
            raise NotFound("this node was deleted", cure="Sign in again: `tailscale up`.")
        return node

    def _set(self, node: Node, observed: Observed, *, claim: bool = False) -> None:
        if observed != node.observed:
            self._writer.observe(msgspec.structs.replace(node, observed=observed), claim=claim)

    async def run(self) -> None:
        """Write what was observed, about every second, and at once that a tab came, until cancelled; then once more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_at_once())
                while True:
                    alone = self._me is None or self._writer.database.trouble is not None
                    await asyncio.sleep(FLUSH_INTERVAL if alone else SHARED_FLUSH_INTERVAL)
                    await self.flush()
        finally:
            for timer in self._leaving.values():
                timer.cancel()
            self._leaving.clear()
            await asyncio.shield(self.flush())

    async def _run_at_once(self) -> None:
        """Write that tabs have come. Where that fails they stay among the claims, of which ``flush`` takes care."""
        while True:
            await self._some_came.wait()
            await asyncio.sleep(GATHER)
            self._some_came.clear()
            came, self._came = self._came, set()
            await self._write_of(came & self._writer.claims)

    async def stored(self, node_id: int) -> None:
        """Return once the store has what the node last reported; many who wait share one transaction.

        A failure is logged and tried again later, as by ``flush``: it is no reason to refuse a report.
        """
        async with self._storing:
            # While the store is in trouble nobody waits for it: each would wait out the same time limit, in turn.
            if node_id in self._writer.unwritten and self._writer.database.trouble is None:
                await self.flush()

    async def flush(self) -> None:
        """Write what was observed since the last time. A failure is logged and tried again: nothing is lost by it."""
        await self._write_of(self._writer.unwritten | self._writer.claims)

    async def _write_of(self, node_ids: Iterable[int]) -> None:
        """Write what was observed of these."""
        writer = self._writer
        rows: dict[int, Observed] = {}
        for node_id in node_ids:
            if (node := writer.snapshot.nodes.get(node_id)) is not None:
                rows[node_id] = node.observed
            else:
                self._written(node_id, None)
        if not rows:
            return
        boot = None if writer.process is None else writer.process.boot
        try:
            await writer.database.run(
                _write, rows, frozenset(writer.unwritten), frozenset(writer.claims), boot
            )
        except DoorwardError as error:
            _log.debug("observations not written", reason=error.message, detail=error.detail, nodes=len(rows))
            return
        for node_id, observed in rows.items():
            self._written(node_id, observed)

    def _written(self, node_id: int, observed: Observed | None) -> None:
        """The store has this of a node; what was seen since then is still to be written."""
        writer = self._writer
        node = writer.snapshot.nodes.get(node_id)
        if node is None or node.observed == observed:
            writer.unwritten.discard(node_id)
            writer.claims.discard(node_id)


def _write(
    connection: Connection,
    rows: Mapping[int, Observed],
    reported: frozenset[int],
    claimed: frozenset[int],
    boot: int | None,
) -> None:
    if boot is None:
        nodes.observe(connection, rows.items())
        return
    # Each by itself: a node may report here and have gone elsewhere, and neither news must undo the other.
    nodes.observe(connection, [row for row in rows.items() if row[0] in reported], presence=False)
    nodes.observe(connection, [row for row in rows.items() if row[0] in claimed], reports=False)
    feed.append(connection, boot, {ChangeKind.OBSERVED: rows})


def _rename(
    connection: Connection, node_id: int, hostname: str, settings: Settings, now: datetime
) -> Effect[None]:
    node = nodes.by_id(connection, node_id)
    if node is None or node.renamed:
        return Effect(result=None)
    name = units.free_name(connection, settings, hostname, node_id)
    if name == node.name:
        return Effect(result=None)
    renamed = nodes.update(connection, msgspec.structs.replace(node, name=name))
    target = f"node:{node.stable_id}"
    details = {"name": renamed.name, "before": {"name": node.name}}
    audit.append(connection, actor=target, action="node.rename", target=target, details=details, at=now)
    return Effect(result=None, nodes=(renamed,))


def _approve_routes(connection: Connection, seen: Node, policy: Policy, now: datetime) -> Effect[None]:
    changed = approval.approve(
        connection, seen, lambda node: policy.auto_approved(node, advertised(node)), now
    )
    return Effect(result=None, nodes=() if changed is None else (changed,))
