"""Users and nodes for tests of the policy."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from doorward.model import Node, Observed, Role, User
from doorward.policy import Policy, parse_policy
from doorward.policy.ranges import Address, of_text
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def make_user(
    user_id: int,
    name: str,
    *,
    email: str = "",
    role: Role = Role.MEMBER,
    suspended: bool = False,
    groups: tuple[str, ...] = (),
) -> User:
    return User(
        id=user_id,
        name=name,
        email=email,
        role=role,
        created=LONG_AGO,
        suspended=suspended,
        groups=groups,
    )


def make_node(
    node_id: int,
    *,
    user: int | None = None,
    tags: Iterable[str] = (),
    ipv4: str = "",
    ipv6: str = "",
    advertised: Iterable[str] = (),
    approved: Iterable[str] = (),
    system: bool = False,
) -> Node:
    """A node with addresses that follow from its id unless given."""
    return Node(
        id=node_id,
        stable_id=f"n{node_id}",
        machine_key=MachinePublic(node_id.to_bytes(32)),
        node_key=NodePublic(node_id.to_bytes(32)),
        user_id=user,
        tags=tuple(sorted(tags)),
        name=f"node-{node_id}",
        ipv4=IPv4Address(ipv4) if ipv4 else IPv4Address("100.64.0.0") + node_id,
        ipv6=IPv6Address(ipv6) if ipv6 else IPv6Address("fd7a:115c:a1e0::") + node_id,
        created=LONG_AGO,
        approved_routes=tuple(ip_network(route) for route in approved),
        system=system,
        observed=Observed(hostinfo=Hostinfo(RoutableIPs=list(advertised) or None)),
    )


def arrows(rules: Iterable[Any]) -> list[str]:
    """Filter rules as short text: sources, arrow, destinations with ports, protocols."""
    found: list[str] = []
    for rule in rules:
        sources = " ".join(rule.SrcIPs)
        if rule.DstPorts:
            targets = " ".join(f"{one.IP}:{_ports(one.Ports.First, one.Ports.Last)}" for one in rule.DstPorts)
        else:
            targets = " ".join(f"{'+'.join(grant.Dsts)} {sorted(grant.CapMap)}" for grant in rule.CapGrant)
        found.append(f"{sources} -> {targets}" + (f" {rule.IPProto}" if rule.IPProto else ""))
    return found


def _ports(first: int, last: int) -> str:
    if (first, last) == (0, 65535):
        return "*"
    return str(first) if first == last else f"{first}-{last}"


def written(policy: Any) -> str:
    """A policy as text."""
    return json.dumps(policy)


def compiled(
    policy: Any, users: Iterable[User], nodes: Iterable[Node], cuts: Iterable[tuple[int, int]] = ()
) -> Policy:
    """A policy given as data, applied."""
    return Policy.compile(parse_policy(written(policy)), users, nodes, cuts=cuts)


def admitted(
    policy: Policy, node_id: int, source: Address, target: Address, port: int, protocol: int
) -> bool:
    """True if a node's packet filter, as its client gets it, lets a packet in."""
    return any(
        any(_holds(text, source) for text in rule.SrcIPs)
        and protocol in (rule.IPProto or (1, 6, 17, 58))
        and any(
            _holds(one.IP, target) and (protocol in (1, 58) or one.Ports.First <= port <= one.Ports.Last)
            for one in rule.DstPorts or ()
        )
        for rule in policy.filter_rules(node_id)
    )


def _holds(text: str, address: Address) -> bool:
    if text == "*":
        return True
    whole = of_text(text)
    return whole.version == address.version and whole.first <= int(address) <= whole.last
