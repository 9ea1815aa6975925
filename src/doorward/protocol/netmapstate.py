"""What a stock client makes of the messages of one map session (protocol note control.md, sections 12 to 16).

A message says what changed, and every field has its own rule of how. ``NetmapState`` applies them as release 1.102 does,
with its peculiarities, and ``netmap`` shows the result. So it can be asked of any sequence of messages whether it leaves
a client with the netmap that was meant.

Peculiarities worth knowing by whoever sends:

- A peer in PeersChanged that the client knows is turned into a PeerChange wherever the fields allow it, and takes effect
  as one. So HomeDERP, Online, LastSeen and an *absent* list of endpoints in it cannot clear what was known before.
- The order within a message is PeersRemoved, PeersChanged, PeerSeenChange, OnlineChange, PeersChangedPatch.
- A new disco key of an offline peer counts only together with a newer LastSeen.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from doorward.errors import LocalProtocolError, RemoteProtocolError
from doorward.protocol.keys import DiscoPublic
from doorward.protocol.mapstream import MESSAGE_LIMIT
from doorward.protocol.tailcfg.codec import decode_response
from doorward.protocol.tailcfg.derpmap import DERPMap
from doorward.protocol.tailcfg.dns import DNSConfig
from doorward.protocol.tailcfg.filter import FilterRule
from doorward.protocol.tailcfg.map import (
    BASE_FILTER,
    CLEAR_ALL,
    ClientVersion,
    ControlDialPlan,
    Debug,
    DisplayMessage,
    MapResponse,
    Peer,
)
from doorward.protocol.tailcfg.node import Node, PeerChange, UserProfile
from doorward.protocol.tailcfg.scalars import ZERO_TIME
from doorward.protocol.tailcfg.ssh import SSHPolicy

T = TypeVar("T")

_LEGACY_DERP = "127.3.3.40:"

# Fields of a peer that a client compares with nothing when it looks for the difference.
_NOT_COMPARED = frozenset(("Capabilities", "ComputedName", "ComputedNameWithHost", "DataPlaneAuditLogID"))

# Fields of a peer that a PeerChange can carry. Any other difference replaces the whole peer.
_PATCHED = frozenset(
    (
        "Key",
        "KeyExpiry",
        "KeySignature",
        "DiscoKey",
        "Endpoints",
        "HomeDERP",
        "Cap",
        "CapMap",
        "Online",
        "LastSeen",
    )
)


class Netmap(msgspec.Struct, frozen=True, kw_only=True):
    """What a client acts on. Two netmaps are equal when a client would do the same with both."""

    node: Node  # itself
    peers: tuple[Node, ...]  # by ID
    derp_map: DERPMap | None
    dns: DNSConfig
    domain: str
    packet_filter: tuple[FilterRule, ...]  # all chunks in the order of their names; empty denies all inbound
    ssh_policy: SSHPolicy | None
    user_profiles: dict[int, UserProfile]  # of the users that the node and its peers name, as far as known
    display_messages: dict[str, DisplayMessage]
    health: tuple[str, ...]  # shown only while there are no display messages
    collect_services: bool

    def peer(self, node_id: int) -> Node | None:
        """The peer with this ID."""
        return next((peer for peer in self.peers if node_id == peer.ID), None)


class NetmapState:
    """The sum of the messages of one session. A new session starts with a new one."""

    def __init__(self) -> None:
        self.control_time: datetime | None = None  # control's clock, as last told
        self.client_version: ClientVersion | None = None
        self.dial_plan: ControlDialPlan | None = None
        self.debug: Debug | None = None
        self._node: Node | None = None
        self._peers: dict[int, Node] = {}
        self._profiles: dict[int, UserProfile] = {}
        self._derp_map: DERPMap | None = None
        self._dns = DNSConfig()
        self._domain = ""
        self._filters: dict[str, list[FilterRule]] = {}
        self._ssh_policy: SSHPolicy | None = None
        self._display_messages: dict[str, DisplayMessage] = {}
        self._health: list[str] = []
        self._collect_services = False

    def receive(self, payload: bytes, *, now: datetime) -> MapResponse:
        """Decode one message and apply it; returns the message.

        Raises BadInput for what is no MapResponse, and RemoteProtocolError as ``apply`` does.
        """
        response = decode_response(payload, MapResponse, limit=MESSAGE_LIMIT)
        self.apply(response, now=now)
        return response

    def apply(self, response: MapResponse, *, now: datetime) -> bool:
        """Take in one message; returns whether the netmap may have changed.

        ``now`` is the client's clock, for PeerSeenChange. Raises RemoteProtocolError where a client would end its poll:
        the first message that is no keep-alive lacks Node, or a value is malformed. The state is of no use after that.
        """
        self._take_signs(response)
        if response.KeepAlive:
            return False
        if self._node is None and response.Node is UNSET:
            raise RemoteProtocolError("the first message of a map session must have the client's own node")
        if response.Node is not UNSET:
            self._node = _upgrade(response.Node, own=True)
        self._apply_peers(response, now)
        if response.UserProfiles is not UNSET:
            self._profiles.update((profile.ID, profile) for profile in response.UserProfiles)
        self._apply_filters(response)
        self._apply_settings(response)
        self._apply_messages(response)
        return True

    def netmap(self) -> Netmap:
        """The netmap now. Raises LocalProtocolError before the first message that is no keep-alive."""
        if self._node is None:
            raise LocalProtocolError("no netmap has arrived yet")
        peers = tuple(self._peers[node_id] for node_id in sorted(self._peers))
        users = {user for node in (self._node, *peers) for user in (node.User, node.Sharer)}
        return Netmap(
            node=self._node,
            peers=peers,
            derp_map=self._derp_map,
            dns=self._dns,
            domain=self._domain,
            packet_filter=tuple(rule for name in sorted(self._filters) for rule in self._filters[name]),
            ssh_policy=self._ssh_policy,
            user_profiles={user: self._profiles[user] for user in sorted(users) if user in self._profiles},
            display_messages=dict(self._display_messages),
            health=() if self._display_messages else tuple(self._health),
            collect_services=self._collect_services,
        )

    def _take_signs(self, response: MapResponse) -> None:
        """What is looked at in keep-alives too."""
        if response.ControlTime is not UNSET and response.ControlTime != ZERO_TIME:
            self.control_time = response.ControlTime
        if response.ClientVersion is not UNSET:
            self.client_version = response.ClientVersion
        if response.ControlDialPlan is not UNSET:
            self.dial_plan = response.ControlDialPlan

    def _apply_peers(self, response: MapResponse, now: datetime) -> None:
        if response.Peers is not UNSET and response.Peers:
            whole = [_upgrade(peer) for peer in _nodes(response.Peers)]
            self._peers = {
                peer.ID: _known(self._keep_newer_disco(self._peers.get(peer.ID), peer)) for peer in whole
            }
            return  # everything else about peers in this message is ignored
        changed, changes = self._find_changes(response)
        changes = [change for change in changes if self._wants(change)]
        for node_id in _given(response.PeersRemoved):
            self._peers.pop(node_id, None)
        for peer in changed:
            self._peers[peer.ID] = _known(peer)
        if response.PeerSeenChange is not UNSET:
            for node_id, seen in response.PeerSeenChange.items():
                self._change(node_id, LastSeen=now if seen else UNSET)
        if response.OnlineChange is not UNSET:
            for node_id, online in response.OnlineChange.items():
                self._change(node_id, Online=online)
        for change in changes:
            self._change(change.NodeID, **_values(change))

    def _find_changes(self, response: MapResponse) -> tuple[list[Node], list[PeerChange]]:
        """The peers to put in place, and the changes: those sent, and those that PeersChanged amounts to."""
        changed = []
        changes = list(_given(response.PeersChangedPatch))
        for change in changes:
            _check_endpoints(change.Endpoints)
        for peer in map(_upgrade, _nodes(_given(response.PeersChanged))):
            known = self._peers.get(peer.ID)
            difference = None if known is None else _difference(known, peer)
            if difference is None:
                changed.append(peer)
            else:
                changes.append(difference)
        return changed, changes

    def _wants(self, change: PeerChange) -> bool:
        known = self._peers.get(change.NodeID)
        if known is None or UNSET in (change.DiscoKey, change.Online, change.LastSeen):
            return True
        return change.Online is True or _is_newer(change.LastSeen, known.LastSeen)

    @staticmethod
    def _keep_newer_disco(known: Node | None, peer: Node) -> Node:
        """In a complete list, an offline peer's new disco key counts only with a newer LastSeen."""
        if (
            known is None
            or peer.DiscoKey is UNSET
            or known.DiscoKey == peer.DiscoKey
            or peer.Online is True
            or _is_newer(peer.LastSeen, known.LastSeen)
        ):
            return peer
        return msgspec.structs.replace(peer, DiscoKey=known.DiscoKey, LastSeen=known.LastSeen)

    def _change(self, node_id: int, **values: Any) -> None:
        known = self._peers.get(node_id)
        if known is not None:
            self._peers[node_id] = msgspec.structs.replace(known, **values)

    def _apply_filters(self, response: MapResponse) -> None:
        if response.PacketFilter is not UNSET:
            self._filters[BASE_FILTER] = response.PacketFilter
        if response.PacketFilters is not UNSET:
            _merge(self._filters, response.PacketFilters)

    def _apply_settings(self, response: MapResponse) -> None:
        if response.DERPMap is not UNSET:
            self._derp_map = _merge_derp_maps(self._derp_map, response.DERPMap)
        if response.DNSConfig is not UNSET:
            self._dns = response.DNSConfig
        if response.SSHPolicy is not UNSET:
            self._ssh_policy = response.SSHPolicy
        if response.Domain:
            self._domain = response.Domain
        if response.CollectServices is not UNSET:
            self._collect_services = response.CollectServices
        if response.Debug is not UNSET:
            self.debug = response.Debug

    def _apply_messages(self, response: MapResponse) -> None:
        if response.Health is not UNSET:
            self._health = response.Health
        if response.DisplayMessages is not UNSET:
            _merge(self._display_messages, response.DisplayMessages)


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    if CLEAR_ALL in changes and changes[CLEAR_ALL] is None:
        into.clear()
    for key, value in changes.items():
        if key == CLEAR_ALL:
            continue
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value


