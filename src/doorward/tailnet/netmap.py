"""What a node is told of the tailnet: the pieces of a MapResponse, made from a snapshot (control.md, sections 13 to 19).

Pure functions of a snapshot and the node that looks at it (the *viewer*). ``mapsession`` decides which pieces to send.
Our own node (where several processes serve, each has one) is a peer of every node and sees every node, outside the
policy: its packet filter admits exactly the
door's ports, whatever the policy says, so that nothing else on doorward's host can be reached through it.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import msgspec

from doorward.model import DOORWARD_USER_ID, EXIT_ROUTES, TAGGED_DEVICES_USER_ID, Node, Prefix, Role, User
from doorward.protocol.tailcfg import capability
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.derpmap import DERPMap
from doorward.protocol.tailcfg.dns import DNSConfig, DNSRecord, Resolver
from doorward.protocol.tailcfg.filter import FilterRule, NetPortRange, PortRange
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.map import DisplayMessage
from doorward.protocol.tailcfg.node import Node as WireNode
from doorward.protocol.tailcfg.node import UserProfile
from doorward.protocol.tailcfg.ssh import SSHPolicy
from doorward.tailnet.snapshot import Snapshot, advertised
from doorward.tailnet.sshrules import rules_for

TAGGED_DEVICES = UserProfile(
    ID=TAGGED_DEVICES_USER_ID, LoginName="tagged-devices", DisplayName="Tagged devices"
)
DOORWARD = UserProfile(ID=DOORWARD_USER_ID, LoginName="doorward", DisplayName="doorward")
_ADMINISTRATORS = frozenset((Role.OWNER, Role.ADMIN))
_PROTO_TCP = 6
_MOMENT = (
    1024  # changes and differences that are kept at once; more than a round of all map streams often has
)

T = TypeVar("T")


def peer_ids(snapshot: Snapshot, viewer: Node) -> frozenset[int]:
    """Which nodes a viewer sees: what the policy shows it, and our own nodes; they see every node but tabs.

    One that is shut out sees nobody, and nobody sees it, our own nodes included. A tab and its targets see each other.
    """
    shut = snapshot.policy.roster.blocked
    if viewer.system:
        return frozenset(snapshot.nodes) - {viewer.id} - shut - snapshot.tabs
    if viewer.id in shut:
        return frozenset()
    if viewer.id in snapshot.tabs:
        return snapshot.policy.peers(viewer.id)
    return snapshot.policy.peers(viewer.id) | snapshot.system


def seers(snapshot: Snapshot, node: Node) -> tuple[frozenset[int], ...]:
    """Sets of ids that together are the viewers who see a node; itself may be among them.

    Nodes that are seen by the same are given the same objects, as long as the snapshot lives.
    """
    if node.system:
        return (frozenset(snapshot.nodes),)
    circle = snapshot.policy.circle(node.id)
    return (circle,) if node.id in snapshot.tabs else (circle, snapshot.system)


def sees(snapshot: Snapshot, viewer: Node, peer: Node) -> bool:
    """True when the peer is in the viewer's netmap. Cheaper than asking for all peers."""
    shut = snapshot.policy.roster.blocked
    if viewer.id == peer.id or viewer.id in shut or peer.id in shut:
        return False
    if viewer.id in snapshot.tabs or peer.id in snapshot.tabs:
        return snapshot.policy.can_see(viewer.id, peer.id)
    return viewer.system or peer.system or snapshot.policy.can_see(viewer.id, peer.id)


def routes_through(snapshot: Snapshot, viewer: Node, router: Node) -> tuple[Prefix, ...]:
    """Which routes the viewer may send through the router now: subnets it is the active router of, exit routes."""
    if not router.approved_routes or viewer.system:
        return ()
    return tuple(
        prefix
        for prefix in snapshot.policy.routes_for(viewer.id, router.id)
        if prefix in EXIT_ROUTES or _router_for(snapshot, viewer, prefix) == router.id
    )


def _router_for(snapshot: Snapshot, viewer: Node, prefix: Prefix) -> int | None:
    """The active router of a subnet, or, where ``via`` keeps the viewer from it, the oldest online that it may use."""
    primary = snapshot.primary.get(prefix)
    policy = snapshot.policy
    if not policy.chooses_routers:
        return primary
    usable = [one for one in snapshot.routers_of(prefix) if prefix in policy.routes_for(viewer.id, one)]
    if primary in usable:
        return primary
    online = [one for one in usable if snapshot.nodes[one].observed.online]
    return min(online or usable, default=None)


