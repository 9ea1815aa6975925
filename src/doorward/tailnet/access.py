"""What an administrator ends, and gives back: who is shut out, who waits, which nodes are kept apart.

A client's packet filter lets go on what is open, whatever its rules say by now. What ends at once is what its client has no peer
for any more. So all of these are about who is in whose netmap (``policy.roster``: ``blocked`` and ``cuts``), and a rule that
is taken away is none of them::

    suspend a person   their nodes are in no netmap, their sessions and tokens end, nothing of theirs is admitted
    suspend a node     the same for one node; no other node of its machine is admitted meanwhile
    cut                two nodes are not in each other's netmap, for good or for some time
    approve            a node that waits for an administrator is in no netmap either, until then
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Cut, Node
from doorward.store import Connection, audit, cuts, nodes
from doorward.store import settings as stored
from doorward.tailnet.settings import Joining
from doorward.tailnet.writer import JOINING_SETTING, Effect, Writer

SHORTEST_KEY = 60  # seconds; shorter ones would sign everybody out before they have come up
LONGEST_KEY = 3650 * 86400


class Access:
    """The writer of all that is about nodes; people are the registry's. ``actor`` is as the registry has it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def suspend_node(self, actor: str, node_id: int, *, suspended: bool) -> Node:
        """Shut a node out, or let it in again. It stays known, with its name and addresses. Raises NotFound, Conflict."""
        return await self._writer.apply(_suspend, actor, node_id, suspended, self._writer.now())

    async def approve_node(self, actor: str, node_id: int) -> Node:
        """Let a node in that waits for an administrator; one that does not wait stays as it is. Raises NotFound."""
        return await self._writer.apply(_approve, actor, node_id, self._writer.now())

    async def cut(
        self, actor: str, one_id: int, other_id: int, *, lasts: timedelta | None = None, comment: str = ""
    ) -> Cut:
        """Keep two nodes apart, until it is lifted or for some time. Where they are kept apart already, that is changed.

        Raises BadInput for a node and itself, NotFound, and Conflict for doorward's own node.
        """
        if one_id == other_id:
            raise BadInput("a node cannot be cut off from itself", cure="Name two nodes.")
        if lasts is not None and lasts <= timedelta(0):
            raise BadInput(
                "a cut lasts for some time", cure="Give --for as 30m, 12h or 90d, or leave it out."
            )
        now = self._writer.now()
        draft = Cut(
            id=0,
            first=min(one_id, other_id),
            second=max(one_id, other_id),
            created=now,
            created_by=actor,
            expires=None if lasts is None else now + lasts,
            comment=comment,
        )
        return await self._writer.apply(_cut, actor, draft, now)

    async def lift(self, actor: str, one_id: int, other_id: int) -> Cut:
        """Let two nodes see each other again as the policy says. Raises NotFound when they were not kept apart."""
        pair = (min(one_id, other_id), max(one_id, other_id))
        return await self._writer.apply(_lift, actor, pair, self._writer.now())

    def next_end(self) -> datetime | None:
        """When the next cut is over; None while none has an end. There are few."""
        ends = (cut.expires for cut in self._writer.snapshot.cuts.values() if cut.expires is not None)
        return min(ends, default=None)

    async def end_over(self, now: datetime) -> None:
        """Lift the cuts whose time is over."""
        end = self.next_end()
        if end is not None and end <= now:
            await self._writer.apply(_end_over, now)

    async def set_joining(self, actor: str, joining: Joining) -> Joining:
        """Say who gets in, and for how long. It counts for who signs in from now on. Raises BadInput."""
        lifetime = joining.key_lifetime
        if lifetime is not None and not SHORTEST_KEY <= lifetime <= LONGEST_KEY:
            raise BadInput(
                "a node's key lives between a minute and ten years",
                cure="Give it as 12h, 90d or 26w, or never.",
                place="$.key_lifetime",
            )
        return await self._writer.apply(_set_joining, actor, joining, self._writer.now())


