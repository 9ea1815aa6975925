"""Who reaches what, and what a draft would change: answers read off the packet filters that nodes are really sent.

There is no second idea of access here. To tell which rule of the policy is the reason, each rule is compiled alone by
the policy's own filter builder, and its filter is asked. Rules only ever add access, so the parts sum up to the whole.
``policy.reach`` judges one connection, for the tests in a policy; people also ask "which ports", and that is asked here.
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from msgspec import UNSET

from doorward.api import types
from doorward.errors import BadInput, NotFound
from doorward.model import Node
from doorward.policy import Policy
from doorward.policy.filters import filter_for, pieces_of, resolve_pieces
from doorward.policy.ranges import Range, of_text
from doorward.protocol.tailcfg.filter import ALL_PORTS, FilterRule, PortRange
from doorward.protocol.tailcfg.ssh import SSHPolicy
from doorward.protocol.tailcfg.ssh import SSHRule as WireRule
from doorward.tailnet.snapshot import Snapshot, serving

Address = IPv4Address | IPv6Address

_NAMED_PROTOCOLS = {"tcp": (6,), "udp": (17,), "icmp": (1, 58), "sctp": (132,)}
_PROTOCOL_NAMES = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6", 132: "sctp"}
_PORTLESS = frozenset({1, 58})  # clients match these by address alone
_USUAL = (6, 17, 1, 58)  # what a rule without protocols means


class _Goal(NamedTuple):
    """A destination: the node whose filter decides, the addresses behind it, and what is asked for there."""

    node: Node
    addresses: tuple[Address, ...]
    port: int | None
    protocols: tuple[int, ...]


class _Addresses:
    """The sources or destinations of a filter rule, quick to ask about one address."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._singles: set[str] = set()
        self._ranges: list[Range] = []
        self._every = False
        for text in texts:
            if text == "*":
                self._every = True
            elif "/" in text or "-" in text:
                self._ranges.append(of_text(text))
            else:
                self._singles.add(text)

    def __contains__(self, address: Address) -> bool:
        return (
            self._every
            or str(address) in self._singles
            or any(
                one.version == address.version and one.first <= int(address) <= one.last
                for one in self._ranges
            )
        )


def parse_goal(snapshot: Snapshot, text: str, protocol: str) -> _Goal:
    """What ``NODE``, ``ADDRESS``, ``NODE:PORT`` or ``[V6]:PORT`` and a protocol mean. Raises BadInput or NotFound."""
    name, port = text, None
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        if rest:
            port = _port(rest.removeprefix(":"))
    elif text.count(":") == 1:
        name, _, number = text.partition(":")
        port = _port(number)
    numbers = _NAMED_PROTOCOLS.get(protocol) or (
        (int(protocol),) if protocol.isdecimal() and len(protocol) < 4 else ()
    )
    if not numbers or numbers[0] > 255:
        raise BadInput(
            f"{protocol!r} is not a protocol", cure="Give tcp, udp, icmp, sctp or a number up to 255."
        )
    try:
        node = snapshot.find_node(name)
    except NotFound:
        router, address = _router_of(snapshot, name)
        return _Goal(router, (address,), port, numbers)
    return _Goal(node, node.addresses, port, numbers)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or not 0 < int(text) < 65536:
        raise BadInput(f"{text!r} is not a port", cure="Write a number from 1 to 65535 after the colon.")
    return int(text)


def _router_of(snapshot: Snapshot, text: str) -> tuple[Node, Address]:
    """The router of the smallest subnet that holds this address. Raises NotFound."""
    try:
        address = ip_address(text)
    except ValueError:
        raise NotFound(
            f"there is no node {text!r}, and it is no address either",
            cure="`doorward nodes list` shows the nodes there are.",
        ) from None
    found = [
        (prefix.prefixlen, snapshot.primary.get(prefix) == node.id, -node.id, node)
        for node in snapshot.nodes.values()
        for prefix in serving(node)
        if prefix.version == address.version and address in prefix
    ]
    if not found:
        raise NotFound(f"no node has the address {text}, and none routes to it")
    return max(found)[3], address


def ways_to(snapshot: Snapshot, goal: _Goal, sources: Iterable[Node]) -> tuple[types.Way, ...]:
    """Those of ``sources`` that reach the goal, each with its ports and rules, in their order."""
    policy = snapshot.policy
    member = policy.roster.members.get(goal.node.id)
    if member is None:
        return ()
    opened: list[tuple[str, _Addresses, list[PortRange]]] = []
    for rule in policy.document.rules:
        pieces = resolve_pieces(pieces_of((rule,)), policy.roster, policy.sources)
        for each in filter_for(member, pieces, policy.roster):
            ports = list(_open_ports(each, goal))
            if ports:
                opened.append((rule.origin, _Addresses(each.SrcIPs), ports))
    ways: list[types.Way] = []
    for source in sources:
        if source.id == goal.node.id:
            continue
        versions = {address.version for address in goal.addresses}
        own = [
            address for address in source.addresses if address.version in versions or len(goal.addresses) == 1
        ]
        reasons = [each for each in opened if any(address in each[1] for address in own)]
        if reasons:
            ways.append(
                types.Way(
                    source=source.name,
                    owner=" ".join(source.tags) or snapshot.owner_name(source),
                    ports=_port_text(port for each in reasons for port in each[2]),
                    rules=tuple(dict.fromkeys(each[0] for each in reasons)),
                )
            )
    return tuple(ways)