class View(NamedTuple):
    """What of a peer differs between those who look at it. Equal for viewers who are told the same."""

    routes: tuple[Prefix, ...] = ()  # those that go through it
    attributes: tuple[str, ...] = ()  # capabilities that stand on a peer
    ipv6_only: bool = False  # no IPv4 address of its is shown


def view_of(snapshot: Snapshot, viewer: Node, peer: Node) -> View:
    """How the viewer sees the peer."""
    policy = snapshot.policy
    return View(
        routes_through(snapshot, viewer, peer),
        policy.peer_attributes(peer.id),
        policy.ipv6_only(viewer.id) or policy.ipv6_only(peer.id),
    )


def _user_id(node: Node) -> int:
    if node.tags:
        return TAGGED_DEVICES_USER_ID
    return DOORWARD_USER_ID if node.user_id is None else node.user_id


def _hosts(node: Node, *, ipv6_only: bool) -> list[str]:
    return [f"{node.ipv6}/128"] if ipv6_only else [f"{node.ipv4}/32", f"{node.ipv6}/128"]


def _common(
    snapshot: Snapshot,
    node: Node,
    routes: tuple[Prefix, ...],
    *,
    primary: tuple[Prefix, ...],
    ipv6_only: bool,
) -> dict[str, Any]:
    """The fields that self and peers share."""
    hosts = _hosts(node, ipv6_only=ipv6_only)
    fields: dict[str, Any] = {
        "ID": node.id,
        "StableID": node.stable_id,
        "Name": f"{snapshot.fqdn(node)}.",
        "User": _user_id(node),
        "Key": node.node_key,
        "Machine": node.machine_key,
        "Addresses": hosts,
        "Endpoints": list(node.observed.endpoints),
        "Created": node.created,
        "Cap": node.observed.cap_version,
        "MachineAuthorized": node.approved and not node.suspended,
        "Online": node.observed.online,
    }
    if node.key_expiry is not None:
        fields["KeyExpiry"] = node.key_expiry
    if node.observed.disco_key is not None:
        fields["DiscoKey"] = node.observed.disco_key
    if node.observed.home_derp:
        fields["HomeDERP"] = node.observed.home_derp
    if node.tags:
        fields["Tags"] = list(node.tags)
    if not node.observed.online and node.observed.last_seen is not None:
        fields["LastSeen"] = node.observed.last_seen
    if routes:
        # Sent only where it differs from Addresses, which is what absent means since capability version 112.
        fields["AllowedIPs"] = [*hosts, *map(str, routes)]
    if primary:
        fields["PrimaryRoutes"] = list(map(str, primary))
    return fields


def _shown_hostinfo(hostinfo: Hostinfo, *, routes: tuple[Prefix, ...]) -> Hostinfo:
    """The part of a host's description that its peers need, and no more of it."""
    return Hostinfo(
        IPNVersion=hostinfo.IPNVersion,
        OS=hostinfo.OS,
        Hostname=hostinfo.Hostname,
        ShieldsUp=hostinfo.ShieldsUp,
        AppConnector=hostinfo.AppConnector,
        PeerRelay=hostinfo.PeerRelay,
        Location=hostinfo.Location,
        RoutableIPs=[str(route) for route in routes] or None,
        Services=hostinfo.Services,
        sshHostKeys=hostinfo.sshHostKeys,
    )


def peer(snapshot: Snapshot, node: Node, view: View = View()) -> WireNode:  # noqa: B008 - a value, never changed
    """A node as its peers see it."""
    primary = tuple(route for route in view.routes if route not in EXIT_ROUTES)
    fields = _common(snapshot, node, view.routes, primary=primary, ipv6_only=view.ipv6_only)
    return WireNode(
        **fields,
        CapMap=dict.fromkeys(view.attributes),
        Hostinfo=_shown_hostinfo(node.observed.hostinfo, routes=view.routes),
    )


def self_node(snapshot: Snapshot, node: Node) -> WireNode:
    """A node as it sees itself: with its capabilities, and with every route it carries; it is the router of some of them."""
    carried = frozenset(node.approved_routes) & advertised(node)
    subnets = tuple(route for route in node.approved_routes if route in carried - EXIT_ROUTES)
    fields = _common(
        snapshot,
        node,
        (*subnets, *sorted(carried & EXIT_ROUTES, key=str)),
        primary=tuple(route for route in subnets if snapshot.primary.get(route) == node.id),
        ipv6_only=snapshot.policy.ipv6_only(node.id),
    )
    fields["Online"] = True  # it is asking
    fields.pop("LastSeen", None)
    return WireNode(**fields, CapMap=_capabilities(snapshot, node), Hostinfo=node.observed.hostinfo)


