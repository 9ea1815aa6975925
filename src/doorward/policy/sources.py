"""Who may start the traffic of a rule, resolved against a roster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from doorward.model import Prefix
from doorward.policy.document import Kind, Selector
from doorward.policy.ranges import TAILNET, Range, of_prefix, of_text, without
from doorward.policy.roster import Member, Roster

_NOBODY: frozenset[int] = frozenset()
_ANYWHERE = (of_text("0.0.0.0/0"), of_text("::/0"))


@dataclass(frozen=True)
class Sources:
    """The resolved ``src`` of a rule."""

    nodes: frozenset[int]  # the nodes behind it, routers of source subnets included
    people: frozenset[int]  # the users behind it, for autogroup:self
    identity: tuple[
        frozenset[int], frozenset[str]
    ]  # nodes and ranges: equal for sources that let in the same
    ranges: tuple[str, ...]  # those that are not of nodes, in the order of the rule
    everyone: bool
    prefixes: tuple[Range, ...]
    fit: frozenset[int] | None  # where there are conditions: the nodes that meet them
    members: Mapping[int, Member]  # of the roster it was resolved against, for the nodes' addresses
    # Kept, so that a set stays the same object: by what a user has, what of it meets the conditions.
    _own: dict[frozenset[int], frozenset[int]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_nobody(self) -> bool:
        """True where nothing is let in."""
        return not self.identity[0] and not self.ranges

    @cached_property
    def texts(self) -> list[str]:
        """The packet filter's SrcIPs: IPv4 and then IPv6 of nodes by id, then ranges. Shared: never changed.

        Made when first asked for: while many nodes join, most policies are replaced before anybody asks.
        """
        members = [self.members[node_id] for node_id in sorted(self.identity[0])]
        addresses = (*(member.texts[0] for member in members), *(member.texts[1] for member in members))
        return list(dict.fromkeys((*addresses, *self.ranges)))

    @classmethod
    def resolve(cls, selectors: Iterable[Selector], roster: Roster) -> Self:
        """Resolve a list of selectors, conditions on the sources (postures) among them.

        With conditions, sources are nodes that meet one of them and nothing else: of a host behind a router, or of an
        address outside, nothing is known.

        Nodes that are shut out and doorward's own are in none of the answers: not even a range of addresses lets
        them in, because they are cut out of it.
        """
        named = nodes = people = _NOBODY
        ranges: dict[Range, None] = {}
        everyone = False
        prefixes: list[Range] = []
        every = list(selectors)
        conditions = [one for one in every if one.kind is Kind.POSTURE]
        fit = _NOBODY.union(*map(roster.named, conditions)) if conditions else None
        for selector in every:
            if selector.kind is Kind.POSTURE:
                continue
            found = roster.named(selector)
            if fit is not None:
                if selector.is_addresses:
                    # Only the addresses that are named, as without a condition: not the node's other one.
                    held = [
                        (node_id, address)
                        for node_id in sorted(found & fit)
                        for address in (roster.members[node_id].ipv4, roster.members[node_id].ipv6)
                        if any(address in one for one in selector.ranges)
                    ]
                    ranges.update(dict.fromkeys(Range(one.version, int(one), int(one)) for _, one in held))
                    nodes |= frozenset(node_id for node_id, _ in held)
                    continue
                named |= found & fit
                nodes |= found & fit
                people |= roster.people.named(selector)
                continue
            nodes = _both(nodes, found)
            people |= roster.people.named(selector)
            if selector.kind is Kind.EVERYONE:
                everyone = True
                ranges.update(dict.fromkeys((*TAILNET, *map(of_prefix, sorted_prefixes(roster.routes)))))
            elif selector.is_addresses:
                prefixes.extend(selector.ranges)
                ranges.update(dict.fromkeys(selector.ranges))
            elif selector.is_autogroup("danger-all"):
                everyone = True
                ranges.update(dict.fromkeys(_ANYWHERE))
            else:
                named = _both(named, found)
        blocked = roster.blocked
        literals = tuple(str(one) for one in without(ranges, roster.excluded())) if ranges else ()
        return cls(
            nodes=nodes - blocked if blocked else nodes,
            people=people - roster.people.suspended,
            identity=(named - blocked if blocked else named, frozenset(literals)),
            ranges=literals,
            everyone=everyone,
            prefixes=tuple(prefixes),
            fit=fit,
            members=roster.members,
        )

    def starts_in(self, route: Prefix) -> bool:
        """True if hosts behind a router of ``route`` are among the sources."""
        return self.everyone or any(one.meets(route) for one in self.prefixes)

    def own(self, roster: Roster, owner: int | None) -> frozenset[int]:
        """The nodes of a user that ``autogroup:self`` lets in: none unless the user is among the sources."""
        if owner is None or owner not in self.people:
            return _NOBODY
        nodes = roster.by_owner.get(owner, _NOBODY)
        if self.fit is None and nodes.isdisjoint(roster.blocked):
            return nodes
        # Kept for as long as these sources are: one of their nodes that is shut out, or let in again, makes them anew.
        found = self._own.get(nodes)
        if found is None:
            found = self._own[nodes] = (nodes if self.fit is None else nodes & self.fit) - roster.blocked
        return found


def sorted_prefixes(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """IPv4 first, then by address and length."""
    return sorted(
        prefixes, key=lambda prefix: (prefix.version, int(prefix.network_address), prefix.prefixlen)
    )


def _both(some: frozenset[int], others: frozenset[int]) -> frozenset[int]:
    """The union, without a copy where one is empty or both are the same: most rules name one large set of nodes."""
    return others if not some else some if some is others else some | others