def _merge_derp_maps(known: DERPMap | None, new: DERPMap) -> DERPMap:
    for number, region in new.Regions.items():
        if not number == region.RegionID > 0 or any(node.RegionID != number for node in region.Nodes):
            raise RemoteProtocolError(f"DERP region {number} does not carry its own number throughout")
    if known is None:
        return new
    if not new.Regions:
        new = msgspec.structs.replace(new, Regions=known.Regions, omitDefaultRegions=known.omitDefaultRegions)
    if new.HomeParams is None:
        return msgspec.structs.replace(new, HomeParams=known.HomeParams)
    if not new.HomeParams.RegionScore and known.HomeParams is not None:
        return msgspec.structs.replace(new, HomeParams=known.HomeParams)
    return new


def _nodes(peers: Iterable[Peer]) -> Iterable[Node]:
    for peer in peers:
        if isinstance(peer, msgspec.Raw):
            yield decode_response(bytes(peer), Node, limit=MESSAGE_LIMIT)
        else:
            yield peer


def _given(values: list[T] | UnsetType) -> list[T]:
    return [] if values is UNSET else values


def _upgrade(node: Node, *, own: bool = False) -> Node:
    """The node in the one form that a client works with. Refuses what would end the client's poll."""
    _check(node)
    changes: dict[str, Any] = {}
    if node.DERP:
        changes["DERP"] = ""
        if not node.HomeDERP and node.DERP.startswith(_LEGACY_DERP):
            region = node.DERP.removeprefix(_LEGACY_DERP)
            changes["HomeDERP"] = int(region) if region.isascii() and region.isdigit() else 0
    if node.AllowedIPs is UNSET or node.UnsignedPeerAPIOnly:
        changes["AllowedIPs"] = node.Addresses
    capabilities = dict.fromkeys(node.Capabilities) if own else {}
    if capabilities or [] in node.CapMap.values():
        changes["CapMap"] = {name: value or None for name, value in {**capabilities, **node.CapMap}.items()}
    return msgspec.structs.replace(node, **changes) if changes else node


