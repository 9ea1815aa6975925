"""Who can reach what, and by which rule: the answer for people, where filters are the answer for clients.

Both come from the same rules, and tests hold them to each other. `reach` judges one connection between two points, as the
tests in a policy mean it: for a destination that no node has, the rules alone count. `ways` judges a node and a `Goal`: what
the packet filters of the nodes there, or of the routers towards it, really let in, and by which rules. `near_miss` says
which rule came closest where none does. ``survey`` asks for many at once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from doorward.policy.compile import Policy
from doorward.policy.document import Flow, Kind, Rule, Selector
from doorward.policy.filters import reaches
from doorward.policy.posture import AttributeValue
from doorward.policy.ranges import INTERNET, TAILNET, Address, Range, of_text
from doorward.policy.roster import Member
from doorward.policy.selectors import WITH_PORTS
from doorward.policy.services import TCP, USUAL, Service, services_of, services_text
from doorward.protocol.tailcfg.filter import ALL_PORTS

__all__ = [
    "TCP",
    "Goal",
    "Lack",
    "NearMiss",
    "Point",
    "Way",
    "goal_at",
    "near_miss",
    "point",
    "reach",
    "ways",
]

INTERNET_RANGES: tuple[Range, ...] = tuple(of_text(text) for text in INTERNET)
_EVERYWHERE = (of_text("0.0.0.0/0"), of_text("::/0"))


@dataclass(frozen=True, slots=True)
class Point:
    """One end of a connection: an address, and the node that has it, if any."""

    address: Address
    member: Member | None = None


def point(policy: Policy, address: Address) -> Point:
    """The end at an address."""
    return Point(address, policy.roster.holder(address))


def point_of(policy: Policy, node_id: int) -> Point:
    """The end at a node's IPv4 address. Raises KeyError for a node that the policy does not know."""
    member = policy.roster.members[node_id]
    return Point(member.ipv4, member)


def points_named(policy: Policy, selector: Selector) -> Iterator[Point]:
    """The ends that a selector stands for: its nodes, or its one address. A prefix of many addresses has none."""
    if not selector.is_addresses:
        for node_id in sorted(policy.roster.named(selector)):
            yield point_of(policy, node_id)
    elif selector.prefix is not None and selector.prefix.num_addresses == 1:
        yield point(policy, selector.prefix.network_address)


# -- one connection


def reach(policy: Policy, source: Point, target: Point, port: int, protocol: int = TCP) -> list[Rule]:
    """The rules by which ``source`` may open a connection to ``port`` of ``target``; none means it may not.

    ``port`` is not looked at for protocols that have none.
    """
    ends = [one.member.id for one in (source, target) if one.member is not None]
    if source.address in policy.roster.excluded() or not policy.roster.blocked.isdisjoint(ends):
        return []
    if len(ends) > 1 and policy.roster.parted(*ends):
        return []
    return [rule for rule in policy.document.rules if _admits(policy, rule, source, target, port, protocol)]


def _admits(policy: Policy, rule: Rule, source: Point, target: Point, port: int, protocol: int) -> bool:
    flows = [flow for flow in rule.flows if _carries(flow, port, protocol)]
    return bool(flows) and any(
        _is_named(policy, rule, source)
        and _meets(policy, rule, source.member)
        and _is_target(policy, rule, flow.target, target)
        if not flow.target.is_autogroup("self")
        else _is_own(policy, rule, source.member, target.member)
        for flow in flows
    )


def _carries(flow: Flow, port: int, protocol: int) -> bool:
    if protocol not in (flow.protocols or USUAL):
        return False
    return protocol not in WITH_PORTS or any(ports.First <= port <= ports.Last for ports in flow.ports)


def _is_own(policy: Policy, rule: Rule, source: Member | None, target: Member | None) -> bool:
    if source is None or target is None or source.owner is None or source.owner != target.owner:
        return False
    return source.owner in policy.sources(rule.who).people and _meets(policy, rule, source)


def _is_named(policy: Policy, rule: Rule, source: Point) -> bool:
    """True if the rule's sources name this end, whatever conditions there are on it."""
    roster = policy.roster
    for selector in rule.sources:
        if selector.is_addresses:
            if any(source.address in one for one in selector.ranges):
                return True
        elif selector.kind is Kind.EVERYONE:
            if _inside(source.address, TAILNET) or any(source.address in route for route in roster.routes):
                return True
        elif selector.is_autogroup("danger-all") or (
            source.member is not None and roster.matches(selector, source.member)
        ):
            return True
    return False


def _meets(policy: Policy, rule: Rule, source: Member | None) -> bool:
    """True if there are no conditions on sources, or this one meets one of them."""
    if not rule.postures:
        return True
    return source is not None and any(policy.roster.matches(one, source) for one in rule.postures)


