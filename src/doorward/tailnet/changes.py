"""Who must be told: each map stream has a subscription, and a change wakes only the streams that can see it.

A subscription holds no messages. It gathers the ids of nodes that changed since its stream last looked, so a slow client
costs a set of numbers, and what it finally gets is computed from the newest snapshot.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from doorward.tailnet import netmap
from doorward.tailnet.snapshot import Snapshot


class Subscription:
    """The mailbox of one map stream.

    Args:
        node_id: whose stream it is.
        wake: called once when something arrives in an empty mailbox, and when the stream has to end; must not raise.
    """

    __slots__ = ("_changed", "_everything", "_messages", "_wake", "ended", "node_id")

    def __init__(self, node_id: int, wake: Callable[[], None]) -> None:
        self.node_id = node_id
        self.ended = False  # a newer stream of the node took over, or the node is gone
        self._changed: set[int] | None = None  # made when needed: most streams are told nothing for hours
        self._everything = False
        self._messages: list[bytes] = []  # questions to the node, bounded by those who ask
        self._wake = wake

    def is_empty(self) -> bool:
        """True while nothing was noted since the last ``take`` and no message waits."""
        return not (self._changed or self._everything or self._messages)

    def take(self) -> frozenset[int] | None:
        """The nodes that changed since the last call; None when anything may have. Empties the mailbox."""
        changed = None if self._everything else frozenset(self._changed or ())
        self._everything = False
        self._changed = None
        return changed

    def take_messages(self) -> list[bytes]:
        """Whole messages for this stream alone, oldest first. Empties them."""
        messages, self._messages = self._messages, []
        return messages

    def send(self, message: bytes) -> None:
        """Add a whole message, as JSON, and wake the stream."""
        first = self.is_empty()
        self._messages.append(message)
        if first:
            self._wake()

    def note(self, changed: Iterable[int] | None) -> None:
        """Add changed nodes (None: everything) and wake the stream."""
        first = self.is_empty()
        if changed is None:
            self._everything = True
        elif self._changed is None:
            self._changed = set(changed)
        else:
            self._changed.update(changed)
        if first:
            self._wake()

    def end(self) -> None:
        """Tell the stream to stop."""
        if not self.ended:
            self.ended = True
            self._wake()


def _unheard() -> None:
    """For who looks by itself."""


class Changes:
    """All subscriptions, at most one current one a node."""

    def __init__(self) -> None:
        self._current: dict[int, Subscription] = {}

    def __len__(self) -> int:
        return len(self._current)

    def subscribe(self, node_id: int, wake: Callable[[], None] = _unheard) -> Subscription:
        """A new stream of this node; an older one is ended, since a client has only one (control.md, section 11)."""
        self.end(node_id)
        subscription = self._current[node_id] = Subscription(node_id, wake)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> bool:
        """The stream is over. True when it was the node's current one, so that the node now has none."""
        subscription.end()
        if self._current.get(subscription.node_id) is not subscription:
            return False
        del self._current[subscription.node_id]
        return True

    def connected(self, node_id: int) -> bool:
        """True while the node has a stream."""
        return node_id in self._current

    def send(self, node_id: int, message: bytes) -> bool:
        """Send a whole message, as JSON, down the node's stream. False when it has none."""
        current = self._current.get(node_id)
        if current is None:
            return False
        current.send(message)
        return True

    def wake(self, node_id: int) -> None:
        """Have the node's own stream look for what is new about itself."""
        if (current := self._current.get(node_id)) is not None:
            current.note((node_id,))

    def end(self, node_id: int) -> None:
        """End the node's stream, if it has one."""
        if (current := self._current.pop(node_id, None)) is not None:
            current.end()

    def end_all(self) -> None:
        """End every stream; clients come back by themselves."""
        for node_id in list(self._current):
            self.end(node_id)

    def publish(self, before: Snapshot, after: Snapshot, touched: Iterable[int] | None) -> None:
        """Wake the streams that can see the difference; ``touched`` None means that all may."""
        if touched is None:
            for subscription in self._current.values():
                subscription.note(None)
            return
        # By the set of who sees them: nodes that join together are mostly seen by the same, who are gone through once.
        seen: dict[int, tuple[frozenset[int], set[int]]] = {}
        for node_id in touched:
            self._note({node_id}, {node_id})
            for snapshot in (before, after):
                if (node := snapshot.nodes.get(node_id)) is not None:
                    for seers in netmap.seers(snapshot, node):
                        seen.setdefault(id(seers), (seers, set()))[1].add(node_id)
        for seers, changed in seen.values():
            self._note(seers, changed)

    def _note(self, viewers: AbstractSet[int], changed: AbstractSet[int]) -> None:
        for viewer in viewers if len(viewers) < len(self._current) else viewers & self._current.keys():
            if (current := self._current.get(viewer)) is not None:
                current.note(changed)
