"""Who may start the traffic of a rule, resolved against a roster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from doorward.model import Prefix
from doorward.policy.document import Kind, Selector
from doorward.policy.ranges import TAILNET, Range, of_prefix, of_text, without
from doorward.policy.roster import Member, Roster

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
    prefixes: tuple[Prefix, ...]
    members: Mapping[int, Member]  # of the roster it was resolved against, for the nodes' addresses

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
        """Resolve a list of selectors.

        Suspended users' nodes and doorward's own are in none of the answers: not even a range of addresses lets
        them in, because they are cut out of it.
        """
        named: frozenset[int] = frozenset()
        nodes: frozenset[int] = frozenset()
        people: frozenset[int] = frozenset()
        ranges: dict[Range, None] = {}
        everyone = False
        prefixes: list[Prefix] = []
        for selector in selectors:
            found = roster.named(selector)
            nodes |= found
            people |= roster.people.named(selector)
            if selector.kind is Kind.EVERYONE:
                everyone = True
                ranges.update(dict.fromkeys((*TAILNET, *map(of_prefix, sorted_prefixes(roster.routes)))))
            elif selector.kind is Kind.PREFIX:
                assert selector.prefix is not None
                prefixes.append(selector.prefix)
                ranges[of_prefix(selector.prefix)] = None
            elif selector.is_autogroup("danger-all"):
                everyone = True
                ranges.update(dict.fromkeys(_ANYWHERE))
            else:
                named |= found
        blocked = roster.blocked
        literals = tuple(str(one) for one in without(ranges, roster.excluded())) if ranges else ()
        return cls(
            nodes=nodes - blocked,
            people=people - roster.people.suspended,
            identity=(named - blocked, frozenset(literals)),
            ranges=literals,
            everyone=everyone,
            prefixes=tuple(prefixes),
            members=roster.members,
        )

    def starts_in(self, route: Prefix) -> bool:
        """True if hosts behind a router of ``route`` are among the sources."""
        return self.everyone or any(
            prefix.version == route.version and prefix.overlaps(route) for prefix in self.prefixes
        )


def sorted_prefixes(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """IPv4 first, then by address and length."""
    return sorted(
        prefixes, key=lambda prefix: (prefix.version, int(prefix.network_address), prefix.prefixlen)
    )
