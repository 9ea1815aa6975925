"""Who is there: the nodes as the policy sees them, and which of them each selector names.

A `Roster` never changes; `Roster.updated` makes the next one, sharing what did not change. Sets of nodes are frozensets
of node ids, made when first asked for and kept: a change of one node then touches only the sets it enters or leaves.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Generic, Self, TypeVar

from doorward.model import EXIT_ROUTES, Node, Prefix, Role, TabTarget, User
from doorward.policy.document import Document, Kind, Selector
from doorward.policy.posture import COUNTRY, AttributeValue, CountryOf, Posture, attributes_of
from doorward.policy.ranges import Address, Range
from doorward.policy.selectors import ROLES

_NOBODY: frozenset[int] = frozenset()
NO_POSTURES: Mapping[str, Posture] = {}
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Member:
    """One node: what of it the policy can see."""

    id: int
    owner: int | None  # None for a tagged node: it belongs to nobody
    tags: frozenset[str]
    ipv4: IPv4Address
    ipv6: IPv6Address
    texts: tuple[str, str]  # the two addresses as text, IPv4 first
    routes: tuple[Prefix, ...]  # subnets it carries: approved and advertised
    exits: tuple[Prefix, ...]  # exit routes it carries
    postures: frozenset[str] = frozenset()  # those of the policy that it meets
    is_mac: bool = False
    shut: bool = False  # suspended by itself, or waiting for an administrator

    @property
    def active(self) -> tuple[Prefix, ...]:
        """Everything it carries."""
        return self.routes + self.exits

    def holds(self, ranges: Iterable[Range]) -> bool:
        """True if one of its own addresses is in one of the ranges."""
        return any((self.ipv4 if one.version == 4 else self.ipv6) in one for one in ranges)

    def carries(self, ranges: Iterable[Range]) -> bool:
        """True if a subnet it carries overlaps one. Exit routes do not count: they carry the internet only."""
        return bool(self.routes) and any(one.meets(route) for one in ranges for route in self.routes)


@dataclass(frozen=True, slots=True)
class TabMember:
    """A browser's tab: no member, since no rule names it. What it may do follows from its person (``tabs``)."""

    id: int
    owner: int
    ipv4: IPv4Address
    ipv6: IPv6Address
    targets: tuple[TabTarget, ...]
    shut: bool = False

    @property
    def texts(self) -> tuple[str, str]:
        """The two addresses as text, IPv4 first."""
        return (str(self.ipv4), str(self.ipv6))


def _tab_of(node: Node) -> TabMember | None:
    if node.tab is None or node.user_id is None:
        return None
    shut = node.suspended or not node.approved
    return TabMember(node.id, node.user_id, node.ipv4, node.ipv6, node.tab.targets, shut)


def member_of(
    node: Node, postures: Mapping[str, Posture] = NO_POSTURES, country_of: CountryOf | None = None
) -> Member:
    """The policy's view of a node. What it advertises comes from outside: what does not parse is left out."""
    attributes = node_attributes(node, country_of) if postures else {}
    approved = frozenset(node.approved_routes)
    active = [route for route in advertised(node) if route in approved]
    return Member(
        id=node.id,
        owner=None if node.tags else node.user_id,
        tags=frozenset(node.tags),
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        texts=(str(node.ipv4), str(node.ipv6)),
        routes=tuple(route for route in active if route not in EXIT_ROUTES),
        exits=tuple(route for route in active if route in EXIT_ROUTES),
        postures=frozenset(name for name, posture in postures.items() if posture.met_by(attributes)),
        is_mac=node.observed.hostinfo.OS == "macOS",
        shut=node.suspended or not node.approved,
    )


def node_attributes(node: Node, country_of: CountryOf | None = None) -> dict[str, AttributeValue]:
    """What postures are judged by, names in lower case."""
    custom = {one.key: one.value for one in node.attributes}
    return attributes_of(node.observed.hostinfo, custom, node.observed.came_from, country_of)


def advertised(node: Node) -> list[Prefix]:
    """The prefixes that a node offers to carry, each once, in its order."""
    found: dict[Prefix, None] = {}
    for text in node.observed.hostinfo.RoutableIPs or ():
        try:
            found[ip_network(text)] = None
        except ValueError:
            continue
    return list(found)


