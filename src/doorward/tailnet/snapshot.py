"""The whole truth at one moment: immutable, shared freely, replaced as a whole.

The next snapshot shares with the one before all that did not change, so a change costs in proportion to itself. Every
index is a persistent map (a hash trie): looking up and replacing are O(log n).
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from operator import attrgetter
from typing import NamedTuple, TypeVar

from immutables import Map

from doorward.errors import NotFound
from doorward.model import EXIT_ROUTES, Cut, Node, Prefix, User
from doorward.policy import Document, Policy
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.tailnet.settings import Settings
from doorward.tailnet.sshrules import KeptChecks

K = TypeVar("K")


# What policies look at in a host's description: its routes and what postures are about.
_HOST_FACTS = attrgetter("RoutableIPs", "OS", "OSVersion", "IPNVersion", "AllowsUpdate", "StateEncrypted")


def advertised(node: Node) -> frozenset[Prefix]:
    """The routes a node offers, unparsable ones left out: it is the client that wrote them."""
    found: set[Prefix] = set()
    for text in node.observed.hostinfo.RoutableIPs or ():
        try:
            found.add(ip_network(text))
        except ValueError:
            continue
    return frozenset(found)


def serving(node: Node) -> frozenset[Prefix]:
    """The subnets a node routes now: advertised and approved. Exit routes are not among them."""
    if not node.approved_routes or node.suspended or not node.approved:
        return frozenset()
    return (advertised(node) & frozenset(node.approved_routes)) - EXIT_ROUTES


class Next(NamedTuple):
    """A snapshot, and the nodes that changed from the one before: those asked for, and routers that took over."""

    snapshot: "Snapshot"
    touched: frozenset[int]


class Snapshot:
    """Users, nodes, policy and settings, with the indexes that answer questions about them.

    Never changed after it is made: the ``with_`` methods make the next one.
    """

    __slots__ = (
        "_by_address",
        "_by_key",
        "_by_machine",
        "_by_name",
        "_by_stable_id",
        "_routers",
        "_user_by_name",
        "carriers",
        "checks",
        "cuts",
        "document",
        "doors",
        "nodes",
        "policy",
        "policy_text",
        "primary",
        "settings",
        "system",
        "tabs",
        "users",
    )

    settings: Settings
    users: Map[int, User]
    nodes: Map[int, Node]
    policy: Policy
    document: Document
    policy_text: str
    checks: KeptChecks  # of ssh
    cuts: Map[int, Cut]  # the pairs of nodes that are kept apart
    carriers: frozenset[int]  # the nodes that may have routes going through them
    primary: Map[Prefix, int]  # which router a subnet goes through now
    system: frozenset[int]  # doorward's own nodes, one for each process
    tabs: frozenset[int]  # browsers' tabs that are nodes
    doors: tuple[int, ...]  # those that the door's name leads to: the ones online; where none is, all
    _by_key: Map[NodePublic, int]
    _by_name: Map[str, int]
    _by_stable_id: Map[str, int]
    _by_address: Map[IPv4Address | IPv6Address, int]
    _by_machine: Map[MachinePublic, tuple[int, ...]]  # sorted
    _routers: Map[Prefix, frozenset[int]]
    _user_by_name: Map[str, int]

    @classmethod
    def build(
        cls,
        settings: Settings,
        users: Iterable[User],
        nodes: Iterable[Node],
        document: Document,
        policy_text: str,
        checks: KeptChecks = KeptChecks(),  # noqa: B008 - a value, never changed
        cuts: Iterable[Cut] = (),
    ) -> "Snapshot":
        """The first snapshot, from what the store holds."""
        made = cls()
        made.checks = checks
        made.cuts = Map({cut.id: cut for cut in cuts})
        people = list(users)
        made.settings = settings
        made.users = Map({user.id: user for user in people})
        made._user_by_name = Map({user.name: user.id for user in people})
        made.nodes = made._by_key = made._by_name = made._by_stable_id = Map()  # type: ignore[assignment]
        made._by_address = made._by_machine = made._routers = made.primary = Map()  # type: ignore[assignment]
        made.carriers = frozenset()
        made.system, made.doors, made.tabs = frozenset(), (), frozenset()
        every = sorted(nodes, key=lambda node: node.id)
        made.document, made.policy_text = document, policy_text
        made.policy = Policy.compile(document, people, every, settings.country_of, _pairs(made.cuts))
        made._index(every, ())
        return made

    def _copy(self) -> "Snapshot":
        copy = Snapshot()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        return copy

    def with_nodes(self, changed: Iterable[Node] = (), removed: Iterable[int] = ()) -> Next:
        """The next snapshot: ``changed`` nodes added or replaced, ``removed`` ids gone (unknown ones ignored)."""
        nodes = list(changed)
        gone = [node_id for node_id in removed if node_id in self.nodes]
        copy = self._copy()
        placed = self.policy.looks_at_places
        policy_nodes = [
            node for node in nodes if _policy_view_differs(self.nodes.get(node.id), node, placed=placed)
        ]
        if policy_nodes or gone:
            copy.policy = self.policy.updated(nodes=policy_nodes, removed=gone)
        moved = copy._index(nodes, gone)  # noqa: SLF001 - its own class
        return Next(copy, frozenset((*(node.id for node in nodes), *gone, *moved)))

    def with_users(self, users: Iterable[User]) -> "Snapshot":
        """The next snapshot, with exactly these users."""
        people = list(users)
        copy = self._copy()
        copy.users = Map({user.id: user for user in people})
        copy._user_by_name = Map({user.name: user.id for user in people})  # noqa: SLF001 - its own class
        copy.policy = self.policy.updated(users=people)
        return copy

    def compile(self, document: Document) -> Policy:
        """What a document means for the users and nodes there are."""
        return Policy.compile(
            document, self.users.values(), self.nodes.values(), self.settings.country_of, _pairs(self.cuts)
        )

    def with_policy(self, document: Document, text: str) -> "Snapshot":
        """The next snapshot, under another policy. Raises PolicyError and changes nothing if it does not fit."""
        copy = self._copy()
        copy.policy = self.compile(document)
        copy.document, copy.policy_text = document, text
        return copy

    def with_checks(self, checks: KeptChecks) -> "Snapshot":
        """The next snapshot, with other checks of ssh."""
        copy = self._copy()
        copy.checks = checks
        return copy

    def with_cuts(self, changed: Iterable[Cut] = (), gone: Iterable[int] = ()) -> Next:
        """The next snapshot, with these cuts added or replaced and those ids gone, and the nodes that they are about."""
        copy = self._copy()
        touched: set[int] = set()
        for number in gone:
            if (cut := copy.cuts.get(number)) is not None:
                copy.cuts = copy.cuts.delete(number)
                touched |= {*cut.pair}
        for cut in changed:
            copy.cuts = copy.cuts.set(cut.id, cut)
            touched |= {*cut.pair}
        copy.policy = self.policy.with_cuts(_pairs(copy.cuts))
        return Next(copy, frozenset(touched))

    def cut_between(self, one: Node, other: Node) -> Cut | None:
        """What keeps two nodes apart, if anything does."""
        pair = (min(one.id, other.id), max(one.id, other.id))
        return next((cut for cut in self.cuts.values() if cut.pair == pair), None)

    def with_settings(self, settings: Settings) -> "Snapshot":
        """The next snapshot, under other settings."""
        copy = self._copy()
        copy.settings = settings
        if settings.country_of is not self.settings.country_of:
            copy.policy = copy.compile(self.document)
        copy._choose_doors()  # noqa: SLF001 - its own class
        return copy

    def _index(self, nodes: Iterable[Node], removed: Iterable[int]) -> set[int]:
        """Bring every index up to date; returns the ids of routers that gained or lost a subnet."""
        prefixes: set[Prefix] = set()
        for node_id in removed:
            old = self.nodes[node_id]
            self._drop(old)
            prefixes |= serving(old)
            self.carriers -= {node_id}
            self.nodes = self.nodes.delete(node_id)
            self.tabs -= {node_id}
            if old.system:
                self.system -= {node_id}
                self._choose_doors()
        moved: list[Node] = []
        for node in nodes:
            before = self.nodes.get(node.id)
            if before is not None:
                prefixes |= serving(before)
            if before is None or _identity(before) != _identity(node):
                moved.append(node)
                if before is not None:
                    self._drop(before)
            prefixes |= serving(node)
            if bool(node.approved_routes) != (node.id in self.carriers):
                self.carriers ^= {node.id}
        # All are taken out before any is put in: one may take the name that another gives up.
        for node in moved:
            self._add(node)
        for node in nodes:
            self.nodes = self.nodes.set(node.id, node)
            if node.tab is not None:
                self.tabs |= {node.id}
            if node.system:
                self.system |= {node.id}
                self._choose_doors()
        return self._choose_routers(prefixes, nodes, removed) if prefixes else set()

    def _choose_doors(self) -> None:
        own = sorted(self.system)
        online = [one for one in own if self.nodes[one].observed.online]
        # A process that has just ended is known before its node is called offline.
        lives = [one for one in online if one in self.settings.own_nodes]
        self.doors = tuple(lives or online or own)

    def _add(self, node: Node) -> None:
        self._by_key = self._by_key.set(node.node_key, node.id)
        self._by_name = self._by_name.set(node.name, node.id)
        self._by_stable_id = self._by_stable_id.set(node.stable_id, node.id)
        self._by_address = self._by_address.set(node.ipv4, node.id).set(node.ipv6, node.id)
        same = {*self._by_machine.get(node.machine_key, ()), node.id}
        self._by_machine = self._by_machine.set(node.machine_key, tuple(sorted(same)))

    def _drop(self, node: Node) -> None:
        self._by_key = _without(self._by_key, node.node_key, node.id)
        self._by_name = _without(self._by_name, node.name, node.id)
        self._by_stable_id = _without(self._by_stable_id, node.stable_id, node.id)
        self._by_address = _without(self._by_address, node.ipv4, node.id)
        self._by_address = _without(self._by_address, node.ipv6, node.id)
        left = tuple(other for other in self._by_machine[node.machine_key] if other != node.id)
        if left:
            self._by_machine = self._by_machine.set(node.machine_key, left)
        else:
            self._by_machine = self._by_machine.delete(node.machine_key)

    def _choose_routers(
        self, prefixes: Iterable[Prefix], nodes: Iterable[Node], removed: Iterable[int]
    ) -> set[int]:
        """Settle who routes each of these subnets: the router it has while that is online, else the oldest online.

        Staying with the present one keeps connections through it alive when an older router comes back. Where several
        processes serve, it is always the oldest online: they do not see nodes come and go in the same order.
        """
        moved: set[int] = set()
        candidates = frozenset((*(node.id for node in nodes), *removed))
        serve: dict[Prefix, set[int]] = {}
        for node in nodes:
            for prefix in serving(node):
                serve.setdefault(prefix, set()).add(node.id)
        for prefix in prefixes:
            routers = (self._routers.get(prefix, frozenset()) - candidates) | serve.get(prefix, frozenset())
            current = self.primary.get(prefix)
            online = sorted(router for router in routers if self.nodes[router].observed.online)
            chosen = current if current in routers and not self.settings.several else None
            if chosen is None or (online and chosen not in online):
                chosen = online[0] if online else min(routers, default=None)
            if routers:
                self._routers = self._routers.set(prefix, routers)
            elif prefix in self._routers:
                self._routers = self._routers.delete(prefix)
            if self.policy.chooses_routers:
                # Not everybody uses the active router: others may change theirs although it stays.
                moved |= routers
            if chosen == current:
                continue
            moved |= {router for router in (current, chosen) if router is not None}
            self.primary = self.primary.delete(prefix) if chosen is None else self.primary.set(prefix, chosen)
        return moved

    def routers_of(self, prefix: Prefix) -> frozenset[int]:
        """The nodes that route a subnet: the active router and those that stand by."""
        return self._routers.get(prefix, frozenset())

    def node_by_key(self, key: NodePublic) -> Node | None:
        """The node with this node key."""
        node_id = self._by_key.get(key)
        return None if node_id is None else self.nodes[node_id]

    def node_by_name(self, name: str) -> Node | None:
        """The node with this DNS label."""
        node_id = self._by_name.get(name)
        return None if node_id is None else self.nodes[node_id]

    def node_by_stable_id(self, stable_id: str) -> Node | None:
        """The node with this id of the protocol."""
        node_id = self._by_stable_id.get(stable_id)
        return None if node_id is None else self.nodes[node_id]

    def node_by_address(self, address: IPv4Address | IPv6Address) -> Node | None:
        """The node with this tailnet address."""
        node_id = self._by_address.get(address)
        return None if node_id is None else self.nodes[node_id]

    def nodes_of_machine(self, key: MachinePublic) -> list[Node]:
        """The nodes of one installation, one for each user who signed in on it, oldest first."""
        return [self.nodes[node_id] for node_id in self._by_machine.get(key, ())]

    def user_by_name(self, name: str) -> User | None:
        """The user with this login name."""
        user_id = self._user_by_name.get(name)
        return None if user_id is None else self.users[user_id]

    def owner_name(self, node: Node) -> str:
        """Whose the node is, for people to read; ``tagged-devices`` for a tagged one."""
        if node.tags:
            return "tagged-devices"
        owner = self.owner(node)
        return "doorward" if owner is None else owner.name

    def owner(self, node: Node) -> User | None:
        """The person whose node it is; None for a tagged node and for doorward's own."""
        return None if node.tags or node.user_id is None else self.users.get(node.user_id)

    def fqdn(self, node: Node) -> str:
        """The node's full DNS name, without a dot at its end."""
        return f"{node.name}.{self.settings.domain}"

    def suspended(self, node: Node) -> bool:
        """True while the node is suspended, or the person who owns it; a tagged node belongs to nobody."""
        return node.suspended or self._owner_is_suspended(node)

    def _owner_is_suspended(self, node: Node) -> bool:
        owner = self.owner(node)
        return owner is not None and owner.suspended

    def who_is_suspended(self, node: Node) -> str:
        """Why a node is shut out, as a sentence without its full stop: it is its person who is, or the device."""
        if self._owner_is_suspended(node):
            return f"{self.owner_name(node)} is suspended"
        return f"the device {node.name} is suspended"

    def find_node(self, text: str) -> Node:
        """The node that a person means: by name, full name, address, stable id or number. Raises NotFound."""
        wanted = text.strip().lower().rstrip(".")
        node = self.node_by_name(wanted.removesuffix(f".{self.settings.domain}"))
        node = node or self.node_by_stable_id(text.strip())
        if node is None and wanted.isdecimal() and len(wanted) < 20:  # int() refuses thousands of digits
            node = self.nodes.get(int(wanted))
        if node is None:
            try:
                node = self.node_by_address(ip_address(wanted))
            except ValueError:
                node = None
        if node is None:
            raise NotFound(
                f"there is no node {text!r}", cure="`doorward nodes list` shows the nodes there are."
            )
        return node


