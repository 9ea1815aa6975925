"""How a change becomes true: written and committed, then in the snapshot, then announced. Nothing is said before it holds.

A *unit* is a plain function that runs inside a transaction on the store's writer thread. It checks what has to hold
there, where nobody else can change it meanwhile, writes rows and the audit event, and returns an ``Effect``. The store
commits units in groups and answers in the order of their commits; the snapshot follows in the same order.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from doorward.clock import Clock
from doorward.model import Node, Observed, User
from doorward.policy import Document
from doorward.store import Database
from doorward.tailnet.changes import Changes
from doorward.tailnet.deadlines import Deadlines
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot

T = TypeVar("T")

Watcher = Callable[[Snapshot, Snapshot, frozenset[int] | None], None]


class Effect(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What a unit has done to the truth, and what its caller gets."""

    result: T
    nodes: tuple[Node, ...] = ()  # added or replaced; of a known node only its state counts
    removed: tuple[int, ...] = ()
    observed: Mapping[int, Observed] = {}  # what registering nodes have just said of themselves
    users: tuple[User, ...] | None = None  # all of them, when they changed
    policy: tuple[Document, str] | None = None
    settings: Settings | None = None


class Writer:
    """The snapshot, and the one way to replace it.

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

        A caller that goes away meanwhile changes nothing: what was committed also gets into the snapshot.
        """
        return await asyncio.shield(self._apply(unit, args))

    async def _apply(self, unit: Callable[..., Effect[T]], args: tuple[Any, ...]) -> T:
        effect = await self.database.run(unit, *args)
        self.publish(effect)
        return effect.result

    def publish(self, effect: Effect[Any]) -> None:
        """Put an effect into the snapshot and wake those who can see it."""
        before = after = self.snapshot
        wide = False
        if effect.settings is not None:
            after, wide = after.with_settings(effect.settings), True
        if effect.users is not None:
            after, wide = after.with_users(effect.users), True
        touched: frozenset[int] = frozenset()
        if effect.nodes or effect.removed:
            nodes = [self._with_observed(node, effect.observed) for node in effect.nodes]
            after, touched = after.with_nodes(nodes, effect.removed)
        if effect.policy is not None:
            after, wide = after.with_policy(*effect.policy), True
        self._replace(before, after, touched, wide=wide)

    def observe(self, node: Node) -> None:
        """Publish a node of which only observations changed."""
        before = self.snapshot
        after, touched = before.with_nodes([node])
        self._replace(before, after, touched, wide=False)

    def _with_observed(self, node: Node, observed: Mapping[int, Observed]) -> Node:
        """The row of a known node says nothing new about what was observed: memory knows that better."""
        known = self.snapshot.nodes.get(node.id)
        kept = observed.get(node.id, node.observed if known is None else known.observed)
        return msgspec.structs.replace(node, observed=kept)

    def _replace(self, before: Snapshot, after: Snapshot, touched: frozenset[int], *, wide: bool) -> None:
        if after is before:
            return
        self.snapshot = after
        ids = None if wide else touched
        for node_id in touched:
            if (node := after.nodes.get(node_id)) is not None:
                self.deadlines.add(node)
            else:
                self.cache.forget(node_id)
                self.changes.end(node_id)
        self.changes.publish(before, after, ids)
        for watcher in self._watchers:
            watcher(before, after, ids)