class People:
    """Which users a selector names. Rebuilt as a whole when users change, which is rare."""

    def __init__(self, document: Document, users: Iterable[User]) -> None:
        self.by_id = {user.id: user for user in users}
        self.suspended = frozenset(user.id for user in self.by_id.values() if user.suspended)
        self._groups = document.groups
        self._by_name = {user.name.lower(): user.id for user in self.by_id.values()}
        self._by_email: dict[str, list[int]] = {}
        for user in self.by_id.values():
            if user.email:
                self._by_email.setdefault(user.email.lower(), []).append(user.id)
        self._outside: dict[str, list[int]] = {}  # what outside providers say of them
        for user in self.by_id.values():
            for group in user.groups:
                self._outside.setdefault(f"group:{group}", []).append(user.id)
        self._named: dict[Selector, frozenset[int]] = {}

    def named(self, selector: Selector) -> frozenset[int]:
        """The ids of the users, suspended ones included; none for selectors that are not about people."""
        found = self._named.get(selector)
        if found is None:
            found = self._named[selector] = frozenset(self._resolve(selector))
        return found

    def _resolve(self, selector: Selector) -> Iterable[int]:
        match selector.kind:
            case Kind.USER:
                return self._user(selector.value)
            case Kind.GROUP:
                members = self._groups.get(selector.value)
                if members is None:
                    return self._outside.get(selector.value, ())
                return [user for member in members for user in self._resolve(member)]
            case Kind.DOMAIN:
                return [
                    user.id for user in self.by_id.values() if _domain(address_of(user)) == selector.value
                ]
            case Kind.EVERYONE:
                return self.by_id
            case Kind.AUTOGROUP if selector.value == "member":
                return self.by_id
            case Kind.AUTOGROUP if selector.value in ROLES:
                role: Role = ROLES[selector.value]
                return [user.id for user in self.by_id.values() if user.role is role]
            case _:
                return ()

    def _user(self, name: str) -> Iterable[int]:
        """The one user of a login name, or else of an e-mail address. ``name@`` is a login name only.

        An address that two users have names neither: it must not let one act as the other.
        """
        login = self._by_name.get(name.removesuffix("@"))
        if login is not None:
            return (login,)
        sharers = self._by_email.get(name, ())
        return sharers if len(sharers) == 1 else ()


def address_of(user: User) -> str:
    """The user's e-mail address in lower case; a login name that is one serves as well. Empty where there is none."""
    address = user.email or user.name
    return address.lower() if "@" in address else ""


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