def _pairs(cuts: "Map[int, Cut]") -> list[tuple[int, int]]:
    return [cut.pair for cut in cuts.values()]


def _without(index: "Map[K, int]", key: K, node_id: int) -> "Map[K, int]":
    """The index without a node's entry.

    Another node may have it already: where another process has freed a name or an address, our own change that gives it
    to somebody else can be known here first.
    """
    return index.delete(key) if index.get(key) == node_id else index


def _identity(node: Node) -> tuple[object, ...]:
    """What the indexes are made from."""
    return node.node_key, node.name, node.stable_id, node.ipv4, node.ipv6, node.machine_key


def _policy_view_differs(before: Node | None, after: Node, *, placed: bool) -> bool:
    """True when a policy could answer differently: endpoints, presence and names do not matter to it.

    Where a node comes from does where the policy asks (``placed``): a fleet that comes back elsewhere is no work otherwise.
    """
    return (
        before is None
        or before.tags != after.tags
        or before.tab != after.tab
        or before.user_id != after.user_id
        or before.addresses != after.addresses
        or before.approved_routes != after.approved_routes
        or before.attributes != after.attributes
        or (before.suspended, before.approved) != (after.suspended, after.approved)
        or _HOST_FACTS(before.observed.hostinfo) != _HOST_FACTS(after.observed.hostinfo)
        or before.system != after.system
        or (placed and before.observed.came_from != after.observed.came_from)
    )
