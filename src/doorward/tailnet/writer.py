"""How a change becomes true: written and committed, then in the snapshot, then announced. Nothing is said before it holds.

A *unit* is a plain function that runs inside a transaction on the store's writer thread. It checks what has to hold
there, where nobody else can change it meanwhile, writes rows and the audit event, and returns an ``Effect``. The store
commits units in groups and answers in the order of their commits; the snapshot follows in the same order.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from doorward.clock import Clock
from doorward.errors import DoorwardError
from doorward.model import Node, PolicyVersion, User
from doorward.policy import Document, parse_policy
from doorward.store import Connection, Database, nodes, policies, users
from doorward.store import settings as stored
from doorward.store.faults import CommitUnknown
from doorward.tailnet.changes import Changes
from doorward.tailnet.deadlines import Deadlines
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.settings import DNS, Settings
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import log

DNS_SETTING = "dns"
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


def load(connection: Connection) -> Stored:
    """Read everything, as of one moment. The store must have a policy."""
    version = policies.current(connection)
    assert version is not None, "a new store is given the default policy first"
    dns = stored.get(connection, DNS_SETTING, DNS) or DNS()
    return Stored(dns, version, users.load_all(connection), nodes.load_all(connection))


class Effect(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What a unit has done to the truth, and what its caller gets."""

    result: T
    nodes: tuple[Node, ...] = ()  # added or replaced; of a known node only its state counts
    removed: tuple[int, ...] = ()
    users: tuple[User, ...] | None = None  # all of them, when they changed
    policy: tuple[Document, str] | None = None
    dns: DNS | None = None
    settings: Settings | None = None  # those that are not stored


class Writer:
    """The snapshot, and the one way to replace it.

    Attributes:
        unwritten: the nodes whose observations the store does not have yet.

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
        self._doubtful = asyncio.Event()  # the store may hold what the snapshot does not
        self._clock = clock
        self._watchers: list[Watcher] = []
        for node in snapshot.nodes.values():
            self.deadlines.add(node)

    def now(self) -> datetime:
        """The present, for rows and events."""
        return self._clock.now()

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
            effect = await self.database.run(unit, *args)
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
        known = self.snapshot
        gone = frozenset(known.nodes.keys()).difference(node.id for node in now.nodes)
        policy = None if now.policy.text == known.policy_text else now.policy.text
        self.publish(
            Effect(
                result=None,
                nodes=tuple(node for node in now.nodes if self._differs(node)),
                removed=tuple(gone),
                users=None if now.users == sorted(known.users.values(), key=_id) else tuple(now.users),
                policy=None if policy is None else (parse_policy(policy), policy),
                dns=None if now.dns == known.settings.dns else now.dns,
            )
        )

    def _differs(self, node: Node) -> bool:
        known = self.snapshot.nodes.get(node.id)
        return known is None or msgspec.structs.replace(node, observed=known.observed) != known

    def publish(self, effect: Effect[Any]) -> None:
        """Put an effect into the snapshot and wake those who can see it."""
        before = after = self.snapshot
        wide = False
        if effect.settings is not None:
            after, wide = after.with_settings(effect.settings), True
        if effect.dns is not None:
            after, wide = after.with_settings(msgspec.structs.replace(after.settings, dns=effect.dns)), True
        if effect.users is not None:
            after, wide = after.with_users(effect.users), True
        touched: frozenset[int] = frozenset()
        if effect.nodes or effect.removed:
            changed = [self._with_observed(node) for node in effect.nodes]
            after, touched = after.with_nodes(changed, effect.removed)
        if effect.policy is not None:
            after, wide = after.with_policy(*effect.policy), True
        self._replace(before, after, touched, wide=wide)

    def observe(self, node: Node) -> None:
        """Publish a node of which only observations changed, and remember to write them."""
        self.unwritten.add(node.id)
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


def _id(user: User) -> int:
    return user.id
