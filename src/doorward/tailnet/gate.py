"""Those who bring an auth key: all who ask at the same moment are decided about together.

::

    ask ─▶ waiting ─▶ one transaction: each key checked, each node made, rows written table by table ─▶ one snapshot
             ▲                                   │
             └── who comes meanwhile waits ◀─────┘

One node by itself costs a dozen small statements, a commit and a new snapshot. A group costs hardly more of each, so a
fleet that joins at once waits for less than it would one by one, and each of it gets its own answer: a refusal is a
value here, which leaves the others as they are. Where a group fails as a whole (a value that no column can keep, a row
that another process has just written), each of its members is tried again by itself.
"""

import asyncio
import copy
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import msgspec

from doorward.errors import Conflict, DoorwardError, NotPermitted, TooMany, Unavailable
from doorward.model import AuthKey, Node, Observed, Process, Tab, User
from doorward.policy import Policy
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterRequest
from doorward.store import Connection, audit, keys, nodes, processes, settings, users
from doorward.tailnet import addresses, names, units
from doorward.tailnet.reported import relay_of, usable_hostinfo
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import advertised
from doorward.tailnet.writer import Effect, Writer
from doorward.telemetry import Origin

MOST = 64  # members of one group: a few hundredths of a second of the writer's time
GATHER = 0.01  # seconds at most that a group waits for more members, while many ask

_CURSOR = (
    "addresses.cursor"  # the last index that was given out, so that a freed address rests before its next use
)
_LOOKED_AT_ONCE = 256  # addresses of a policy's own pool that are asked about in one statement