class Roster:
    """The nodes of a moment. Attributes are for reading."""

    def __init__(
        self,
        people: People,
        nodes: Iterable[Node],
        postures: Mapping[str, Posture] = NO_POSTURES,
        country_of: CountryOf | None = None,
        cuts: Iterable[tuple[int, int]] = (),
    ) -> None:
        self.people = people
        self.country_of = country_of
        self._postures = postures
        # Looking one up costs more than all the rest of a node's view.
        asked = any(one.asks(COUNTRY) for one in postures.values())
        self._country_asked = country_of if asked else None
        self.members: dict[int, Member] = {}
        self.hidden: dict[int, tuple[Address, ...]] = {}  # doorward's own nodes, which no rule is about
        self.tabs: dict[int, TabMember] = {}  # in no set that a selector names
        self.by_owner: dict[int, frozenset[int]] = {}
        self.by_tag: dict[str, frozenset[int]] = {}
        self.routes: dict[Prefix, int] = {}  # subnets and how many nodes carry each
        self._sets: dict[Selector, frozenset[int]] = {}
        self._texts: dict[frozenset[int], list[str]] = {}
        self._sorted: dict[int, tuple[list[int], list[int]]] = {}  # by family: addresses, and whose they are
        owners: dict[int, set[int]] = {}
        tags: dict[str, set[int]] = {}
        for node in nodes:
            if node.system:
                self.hidden[node.id] = node.addresses
                continue
            if node.tab is not None:
                self._note_tab(node)
                continue
            member = self.members[node.id] = member_of(node, postures, self._country_asked)
            if member.owner is not None:
                owners.setdefault(member.owner, set()).add(node.id)
            for tag in member.tags:
                tags.setdefault(tag, set()).add(node.id)
            for route in member.routes:
                self.routes[route] = self.routes.get(route, 0) + 1
        self.by_owner = {owner: frozenset(ids) for owner, ids in owners.items()}
        self.by_tag = {tag: frozenset(ids) for tag, ids in tags.items()}
        self._shut = frozenset(member.id for member in self.members.values() if member.shut)
        # Who is shut out: nodes of suspended users, suspended ones, and those that wait for an administrator. They see
        # nobody and nobody sees them. A stock client's filter lets go on what is open, whatever its rules say; only a peer
        # that is in no netmap any more is not listened to.
        self.blocked = self._find_blocked()
        self.cuts = _neighbours(cuts)  # by node: those that it is kept apart from; nobody without an entry

    def _find_blocked(self) -> frozenset[int]:
        suspended = self.people.suspended
        tabs = [tab.id for tab in self.tabs.values() if tab.shut or tab.owner in suspended]
        return self._shut.union(tabs, *(self.by_owner.get(user, _NOBODY) for user in suspended))

    def _note_tab(self, node: Node) -> None:
        if (tab := _tab_of(node)) is not None:
            self.tabs[node.id] = tab

    def tabs_at(self, node_id: int) -> list[TabMember]:
        """The tabs that were opened for a node, whether or not they may reach it. There are few at any moment."""
        return [tab for tab in self.tabs.values() if any(target.node_id == node_id for target in tab.targets)]

    def kept_from(self, node_id: int) -> frozenset[int]:
        """The nodes that an administrator keeps this one apart from."""
        return self.cuts.get(node_id, _NOBODY)

    def parted(self, one_id: int, other_id: int) -> bool:
        """True where no rule can join the two: one is shut out, or they are kept apart."""
        return one_id in self.blocked or other_id in self.blocked or other_id in self.kept_from(one_id)

    def texts_of(self, ids: frozenset[int]) -> list[str]:
        """The addresses of nodes, such as all of one user's: IPv4 and then IPv6, by id. Shared: never changed."""
        found = self._texts.get(ids)
        if found is None:
            mine = [self.members[node_id] for node_id in sorted(ids)]
            found = [*(one.texts[0] for one in mine), *(one.texts[1] for one in mine)]
            self._texts[ids] = found
        return found

    def excluded(self) -> list[Address]:
        """Tailnet addresses that no rule may let in, however widely it is written."""
        found = [address for addresses in self.hidden.values() for address in addresses]
        for node_id in self.blocked & self.members.keys():
            found += (self.members[node_id].ipv4, self.members[node_id].ipv6)
        return found

    def matches(self, selector: Selector, member: Member) -> bool:
        """True if the selector names the node, or, for a prefix, a subnet that it carries."""
        match selector.kind:
            case Kind.EVERYONE:
                return True
            case Kind.TAG:
                return selector.value in member.tags
            case Kind.PREFIX | Kind.IPSET:
                return member.holds(selector.ranges) or member.carries(selector.ranges)
            case Kind.POSTURE:
                return selector.value in member.postures
            case Kind.AUTOGROUP if selector.value == "tagged":
                return bool(member.tags)
            case Kind.AUTOGROUP if selector.value == "internet":
                return bool(member.exits)
            case Kind.AUTOGROUP if selector.value == "danger-all":
                return True
            case _:
                return member.owner is not None and member.owner in self.people.named(selector)

    def named(self, selector: Selector) -> frozenset[int]:
        """The nodes for which `matches` holds. ``autogroup:self`` names nobody by itself."""
        found = self._sets.get(selector)
        if found is None:
            found = self._sets[selector] = self._resolve(selector)
        return found

    def _resolve(self, selector: Selector) -> frozenset[int]:
        if selector.kind is Kind.TAG:
            return self.by_tag.get(selector.value, _NOBODY)
        if selector.kind in {Kind.USER, Kind.GROUP, Kind.DOMAIN}:
            owners = self.people.named(selector)
            return _NOBODY.union(*(self.by_owner.get(owner, _NOBODY) for owner in owners))
        if selector.is_addresses:
            carriers = (member.id for member in self._carriers() if member.carries(selector.ranges))
            return frozenset((*carriers, *(found for one in selector.ranges for found in self._holders(one))))
        return frozenset(member.id for member in self.members.values() if self.matches(selector, member))

    def holder(self, address: Address) -> Member | None:
        """The node that has the address."""
        found = self._holders(Range(address.version, int(address), int(address)))
        return self.members[found[0]] if found else None

    def _carriers(self) -> Iterable[Member]:
        """The nodes that carry subnets."""
        return [member for member in self.members.values() if member.routes] if self.routes else ()

    def _holders(self, one: Range) -> list[int]:
        """The nodes whose own address is in the range."""
        if one.version not in self._sorted:
            pairs = sorted(
                (int(member.ipv4 if one.version == 4 else member.ipv6), member.id)
                for member in self.members.values()
            )
            self._sorted[one.version] = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        addresses, ids = self._sorted[one.version]
        return ids[bisect_left(addresses, one.first) : bisect_right(addresses, one.last)]

    def with_people(self, people: People) -> Self:
        """The same nodes under other users."""
        others = self._copy()
        others.people = people
        others._sets = {}  # noqa: SLF001 - another instance of this very class
        others.blocked = others._find_blocked()  # noqa: SLF001 - the same
        return others

    def with_cuts(self, cuts: Iterable[tuple[int, int]]) -> Self:
        """The same nodes, of which exactly these pairs are kept apart."""
        others = self._copy()
        others.cuts = _neighbours(cuts)
        return others

    def opened(self) -> Self:
        """The same nodes as if nobody were shut out and none were kept apart."""
        members = {
            one: replace(member, shut=False) if member.shut else member
            for one, member in self.members.items()
        }
        others = self.with_cuts(())
        others.members, others._shut = members, _NOBODY  # noqa: SLF001 - another instance of this very class
        return others

    def _copy(self) -> Self:
        others = object.__new__(type(self))
        others.__dict__.update(
            people=self.people,
            country_of=self.country_of,
            _postures=self._postures,
            _country_asked=self._country_asked,
            _sorted={},
            members=dict(self.members),
            hidden=dict(self.hidden),
            tabs=dict(self.tabs),
            by_owner=dict(self.by_owner),
            by_tag=dict(self.by_tag),
            routes=dict(self.routes),
            _sets=dict(self._sets),
            _texts={},
            _shut=self._shut,
            blocked=self.blocked,
            cuts=self.cuts,
        )
        return others

    def updated(
        self, nodes: Iterable[Node], removed: Iterable[int]
    ) -> tuple[Self, frozenset[Selector] | None]:
        """The roster after these nodes were added or replaced and those ids were removed, and what that changed.

        What changed is the selectors that named or now name one of these nodes; None where that cannot be told by
        selector, because a subnet or a node of doorward's own came or went, which changes ranges of addresses. (A node that
        is shut out changes ranges too, but only of selectors that name it.)
        """
        others = self._copy()
        final: dict[int, Member | None] = dict.fromkeys(removed)
        for node_id in final:
            others.hidden.pop(node_id, None)
            others.tabs.pop(node_id, None)
        for node in nodes:
            others.tabs.pop(node.id, None)
            if node.tab is not None:
                others._note_tab(node)  # noqa: SLF001 - another instance of this very class
                final[node.id] = None
                continue
            if node.system:
                others.hidden[node.id] = node.addresses
            else:
                others.hidden.pop(node.id, None)
            final[node.id] = None if node.system else member_of(node, self._postures, self._country_asked)
        changed = others._replace(final)
        ranges = others.hidden != self.hidden or others.routes.keys() != self.routes.keys()
        return others, None if ranges else changed

    def _replace(self, final: Mapping[int, Member | None]) -> frozenset[Selector]:
        """Put these members (None: gone) into every index; the selectors that name, or named, one that changed.

        A set is copied once for all of them: to copy it for each would make a fleet that joins at once pay for its square.
        """
        changed: set[Selector] = set()
        sets, owners, tags = _Moves(self._sets), _Moves(self.by_owner), _Moves(self.by_tag)
        for node_id, new in final.items():
            old = self.members.pop(node_id, None)
            if new is not None:
                self.members[node_id] = new
            if old == new:
                continue
            if (old is not None and old.shut) != (new is not None and new.shut):
                self._shut ^= {node_id}
            for selector, ids in self._sets.items():
                before = old is not None and node_id in ids
                after = new is not None and self.matches(selector, new)
                if before or after:
                    changed.add(selector)
                if before != after:
                    sets.note(selector, node_id, enters=after)
            if old is not None:
                self._note(node_id, old, owners, tags, enters=False)
            if new is not None:
                self._note(node_id, new, owners, tags, enters=True)
        sets.make(keep_empty=True)
        owners.make()
        tags.make()
        self.blocked = self._find_blocked()
        return frozenset(changed)

    def _note(
        self, node_id: int, member: Member, owners: "_Moves[int]", tags: "_Moves[str]", *, enters: bool
    ) -> None:
        if member.owner is not None:
            owners.note(member.owner, node_id, enters=enters)
        for tag in member.tags:
            tags.note(tag, node_id, enters=enters)
        for route in member.routes:
            self.routes[route] = self.routes.get(route, 0) + (1 if enters else -1)
            if not self.routes[route]:
                del self.routes[route]


