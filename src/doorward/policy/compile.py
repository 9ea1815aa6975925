"""The compiled policy: a document applied to the users and nodes of the moment, ready to answer.

A `Policy` never changes. Answers are worked out when first asked for and kept; `Policy.updated` makes the next policy
and takes along whatever the change did not touch, so that one node more costs what one node costs.

Nothing here goes through pairs of nodes: a rule joins a set of sources with a set of targets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, NamedTuple, Self

import msgspec

from doorward.model import EXIT_ROUTES, Node, Prefix, Role, User
from doorward.policy.document import NO_RULES, Diagnostic, Document, Kind, Selector
from doorward.policy.filters import Piece, filter_for, pieces_of, reaches, resolve_pieces
from doorward.policy.filters import Resolved as ResolvedPiece
from doorward.policy.posture import ADDRESS, COUNTRY, CountryOf
from doorward.policy.roster import Member, People, Roster, TabMember
from doorward.policy.sources import Sources
from doorward.policy.ssh import SSHMatch, SSHRules
from doorward.policy.tabs import Entry, FromTab, entry, match_of, narrowed, port_rule, ssh_rules
from doorward.protocol.tailcfg import capability
from doorward.protocol.tailcfg.filter import FilterRule
from doorward.protocol.tailcfg.ssh import SSHPolicy

# These roles may change the policy, and so may give any tag of it without being named.
_TAGGERS = frozenset((Role.OWNER, Role.ADMIN, Role.NETWORK_ADMIN))

# Attributes of a node that clients look for on their peers.
_FOR_PEERS = frozenset((capability.SUGGEST_EXIT_NODE, capability.DNS_SUBDOMAIN_RESOLVE))

_NOBODY: frozenset[int] = frozenset()
_NO_SELECTORS: frozenset[Selector] = frozenset()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What follows from the document alone."""

    pieces: tuple[Piece, ...]
    targets: tuple[frozenset[Selector], ...]  # by the rule's number
    own: tuple[bool, ...]  # "autogroup:self" is among them
    for_peers: bool  # some attribute is one that peers have to know
    may_disable_ipv4: bool
    routed: bool  # some rule names its routers
    placed: bool  # some posture asks where a node comes from

    @classmethod
    def of(cls, document: Document) -> Self:
        targets = tuple(
            frozenset((*(flow.target for flow in rule.flows), *rule.app_targets)) for rule in document.rules
        )
        own = tuple(any(target.is_autogroup("self") for target in one) for one in targets)
        names = {
            name for attribute in document.node_attributes for name in (*attribute.names, *attribute.app)
        }
        return cls(
            pieces_of(document.rules),
            targets,
            own,
            for_peers=not names.isdisjoint(_FOR_PEERS),
            may_disable_ipv4=document.disable_ipv4 or capability.DISABLE_IPV4 in names,
            routed=any(rule.via for rule in document.rules),
            placed=any(posture.asks(ADDRESS, COUNTRY) for posture in document.postures.values()),
        )


class _Resolved(NamedTuple):
    """A rule applied to who there is."""

    number: int
    sources: Sources
    nodes: frozenset[int]  # of the sources
    targets: frozenset[int]
    own: bool  # "autogroup:self" is among its targets


