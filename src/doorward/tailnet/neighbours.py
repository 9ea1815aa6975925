"""The other processes that serve the same tailnet, on one PostgreSQL: what they change is followed, and their end noticed.

::

    another process            the store                    here
    a unit, its row ──commit──▶ row and line of the feed
                               └─ notice ─────────────────▶ wake, read the lines and the rows they name,
                                                            put them into the snapshot, wake the map streams

The rows are read in a write transaction, which takes its turn among our own units: so what we publish is never older than
what we have published. Lines of our own are passed over. Every two seconds we read anyway, and say in the same
transaction that we live; a process that has not said so for ten seconds is over, and its nodes get the usual moment to
come back, here or elsewhere, before they are called offline.

The workers of one ``serve`` are processes like any others, but for their relay and own node, which they have together.

A node belongs to nobody: whichever process has its map stream says so in the node's row (``held_by``), and the last one
that said so has it. What has to happen once (an address, a name, a key that admits one node, a removal) is decided inside
a transaction, and needs no process to be in charge.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from doorward.errors import Conflict, DoorwardError
from doorward.model import ChangeKind, Process
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.store import Connection, checks, cuts, feed, nodes, policies, processes, registrations, users
from doorward.store import settings as stored
from doorward.tailnet.admission import Admission
from doorward.tailnet.observe import Observations
from doorward.tailnet.settings import DNS, Joining
from doorward.tailnet.writer import DNS_SETTING, JOINING_SETTING, News, Stored, Writer, load
from doorward.telemetry import gauge, log

HEARTBEAT = 2.0  # seconds between two signs of life
LEASE = 10.0  # seconds without one until a process is taken for dead: a slow commit or two must not do it
RELAY_STAYS = (
    10.0  # seconds that the relay of a process that ended is still told of: mostly it is only restarted
)
RETRY = 0.5  # seconds until a store that did not answer is asked again

_alive = gauge("processes", "Processes that serve this tailnet, this one included.")
_log = log("neighbours")


class Entered(NamedTuple):
    """What there is when a process enters."""

    me: Process
    last: int  # the newest line of the feed; what the snapshot is made from is read later
    alive: list[Process]


class _Look(NamedTuple):
    """One look at what the others did."""

    last: int  # the newest line of the feed
    news: News | Stored  # the latter when lines are missing
    decided: Iterable[int]  # registrations
    alive: list[Process]
    mine: bool  # our row is still ours


def enter(connection: Connection, draft: Process) -> Entered:
    """Enter a process that starts. Raises Conflict where it cannot serve beside those that live."""
    others = [
        other for other in processes.alive(connection, LEASE) if other.installation != draft.installation
    ]
    for other in others:
        if other.noise_key != draft.noise_key:
            raise Conflict(
                f"the doorward at {other.label} serves this database with another control key",
                cure="Clients know one control key: stop this doorward, copy noise.key from that one's data directory "
                "into this one's, and start again.",
            )
        # The workers of one serve are one relay together; anybody else's would be taken for it.
        ours = other.serve == draft.serve
        if not ours and draft.region and other.region and draft.region.RegionID == other.region.RegionID:
            raise Conflict(
                f"the relay of the doorward at {other.label} is region {other.region.RegionID}, too",
                cure="Give each a region of its own: `relay.region` in the settings, 900 to 999. "
                f"If that one is gone for good, wait {LEASE:.0f} s.",
            )
    me = processes.join(connection, draft)
    last = feed.newest(connection)
    feed.append(connection, me.boot, {ChangeKind.PROCESSES: ()})
    return Entered(me, last, [me, *others])


class Neighbours:
    """Follows the others, from start to end. ``run`` it beside the rest.

    Args:
        writer: the snapshot; it is told which process we are.
        observations: presence.
        admission: those who wait for a person.
        entered: see ``enter``; ours is never looked at again.
        changed: called when processes came or went, or one has another relay or own node.
    """

    def __init__(
        self,
        writer: Writer,
        observations: Observations,
        admission: Admission,
        entered: Entered,
        changed: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._observations = observations
        self._admission = admission
        self._me = entered.me
        self._last = entered.last
        self._alive = tuple(entered.alive)
        self._parted: dict[int, tuple[Process, float]] = {}  # who ended, and until when its relay is told of
        self._changed = changed
        self.told: Callable[[], None] = _nothing  # called after ``changed``, for whoever wires us
        self._heard = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._begun = self._ended = 0  # looks, counted; of those that failed the end is not
        self._next_beat = 0.0
        self._trusted_from = 0.0  # until then, silence of the others may be the store's fault
        writer.process = entered.me
        writer.catch_up = self.catch_up
        observations.alive = frozenset(other.id for other in self.others)

    @property
    def others(self) -> tuple[Process, ...]:
        """Those that live beside us, by id."""
        return tuple(one for one in self._alive if one.id != self._me.id)

    @property
    def siblings(self) -> tuple[Process, ...]:
        """The workers of our own ``serve`` that live, ourselves included, by their number."""
        ours = (one for one in self._alive if one.serve == self._me.serve)
        return tuple(sorted(ours, key=lambda one: one.worker))

    async def run(self) -> None:
        """Follow until cancelled; then say that we are gone."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._follow())
        finally:
            await asyncio.shield(self._leave())

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._writer.database.heard():
                    self._heard.set()
            except DoorwardError as error:
                _log.warning("not listening", reason=error.message, detail=error.detail, again_in=RETRY)
            await asyncio.sleep(RETRY)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._heard.wait()
            except TimeoutError:
                pass
            self._heard.clear()
            try:
                await self.catch_up()
            except DoorwardError as error:
                _log.warning("other processes' changes cannot be read", reason=error.message, again_in=RETRY)
                self._heard.set()
                await asyncio.sleep(RETRY)

    async def catch_up(self) -> None:
        """Take in what others have committed up to now. Raises Unavailable."""
        asked = self._begun
        async with self._one_at_a_time:
            if self._ended > asked:
                return  # one that began after we were called has done it: many who ask at once are two looks
            self._begun += 1
            now = self._writer.monotonic()
            beat = now >= self._next_beat
            try:
                look = await self._writer.database.run(_look, self._me, self._last, beat=beat)
            except DoorwardError:
                self._trusted_from = self._writer.monotonic() + LEASE
                raise
            if beat:
                self._next_beat = now + HEARTBEAT
            self._take_in(look)
            self._ended = self._begun

    def _take_in(self, look: _Look) -> None:
        if not look.mine:
            _log.error(
                "another doorward has this one's installation; was the data directory copied?",
                cure="Remove process.id from the copy and start it again.",
            )
        self._meet(look.alive)
        writer = self._writer
        news = writer.everything(look.news) if isinstance(look.news, Stored) else look.news
        try:
            writer.take_in(news)
        except DoorwardError as error:
            # A policy of a newer version, perhaps. The old one stays, and everything else is taken in.
            _log.error("another process's policy cannot be used here", reason=error.message)
            writer.take_in(msgspec.structs.replace(news, policy=None))
        self._observations.settle(node.id for node in news.nodes)
        self._admission.decided(look.decided)
        self._last = look.last

    def _meet(self, alive: Iterable[Process]) -> None:
        """Note who lives. After the store was away nobody could say so for a while, and nobody is taken for dead."""
        there = {one.id: one for one in alive}
        if self._writer.monotonic() < self._trusted_from:
            there = {one.id: one for one in self._alive} | there
        there.setdefault(self._me.id, self._me)
        now, before = self._writer.monotonic(), {one.id: one for one in self._alive}
        _alive.set(len(there))
        over = [number for number, (_, until) in self._parted.items() if number in there or until <= now]
        for number in over:
            del self._parted[number]
        if there == before:
            if over:
                self._tell()
            return
        for number, one in before.items():
            if number not in there:
                _log.info("another process went", label=one.label)
                self._parted[number] = (one, now + RELAY_STAYS)
        for number, one in there.items():
            if number not in before:
                _log.info("another process came", label=one.label)
        self._alive = tuple(there[number] for number in sorted(there))
        self._observations.neighbours(frozenset(other.id for other in self.others))
        self._tell()

    def _tell(self) -> None:
        self._changed()
        self.told()

    def with_relays(self, own: DERPMap) -> DERPMap:
        """A DERP map with the relays of the other processes. What it has itself comes first, then who lives."""
        known = (*(one for one, _ in self._parted.values()), *self.others)
        regions = {one.region.RegionID: one.region for one in known if one.region is not None}
        return msgspec.structs.replace(own, Regions={**regions, **own.Regions})

    def own_nodes(self) -> dict[int, int]:
        """The own node of each process that lives, with all that may be reached on it."""
        return {one.own_node: one.door_port for one in self._alive if one.own_node is not None}

    async def say_region(self, region: DERPRegion | None) -> None:
        """Tell the others of our relay, if that is news."""
        if region == self._me.region:
            return
        me = msgspec.structs.replace(self._me, region=region)
        await self._writer.database.run(_say_region, me)
        self._me = me

    async def _leave(self) -> None:
        try:
            await self._writer.database.run(_leave, self._me)
        except DoorwardError as error:
            _log.info("left without a word", reason=error.message)


