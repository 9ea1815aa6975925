"""What a change of the policy means: what each node gains and loses, in people's words.

Read off what clients would be sent (packet filters, SSH rules, attributes), so it cannot say anything else than what then
happens: the same access by another rule, or in another order, is no difference. A node's two addresses count as one: which
family a connection uses is its client's choice.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET

from doorward.policy.compile import Policy
from doorward.policy.ranges import INTERNET, Range, of_prefix, of_text
from doorward.policy.roster import Member
from doorward.policy.services import Service, services_of, services_text
from doorward.protocol.tailcfg.filter import FilterRule, PortRange
from doorward.protocol.tailcfg.ssh import SSHRule

# A source: a node by its id, or addresses that are no node's as text.
Source = int | str
_Sources = frozenset[Source]

_NAMES_SHOWN = 6  # of one owner's nodes; the rest is counted
_SHARED = 100  # sources; beyond it they are named alike for all nodes
_VALUE_SHOWN = 60  # characters of a capability's value
_WORLD = "the internet"
_INTERNET = frozenset(INTERNET)
_TAILNET = (of_text("100.64.0.0/10"), of_text("fd7a:115c:a1e0::/48"))


@dataclass(frozen=True, slots=True)
class Labels:
    """What people call nodes, and whose they are: a person, or tags. Nodes that are not in it are not spoken of."""

    nodes: Mapping[int, str]
    owners: Mapping[int, str]


class NodeChange(NamedTuple):
    """What changes for one node, a line for each thing."""

    node: str
    lost: tuple[str, ...]
    gained: tuple[str, ...]


def compare(before: Policy, after: Policy, labels: Labels) -> list[NodeChange]:
    """What each node would give and get otherwise than now, by name; nodes for which nothing changes left out.

    Both policies must be about the same nodes. What a node gets from itself is no access: nothing is asked on the way.
    """
    sets = _Sets()
    old, new, words = _Reading(before, labels, sets), _Reading(after, labels, sets), _Words(labels)
    found: list[NodeChange] = []
    for node_id, name in sorted(labels.nodes.items(), key=lambda one: one[1]):
        was, will = old.about(node_id), new.about(node_id)
        if was == will:
            continue
        lost, gained = (words.of(_less(*pair, sets), node_id) for pair in ((was, will), (will, was)))
        if lost or gained:
            found.append(NodeChange(name, lost, gained))
    return found


class _Sets:
    """Keeps one of each set, so that equal ones are quick to compare, and each difference, so that it is made once."""

    def __init__(self) -> None:
        self._kept: dict[_Sources, _Sources] = {}
        self._minus: dict[tuple[_Sources, _Sources], _Sources] = {}

    def one(self, sources: _Sources) -> _Sources:
        """The kept set that is equal to this one."""
        return self._kept.setdefault(sources, sources)

    def minus(self, some: _Sources, others: _Sources) -> _Sources:
        """What is in the first set alone."""
        found = self._minus.get((some, others))
        if found is None:
            found = self._minus[some, others] = self.one(some - others)
        return found


_Opened = frozenset[tuple[str, Service, _Sources]]  # where (empty: the node itself), what, and to whom


class _Facts(NamedTuple):
    """What a policy says about one node. Equal for equal access as far as that is quick to tell."""

    opened: _Opened
    allowed: frozenset[tuple[str, _Sources]]  # logins and capabilities, as text
    has: frozenset[str]  # attributes


class _Reading:
    """Reads facts off one compiled policy. Lists of sources are shared between nodes, so each is read once."""

    def __init__(self, policy: Policy, labels: Labels, sets: _Sets) -> None:
        self._policy = policy
        self._sets = sets
        self._spoken_of = labels.nodes.keys()
        self._by_text = {
            text: node_id
            for node_id, member in policy.roster.members.items()
            if node_id in labels.nodes
            for text in member.texts
        }
        self._lists: dict[
            int, tuple[Any, _Sources]
        ] = {}  # by identity; the list is kept, so that it stays its own
        self._ranges: dict[str, _Sources] = {}

    def about(self, node_id: int) -> _Facts:
        member = self._policy.roster.members.get(node_id)
        if member is None:
            return _Facts(frozenset(), frozenset(), frozenset())
        opened: set[tuple[str, Service, _Sources]] = set()
        allowed: set[tuple[str, _Sources]] = set()
        for rule in self._policy.filter_rules(node_id):
            sources = self._sources(rule.SrcIPs)
            opened |= {(where, service, sources) for where, service in _opened(rule, member)}
            for grant in () if rule.CapGrant is UNSET else rule.CapGrant:
                for name, values in () if grant.CapMap is UNSET else grant.CapMap.items():
                    allowed.add((f"capability {_valued(name, values)}", sources))
        for ssh in self._policy.ssh_policy(node_id).rules:
            allowed |= {(text, self._principals(ssh)) for text in _logins(ssh)}
        has = {_valued(name, values) for name, values in self._policy.node_attributes(node_id).items()}
        return _Facts(frozenset(opened), frozenset(allowed), frozenset(has))

    def _sources(self, texts: list[str]) -> _Sources:
        known = self._lists.get(id(texts))
        if known is None:
            known = self._lists[id(texts)] = texts, self._read(texts)
        return known[1]

    def _principals(self, rule: SSHRule) -> _Sources:
        known = self._lists.get(id(rule.principals))
        if known is None:
            texts = [str(one.nodeIP) for one in rule.principals if one.nodeIP is not UNSET]
            known = self._lists[id(rule.principals)] = rule.principals, self._read(texts)
        return known[1]

    def _read(self, texts: Iterable[str]) -> _Sources:
        found: set[Source] = set()
        for text in texts:
            node_id = self._by_text.get(text)
            if node_id is None:
                found |= self._in_range(text)
            else:
                found.add(node_id)
        return self._sets.one(frozenset(found))

    def _in_range(self, text: str) -> _Sources:
        """The nodes in a range, and the range itself where it holds addresses that no node can have."""
        found = self._ranges.get(text)
        if found is None:
            whole = _range(text)
            nodes: set[Source] = {
                node_id
                for node_id, member in self._policy.roster.members.items()
                if node_id in self._spoken_of and (member.ipv4 in whole or member.ipv6 in whole)
            }
            inside = any(
                one.version == whole.version and one.first <= whole.first and whole.last <= one.last
                for one in _TAILNET
            )
            found = self._ranges[text] = frozenset(nodes if inside else nodes | {text})
        return found


def _opened(rule: FilterRule, member: Member) -> Iterator[tuple[str, Service]]:
    protocols = () if rule.IPProto is UNSET else rule.IPProto
    for entry in () if rule.DstPorts is UNSET else rule.DstPorts:
        for where in _places(entry.IP, member):
            for service in services_of(protocols, (entry.Ports,)):
                yield where, service


def _places(text: str, member: Member) -> Iterator[str]:
    """What a destination of a filter means at a node: itself, parts of the subnets that it carries, the internet."""
    if text in member.texts:
        yield ""
        return
    whole = None if text == "*" else _range(text)
    if whole is None or member.ipv4 in whole or member.ipv6 in whole:
        yield ""
    for route in member.routes:
        if whole is None:
            yield str(of_prefix(route))
        elif whole.meets(route):
            part = of_prefix(route)
            yield str(Range(whole.version, max(whole.first, part.first), min(whole.last, part.last)))
    if member.exits and (whole is None or text in _INTERNET):
        yield _WORLD


def _logins(rule: SSHRule) -> Iterator[str]:
    named = {name for name, local in rule.sshUsers.items() if local}
    after = " after a check" if rule.action.accept is not True else ""
    for name in sorted(named):
        account = name if name != "*" else "any account" if "root" in named else "any account but root"
        yield f"ssh as {account}{after}"


def _valued(name: str, values: list[Any] | None) -> str:
    if not values:
        return name
    text = json.dumps(values, ensure_ascii=False, sort_keys=True)
    return f"{name} = {text if len(text) <= _VALUE_SHOWN else text[:_VALUE_SHOWN] + '...'}"


@cache
def _range(text: str) -> Range:
    return of_text(text)


# -- differences


def _less(some: _Facts, others: _Facts, sets: _Sets) -> _Facts:
    """What ``some`` have that the others do not: for every destination and protocol, port by port."""
    opened = {
        (where, (protocol, ports), sources)
        for (where, protocol), entries in _by_place(some).items()
        for ports, sources in _pieces(entries, _covering(others, where, protocol), sets)
    }
    held: dict[str, _Sources] = {}
    for text, sources in others.allowed:
        held[text] = sets.one(held[text] | sources) if text in held else sources
    allowed = {
        (text, left)
        for text, sources in some.allowed
        if (left := sets.minus(sources, held.get(text, frozenset())))
    }
    return _Facts(frozenset(opened), frozenset(allowed), some.has - others.has)


_Entry = tuple[PortRange, _Sources]


def _by_place(facts: _Facts) -> dict[tuple[str, int], list[_Entry]]:
    found: dict[tuple[str, int], list[_Entry]] = {}
    for where, (protocol, ports), sources in facts.opened:
        found.setdefault((where, protocol), []).append((ports, sources))
    return found


def _covering(facts: _Facts, where: str, protocol: int) -> list[_Entry]:
    """What the facts open of a protocol at all of a destination."""
    return [
        (ports, sources)
        for place, (number, ports), sources in facts.opened
        if number == protocol and (place == where or _is_inside(where, place))
    ]


def _is_inside(place: str, whole: str) -> bool:
    if not place or not whole or _WORLD in {place, whole}:
        return False
    part, other = _range(place), _range(whole)
    return part.version == other.version and other.first <= part.first and part.last <= other.last


def _pieces(entries: list[_Entry], others: list[_Entry], sets: _Sets) -> Iterator[_Entry]:
    """The entries less the others. Ports are cut where anything begins or ends; between two cuts all are alike."""
    cuts = sorted({cut for ports, _ in (*entries, *others) for cut in (ports.First, ports.Last + 1)})
    for first, after in itertools.pairwise(cuts):
        here = _at(entries, first, sets)
        if here and (left := sets.minus(here, _at(others, first, sets))):
            yield PortRange(first, after - 1), left


def _at(entries: list[_Entry], port: int, sets: _Sets) -> _Sources:
    found = {sources for ports, sources in entries if ports.First <= port <= ports.Last}
    return next(iter(found)) if len(found) == 1 else sets.one(frozenset[Source]().union(*found))


# -- words


class _Words:
    """Says facts as lines."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._owned: dict[str, list[int]] = {}
        for node_id, owner in labels.owners.items():
            self._owned.setdefault(owner, []).append(node_id)
        self._said: dict[_Sources, str] = {}
        self._shared: dict[_Opened, list[tuple[str, _Sources]]] = {}

    def of(self, facts: _Facts, itself: int) -> tuple[str, ...]:
        """A line for each: what, then who gets it there. What the node gets from itself is left out."""
        lines = {
            f"{what} from {who}"
            for what, sources in self._shares(facts.opened)
            if (who := self._who(sources, itself))
        }
        lines |= {
            f"{text} from {who}" for text, sources in facts.allowed if (who := self._who(sources, itself))
        }
        return (*sorted(lines), *(f"attribute {name}" for name in sorted(facts.has)))

    def _shares(self, opened: _Opened) -> list[tuple[str, _Sources]]:
        """What is opened, by who gets the very same: all of a destination that a source gets is said at once."""
        known = self._shared.get(opened)
        if known is None:
            known = self._shared[opened] = list(self._find_shares(opened))
        return known

    def _find_shares(self, opened: _Opened) -> Iterator[tuple[str, _Sources]]:
        by_place: dict[str, list[tuple[Service, _Sources]]] = {}
        for where, service, sources in opened:
            by_place.setdefault(where, []).append((service, sources))
        for where, entries in by_place.items():
            services: dict[Source, set[Service]] = {}
            for service, sources in entries:
                for source in sources:
                    services.setdefault(source, set()).add(service)
            alike: dict[frozenset[Service], set[Source]] = {}
            for source, each in services.items():
                alike.setdefault(frozenset(each), set()).add(source)
            for every, together in alike.items():
                yield f"{services_text(every)}{f' of {where}' if where else ''}", frozenset(together)

    def _who(self, sources: _Sources, itself: int) -> str:
        # Of very many, one more or less is not worth making the words again.
        if itself in sources and len(sources) <= _SHARED:
            sources -= {itself}
        said = self._said.get(sources)
        if said is None:
            said = self._said[sources] = self._find_words(sources, itself)
        return said

    def _find_words(self, sources: _Sources, itself: int) -> str:
        nodes = {one for one in sources if isinstance(one, int)}
        ranges = sorted(one for one in sources if isinstance(one, str))
        if len(nodes) > 1 and nodes | {itself} >= self._labels.nodes.keys():
            return ", ".join(["every node", *ranges])
        groups: dict[str, list[str]] = {}
        for node_id in nodes:
            groups.setdefault(self._labels.owners[node_id], []).append(self._labels.nodes[node_id])
        parts = []
        for owner, names in sorted(groups.items()):
            if len(names) <= _NAMES_SHOWN:
                which = ", ".join(sorted(names))
            elif len(names) == len(self._owned[owner]):
                which = f"all {len(names)} nodes"
            else:
                which = f"{len(names)} of {len(self._owned[owner])} nodes"
            parts.append(f"{owner} ({which})")
        return ", ".join([*parts, *ranges])