def _is_target(policy: Policy, rule: Rule, selector: Selector, target: Point) -> bool:
    if selector.kind is Kind.EVERYONE:
        return True
    if selector.is_addresses:
        inside = any(target.address in one for one in selector.ranges)
        return inside and (not rule.via or _is_carried(policy, rule.via, target.address))
    if selector.is_autogroup("internet"):
        exits = (member for member in policy.roster.members.values() if member.exits)
        usable = any(not rule.via or not member.tags.isdisjoint(rule.via) for member in exits)
        return usable and _inside(target.address, INTERNET_RANGES)
    return target.member is not None and policy.roster.matches(selector, target.member)


def _is_carried(policy: Policy, via: Iterable[str], address: Address) -> bool:
    return any(
        not member.tags.isdisjoint(via) and any(address in route for route in member.routes)
        for member in policy.roster.members.values()
    )


def _inside(address: Address, ranges: Iterable[Range]) -> bool:
    return any(address in one for one in ranges)


# -- what the packet filters let in


@dataclass(frozen=True, slots=True)
class Goal:
    """A destination, and what is asked for there."""

    gates: tuple[Member, ...]  # the nodes whose packet filters decide
    addresses: tuple[Address, ...]  # of one node, or one address behind the gates
    port: int | None = None  # None: any
    protocols: tuple[int, ...] = (TCP,)

    def asked(self, services: Iterable[Service]) -> Iterator[Service]:
        """Those of the services that are asked for."""
        for protocol, ports in services:
            fits = self.port is None or protocol not in WITH_PORTS or ports.First <= self.port <= ports.Last
            if protocol in self.protocols and fits:
                yield protocol, ports

    @property
    def words(self) -> str:
        """The port and protocol that are asked for, for people."""
        ports = ALL_PORTS if self.port is None else type(ALL_PORTS)(self.port, self.port)
        return services_text(services_of(self.protocols, (ports,)))


def goal_at(policy: Policy, address: Address, port: int | None, protocols: tuple[int, ...]) -> Goal:
    """The goal at an address that is no node's: behind the routers that carry it, else behind exit nodes.

    It has no gates where nothing leads there.
    """
    members = policy.roster.members.values()
    gates = tuple(one for one in members if one.routes and any(address in route for route in one.routes))
    if not gates and _inside(address, INTERNET_RANGES):
        gates = tuple(one for one in members if any(route.version == address.version for route in one.exits))
    return Goal(gates, (address,), port, protocols)


class Way(NamedTuple):
    """A rule that lets a source in, and to what of what is asked for."""

    rule: Rule
    services: tuple[Service, ...]


def ways(policy: Policy, source: Member, goal: Goal) -> list[Way]:
    """The rules by which a node reaches a goal, and what each lets it reach there; none means it does not."""
    found: list[Way] = []
    for rule in policy.document.rules:
        services = tuple(dict.fromkeys(_let_in(policy, rule, source, goal)))
        if services:
            found.append(Way(rule, services))
    return found


def _let_in(policy: Policy, rule: Rule, source: Member, goal: Goal) -> Iterator[Service]:
    for flow in rule.flows:
        services = tuple(goal.asked(services_of(flow.protocols, flow.ports)))
        if not services:
            continue
        for gate in goal.gates:
            if policy.roster.parted(source.id, gate.id):
                continue
            for address in goal.addresses:
                if not covers(policy, gate, flow.target, rule.via, address):
                    continue
                if flow.target.is_autogroup("self"):
                    admitted = _is_own(policy, rule, source, gate)
                else:
                    here = Point(source.ipv4 if address.version == 4 else source.ipv6, source)
                    admitted = _is_named(policy, rule, here) and _meets(policy, rule, source)
                if admitted:
                    yield from services


def opened(policy: Policy, gate: Member, target: Selector, via: tuple[str, ...]) -> tuple[Range, ...]:
    """The destinations that a rule with this target opens in the packet filter of a node; none if it is not about it."""
    own = (_single(gate.ipv4), _single(gate.ipv6))
    if target.is_autogroup("self"):
        return own
    if not reaches(gate, target, via, policy.roster):
        return ()
    if target.kind is Kind.EVERYONE:
        return _EVERYWHERE
    if target.is_addresses:
        return target.ranges
    return INTERNET_RANGES if target.is_autogroup("internet") else own


def covers(policy: Policy, gate: Member, target: Selector, via: tuple[str, ...], address: Address) -> bool:
    """True if an address is among what is `opened`; quicker."""
    own = target.kind is Kind.AUTOGROUP and target.value == "self"
    if not own and not reaches(gate, target, via, policy.roster):
        return False
    if target.kind is Kind.EVERYONE:
        return True
    if target.is_addresses:
        return _inside(address, target.ranges)
    if target.is_autogroup("internet"):
        return _inside(address, INTERNET_RANGES)
    return address in {gate.ipv4, gate.ipv6}


