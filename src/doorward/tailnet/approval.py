"""Routes that the policy approves by itself (``autoApprovers``): as a node advertises them, and as a policy begins to.

A policy that no longer approves a route takes nothing back, and one that approved it all along does not approve it again
after an administrator has rejected it: only what is new about a node or about the policy counts.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec

from doorward.model import Node, Prefix
from doorward.policy import Policy
from doorward.store import Connection, audit, nodes
from doorward.tailnet.snapshot import advertised

ACTOR = "policy:autoApprovers"


class Widening(NamedTuple):
    """One policy that takes another's place, and the nodes as they were last seen."""

    before: Policy
    after: Policy
    seen: tuple[Node, ...]

    def fresh(self, node: Node) -> frozenset[Prefix]:
        """What the node advertises and only the new policy approves."""
        offered = advertised(node)
        return frozenset(self.after.auto_approved(node, offered)).difference(
            self.before.auto_approved(node, offered)
        )


def widen(connection: Connection, widening: Widening, now: datetime) -> tuple[Node, ...]:
    """Approve what a new policy approves, in the transaction that puts it in force; the nodes that changed."""
    found = (approve(connection, seen, widening.fresh, now) for seen in widening.seen if widening.fresh(seen))
    return tuple(node for node in found if node is not None)


def approve(
    connection: Connection, seen: Node, routes: Callable[[Node], Iterable[Prefix]], now: datetime
) -> Node | None:
    """Approve ``routes`` of a node, with an audit event; the node if that changed it.

    Who it is comes from the store, for that may have changed, and what it advertises from ``seen``, because the store hears
    of that later.
    """
    known = nodes.by_id(connection, seen.id)
    if known is None:
        return None
    node = msgspec.structs.replace(known, observed=seen.observed)
    fresh = frozenset(routes(node)).difference(known.approved_routes)
    if not fresh:
        return None
    approved = tuple(sorted({*known.approved_routes, *fresh}, key=str))
    changed = nodes.update(connection, msgspec.structs.replace(known, approved_routes=approved))
    details = {
        "routes": sorted(map(str, fresh)),
        "rule": "autoApprovers",
        "approved_routes": [str(prefix) for prefix in approved],
        "before": {"approved_routes": [str(prefix) for prefix in known.approved_routes]},
    }
    audit.append(connection, ACTOR, "node.routes", f"node:{known.stable_id}", details, now)
    return changed