def _nothing() -> None:
    """Nobody wants to be told."""


def _say_region(connection: Connection, me: Process) -> None:
    row = processes.by_installation(connection, me.installation)
    if row is not None and row.boot == me.boot:
        processes.update(connection, msgspec.structs.replace(row, region=me.region))
        feed.append(connection, me.boot, {ChangeKind.PROCESSES: ()})


def _leave(connection: Connection, me: Process) -> None:
    processes.say_ended(connection, me)
    feed.append(connection, me.boot, {ChangeKind.PROCESSES: ()})


def _look(connection: Connection, me: Process, last: int, *, beat: bool) -> _Look:
    """What the others changed after a line of the feed, as the rows are now; with ``beat`` also a sign of life."""
    mine = True
    if beat:  # not each time: without it nothing is written, and nothing waits for the disk
        mine = processes.say_alive(connection, me)
        feed.prune(connection)
        processes.prune(connection)
    alive = processes.alive(connection, LEASE)
    changes = feed.since(connection, last)
    if changes is None:
        decided = registrations.decided(connection)
        return _Look(feed.newest(connection), load(connection), decided, alive, mine)
    said: dict[ChangeKind, set[int]] = {}
    for change in changes:
        if change.boot != me.boot:
            said.setdefault(change.kind, set()).update(change.ids)
    ids = said.get(ChangeKind.NODES, set()) | said.get(ChangeKind.OBSERVED, set())
    found = nodes.by_ids(connection, sorted(ids))
    asked = said.get(ChangeKind.CHECKS, set())
    kept = checks.by_ids(connection, sorted(asked))
    parted = said.get(ChangeKind.CUTS, set())
    cut = cuts.by_ids(connection, sorted(parted))
    news = News(
        nodes=found,
        removed=frozenset(ids).difference(node.id for node in found),
        users=users.load_all(connection) if ChangeKind.USERS in said else None,
        policy=policies.current(connection) if ChangeKind.POLICY in said else None,
        dns=stored.get(connection, DNS_SETTING, DNS) if ChangeKind.DNS in said else None,
        checks=kept,
        checks_gone=frozenset(asked).difference(check.id for check in kept),
        cuts=cut,
        cuts_gone=frozenset(parted).difference(one.id for one in cut),
        joining=stored.get(connection, JOINING_SETTING, Joining) if ChangeKind.JOINING in said else None,
    )
    newest = changes[-1].id if changes else last
    return _Look(newest, news, said.get(ChangeKind.REGISTRATIONS, ()), alive, mine)
