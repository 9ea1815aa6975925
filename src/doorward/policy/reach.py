"""Who can reach what, and by which rule: the answer for people, where filters are the answer for clients.

Both come from the same rules, and a test holds them to each other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from doorward.policy.compile import Policy
from doorward.policy.document import Flow, Kind, Rule, Selector
from doorward.policy.ranges import INTERNET, TAILNET, Address, Range, of_text
from doorward.policy.roster import Member
from doorward.policy.selectors import WITH_PORTS

TCP = 6
_USUAL = frozenset((1, 6, 17, 58))  # what a rule without protocols lets through

_INTERNET: tuple[Range, ...] = tuple(of_text(text) for text in INTERNET)


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


def reach(policy: Policy, source: Point, target: Point, port: int, protocol: int = TCP) -> list[Rule]:
    """The rules by which ``source`` may open a connection to ``port`` of ``target``; none means it may not.

    ``port`` is not looked at for protocols that have none.
    """
    return [rule for rule in policy.document.rules if _admits(policy, rule, source, target, port, protocol)]


def who_can(policy: Policy, target: Point, port: int, protocol: int = TCP) -> dict[int, list[Rule]]:
    """The nodes that may open a connection to ``port`` of ``target``, each with the rules that let it."""
    found: dict[int, list[Rule]] = {}
    for node_id in sorted(policy.roster.members):
        rules = reach(policy, point_of(policy, node_id), target, port, protocol)
        if rules:
            found[node_id] = rules
    return found


def _admits(policy: Policy, rule: Rule, source: Point, target: Point, port: int, protocol: int) -> bool:
    flows = [flow for flow in rule.flows if _carries(flow, port, protocol)]
    return bool(flows) and any(
        _is_source(policy, rule, source) and _is_target(policy, rule, flow.target, target)
        if not flow.target.is_autogroup("self")
        else _is_own(policy, rule, source, target)
        for flow in flows
    )


def _carries(flow: Flow, port: int, protocol: int) -> bool:
    if protocol not in (flow.protocols or _USUAL):
        return False
    return protocol not in WITH_PORTS or any(ports.First <= port <= ports.Last for ports in flow.ports)


def _is_own(policy: Policy, rule: Rule, source: Point, target: Point) -> bool:
    if source.member is None or target.member is None or source.member.owner != target.member.owner:
        return False
    return source.member.id in policy.sources(rule.who).own(policy.roster, source.member.owner)


def _is_source(policy: Policy, rule: Rule, source: Point) -> bool:
    roster = policy.roster
    if source.address in roster.excluded():
        return False
    if rule.postures and not (
        source.member is not None and any(roster.matches(one, source.member) for one in rule.postures)
    ):
        return False
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


def _is_target(policy: Policy, rule: Rule, selector: Selector, target: Point) -> bool:
    if selector.kind is Kind.EVERYONE:
        return True
    if selector.is_addresses:
        inside = any(target.address in one for one in selector.ranges)
        return inside and (not rule.via or _is_carried(policy, rule.via, target.address))
    if selector.is_autogroup("internet"):
        exits = (member for member in policy.roster.members.values() if member.exits)
        usable = any(not rule.via or not member.tags.isdisjoint(rule.via) for member in exits)
        return usable and _inside(target.address, _INTERNET)
    return target.member is not None and policy.roster.matches(selector, target.member)


def _is_carried(policy: Policy, via: Iterable[str], address: Address) -> bool:
    return any(
        not member.tags.isdisjoint(via) and any(address in route for route in member.routes)
        for member in policy.roster.members.values()
    )


def _inside(address: Address, ranges: Iterable[Range]) -> bool:
    return any(address in one for one in ranges)


def points_named(policy: Policy, selector: Selector) -> Iterator[Point]:
    """The ends that a selector stands for: its nodes, or its one address. A prefix of many addresses has none."""
    if not selector.is_addresses:
        for node_id in sorted(policy.roster.named(selector)):
            yield point_of(policy, node_id)
    elif selector.prefix is not None and selector.prefix.num_addresses == 1:
        yield point(policy, selector.prefix.network_address)