def _open_ports(rule: FilterRule, goal: _Goal) -> Iterator[PortRange]:
    """The ports of the goal that a filter rule opens; of a portless protocol, all."""
    protocols = _USUAL if rule.IPProto is UNSET else rule.IPProto
    asked = [number for number in goal.protocols if number in protocols]
    if not asked or rule.DstPorts is UNSET:
        return
    for entry in rule.DstPorts:
        target = _Addresses([entry.IP])
        if not any(address in target for address in goal.addresses):
            continue
        if _PORTLESS.issuperset(asked):
            yield ALL_PORTS
        elif goal.port is None or entry.Ports.First <= goal.port <= entry.Ports.Last:
            yield entry.Ports


def _port_text(ports: Iterable[PortRange]) -> str:
    """Ports as people write them, overlapping ranges joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted((one.First, one.Last) for one in ports):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return ",".join(_range_text(first, last) for first, last in joined)


def _range_text(first: int, last: int) -> str:
    if (first, last) == (ALL_PORTS.First, ALL_PORTS.Last):
        return "all"
    return str(first) if first == last else f"{first}-{last}"


def compare(snapshot: Snapshot, draft: Policy) -> list[types.NodeDiff]:
    """What each node lets in under the policy in force and would no longer, and the other way round, by name."""
    names = {str(address): node.name for node in snapshot.nodes.values() for address in node.addresses}
    found: list[types.NodeDiff] = []
    for node in sorted(snapshot.nodes.values(), key=lambda node: node.name):
        if node.system:
            continue
        before, after = (_facts(policy, node, names) for policy in (snapshot.policy, draft))
        if before != after:
            found.append(
                types.NodeDiff(node=node.name, lost=_lines(before - after), gained=_lines(after - before))
            )
    return found


def _facts(policy: Policy, node: Node, names: dict[str, str]) -> frozenset[tuple[str, str]]:
    """What a node lets in, as pairs of a source and what that source gets."""
    facts: set[tuple[str, str]] = set()
    own = {str(address) for address in node.addresses}
    for rule in policy.filter_rules(node.id):
        gets: set[str] = set()
        for entry in () if rule.DstPorts is UNSET else rule.DstPorts:
            where = "" if entry.IP in own or entry.IP == "*" else f" at {entry.IP}"
            gets.add(_protocol_text(rule) + _range_text(entry.Ports.First, entry.Ports.Last) + where)
        for grant in () if rule.CapGrant is UNSET else rule.CapGrant:
            held = {} if grant.CapMap is UNSET else grant.CapMap
            gets.update(f"capability {name}" for name in held)
        facts.update((names.get(source, source), each) for source in rule.SrcIPs for each in gets)
    facts.update(_ssh_facts(policy.ssh_policy(node.id), names))
    # What a node may do to itself is no access: no filter is asked on the way.
    return frozenset(fact for fact in facts if fact[0] != node.name)


def _protocol_text(rule: FilterRule) -> str:
    if rule.IPProto is UNSET:
        return "ports "
    return "/".join(_PROTOCOL_NAMES.get(number, f"protocol {number}") for number in rule.IPProto) + " "


def _ssh_facts(policy: SSHPolicy, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for rule in policy.rules:
        for principal in rule.principals:
            source = next(
                (
                    str(text)
                    for text in (principal.nodeIP, principal.node, principal.userLogin)
                    if text is not UNSET
                ),
                "anybody",
            )
            yield names.get(source, source), _ssh_text(rule)


def _ssh_text(rule: WireRule) -> str:
    accounts = [
        "any account" if name == "*" else name for name, local in sorted(rule.sshUsers.items()) if local
    ]
    after = " after a check" if rule.action.holdAndDelegate is not UNSET else ""
    return f"ssh as {', '.join(accounts)}{after}"


def _lines(facts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """One line for all sources that get the same."""
    grouped: dict[str, list[str]] = {}
    for source, gets in sorted(facts):
        grouped.setdefault(gets, []).append(source)
    return tuple(f"{gets} from {_some(sources)}" for gets, sources in sorted(grouped.items()))


def _some(sources: Sequence[str]) -> str:
    """Names for a line that people read; the whole list is in `policy compile`."""
    if len(sources) <= 10:
        return ", ".join(sources)
    return f"{', '.join(sources[:10])} and {len(sources) - 10} more"
