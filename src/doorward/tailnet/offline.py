"""What a policy makes of a tailnet that is written down: for people who test a policy where no server runs.

A *topology* names users and nodes; the answer says, node by node, what each would be sent. It goes the way of a live
tailnet: the same `Snapshot`, the same netmap. Only what has nothing to do with the policy is left out.

Pure functions. The forms are those of recorded cases of the hosted service: ``topology.users`` is a list, ``topology.nodes``
an object by the nodes' names.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeVar

import msgspec

from doorward.errors import BadInput
from doorward.model import Attribute, Node, Observed, Role, User
from doorward.policy import PolicyError, parse_policy
from doorward.policy.check import check
from doorward.policy.posture import ADDRESS, COUNTRY, AttributeValue
from doorward.policy.ssh import without_guards
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg import capability
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.node import Node as WireNode
from doorward.tailnet import netmap
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot

_T = TypeVar("_T")

MAX_NODES = 10_000  # every node is answered with its peers, so the answer grows with the square

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

# What doorward tells every node of its own accord, by its DNS settings and the SSH it knows, whatever the policy says.
_OF_THE_SERVER = frozenset((capability.MAGICDNS_AAAA, capability.SSH_ENV_VARS, capability.SSH_BEHAVIOR_V1))


class OfflineUser(msgspec.Struct, frozen=True):
    """A person. Where nobody has a role, the first user is the owner."""

    name: str
    id: int = 0  # numbers people; only their order counts
    email: str = ""
    role: Role | None = None


class OfflineNode(msgspec.Struct, frozen=True):
    """A node. ``user`` is absent where it has tags."""

    ipv4: str
    ipv6: str
    hostname: str = ""
    user: str | None = None
    tags: tuple[str, ...] | None = ()
    routable_ips: tuple[str, ...] | None = ()  # what it advertises
    approved_routes: tuple[str, ...] | None = ()
    hostinfo: Hostinfo = Hostinfo()  # for postures
    attributes: dict[str, AttributeValue] = {}  # custom posture attributes, ip:address and with it ip:country


class Topology(msgspec.Struct, frozen=True):
    """Who and what there is."""

    users: tuple[OfflineUser, ...]
    nodes: dict[str, OfflineNode]


class Case(msgspec.Struct, frozen=True):
    """A policy and the tailnet that it is applied to."""

    policy: str
    topology: Topology
    name: str = ""


class OfflinePeer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node as its netmap shows it."""

    addresses: list[str]
    allowed_ips: list[str]
    primary_routes: list[str] = []
    cap_map: dict[str, list[Any] | None] = {}


class OfflineNetmap(msgspec.Struct, frozen=True):
    """What a node is told of the tailnet; peers by name."""

    self: OfflinePeer
    peers: dict[str, OfflinePeer]


class OfflineAnswer(msgspec.Struct, frozen=True):
    """What one node would be sent, as the wire has it."""

    packet_filter_rules: list[Any]
    ssh_rules: list[Any]
    netmap: OfflineNetmap


class Outcome(msgspec.Struct, frozen=True):
    """What came of a case: 200 and an answer for each node, or 400 and why the policy is refused."""

    name: str
    code: int
    message: str | None
    nodes: dict[str, OfflineAnswer]


def outcome(case: Case) -> Outcome:
    """Compile a case. A policy that is refused is an outcome; a topology that makes no sense raises BadInput."""
    try:
        nodes = compile_offline(case.policy, case.topology)
    except PolicyError as error:
        return Outcome(case.name, 400, str(error), {})
    return Outcome(case.name, 200, None, nodes)


def compile_offline(
    text: str, topology: Topology, *, filename: str = "policy.hujson"
) -> dict[str, OfflineAnswer]:
    """What every node of a topology would be sent under a policy, its own tests included.

    Raises PolicyError for a policy that is refused, and BadInput for a topology that makes no sense.
    """
    document = parse_policy(text, filename=filename)
    users = _users(topology.users)
    numbers = {name: number for number, name in enumerate(topology.nodes, 1)}
    owners = {user.name: user.id for user in users}
    nodes = [_node(numbers[name], name, node, owners) for name, node in topology.nodes.items()]
    if len(nodes) > MAX_NODES:
        raise BadInput(
            f"the topology has {len(nodes)} nodes; the limit is {MAX_NODES}", cure="Leave some out."
        )
    settings = Settings(
        domain="tailnet.example", url="https://control.example", country_of=_countries(topology).get
    )
    snapshot = Snapshot.build(settings, users, nodes, document, text)
    check(snapshot.policy)
    names = {number: name for name, number in numbers.items()}
    return {name: _answer(snapshot, snapshot.nodes[number], names) for name, number in numbers.items()}


