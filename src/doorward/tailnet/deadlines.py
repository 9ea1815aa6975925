"""What falls due next: ends of ephemeral nodes, of node keys and of attributes. Pure: a heap of moments, checked when they come."""

import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from doorward.model import Node

TAB_COMES = timedelta(minutes=2)  # from its making until a tab that was never at the relay is given up


class Due(Enum):
    """What has to be done about a node."""

    REMOVE = "remove"  # an ephemeral node has been away for longer than its grace
    EXPIRED = "expired"  # its key has just ended
    ATTRIBUTE = "attribute"  # something that was said about it counts no longer


def node_deadlines(node: Node, grace: timedelta) -> Iterator[tuple[datetime, Due]]:
    """The moments at which something is due for this node as it is now."""
    # A suspended one stays: forgotten, it could come back as another.
    # But a tab is nobody's way back in.
    if node.ephemeral and not node.observed.online and (not node.suspended or node.tab is not None):
        yield (node.observed.last_seen or node.created) + _grace_of(node, grace), Due.REMOVE
    if node.key_expiry is not None:
        yield node.key_expiry, Due.EXPIRED
    for attribute in node.attributes:
        if attribute.expires is not None:
            yield attribute.expires, Due.ATTRIBUTE


def _grace_of(node: Node, grace: timedelta) -> timedelta:
    """For how long it may be away. A tab says so itself; one that has not come yet soon does, or never will."""
    if node.tab is None:
        return grace
    own = timedelta(seconds=node.tab.grace)
    return own if node.observed.last_seen is not None else min(own, TAB_COMES)


class NodeLookup(Protocol):
    """Anything with a ``get`` by node id; the snapshot's map is one."""

    def get(self, key: int, /) -> Node | None:
        """The node, or None."""


class Deadlines:
    """The moments of all nodes. ``add`` after each change of a node; old entries are dropped when they surface.

    Costs O(log n) for each change, and nothing for the nodes whose time has not come.
    """

    def __init__(self, grace: timedelta) -> None:
        self._grace = grace
        self._passed: datetime | None = None  # up to when all has been handed out
        self._heap: list[tuple[datetime, int, Due]] = []
        self._noted: set[tuple[datetime, int, Due]] = (
            set()
        )  # what the heap holds: a node changes often, its end seldom

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, node: Node) -> None:
        """Note the node's moments; call it again whenever the node changed."""
        for moment, due in node_deadlines(node, self._grace):
            if due is Due.EXPIRED and self._passed is not None and moment <= self._passed:
                continue  # said already: an ended key stays ended through every later change of its node
            entry = (moment, node.id, due)
            if entry not in self._noted:
                self._noted.add(entry)
                heapq.heappush(self._heap, entry)

    def next(self) -> datetime | None:
        """When to look again; None while nothing is noted."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: datetime, nodes: NodeLookup) -> list[tuple[int, Due]]:
        """Take out what is due at ``now`` and still true of the node as it is in ``nodes``, each at most once."""
        self._passed = now
        found: dict[tuple[int, Due], None] = {}
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            self._noted.discard(entry)
            moment, node_id, due = entry
            node = nodes.get(node_id)
            if node is not None and (moment, due) in set(node_deadlines(node, self._grace)):
                found[node_id, due] = None
        return list(found)