def _known(node: Node) -> Node:
    """The form in which a peer is kept: without endpoints, the list is empty."""
    return msgspec.structs.replace(node, Endpoints=[]) if node.Endpoints is UNSET else node


def _difference(known: Node, new: Node) -> PeerChange | None:
    """What PeersChanged amounts to for a peer that is known, or None where the whole peer must be replaced."""
    different = {
        field
        for field in Node.__struct_fields__
        if field not in _NOT_COMPARED and getattr(known, field) != getattr(new, field)
    }
    if not different <= _PATCHED:
        return None
    # Online and LastSeen count only where both sides say something.
    for field in ("Online", "LastSeen"):
        if UNSET in (getattr(known, field), getattr(new, field)):
            different.discard(field)
    values = {field: getattr(new, field) for field in different}
    if "HomeDERP" in values:
        values["DERPRegion"] = values.pop("HomeDERP")
    if values.get("KeyExpiry") is UNSET:
        values["KeyExpiry"] = ZERO_TIME
    if values.get("DiscoKey") is UNSET:
        values["DiscoKey"] = DiscoPublic.zero()
    return PeerChange(NodeID=new.ID, **values)


def _values(change: PeerChange) -> dict[str, Any]:
    """The fields of Node that a change sets."""
    values: dict[str, Any] = {
        field: value
        for field in ("Key", "KeyExpiry", "DiscoKey", "Endpoints", "CapMap", "Online", "LastSeen")
        if (value := getattr(change, field)) is not UNSET
    }
    # For these three zero or empty is absent, and so cannot be said.
    sayable = {"HomeDERP": change.DERPRegion, "Cap": change.Cap, "KeySignature": change.KeySignature}
    values.update((field, value) for field, value in sayable.items() if value)
    if values.get("KeyExpiry") == ZERO_TIME:
        values["KeyExpiry"] = UNSET
    if isinstance(key := values.get("DiscoKey"), DiscoPublic) and key.is_zero():
        values["DiscoKey"] = UNSET
    if "CapMap" in values:
        values["CapMap"] = {name: value or None for name, value in values["CapMap"].items()}
    return values


