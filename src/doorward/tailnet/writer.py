"""How a change becomes true: written and committed, then in the snapshot, then announced. Nothing is said before it holds.

A *unit* is a plain function that runs inside a transaction on the store's writer thread. It checks what has to hold
there, where nobody else can change it meanwhile, writes rows and the audit event, and returns an ``Effect``. The store
commits units in groups and answers in the order of their commits; the snapshot follows in the same order.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from doorward.clock import Clock
from doorward.errors import DoorwardError, Unavailable
from doorward.model import ChangeKind, Check, Cut, Node, PolicyVersion, Process, User
from doorward.policy import Document, parse_policy
from doorward.protocol.keys import NodePublic
from doorward.store import Connection, Database, checks, cuts, feed, nodes, policies, users
from doorward.store import settings as stored
from doorward.store.faults import CommitUnknown
from doorward.tailnet.changes import Changes
from doorward.tailnet.deadlines import Deadlines
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.settings import DNS, Joining, Settings
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import log

DNS_SETTING = "dns"
JOINING_SETTING = "joining"
READ_AGAIN = 1.0  # seconds until the store is asked again for what became of a commit

T = TypeVar("T")

Watcher = Callable[[Snapshot, Snapshot, frozenset[int] | None], None]


_log = log("tailnet")


class Stored(NamedTuple):
    """All that a snapshot is made from."""

    dns: DNS
    policy: PolicyVersion
    users: list[User]
    nodes: list[Node]
    checks: list[Check]
    cuts: list[Cut]
    joining: Joining


class News(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as they are now, which the snapshot may not know yet. None: not looked at."""

    nodes: list[Node] = []
    removed: frozenset[int] = frozenset()
    users: list[User] | None = None
    policy: PolicyVersion | None = None
    dns: DNS | None = None
    checks: list[Check] = []
    checks_gone: frozenset[int] = frozenset()
    cuts: list[Cut] = []
    cuts_gone: frozenset[int] = frozenset()
    joining: Joining | None = None


def load(connection: Connection) -> Stored:
    """Read everything, as of one moment. The store must have a policy."""
    version = policies.current(connection)
    assert version is not None, "a new store is given the default policy first"
    dns = stored.get(connection, DNS_SETTING, DNS) or DNS()
    people, every = users.load_all(connection), nodes.load_all(connection)
    return Stored(
        dns,
        version,
        people,
        every,
        checks.load_all(connection),
        cuts.load_all(connection),
        stored.get(connection, JOINING_SETTING, Joining) or Joining(),
    )