class Policy:
    """The answers. Node and user ids that are not known belong to nobody: they see nothing and may nothing."""

    def __init__(self, document: Document, users: tuple[User, ...], roster: Roster, plan: _Plan) -> None:
        self.document = document
        self.users = users
        self.roster = roster
        self._plan = plan
        self._sources: dict[tuple[Selector, ...], Sources] = {}
        self._targets: dict[int, frozenset[int]] = {}  # by the rule's number
        self._rules: list[_Resolved] | None = None
        self._pieces: list[ResolvedPiece] | None = None
        self._circles: dict[int, frozenset[int]] = {}
        self._unions: dict[frozenset[int], frozenset[int]] = {}
        self._filters: dict[int, list[FilterRule]] = {}
        self._attributes: dict[int, dict[str, list[Any] | None]] = {}
        self._ssh: dict[int, SSHPolicy] = {}
        self._ssh_rules = SSHRules(document.ssh, roster)
        self._from_tab: dict[int, FromTab] = {}  # by person
        self._entries: dict[tuple[int, int], Entry | None] = {}  # by tab and target

    @classmethod
    def compile(
        cls,
        document: Document,
        users: Iterable[User],
        nodes: Iterable[Node],
        country_of: CountryOf | None = None,
        cuts: Iterable[tuple[int, int]] = (),
    ) -> Self:
        """Apply a document. Users that it names and nobody has are no error, as in the hosted service; see `warnings`.

        Without ``country_of`` no node is in any country, and `check.check` refuses a document that asks. ``cuts`` are pairs of
        nodes that are kept apart whatever it says.
        """
        known = tuple(users)
        roster = Roster(People(document, known), nodes, document.postures, country_of, cuts)
        return cls(document, known, roster, _Plan.of(document))

    def updated(
        self,
        *,
        nodes: Iterable[Node] = (),
        removed: Iterable[int] = (),
        users: Iterable[User] | None = None,
    ) -> Self:
        """The policy after these nodes were added or replaced, those ids removed, and the users are these.

        Costs a copy of the indexes and the work for the changed nodes; a change of users that the policy can see
        costs as much as `compile`.
        """
        roster, changed = self.roster.updated(nodes, removed)
        known = self.users if users is None else tuple(users)
        if known != self.users:
            roster = roster.with_people(People(self.document, known))
            changed = None
        made = type(self)(self.document, known, roster, self._plan)
        if changed is not None:
            made._take_over(self, changed)  # noqa: SLF001 - another instance of this very class
        return made

    def with_cuts(self, cuts: Iterable[tuple[int, int]]) -> Self:
        """The policy where exactly these pairs of nodes are kept apart. Costs a copy of the indexes."""
        made = type(self)(self.document, self.users, self.roster.with_cuts(cuts), self._plan)
        made._take_over(self, _NO_SELECTORS)  # noqa: SLF001 - another instance of this very class
        return made

    def opened(self) -> Self:
        """What the rules alone say: the policy as if nobody were suspended or waiting, and none were kept apart.

        Itself where that is so.
        """
        roster = self.roster
        if not (roster.blocked or roster.cuts or roster.people.suspended):
            return self
        users = tuple(msgspec.structs.replace(user, suspended=False) for user in self.users)
        opened = roster.opened().with_people(People(self.document, users))
        return type(self)(self.document, users, opened, self._plan)

    @property
    def looks_at_places(self) -> bool:
        """True if some posture asks where a node comes from."""
        return self._plan.placed

    def resolve(self) -> None:
        """Work out now what all nodes have in common: every rule's sources, with their addresses, and targets."""
        for rule in self._resolved():
            _ = rule.sources.texts
        if self._pieces is None:
            self._pieces = resolve_pieces(self._plan.pieces, self.roster, self.sources)

    def _take_over(self, old: Self, changed: frozenset[Selector]) -> None:
        """Keep what was worked out about sources and targets that did not change."""
        self._sources = {
            selectors: sources for selectors, sources in old._sources.items() if changed.isdisjoint(selectors)
        }
        self._targets = {
            number: targets
            for number, targets in old._targets.items()
            if changed.isdisjoint(self._plan.targets[number])
        }

    def warnings(self) -> list[Diagnostic]:
        """What is allowed and yet often a slip: users in the policy that nobody is, and a policy without rules."""
        named = [
            (
                place,
                f'nobody is in "{selector.text}" yet',
                "An outside provider says who is, when they sign in; check the spelling.",
            )
            if selector.kind is Kind.GROUP
            else (place, f'no user is called "{selector.text}"', "Check the spelling, or create the user.")
            for selector, place in self.document.names
            if not self.roster.people.named(selector)
        ]
        open_door = [
            (
                rule.place,
                "there are neither acls nor grants: everything may reach everything",
                'Add "grants": [].',
            )
            for rule in self.document.rules
            if rule.origin == NO_RULES
        ]
        return [
            *self.document.remarks,
            *(
                Diagnostic(self.document.filename, place.line, place.column, message, cure)
                for place, message, cure in open_door + named
            ),
        ]

    @property
    def changes_looks(self) -> bool:
        """True if it can change how peers look to others, beside the routes through them."""
        return self._plan.for_peers or self._plan.may_disable_ipv4

    @property
    def chooses_routers(self) -> bool:
        """True if some rule has ``via``: then whose router of a subnet is used can depend on who uses it."""
        return self._plan.routed

    # -- who sees whom

    def peers(self, node_id: int) -> frozenset[int]:
        """The nodes that this one may reach or be reached by, itself left out. Symmetric.

        None for one that is shut out, and one that is shut out is nobody's.
        """
        circle = self.circle(node_id)
        return circle - {node_id} if node_id in circle else circle

    def circle(self, node_id: int) -> frozenset[int]:
        """A node's peers, and perhaps itself. One object for all whose peers come from the same sets."""
        found = self._circles.get(node_id)
        if found is None:
            found = self._circles[node_id] = self._find_circle(node_id)
        return found

    def _find_circle(self, node_id: int) -> frozenset[int]:
        roster = self.roster
        if (tab := roster.tabs.get(node_id)) is not None:
            ids = {target.node_id for target in tab.targets}
            return frozenset(one for one in ids if self.tab_entry(node_id, one) is not None)
        member = roster.members.get(node_id)
        if member is None or node_id in roster.blocked:
            return _NOBODY
        circle = self._circle_of(member)
        tabs = frozenset(tab.id for tab, _ in self._entered(node_id))
        return circle | tabs if tabs else circle

    def _circle_of(self, member: Member) -> frozenset[int]:
        roster, node_id = self.roster, member.id
        parts: dict[int, frozenset[int]] = {}  # by identity: each of these sets is kept as long as the policy
        for _, sources, nodes, targets, own_too in self._resolved():
            if node_id in nodes:
                parts[id(targets)] = targets
            if node_id in targets:
                parts[id(nodes)] = nodes
            if own_too and member.owner in sources.people:
                own = sources.own(roster, member.owner)
                if node_id in own:
                    assert member.owner is not None  # None is nobody's id
                    own = roster.by_owner[member.owner]
                parts[id(own)] = own
        key = frozenset(parts)
        if key not in self._unions:
            first, *others = (*parts.values(), _NOBODY)
            union = first.union(*others) if len(parts) > 1 else first
            self._unions[key] = union - roster.blocked if roster.blocked else union
        # Those who are kept apart from somebody have a circle of their own; they are few.
        kept = roster.kept_from(node_id)
        return self._unions[key] - kept if kept else self._unions[key]

    def can_see(self, viewer_id: int, peer_id: int) -> bool:
        """True if ``peer_id`` is among the viewer's `peers`, without making the set."""
        known = self._circles.get(viewer_id)
        if known is not None:
            return peer_id in known and peer_id != viewer_id
        tabs = self.roster.tabs
        if viewer_id in tabs or peer_id in tabs:
            tab_id, other_id = (viewer_id, peer_id) if viewer_id in tabs else (peer_id, viewer_id)
            return self.tab_entry(tab_id, other_id) is not None
        viewer, peer = self.roster.members.get(viewer_id), self.roster.members.get(peer_id)
        if viewer is None or peer is None or viewer_id == peer_id or self.roster.parted(viewer_id, peer_id):
            return False
        same_owner = viewer.owner is not None and viewer.owner == peer.owner
        for _, sources, nodes, targets, own_too in self._resolved():
            if (viewer_id in nodes and peer_id in targets) or (peer_id in nodes and viewer_id in targets):
                return True
            if own_too and same_owner:
                own = sources.own(self.roster, viewer.owner)
                if viewer_id in own or peer_id in own:
                    return True
        return False

    # -- tabs

    def from_tab(self, user_id: int) -> FromTab:
        """What a person may do from a browser's tab."""
        found = self._from_tab.get(user_id)
        if found is None:
            found = self._from_tab[user_id] = FromTab(self.document, self.roster, user_id)
        return found

    def tab_entry(self, tab_id: int, node_id: int) -> Entry | None:
        """How a tab gets in to a node; None where it does not: it was not opened for it, or its person may not."""
        key = (tab_id, node_id)
        if key not in self._entries:
            tab, member = self.roster.tabs.get(tab_id), self.roster.members.get(node_id)
            shut = tab is None or member is None or self.roster.parted(tab_id, node_id)
            self._entries[key] = (
                None
                if shut or tab is None or member is None
                else entry(tab, member, self.from_tab(tab.owner))
            )
        return self._entries[key]

    def _entered(self, node_id: int) -> list[tuple[TabMember, Entry]]:
        """The tabs that get in to a node, and how."""
        if not self.roster.tabs:
            return []
        found = ((tab, self.tab_entry(tab.id, node_id)) for tab in self.roster.tabs_at(node_id))
        return [(tab, way) for tab, way in found if way is not None]

    # -- what a node is told

    def filter_rules(self, node_id: int) -> list[FilterRule]:
        """The packet filter of a node: what it lets in, for itself and for the routes that it carries."""
        found = self._filters.get(node_id)
        if found is None:
            member = self.roster.members.get(node_id)
            if self._pieces is None:
                self._pieces = resolve_pieces(self._plan.pieces, self.roster, self.sources)
            # Of nodes that are kept apart nothing is said: what comes from no peer of its own, a client does not take.
            found = self._filters[node_id] = (
                []
                if member is None or node_id in self.roster.blocked
                else filter_for(member, self._pieces, self.roster)
            )
            if tabs := self._entered(node_id):
                # No range of addresses lets a tab in to more than it was opened for.
                found = narrowed(found, [tab for tab, _ in tabs]) + [port_rule(*one) for one in tabs]
                self._filters[node_id] = found
        return found

    def ssh_policy(self, node_id: int) -> SSHPolicy:
        """Who may ssh to a node, and as whom. Empty rules, which revoke, where nobody may."""
        found = self._ssh.get(node_id)
        if found is None:
            member = self.roster.members.get(node_id)
            found = self._ssh[node_id] = SSHPolicy(
                []
                if member is None
                else [
                    *self._ssh_rules.of(member, self.sources),
                    *(rule for one in self._entered(node_id) for rule in ssh_rules(*one, self.roster)),
                ]
            )
        return found

    def ssh_match(self, source_id: int, node_id: int, ssh_user: str) -> SSHMatch | None:
        """The rule that decides when ``source_id`` asks for ssh to ``node_id`` as ``ssh_user``; see `SSHRules.match`."""
        if source_id in self.roster.tabs:
            way = self.tab_entry(source_id, node_id)
            return None if way is None else match_of(way, ssh_user, self.roster)
        source, member = self.roster.members.get(source_id), self.roster.members.get(node_id)
        if source is None or member is None:
            return None
        return self._ssh_rules.match(source, member, ssh_user, self.sources)

    def node_attributes(self, node_id: int) -> Mapping[str, list[Any] | None]:
        """The capabilities, and their values, that the policy puts into a node's own map. Shared: never changed."""
        found = self._attributes.get(node_id)
        if found is None:
            member = self.roster.members.get(node_id)
            found = self._attributes[node_id] = {} if member is None else self._find_attributes(member)
        return found

    def _find_attributes(self, member: Member) -> dict[str, list[Any] | None]:
        document = self.document
        found: dict[str, list[Any] | None] = {}
        if document.randomize_client_port:
            found[capability.RANDOMIZE_CLIENT_PORT] = None
        if document.disable_ipv4:
            found[capability.DISABLE_IPV4] = None
        if document.one_cgnat_route is not None and member.is_mac:
            found[capability.ONE_CGNAT_ON if document.one_cgnat_route else capability.ONE_CGNAT_OFF] = None
        for attribute in document.node_attributes:
            if any(self._is_target(member, target) for target in attribute.targets):
                found |= dict.fromkeys(attribute.names)
                for name, values in attribute.app.items():
                    found[name] = [*(found.get(name) or ()), *values]
        if capability.FUNNEL in found and capability.HTTPS not in found:
            found[capability.WARN_FUNNEL_NO_HTTPS] = None  # clients then say what is missing
        return found

    def peer_attributes(self, node_id: int) -> tuple[str, ...]:
        """The capabilities of a node that its peers have to know, because it is they who act on them; none has a value."""
        if not self._plan.for_peers:
            return ()
        member, found = self.roster.members.get(node_id), self.node_attributes(node_id)
        return tuple(
            name
            for name in sorted(_FOR_PEERS & found.keys())
            if name != capability.SUGGEST_EXIT_NODE or (member is not None and member.exits)
        )

    def ipv6_only(self, node_id: int) -> bool:
        """True for a node that has its IPv6 address alone."""
        if not self._plan.may_disable_ipv4:
            return False
        return capability.DISABLE_IPV4 in self.node_attributes(node_id)

    def address_pools(self, user_id: int | None, tags: Iterable[str]) -> tuple[IPv4Network, ...]:
        """Where a new node of this user, or with these tags, gets its IPv4 address; none: from the tailnet's pool."""
        held = frozenset(tags)
        return tuple(
            dict.fromkeys(
                pool
                for attribute in self.document.node_attributes
                for pool in attribute.pools
                if any(self._would_name(target, user_id, held) for target in attribute.targets)
            )
        )

    def _would_name(self, target: Selector, user_id: int | None, tags: frozenset[str]) -> bool:
        """True if the selector would name a node that does not exist yet, and so has no address."""
        if target.kind is Kind.EVERYONE:
            return True
        if tags:
            return target.value in tags if target.kind is Kind.TAG else target.is_autogroup("tagged")
        return user_id is not None and user_id in self.roster.people.named(target)

    def _is_target(self, member: Member, target: Selector) -> bool:
        """Like `Roster.matches`, but a prefix means addresses only, not subnets that are carried."""
        if target.is_addresses:
            return member.holds(target.ranges)
        return self.roster.matches(target, member)

    def routes_for(self, viewer_id: int, router_id: int) -> tuple[Prefix, ...]:
        """Which of a router's active routes (approved and advertised) this viewer may use, exit routes last.

        A viewer needs a route both to send into it and to hear from it. A router that carries the very same subnet
        gets it too. For itself, a router has all its routes.
        """
        viewer, router = self.roster.members.get(viewer_id), self.roster.members.get(router_id)
        if viewer is None or router is None:
            return ()
        if viewer_id == router_id:
            return router.active
        if not router.active or not self.can_see(viewer_id, router_id):
            return ()
        return tuple(route for route in router.active if self._may_use(viewer, router, route))

    def _may_use(self, viewer: Member, router: Member, route: Prefix) -> bool:
        if route in viewer.routes:
            return True
        for number, sources, nodes, targets, _ in self._resolved():
            if viewer.id in nodes and any(
                _leads_to(target, route)
                and reaches(router, target, self.document.rules[number].via, self.roster)
                for target in self._plan.targets[number]
            ):
                return True
            if route not in EXIT_ROUTES and viewer.id in targets and sources.starts_in(route):
                return True
        return False

    # -- tags and routes

    def knows_tag(self, tag: str) -> bool:
        """True if ``tagOwners`` has the tag."""
        return tag in self.document.tag_owners

    def may_tag(self, user: User, tag: str) -> bool:
        """True if a user may give a node this tag: an owner of it, or somebody who may change the policy."""
        if user.suspended or not self.knows_tag(tag):
            return False
        owners = self.document.tag_owners[tag]
        return user.role in _TAGGERS or any(user.id in self.roster.people.named(owner) for owner in owners)

    def may_tag_as(self, tags: Iterable[str], tag: str) -> bool:
        """True if a node (or key) that has ``tags`` may take or give ``tag``: it has it, or one of them owns it."""
        held = frozenset(tags)
        if not self.knows_tag(tag):
            return False
        owners = self.document.tag_owners[tag]
        return tag in held or any(
            owner.value in held or (owner.is_autogroup("tagged") and bool(held))
            for owner in owners
            if owner.kind in {Kind.TAG, Kind.AUTOGROUP}
        )

    def auto_approved(self, node: Node, prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
        """Those of ``prefixes`` that the policy approves for this node without asking, in the same order."""
        return tuple(prefix for prefix in prefixes if self._approves(node, prefix))

    def _approves(self, node: Node, prefix: Prefix) -> bool:
        approvers = self.document.auto_approvers
        if prefix in EXIT_ROUTES and self._is_approver(node, approvers.exit_node):
            return True
        for approved, selectors in approvers.routes:
            # The whole internet is approved by its own name only: 0.0.0.0/0 must not stand for every subnet.
            covered = approved == prefix or (
                approved not in EXIT_ROUTES and prefix not in EXIT_ROUTES and _is_inside(prefix, approved)
            )
            if covered and self._is_approver(node, selectors):
                return True
        return False

    def _is_approver(self, node: Node, selectors: Iterable[Selector]) -> bool:
        people = self.roster.people
        if node.tags:
            return any(
                selector.value in node.tags if selector.kind is Kind.TAG else selector.is_autogroup("tagged")
                for selector in selectors
            )
        if node.user_id is None or node.user_id in people.suspended:
            return False
        return any(node.user_id in people.named(selector) for selector in selectors)

    # -- resolved parts of rules, for `reach` and `check` too

    def sources(self, selectors: tuple[Selector, ...]) -> Sources:
        """A rule's ``src`` resolved."""
        found = self._sources.get(selectors)
        if found is None:
            found = self._sources[selectors] = Sources.resolve(selectors, self.roster)
        return found

    def _resolved(self) -> "list[_Resolved]":
        """Every rule with its sources and targets."""
        if self._rules is None:
            self._rules = []
            for number, rule in enumerate(self.document.rules):
                sources = self.sources(rule.who)
                self._rules.append(
                    _Resolved(
                        number, sources, sources.nodes, self._targets_of(number), self._plan.own[number]
                    )
                )
        return self._rules

    def _targets_of(self, number: int) -> frozenset[int]:
        """The nodes where a rule's traffic arrives; those of ``autogroup:self`` are not among them."""
        found = self._targets.get(number)
        if found is None:
            rule = self.document.rules[number]
            found = _NOBODY.union(*(self.roster.named(target) for target in self._plan.targets[number]))
            if rule.via:
                members = self.roster.members
                found = frozenset(
                    node_id
                    for node_id in found
                    if any(
                        reaches(members[node_id], target, rule.via, self.roster)
                        for target in self._plan.targets[number]
                    )
                )
            self._targets[number] = found
        return found


def _leads_to(target: Selector, route: Prefix) -> bool:
    """True if traffic to ``target`` may go through ``route``."""
    if target.kind is Kind.EVERYONE:
        return True
    if route in EXIT_ROUTES:
        return target.is_autogroup("internet")
    return any(one.meets(route) for one in target.ranges)


def _is_inside(prefix: Prefix, whole: Prefix) -> bool:
    if prefix.version == 4:
        return whole.version == 4 and prefix.subnet_of(whole)
    return whole.version == 6 and prefix.subnet_of(whole)