def _is_newer(new: datetime | UnsetType, known: datetime | UnsetType) -> bool:
    return known is UNSET or (new is not UNSET and new > known)


def _check(node: Node) -> None:
    """Raise RemoteProtocolError for values that a client cannot decode, or that break a rule clients rely on."""
    if not 0 < node.ID < 2**53:
        raise RemoteProtocolError(f"a node's ID is from 1 to 2^53-1, not {node.ID}")
    who = f"node {node.ID}"
    if not node.StableID:
        raise RemoteProtocolError(f"{who} has no StableID")
    labels = node.Name.removesuffix(".").split(".")
    if not node.Name.endswith(".") or len(node.Name) > 254 or not all(0 < len(x) < 64 for x in labels):
        raise RemoteProtocolError(f"{who}: {node.Name!r} is not a full domain name that ends in a dot")
    try:
        for prefix in (*node.Addresses, *_given(node.AllowedIPs), *node.PrimaryRoutes):
            _check_prefix(prefix)
    except ValueError as error:
        raise RemoteProtocolError(f"{who}: {error}") from None
    _check_endpoints(node.Endpoints)


@lru_cache(maxsize=1 << 16)
def _check_prefix(text: str) -> None:
    if "/" not in text or "%" in text:
        raise ValueError(f"{text!r} is not a prefix")
    prefix = ip_interface(text)
    if prefix.ip != prefix.network.network_address:
        raise ValueError(f"{text!r} has bits beyond its length")


def _check_endpoints(endpoints: list[str] | UnsetType) -> None:
    for endpoint in _given(endpoints):
        host, _, port = endpoint.rpartition(":")
        try:
            address = ip_address(host.removeprefix("[").removesuffix("]"))
            good = (address.version == 6) is host.startswith("[") and port.isdigit() and int(port) < 65536
        except ValueError:
            good = False
        if not good:
            raise RemoteProtocolError(f"{endpoint!r} is not an endpoint of the form ip:port")