class Effect(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What a unit has done to the truth, and what its caller gets."""

    result: T
    nodes: tuple[Node, ...] = ()  # added or replaced; of a known node only its state counts
    removed: tuple[int, ...] = ()
    users: tuple[User, ...] | None = None  # all of them, when they changed
    policy: tuple[Document, str] | None = None
    dns: DNS | None = None
    settings: Settings | None = None  # those that are not stored
    registrations: tuple[int, ...] = ()  # a person decided about these
    checks: tuple[Check, ...] = ()  # of ssh: asked for or decided
    checks_gone: tuple[int, ...] = ()
    cuts: tuple[Cut, ...] = ()  # made or changed
    cuts_gone: tuple[int, ...] = ()
    joining: Joining | None = None

    def said(self) -> dict[ChangeKind, tuple[int, ...]]:
        """What other processes have to read because of it."""
        found: dict[ChangeKind, tuple[int, ...]] = {}
        if self.nodes or self.removed:
            found[ChangeKind.NODES] = (*(node.id for node in self.nodes), *self.removed)
        if self.users is not None:
            found[ChangeKind.USERS] = ()
        if self.policy is not None:
            found[ChangeKind.POLICY] = ()
        if self.dns is not None:
            found[ChangeKind.DNS] = ()
        if self.registrations:
            found[ChangeKind.REGISTRATIONS] = self.registrations
        if self.checks or self.checks_gone:
            found[ChangeKind.CHECKS] = (*(check.id for check in self.checks), *self.checks_gone)
        if self.cuts or self.cuts_gone:
            found[ChangeKind.CUTS] = (*(cut.id for cut in self.cuts), *self.cuts_gone)
        if self.joining is not None:
            found[ChangeKind.JOINING] = ()
        return found


class Writer:
    """The snapshot, and the one way to replace it.

    Attributes:
        unwritten: the nodes whose reports the store does not have yet.
        claims: the nodes of which it does not know yet whether, or that, we have their stream.
        process: who we are, where several processes share the store; None where we are alone.

    Args:
        database: the store.
        snapshot: what it holds now.
        clock: the time of every event.
        entropy: random bytes; a secret is made from 16 or more.
    """

    def __init__(
        self, database: Database, snapshot: Snapshot, clock: Clock, entropy: Callable[[int], bytes]
    ) -> None:
        self.database = database
        self.snapshot = snapshot
        self.changes = Changes()
        self.cache = PeerCache()
        self.deadlines = Deadlines(snapshot.settings.ephemeral_grace)
        self.entropy = entropy
        self.unwritten: set[int] = set()
        self.claims: set[int] = set()
        self.process: Process | None = None
        self.catch_up: Callable[[], Awaitable[None]] | None = None
        self._doubtful = asyncio.Event()  # the store may hold what the snapshot does not
        self._clock = clock
        self._watchers: list[Watcher] = []
        for node in snapshot.nodes.values():
            self.deadlines.add(node)

    def now(self) -> datetime:
        """The present, for rows and events."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds, for spans of time."""
        return self._clock.monotonic()

    def watch(self, watcher: Watcher) -> None:
        """Call this after each change with the snapshots before and after, and the nodes touched (None: all)."""
        self._watchers.append(watcher)

    async def apply(self, unit: Callable[..., Effect[T]], *args: Any) -> T:
        """Run a unit, and make its effect known once it is committed. Raises what the unit raises.

        A caller that goes away meanwhile changes nothing: what was committed also gets into the snapshot. After
        CommitUnknown it may have been committed, and the snapshot says whether it was as soon as the store does.
        """
        outcome = await asyncio.shield(self._apply(unit, args))
        if isinstance(outcome, DoorwardError):
            raise outcome
        return outcome.result

    async def _apply(
        self, unit: Callable[..., Effect[T]], args: tuple[Any, ...]
    ) -> Effect[T] | DoorwardError:
        # A refusal is returned, not raised: where the caller has gone, asyncio would complain of an error that nobody took.
        try:
            if self.process is None:
                effect = await self.database.run(unit, *args)
            else:
                effect = await self.database.run(_said, self.process.boot, unit, args)
        except CommitUnknown as error:
            self._doubtful.set()
            await self._try_read_again()
            return error
        except DoorwardError as error:
            return error
        self.publish(effect)
        return effect

    async def run(self) -> None:
        """Settle doubts about the store, until cancelled."""
        while True:
            await self._doubtful.wait()
            await self._try_read_again()
            if self._doubtful.is_set():
                await asyncio.sleep(READ_AGAIN)

    async def _try_read_again(self) -> None:
        """Read the whole store and publish where it differs from the snapshot. Without an answer the doubt stays."""
        if not self._doubtful.is_set():
            return  # settled meanwhile, by another unit of the same batch
        try:
            # As a write: it takes its turn, so that what was committed before it is published before it, too.
            now = await self.database.run(load)
        except DoorwardError as error:
            _log.warning("the store cannot be read after a doubtful commit", reason=error.message)
            return
        self._doubtful.clear()
        self.take_in(self.everything(now))

    def everything(self, now: Stored) -> News:
        """The whole store as news."""
        gone = frozenset(self.snapshot.nodes.keys()).difference(node.id for node in now.nodes)
        over = frozenset(self.snapshot.checks.by_id).difference(check.id for check in now.checks)
        lifted = frozenset(self.snapshot.cuts).difference(cut.id for cut in now.cuts)
        return News(
            nodes=now.nodes,
            removed=gone,
            users=now.users,
            policy=now.policy,
            dns=now.dns,
            checks=now.checks,
            checks_gone=over,
            cuts=now.cuts,
            cuts_gone=lifted,
            joining=now.joining,
        )

    def take_in(self, news: News) -> None:
        """Publish where rows differ from the snapshot. They must have been read in a write transaction: those take turns."""
        known = self.snapshot
        policy = None
        if news.policy is not None and news.policy.text != known.policy_text:
            policy = (parse_policy(news.policy.text), news.policy.text)
        users = news.users
        if users is not None and users == sorted(known.users.values(), key=_id):
            users = None
        nodes = [self._seen_too(node) for node in news.nodes]
        self.publish(
            Effect(
                result=None,
                nodes=tuple(node for node in nodes if node != known.nodes.get(node.id)),
                removed=tuple(news.removed),
                users=None if users is None else tuple(users),
                policy=policy,
                dns=None if news.dns == known.settings.dns else news.dns,
                checks=tuple(check for check in news.checks if check != known.checks.by_id.get(check.id)),
                checks_gone=tuple(news.checks_gone),
                cuts=tuple(cut for cut in news.cuts if cut != known.cuts.get(cut.id)),
                cuts_gone=tuple(news.cuts_gone),
                joining=None if news.joining == known.settings.joining else news.joining,
            ),
            observed=True,
        )

    def _seen_too(self, node: Node) -> Node:
        """A row with what of its observations is newer in memory: where we are alone, that is all of them."""
        known = self.snapshot.nodes.get(node.id)
        if known is None:
            return node
        if self.process is None:
            return msgspec.structs.replace(node, observed=known.observed)
        mine, row = known.observed, node.observed
        seen = mine if node.id in self.unwritten else row
        there = mine if node.id in self.claims else row
        observed = msgspec.structs.replace(
            seen,
            online=there.online,
            last_seen=there.last_seen,
            held_by=there.held_by,
            came_from=there.came_from,
        )
        return msgspec.structs.replace(node, observed=observed)

    async def find(self, key: NodePublic) -> Node | None:
        """The node with this key, also where another process has let it in a moment ago. Raises Unavailable."""
        if self.catch_up is not None and self.snapshot.node_by_key(key) is None:
            if (trouble := self.database.trouble) is not None:
                # At once: each would wait out the same time limit, one after the other.
                raise Unavailable(trouble.message, cure=trouble.cure)
            await self.catch_up()
        return self.snapshot.node_by_key(key)

    def publish(self, effect: Effect[Any], *, observed: bool = False) -> None:
        """Put an effect into the snapshot and wake those who can see it. ``observed``: observations are news, too."""
        before = after = self.snapshot
        wide = False
        if effect.settings is not None:
            after, wide = after.with_settings(effect.settings), True
        if effect.dns is not None:
            after, wide = after.with_settings(msgspec.structs.replace(after.settings, dns=effect.dns)), True
        if effect.joining is not None:
            # No netmap says anything of it: it counts for who signs in from now on.
            after = after.with_settings(msgspec.structs.replace(after.settings, joining=effect.joining))
        if effect.users is not None:
            after, wide = after.with_users(effect.users), True
        touched: frozenset[int] = frozenset()
        if effect.nodes or effect.removed:
            changed = effect.nodes if observed else [self._with_observed(node) for node in effect.nodes]
            after, touched = after.with_nodes(changed, effect.removed)
        if effect.cuts or effect.cuts_gone:
            after, parted = after.with_cuts(effect.cuts, effect.cuts_gone)
            touched |= parted
        if effect.policy is not None:
            after, wide = after.with_policy(*effect.policy), True
        if effect.checks or effect.checks_gone:
            after = after.with_checks(after.checks.updated(effect.checks, effect.checks_gone))
        self._replace(before, after, touched, wide=wide)
        for check in effect.checks:
            # It may change what the target is told, and nobody else.
            self.changes.wake(check.target_id)

    def fall_back_at(self, until: datetime) -> None:
        """Move the moment on at which nodes decide about ssh by themselves. Their streams catch up within seconds."""
        before = self.snapshot
        self._replace(before, before.with_checks(before.checks.falling_back(until)), frozenset(), wide=False)

    def observe(self, node: Node, *, claim: bool = False) -> None:
        """Publish a node of which only what it reports changed, or (``claim``) only its presence, to be written soon."""
        (self.claims if claim else self.unwritten).add(node.id)
        before = self.snapshot
        after, touched = before.with_nodes([node])
        self._replace(before, after, touched, wide=False)

    def _with_observed(self, node: Node) -> Node:
        """The row of a known node says nothing new about what was observed: memory knows that better."""
        known = self.snapshot.nodes.get(node.id)
        return node if known is None else msgspec.structs.replace(node, observed=known.observed)

    def _replace(self, before: Snapshot, after: Snapshot, touched: frozenset[int], *, wide: bool) -> None:
        if after is before:
            return
        self.snapshot = after
        ids = None if wide else touched
        for node_id in touched:
            self.cache.forget(node_id)
            if (node := after.nodes.get(node_id)) is not None:
                self.deadlines.add(node)
            else:
                self.changes.end(node_id)
        self.changes.publish(before, after, ids)
        for watcher in self._watchers:
            watcher(before, after, ids)


def _said(
    connection: Connection, boot: int, unit: Callable[..., Effect[T]], args: tuple[Any, ...]
) -> Effect[T]:
    """Run a unit, and tell the other processes in the same transaction."""
    effect = unit(connection, *args)
    feed.append(connection, boot, effect.said())
    return effect


def _id(user: User) -> int:
    return user.id