def _single(address: Address) -> Range:
    return Range(address.version, int(address), int(address))


# -- what is missing


class Lack(IntEnum):
    """What keeps a rule from letting a source in, from what is most easily changed to what is least."""

    POSTURE = 1
    ROUTER = 2
    SERVICE = 3
    SOURCE = 4
    TARGET = 5


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that nearly lets a source in."""

    rule: Rule
    lacks: tuple[Lack, ...]  # in order; never both source and target: such a rule is about something else
    words: str  # for people: what it lets in, and what is missing


def near_miss(
    policy: Policy,
    source: Member,
    goal: Goal,
    *,
    name: str,
    attributes: Mapping[str, AttributeValue],
) -> NearMiss | None:
    """The rule that comes closest to letting a node reach a goal; None if none is about both in any way.

    Args:
        policy: the policy.
        source: the node, which does not reach it.
        goal: what it does not reach.
        name: what people call the node.
        attributes: of the node, to say which assertions of a posture fail.
    """
    best: tuple[int, tuple[Lack, ...], Rule, Flow] | None = None
    families = {address.version for address in goal.addresses}
    ends = [Point(one, source) for one in (source.ipv4, source.ipv6) if one.version in families]
    for rule in policy.document.rules:
        named = _is_named(policy, rule, ends[0])
        if not named and len(ends) > 1 and any(one.is_addresses for one in rule.sources):
            named = _is_named(policy, rule, ends[1])
        for flow in rule.flows:
            lacks = _lacks(policy, rule, flow, source, goal, named=named)
            if lacks is not None and (best is None or (len(lacks), lacks) < best[:2]):
                best = (len(lacks), lacks, rule, flow)
    if best is None:
        return None
    _, lacks, rule, flow = best
    missing = [_missing(policy, one, rule, flow, goal, name, attributes) for one in lacks]
    missing = missing or ["but somebody is shut out, or the two are kept apart"]
    return NearMiss(rule, lacks, f"{_saying(rule)}; {'; and '.join(missing)}")


def _lacks(
    policy: Policy, rule: Rule, flow: Flow, source: Member, goal: Goal, *, named: bool
) -> tuple[Lack, ...] | None:
    """What a rule lacks to let a node in, in order; None if it is about neither the node nor the goal."""
    carried = True
    if flow.target.is_autogroup("self"):
        named = source.owner is not None and source.owner in policy.sources(rule.who).people
        there = any(gate.owner == source.owner and gate.owner is not None for gate in goal.gates)
    else:
        there = _is_covered(policy, flow.target, goal, rule.via)
        if not there and rule.via and _is_covered(policy, flow.target, goal, ()):
            there, carried = True, False
    if not named and not there:
        return None
    found = (
        (Lack.POSTURE, _meets(policy, rule, source)),
        (Lack.ROUTER, carried),
        (Lack.SERVICE, any(True for _ in goal.asked(services_of(flow.protocols, flow.ports)))),
        (Lack.SOURCE, named),
        (Lack.TARGET, there),
    )
    return tuple(lack for lack, holds in found if not holds)


def _is_covered(policy: Policy, target: Selector, goal: Goal, via: tuple[str, ...]) -> bool:
    return any(
        covers(policy, gate, target, via, address) for gate in goal.gates for address in goal.addresses
    )


def _saying(rule: Rule) -> str:
    """What a rule allows, shortened."""
    targets = list(dict.fromkeys(flow.target.text for flow in rule.flows))
    services = services_text(one for flow in rule.flows for one in services_of(flow.protocols, flow.ports))
    return f"it lets {_some(one.text for one in rule.sources)} reach {_some(targets)} at {services}"


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:4]) + (f" and {len(every) - 4} more" if len(every) > 4 else "")


def _missing(
    policy: Policy,
    lack: Lack,
    rule: Rule,
    flow: Flow,
    goal: Goal,
    name: str,
    attributes: Mapping[str, AttributeValue],
) -> str:
    match lack:
        case Lack.POSTURE:
            failing = [
                text
                for one in rule.postures
                if one.value in policy.document.postures
                for text in policy.document.postures[one.value].failing(attributes)
            ]
            asked = _some(one.text for one in rule.postures)
            return f"{name} does not meet {asked}" + (f": {_some(failing)}" if failing else "")
        case Lack.ROUTER:
            return f"it goes only through routers with {_some(rule.via)}"
        case Lack.SERVICE:
            return f"{goal.words} is not among that"
        case Lack.SOURCE:
            return f"{name} is none of {_some(one.text for one in rule.sources)}"
        case Lack.TARGET:
            whose = " of the same person" if flow.target.is_autogroup("self") else ""
            return f"the destination is none{whose} of {_some(one.target.text for one in rule.flows)}"