class Applicant(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks to be let in, with what is needed to make it a node."""

    machine_key: MachinePublic
    request: RegisterRequest
    observed: Observed
    stable_id: str
    random_index: int  # where to look for a free address; negative: behind the last that was given out
    settings: Settings
    policy: Policy
    now: datetime
    origin: Origin | None = None  # of the request; several are let in by one unit


class Asked(msgspec.Struct, frozen=True):
    """An applicant, and the SHA-256 of the auth key it brings."""

    digest: bytes
    applicant: Applicant


def first_seen(request: RegisterRequest) -> Observed:
    """What a registration says of its host, in shape."""
    hostinfo = usable_hostinfo(request.Hostinfo or Hostinfo())
    return Observed(hostinfo=hostinfo, cap_version=request.Version, home_derp=relay_of(hostinfo, 0))


def tags_of(hostinfo: Hostinfo) -> tuple[str, ...]:
    """The tags that a host asks for, sorted, each once."""
    return tuple(sorted(set(hostinfo.RequestTags or ())))


class Gate:
    """Groups those who ask at the same time."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: list[_Place] = []
        self._deciding: asyncio.Future[None] | None = None
        self._crowded = False  # the last group had several members

    async def admit(self, digest: bytes, applicant: Applicant) -> Node:
        """Let a node in by its auth key's SHA-256. Raises DoorwardError to refuse.

        A caller that goes away before its group was formed changes nothing; later it is let in all the same.
        """
        place = _Place(Asked(digest, applicant))
        self._waiting.append(place)
        try:
            while place.outcome is None:
                if self._deciding is None:
                    self._deciding = asyncio.shield(self._decide())
                await asyncio.shield(self._deciding)
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
        if isinstance(place.outcome, Exception):
            raise place.outcome
        return place.outcome

    async def _decide(self) -> None:
        """Decide about one group. Raises nothing: every member gets its own outcome."""
        group: list[_Place] = []
        try:
            if self._crowded:
                await asyncio.sleep(GATHER)
            group = self._take()
            self._crowded = len(group) > 1
            outcomes = await self._outcomes([place.asked for place in group])
        except Exception as error:  # noqa: BLE001 - it is raised again, by each who waits for it
            outcomes = [error] * len(group)
        finally:
            self._deciding = None
        for place, outcome in zip(group, outcomes, strict=True):
            place.outcome = outcome

    def _take(self) -> "list[_Place]":
        """Those who wait, but no two who are the same machine or bring the same node key: the second asks after the first."""
        group: list[_Place] = []
        left: list[_Place] = []
        seen: set[MachinePublic | NodePublic] = set()
        for place in self._waiting:
            applicant = place.asked.applicant
            mine: set[MachinePublic | NodePublic] = {applicant.machine_key, applicant.request.NodeKey}
            if len(group) < MOST and seen.isdisjoint(mine):
                group.append(place)
                seen |= mine
            else:
                left.append(place)
        self._waiting = left
        return group

    async def _outcomes(self, group: list[Asked]) -> Sequence[Node | Exception]:
        try:
            return await self._writer.apply(admit_by_keys, group)
        except (Unavailable, TooMany) as error:
            return [
                copy.copy(error) for _ in group
            ]  # the store is in trouble: trying each would be more of it
        except DoorwardError as error:
            if len(group) == 1:
                return [error]
        found: list[Node | Exception] = []
        for asked in group:
            found += await self._outcomes([asked])
        return found


class _Place:
    """One who waits."""

    __slots__ = ("asked", "outcome")

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.outcome: Node | Exception | None = None


def admit_by_keys(connection: Connection, group: Sequence[Asked]) -> Effect[list[Node | DoorwardError]]:
    """Decide about applicants who bring auth keys, in their order; the result has a node or a refusal for each.

    No two of them may be the same machine or bring the same node key.
    """
    found = keys.auth_keys_by_hash(connection, {asked.digest for asked in group})
    owners = users.by_ids(connection, {key.user_id for key in found.values() if key.user_id is not None})
    desk = Desk(connection, [asked.applicant for asked in group])
    refusals: dict[int, DoorwardError] = {}
    for number, (digest, applicant) in enumerate((asked.digest, asked.applicant) for asked in group):
        try:
            key = found.get(digest)
            owner = None if key is None or key.user_id is None else owners.get(key.user_id)
            key = _good(key, owner, applicant.now)
            desk.admit(
                applicant,
                owner=owner,
                tags=_granted_tags(key, owner, applicant),
                actor=f"key:{key.id}",
                key=key,
                ephemeral=key.ephemeral or applicant.request.Ephemeral,
            )
        except DoorwardError as refusal:
            refusals[number] = refusal
    admitted = desk.close()
    left = iter(admitted)
    result = [refusals.get(number) or next(left) for number in range(len(group))]
    return Effect(result=result, nodes=tuple(admitted))


def _good(key: AuthKey | None, owner: User | None, now: datetime) -> AuthKey:
    """The key, if it may be used. Raises NotPermitted."""
    if key is None:
        raise NotPermitted(
            "there is no such auth key", cure="Was it copied whole? `doorward keys create` makes one."
        )
    cure = "Ask for a new one: `doorward keys create`."
    if key.revoked is not None:
        raise NotPermitted(f"the auth key {key.prefix} was revoked", cure=cure)
    if key.expires <= now:
        raise NotPermitted(f"the auth key {key.prefix} has expired", cure=cure)
    if owner is not None and owner.suspended:
        raise NotPermitted(f"{owner.name} is suspended", cure="Ask an administrator.")
    return key


def _granted_tags(key: AuthKey, owner: User | None, applicant: Applicant) -> tuple[str, ...]:
    """The key's tags, and those the applicant asks for. Raises NotPermitted for one that the key may not give."""
    asked = tags_of(applicant.observed.hostinfo)
    for tag in asked:
        if tag not in key.tags and (key.tags or owner is None or not applicant.policy.may_tag(owner, tag)):
            raise NotPermitted(
                f"this auth key may not give the tag {tag}",
                cure=f"Ask for a key made with `--tag {tag}`, or leave out --advertise-tags.",
            )
    return tuple(sorted({*key.tags, *asked}))


class Desk:
    """Makes nodes in one transaction: looks up at once what all applicants need, and writes at once what all of them get.

    ``admit`` each, then ``close``. No two applicants may be the same machine or bring the same node key.
    """

    def __init__(self, connection: Connection, applicants: Sequence[Applicant]) -> None:
        self._connection = connection
        self._node_keys = nodes.node_keys_in_use(connection, [one.request.NodeKey for one in applicants])
        self._machines: dict[MachinePublic, list[Node]] = {}
        for node in nodes.by_machine_keys(connection, [one.machine_key for one in applicants]):
            self._machines.setdefault(node.machine_key, []).append(node)
        bases = {names.label_of(one.observed.hostinfo.Hostname) for one in applicants}
        self._names = nodes.names_in_use(connection, bases)
        self._cursor = self._stored_cursor = settings.get(connection, _CURSOR, int) or 0
        self._looked_at, self._addresses = self._look_at(applicants)
        self._given: set[str] = set()
        self._consumed: set[int] = set()
        self._admitted: list[Node] = []  # those with id 0 are drafts
        self._events: list[audit.Entry] = []

    def admit(
        self,
        applicant: Applicant,
        *,
        owner: User | None,
        tags: tuple[str, ...],
        actor: str,
        key: AuthKey | None,
        ephemeral: bool,
        by_administrator: bool = False,
        tab: Tab | None = None,
    ) -> None:
        """Make the node, or give a known one its new key. Raises DoorwardError to refuse, and has then done nothing.

        Whether the key, its owner and the tags are good is checked by now. A new one waits for an administrator where that is
        the rule, unless one has let it in, or made the key so.
        """
        request = applicant.request
        self._require_fresh(applicant)
        expiry = None if tags else applicant.settings.key_end(applicant.now)
        if not tags and request.Expiry is not None:
            expiry = request.Expiry if expiry is None else min(expiry, request.Expiry)
        system = key is not None and key.system
        fields: dict[str, Any] = {
            "node_key": request.NodeKey,
            "machine_key": applicant.machine_key,
            "tags": tags,
            "key_expiry": None if system else expiry,
            "ephemeral": ephemeral,
            "auth_key_id": None if key is None else key.id,
            "tab": tab,
        }
        vouched = by_administrator or (key is not None and (key.preapproved or system))
        welcome = vouched or not applicant.settings.joining.approval
        if system:
            self._write()  # which own nodes there are is read from the store
        process = processes.by_own_key(self._connection, key.id) if key is not None and system else None
        before = self._own_node(process) if system else self._same_node(applicant, owner, tags)
        parts = applicant.policy.address_pools(None if owner is None else owner.id, tags)
        index = None
        if before is None:
            index = self._free_index(applicant) if system or not parts else self._index_in(applicant, parts)
        if key is not None:
            self._consume(key, applicant.now)
        if before is not None:
            self._renew(before, applicant, fields | {"approved": before.approved or welcome}, owner, actor)
        else:
            assert index is not None
            self._draft(applicant, index, fields | {"approved": welcome}, owner, actor, system=system)
        if process is not None:
            self._write()
            node = self._admitted[-1]
            processes.give_own_node(self._connection, process.serve, node.id)

    def _require_fresh(self, applicant: Applicant) -> None:
        """Raise DoorwardError where no node may be made of this machine, or with this key."""
        if shut := [one.name for one in self._machines.get(applicant.machine_key, ()) if one.suspended]:
            # Whoever brings it: it is the machine that is not to be let in.
            raise NotPermitted(f"the device {shut[0]} is suspended", cure="Ask an administrator.")
        if applicant.request.NodeKey in self._node_keys:
            raise Conflict(
                "this node key is registered already", cure="Sign in again: the client makes a new one."
            )

    def close(self) -> list[Node]:
        """Write what is not written yet; the admitted nodes in their order."""
        self._write()
        if self._cursor != self._stored_cursor:
            settings.put(self._connection, _CURSOR, self._cursor)
        audit.append_all(self._connection, self._events)
        return self._admitted

    def _write(self) -> None:
        drafts = [number for number, node in enumerate(self._admitted) if not node.id]
        made = nodes.insert_all(self._connection, [self._admitted[number] for number in drafts])
        for number, node in zip(drafts, made, strict=True):
            self._admitted[number] = node

    def _consume(self, key: AuthKey, now: datetime) -> None:
        if key.id in self._consumed and key.reusable:
            return  # marked already, at this moment
        if not keys.consume(self._connection, key.id, now):
            raise NotPermitted(
                f"the auth key {key.prefix} was used already, and it admits one node only",
                cure="Ask for a new one, or for a reusable one: `doorward keys create --reusable`.",
            )
        self._consumed.add(key.id)

    def _renew(
        self, before: Node, applicant: Applicant, fields: dict[str, Any], owner: User | None, actor: str
    ) -> None:
        node = msgspec.structs.replace(before, **fields, observed=applicant.observed)
        node = _with_approved_routes(node, applicant.policy)
        self._admitted.append(nodes.update(self._connection, node))
        self._note(node, applicant, actor, "node.reauthenticate", owner, before)

    def _draft(
        self,
        applicant: Applicant,
        index: int,
        fields: dict[str, Any],
        owner: User | None,
        actor: str,
        *,
        system: bool,
    ) -> None:
        name = self._free_name(applicant)
        self._given.add(name)
        if not applicant.policy.address_pools(None if owner is None else owner.id, fields["tags"]):
            self._cursor = index  # an address of a pool of its own says nothing about where the others go on
        ipv4, ipv6 = applicant.settings.pool.at(index)
        self._addresses |= {ipv4, ipv6}
        node = Node(
            id=0,
            **fields,
            stable_id=applicant.stable_id,
            user_id=None if owner is None else owner.id,
            name=name,
            ipv4=ipv4,
            ipv6=ipv6,
            created=applicant.now,
            system=system,
            observed=applicant.observed,
        )
        node = _with_approved_routes(node, applicant.policy)
        self._admitted.append(node)
        self._note(node, applicant, actor, "node.register", owner)

    def _note(
        self,
        node: Node,
        applicant: Applicant,
        actor: str,
        action: str,
        owner: User | None,
        before: Node | None = None,
    ) -> None:
        details: dict[str, Any] = {
            "name": node.name,
            "user": None if owner is None else owner.name,
            "tags": node.tags,
            "addresses": [str(address) for address in node.addresses],
            "key": str(node.node_key),
            "key_expiry": node.key_expiry,
        }
        if not node.approved:
            details["waits"] = True
        if node.tab is not None:
            action = "tab.open"
            details |= {"session": node.tab.session_id, "grace": node.tab.grace}
        if before is not None:
            details["before"] = {
                "tags": before.tags,
                "key": str(before.node_key),
                "key_expiry": before.key_expiry,
            }
        target = f"node:{node.stable_id}"
        self._events.append(audit.Entry(actor, action, target, details, applicant.now, applicant.origin))

    def _same_node(self, applicant: Applicant, owner: User | None, tags: tuple[str, ...]) -> Node | None:
        """The node that this machine is already for the same owner.

        A person who signs in with tags, or again without them, gives away or takes back the node they have there.
        """
        there = [node for node in self._machines.get(applicant.machine_key, ()) if not node.system]
        mine = [node for node in there if owner is not None and node.user_id == owner.id]
        tagged = [node for node in there if node.tags]
        untagged = [node for node in mine if not node.tags]
        order = (*tagged, *untagged) if tags else (*untagged, *mine)
        return order[0] if order else None

    def _own_node(self, process: Process | None) -> Node | None:
        """Doorward's own node, of which each ``serve`` has one; it keeps its addresses even if its client starts from nothing.

        One that no process calls its own is from when there was only one process, and is its successor's.
        """
        own = [node for node in nodes.load_all(self._connection) if node.system]
        if process is None:
            return own[0] if own else None
        taken = {other.own_node: other.serve for other in processes.load_all(self._connection)}
        for node in own:
            if taken.get(node.id) == process.serve:
                return node
        return next((node for node in own if node.id not in taken), None)

    def _free_name(self, applicant: Applicant) -> str:
        hostname = applicant.observed.hostinfo.Hostname
        base = names.label_of(hostname)
        if base not in self._names and base not in self._given and base != applicant.settings.door_label:
            return base
        return units.free_name(self._connection, applicant.settings, hostname, given=self._given)

    def _look_at(
        self, applicants: Sequence[Applicant]
    ) -> tuple[frozenset[IPv4Address], set[IPv4Address | IPv6Address]]:
        """The addresses that are likely to be asked for, and which are taken of them, or with them."""
        pool = applicants[0].settings.pool
        wanted: set[int] = set()
        for number, applicant in enumerate(applicants, 1):
            start = self._cursor + number if applicant.random_index < 0 else applicant.random_index
            wanted.add(start % pool.size)
        pairs = [pool.at(index) for index in wanted]
        looked_at = frozenset(ipv4 for ipv4, _ in pairs)
        return looked_at, set(nodes.addresses_in_use(self._connection, pairs))

    def _index_in(self, applicant: Applicant, parts: Sequence[IPv4Network]) -> int:
        """A free index of the parts of the pool that the policy sets aside for this node (``ipPool``)."""
        pool = applicant.settings.pool
        for part in parts:
            indexes = addresses.indexes_in(pool, part)
            for start in range(0, len(indexes), _LOOKED_AT_ONCE):
                some = [one for one in indexes[start : start + _LOOKED_AT_ONCE] if pool.usable(one)]
                used = nodes.addresses_in_use(self._connection, [pool.at(one) for one in some])
                for index in some:
                    if used.isdisjoint(pool.at(index)) and self._addresses.isdisjoint(pool.at(index)):
                        return index
        raise Conflict(
            f"every address of {', '.join(map(str, parts))} is in use, so this node cannot join",
            cure='Ask an administrator to widen "ipPool" in the policy.',
        )

    def _free_index(self, applicant: Applicant) -> int:
        pool = applicant.settings.pool

        def is_taken(ipv4: IPv4Address, ipv6: IPv6Address) -> bool:
            if ipv4 in self._addresses or ipv6 in self._addresses:
                return True
            return ipv4 not in self._looked_at and bool(
                nodes.addresses_in_use(self._connection, [(ipv4, ipv6)])
            )

        start = self._cursor + 1 if applicant.random_index < 0 else applicant.random_index
        return addresses.allocate(pool, start, is_taken)


def _with_approved_routes(node: Node, policy: Policy) -> Node:
    """What autoApprovers allow it to route, it may route at once."""
    routes = policy.auto_approved(node, advertised(node))
    missing = frozenset(routes) - frozenset(node.approved_routes)
    if not missing:
        return node
    approved = tuple(sorted({*node.approved_routes, *missing}, key=str))
    return msgspec.structs.replace(node, approved_routes=approved)