def _capabilities(snapshot: Snapshot, node: Node) -> dict[str, list[Any] | None]:
    caps: dict[str, list[Any] | None] = {
        capability.SSH: None,
        capability.SSH_ENV_VARS: None,
        capability.SSH_BEHAVIOR_V1: None,
        capability.FILE_SHARING: None,
        capability.MAGICDNS_AAAA: None,
        capability.DEFAULT_AUTO_UPDATE: [False],
        capability.TAILNET_DISPLAY_NAME: [snapshot.settings.display_name or snapshot.settings.domain],
    }
    owner = snapshot.owner(node)
    if owner is not None and owner.role in _ADMINISTRATORS:
        caps[capability.IS_ADMIN] = None
        if owner.role is Role.OWNER:
            caps[capability.IS_OWNER] = None
    for name, values in snapshot.policy.node_attributes(node.id).items():
        # What the server says by itself stands, unless the policy says more than the name.
        caps[name] = values if values is not None else caps.get(name)
    if snapshot.settings.door:
        # After the policy: what a node opens in a browser is measured by it.
        caps[capability.DOOR] = [snapshot.settings.door]
    return caps


def profile(user: User) -> UserProfile:
    """A person as clients show them."""
    return UserProfile(ID=user.id, LoginName=user.name, DisplayName=user.display_name or user.name)


def profile_of(snapshot: Snapshot, node: Node) -> UserProfile:
    """The profile of a node's owner: without it clients know no identity for the node (control.md, section 13)."""
    if node.tags:
        return TAGGED_DEVICES
    owner = snapshot.owner(node)
    return DOORWARD if owner is None else profile(owner)


def filter_rules(snapshot: Snapshot, node: Node) -> list[FilterRule]:
    """What may reach the node. For our own node: the door's ports, from every node, whatever the policy says."""
    if not node.system:
        return snapshot.policy.filter_rules(node.id)
    ports = snapshot.settings.ports_of(node.id)
    if not ports:
        return []
    return [
        FilterRule(
            SrcIPs=[str(snapshot.settings.pool.ipv4), str(snapshot.settings.pool.ipv6)],
            DstPorts=[
                NetPortRange(IP=str(address), Ports=PortRange(port, port))
                for address in node.addresses
                for port in ports
            ],
            IPProto=[_PROTO_TCP],
        )
    ]


def ssh_policy(snapshot: Snapshot, node: Node) -> SSHPolicy:
    """Who may ssh to the node; always explicit, since absent would mean "as before" (ssh.md, section 1.1)."""
    if node.system:
        return SSHPolicy(rules=[])
    return rules_for(
        snapshot.policy,
        snapshot.checks,
        node.id,
        decide=snapshot.settings.ssh_decide,
        serves_ssh=bool(node.observed.hostinfo.sshHostKeys),
    )


def dns_config(snapshot: Snapshot) -> DNSConfig:
    """Names for everybody: the tailnet's own domain first, and the door's name, which only here is our own node."""
    settings = snapshot.settings
    dns = settings.dns
    records = [(record.Name, record.Value) for record in dns.records]
    if settings.door_host:
        doors = [snapshot.nodes[door] for door in snapshot.doors]
        records += [(settings.door_host, str(address)) for door in doors for address in door.addresses]
    return DNSConfig(
        Proxied=dns.magic_dns,
        Domains=[settings.domain, *dns.search],
        Routes={suffix: [Resolver(Addr=addr) for addr in servers] for suffix, servers in dns.split.items()},
        Resolvers=[Resolver(Addr=addr) for addr in dns.nameservers],
        # Without a type, which follows from the address: proxies of clients in user space overlook records with one. Of
        # several with one name they take the last, which is therefore an IPv4 address where there is one.
        ExtraRecords=[
            DNSRecord(Name=name, Value=value)
            for name, value in sorted(records, key=lambda record: ":" not in record[1])
        ],
    )


def derp_map(snapshot: Snapshot, cap_version: int) -> DERPMap:
    """The relays. A client that knows no pins gets none: it must trust the relay's authority instead."""
    whole = relays(snapshot)
    if cap_version >= capability.CAPVER_RELAY_PIN:
        return whole
    return msgspec.structs.replace(
        whole,
        Regions={
            region_id: msgspec.structs.replace(
                region,
                Nodes=[
                    msgspec.structs.replace(node, CertName="") if _pinned(node.CertName) else node
                    for node in region.Nodes
                ],
            )
            for region_id, region in whole.Regions.items()
        },
    )