def _neighbours(pairs: Iterable[tuple[int, int]]) -> Mapping[int, frozenset[int]]:
    """By node, those that it is in a pair with."""
    found: dict[int, set[int]] = {}
    for one, other in pairs:
        found.setdefault(one, set()).add(other)
        found.setdefault(other, set()).add(one)
    return {node_id: frozenset(others) for node_id, others in found.items()}


class _Moves(Generic[_Key]):
    """Who enters and leaves the sets of an index, until ``make`` makes each of them anew."""

    def __init__(self, index: dict[_Key, frozenset[int]]) -> None:
        self._index = index
        self._entering: dict[_Key, set[int]] = {}
        self._leaving: dict[_Key, set[int]] = {}

    def note(self, key: _Key, node_id: int, *, enters: bool) -> None:
        """One node, of which what it leaves comes before what it enters."""
        (self._entering if enters else self._leaving).setdefault(key, set()).add(node_id)

    def make(self, *, keep_empty: bool = False) -> None:
        """Do what was noted."""
        for key in self._entering.keys() | self._leaving.keys():
            ids = self._index.get(key, _NOBODY)
            if leaving := self._leaving.get(key):
                ids -= leaving
            if entering := self._entering.get(key):
                ids |= entering
            if ids or keep_empty:
                self._index[key] = ids
            else:
                del self._index[key]