def _countries(topology: Topology) -> dict[IPv4Address | IPv6Address, str]:
    """The countries of the addresses that nodes come from. Raises BadInput where that makes no sense."""
    found: dict[IPv4Address | IPv6Address, str] = {}
    for name, node in topology.nodes.items():
        country = node.attributes.get(COUNTRY)
        if country is None:
            continue
        address = _came_from(name, node)
        if address is None or found.setdefault(address, str(country).upper()) != str(country).upper():
            raise BadInput(
                f'node "{name}": {COUNTRY} is that of an address, and no address is in two countries',
                cure=f"Give it an {ADDRESS} in its country.",
            )
    return found


def _came_from(name: str, node: OfflineNode) -> IPv4Address | IPv6Address | None:
    address = node.attributes.get(ADDRESS)
    return None if address is None else _read(ip_address, name, str(address))


def _users(found: tuple[OfflineUser, ...]) -> list[User]:
    ordered = sorted(found, key=lambda user: user.id)
    nobody = all(user.role is None for user in ordered)
    return [
        User(
            id=number,
            name=user.name,
            email=user.email,
            role=Role.OWNER if nobody and number == 1 else user.role or Role.MEMBER,
            created=_LONG_AGO,
        )
        for number, user in enumerate(ordered, 1)
    ]


def _node(number: int, name: str, node: OfflineNode, owners: Mapping[str, int]) -> Node:
    tags = tuple(sorted(node.tags or ()))
    if not tags and node.user not in owners:
        raise BadInput(
            f'node "{name}" belongs to "{node.user}", who is not among the users',
            cure="Give it a user of the topology, or tags.",
        )
    return Node(
        id=number,
        stable_id=f"n{number}",
        machine_key=MachinePublic(number.to_bytes(32)),
        node_key=NodePublic(number.to_bytes(32)),
        user_id=None if tags or node.user is None else owners[node.user],
        tags=tags,
        name=name,
        ipv4=_read(IPv4Address, name, node.ipv4),
        ipv6=_read(IPv6Address, name, node.ipv6),
        created=_LONG_AGO,
        attributes=tuple(Attribute(key=key, value=value) for key, value in sorted(node.attributes.items())),
        approved_routes=tuple(_read(ip_network, name, route) for route in node.approved_routes or ()),
        observed=Observed(
            hostinfo=msgspec.structs.replace(
                node.hostinfo, RoutableIPs=list(node.routable_ips or ()) or node.hostinfo.RoutableIPs
            ),
            online=True,
            came_from=_came_from(name, node),
        ),
    )


def _read(make: Callable[[str], _T], name: str, text: str) -> _T:
    try:
        return make(text)
    except ValueError:
        raise BadInput(
            f'node "{name}": "{text}" is no address or prefix',
            cure="Write an address like 100.64.0.1, a prefix like 10.0.0.0/8 without bits after its length.",
        ) from None


def _answer(snapshot: Snapshot, node: Node, names: Mapping[int, str]) -> OfflineAnswer:
    peers = {
        names[peer_id]: _peer(netmap.peer(snapshot, peer, netmap.view_of(snapshot, node, peer)), frozenset())
        for peer_id in sorted(netmap.peer_ids(snapshot, node))
        for peer in (snapshot.nodes[peer_id],)
    }
    unasked = _OF_THE_SERVER - snapshot.policy.node_attributes(node.id).keys()
    return OfflineAnswer(
        packet_filter_rules=msgspec.to_builtins(netmap.filter_rules(snapshot, node)),
        ssh_rules=msgspec.to_builtins(without_guards(snapshot.policy.ssh_policy(node.id).rules)),
        netmap=OfflineNetmap(self=_peer(netmap.self_node(snapshot, node), unasked), peers=peers),
    )


def _peer(node: WireNode, unasked: frozenset[str]) -> OfflinePeer:
    capabilities = node.CapMap or {}
    return OfflinePeer(
        addresses=list(node.Addresses),
        allowed_ips=list(node.AllowedIPs or node.Addresses),
        primary_routes=list(node.PrimaryRoutes or ()),
        cap_map={name: capabilities[name] for name in sorted(capabilities) if name not in unasked},
    )