def relays(snapshot: Snapshot) -> DERPMap:
    """The server's relays, with the policy's changes to them. Never none at all: clients would not start."""
    ours, changes = snapshot.settings.derp_map, snapshot.document.relays
    if changes is None:
        return ours
    regions = {} if changes.omit_default else dict(ours.Regions)
    for number, region in changes.regions.items():
        if region is None:
            regions.pop(number, None)
        else:
            regions[number] = region
    if not any(region.Nodes for region in regions.values()):
        return ours
    return msgspec.structs.replace(ours, Regions=dict(sorted(regions.items())))


def _pinned(cert_name: str) -> bool:
    return cert_name.startswith("sha256-raw:")


def messages(snapshot: Snapshot, node: Node) -> dict[str, DisplayMessage]:
    """What the person at the node should know, by a stable id: clients show it in ``tailscale status``."""
    found: dict[str, DisplayMessage] = {}
    if not node.approved:
        found["approval-wait"] = DisplayMessage(
            Title="This device waits for approval",
            Text=f"An administrator can let it in: doorward nodes approve {node.name}",
            Severity="medium",
            ImpactsConnectivity=True,
        )
    waiting = sorted(map(str, advertised(node) - frozenset(node.approved_routes)))
    if waiting:
        routes = " ".join(f"--approve {route}" for route in waiting)
        found["routes-wait"] = DisplayMessage(
            Title="Routes wait for approval",
            Text=f"An administrator can approve them: doorward nodes routes {node.name} {routes}",
            Severity="low",
        )
    if snapshot.settings.trouble:
        found["store-trouble"] = DisplayMessage(
            Title="The control server cannot save changes",
            Text=f"{snapshot.settings.trouble[:1].upper()}{snapshot.settings.trouble[1:]}. What is set up goes on working; "
            "devices that join and other changes have to wait until whoever runs it has mended that.",
            Severity="medium",
        )
    old = node.observed.cap_version < capability.CAPVER_RELAY_PIN
    regions = relays(snapshot).Regions.values()
    if old and any(_pinned(relay.CertName) for region in regions for relay in region.Nodes):
        found["relay-authority"] = DisplayMessage(
            Title="This client cannot check the relay by its pin",
            Text="Update it to 1.82 or newer, or let the machine trust the authority that `doorward ca` prints.",
            Severity="medium",
            ImpactsConnectivity=True,
        )
    return found


class PeerCache:
    """What many viewers are told alike, made once for all of them: peers, changes of peers, and whole differences.

    A peer's JSON is kept by node id with the very object it was made from, with one variant for each `View` that some
    viewer has of it; ``forget`` drops it when the node has changed. The rest is kept for a moment only: the
    viewers of one change ask for it one after the other.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[Node, str, dict[View, msgspec.Raw]]] = {}
        self._profiles: dict[int, tuple[User, UserProfile]] = {}
        self._moment: dict[Hashable, tuple[Any, Any]] = {}

    def get(self, snapshot: Snapshot, node: Node, view: View) -> msgspec.Raw:
        """The encoded peer."""
        entry = self._made.get(node.id)
        if entry is None or entry[0] is not node or entry[1] != snapshot.settings.domain:
            entry = (node, snapshot.settings.domain, {})
            self._made[node.id] = entry
        variants = entry[2]
        if view not in variants:
            variants[view] = msgspec.Raw(encode(peer(snapshot, node, view)))
        return variants[view]

    def profile(self, snapshot: Snapshot, node: Node) -> UserProfile:
        """``profile_of``, the same object for as long as the user is the same."""
        owner = snapshot.owner(node)
        if owner is None:
            return profile_of(snapshot, node)
        known = self._profiles.get(owner.id)
        if known is None or known[0] is not owner:
            known = self._profiles[owner.id] = (owner, profile(owner))
        return known[1]

    def once(self, key: Hashable, sources: object, make: Callable[[], T]) -> T:
        """What ``make`` gives, unless it was made a moment ago for the same key.

        A key is made of values, and of the ids of objects; those objects have to be among ``sources``, which are kept as
        long as the result, so that no other object can come to have the same id meanwhile.
        """
        found = self._moment.get(key)
        if found is None:
            if len(self._moment) >= _MOMENT:
                del self._moment[next(iter(self._moment))]
            found = self._moment[key] = (make(), sources)
        result: T = found[0]
        return result

    def end_moment(self) -> None:
        """All viewers of the last changes have been told: let go of what was made for them."""
        self._moment.clear()

    def forget(self, node_id: int) -> None:
        """Drop a node that is gone, or is another object now."""
        self._made.pop(node_id, None)