def known_node(connection: Connection, node_id: int) -> Node:
    """A node that may be changed. Raises NotFound, and Conflict for doorward's own."""
    node = nodes.by_id(connection, node_id)
    if node is None:
        raise NotFound("this node was deleted", cure="`doorward nodes list` shows the nodes there are.")
    if node.system:
        raise Conflict(f"{node.name} is doorward's own node, which doorward itself looks after")
    return node


def _change(
    connection: Connection, actor: str, action: str, node: Node, now: datetime, **changes: Any
) -> Effect[Node]:
    changed = nodes.update(connection, msgspec.structs.replace(node, **changes))
    details = {"name": node.name, **changes, "before": {name: getattr(node, name) for name in changes}}
    audit.append(connection, actor, action, f"node:{node.stable_id}", details, now)
    return Effect(result=changed, nodes=(changed,))


def _suspend(
    connection: Connection, actor: str, node_id: int, suspended: bool, now: datetime
) -> Effect[Node]:
    node = known_node(connection, node_id)
    if node.suspended == suspended:
        return Effect(result=node)
    action = "node.suspend" if suspended else "node.restore"
    return _change(connection, actor, action, node, now, suspended=suspended)


def _approve(connection: Connection, actor: str, node_id: int, now: datetime) -> Effect[Node]:
    node = known_node(connection, node_id)
    if node.approved:
        return Effect(result=node)
    return _change(connection, actor, "node.approve", node, now, approved=True)


def _cut(connection: Connection, actor: str, draft: Cut, now: datetime) -> Effect[Cut]:
    first, second = (known_node(connection, node_id) for node_id in draft.pair)
    before = cuts.by_pair(connection, *draft.pair)
    if before is None:
        cut = cuts.insert(connection, draft)
    else:
        cut = cuts.update(connection, msgspec.structs.replace(draft, id=before.id))
    details: dict[str, Any] = {"other": f"node:{second.stable_id}", "names": [first.name, second.name]}
    details["until"] = _until(cut)
    if cut.comment:
        details["comment"] = cut.comment
    if before is not None:
        details["before"] = {"until": _until(before)}
    audit.append(connection, actor, "node.cut", f"node:{first.stable_id}", details, now)
    return Effect(result=cut, cuts=(cut,))


def _lift(connection: Connection, actor: str, pair: tuple[int, int], now: datetime) -> Effect[Cut]:
    cut = cuts.by_pair(connection, *pair)
    if cut is None:
        raise NotFound("these nodes are not kept apart", cure="`doorward nodes cuts` lists those that are.")
    _note_lifted(connection, actor, cut, {}, now)
    return Effect(result=cut, cuts_gone=(cut.id,))


def _end_over(connection: Connection, now: datetime) -> Effect[None]:
    """Where several processes look, the first one does it, and the others find nothing."""
    found = cuts.over(connection, now)
    for cut in found:
        _note_lifted(connection, "system", cut, {"reason": "over"}, now)
    return Effect(result=None, cuts_gone=tuple(cut.id for cut in found))


def _note_lifted(
    connection: Connection, actor: str, cut: Cut, details: dict[str, Any], now: datetime
) -> None:
    cuts.delete(connection, cut.id)
    known = {node.id: node for node in nodes.by_ids(connection, cut.pair)}
    first, second = (_named(known.get(node_id), node_id) for node_id in cut.pair)
    told = {"other": second, "before": {"until": _until(cut)}, **details}
    audit.append(connection, actor, "node.uncut", first, told, now)


def _until(cut: Cut) -> str | None:
    return None if cut.expires is None else cut.expires.isoformat()


def _named(node: Node | None, node_id: int) -> str:
    return f"node:{node_id if node is None else node.stable_id}"


def _set_joining(connection: Connection, actor: str, joining: Joining, now: datetime) -> Effect[Joining]:
    before = stored.get(connection, JOINING_SETTING, Joining) or Joining()
    if joining == before:
        return Effect(result=before)
    stored.put(connection, JOINING_SETTING, joining)
    changes = {
        name: value for name, value in msgspec.to_builtins(joining).items() if value != getattr(before, name)
    }
    details = {**changes, "before": {name: getattr(before, name) for name in changes}}
    audit.append(connection, actor, "joining.set", "joining", details, now)
    return Effect(result=joining, joining=joining)
