"""What one map stream has been told, and what it has to be told next. Pure; one object for each stream.

A session remembers the snapshot its client knows. ``first`` gives the full map, ``next`` the smallest message that takes
the client from that snapshot to a newer one (control.md, section 15). Any number of changes may lie between the two, so a
slow client costs nothing but a reference, and gets one message in the end.
"""

from collections.abc import Collection, Hashable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from doorward.model import Node
from doorward.protocol.tailcfg.capability import CAPVER_DISPLAY_MESSAGES
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.map import Debug, DisplayMessage, MapResponse
from doorward.protocol.tailcfg.node import Node as WireNode
from doorward.protocol.tailcfg.node import PeerChange, UserProfile
from doorward.protocol.tailcfg.ssh import SSHPolicy
from doorward.tailnet import netmap
from doorward.tailnet.chunks import chunks_of, difference
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.snapshot import Snapshot

# The fields of a peer that a patch can carry; anything else needs the whole node.
_PATCHED = {
    "HomeDERP": "DERPRegion",
    "Cap": "Cap",
    "Endpoints": "Endpoints",
    "Key": "Key",
    "DiscoKey": "DiscoKey",
    "KeyExpiry": "KeyExpiry",
    "Online": "Online",
    "LastSeen": "LastSeen",
}
_NEUTRAL = dict.fromkeys(_PATCHED, msgspec.UNSET) | {"Key": None}


class MapSession:
    """One client's view. ``first`` once, then ``next`` as often as something changed.

    Args:
        node_id: the viewer.
        cap_version: its capability version: older clients get what they understand.
        cache: the peers' JSON, shared by all sessions.
    """

    __slots__ = ("_cache", "_cap_version", "_profiles", "_seen", "node_id")

    def __init__(self, node_id: int, cap_version: int, cache: PeerCache) -> None:
        self.node_id = node_id
        self._cap_version = cap_version
        self._cache = cache
        self._seen: Snapshot | None = None
        self._profiles: dict[int, UserProfile] = {}

    def first(self, snapshot: Snapshot, now: datetime) -> bytes:
        """The full map as JSON. Everything is stated, so that nothing of an earlier stream stays in force."""
        viewer = snapshot.nodes[self.node_id]
        peers = [snapshot.nodes[peer_id] for peer_id in sorted(netmap.peer_ids(snapshot, viewer))]
        self._profiles = {}
        response = MapResponse(
            Node=netmap.self_node(snapshot, viewer),
            Peers=[self._encoded(snapshot, viewer, peer) for peer in peers],
            DERPMap=netmap.derp_map(snapshot, self._cap_version),
            DNSConfig=netmap.dns_config(snapshot),
            Domain=snapshot.settings.display_name or snapshot.settings.domain,
            CollectServices=False,
            PacketFilters=dict(chunks_of(netmap.filter_rules(snapshot, viewer), self._cache)),
            UserProfiles=self._new_profiles(snapshot, [viewer, *peers]),
            SSHPolicy=netmap.ssh_policy(snapshot, viewer),
            ControlTime=now,
            Debug=Debug(DisableLogTail=True),
            **self._told({"*": None}, netmap.messages(snapshot, viewer)),
        )
        self._seen = snapshot
        return encode(response)

    def next(self, snapshot: Snapshot, changed: Collection[int] | None) -> bytes | None:
        """The difference to what the client knows, as JSON; None when it would be empty.

        Args:
            snapshot: the present one; the viewer must still be in it.
            changed: the nodes that may differ from what the client knows; None when anything may, as after a change
                of policy, users or settings.
        """
        before = self._seen
        if before is None:
            raise RuntimeError("first() comes before next()")
        if before is snapshot:
            return None
        viewer, previous = snapshot.nodes[self.node_id], before.nodes[self.node_id]
        if changed is not None and viewer is previous and _looks_alike(before, snapshot, viewer, changed):
            circle = snapshot.policy.circle(viewer.id)
            self._seen = snapshot
            return self._cache.once(
                (id(before), id(snapshot), id(circle), frozenset(changed)),
                (before, snapshot, circle),
                lambda: self._peer_changes(before, previous, snapshot, viewer, changed).message(),
            )
        fields: dict[str, Any] = {}
        fields |= self._self_changes(before, previous, snapshot, viewer)
        peers = self._peer_changes(before, previous, snapshot, viewer, changed)
        if changed is None:
            fields |= self._wide_changes(before, snapshot)
        self._seen = snapshot
        if fields:
            return encode(MapResponse(**fields, **peers.fields()))
        # Viewers that see the same of the same changes get the same bytes.
        return self._cache.once(peers.key(), peers, peers.encoded) if any(peers) else None

    def farewell(self, now: datetime) -> bytes:
        """What a client is told whose node is gone, as JSON: it has nobody, and its key has ended, so that it asks for a login."""
        before = self._seen
        if before is None:
            raise RuntimeError("first() comes before farewell()")
        viewer = before.nodes[self.node_id]
        ended = msgspec.structs.replace(viewer, key_expiry=now)
        return encode(
            MapResponse(
                Node=netmap.self_node(before, ended),
                PeersRemoved=sorted(netmap.peer_ids(before, viewer)),
                PacketFilters={"*": None, "base": []},
                SSHPolicy=SSHPolicy(rules=[]),
                ControlTime=now,
            )
        )

    def skip_to(self, snapshot: Snapshot) -> bool:
        """Hold a newer snapshot, when no node that changed between the two is or was one that the viewer sees.

        False, and nothing is done, when more than nodes changed: then ``next`` has to compare the two.
        """
        before = self._seen
        if before is None or before is snapshot:
            return True
        if not _same_rules(before, snapshot, self.node_id):
            return False
        self._seen = snapshot
        return True

    def _encoded(self, snapshot: Snapshot, viewer: Node, peer: Node) -> msgspec.Raw:
        return self._cache.get(snapshot, peer, netmap.view_of(snapshot, viewer, peer))

    def _told(self, cleared: dict[str, None], due: dict[str, DisplayMessage]) -> dict[str, Any]:
        """Messages in the form that this client knows."""
        if self._cap_version >= CAPVER_DISPLAY_MESSAGES:
            return {"DisplayMessages": {**cleared, **due}}
        return {"Health": [f"{message.Title}. {message.Text}" for message in due.values()]}

    def _new_profiles(self, snapshot: Snapshot, nodes: Iterable[Node]) -> list[UserProfile]:
        """The owners' profiles that this client does not have yet: they must not come after the node."""
        fresh: list[UserProfile] = []
        for node in nodes:
            profile = self._cache.profile(snapshot, node)
            known = self._profiles.get(profile.ID)
            if known is not profile and known != profile:
                self._profiles[profile.ID] = profile
                fresh.append(profile)
        return fresh

    def _self_changes(
        self, before: Snapshot, previous: Node, snapshot: Snapshot, viewer: Node
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if viewer is previous and _same_rules(before, snapshot, viewer.id):
            return fields  # nothing of what follows depends on anything else
        if (
            viewer is not previous
            or before.settings is not snapshot.settings
            or before.users is not snapshot.users
            or before.primary is not snapshot.primary
            or before.policy.node_attributes(viewer.id) != snapshot.policy.node_attributes(viewer.id)
        ):
            node = netmap.self_node(snapshot, viewer)
            if node != netmap.self_node(before, previous):
                fields["Node"] = node
            told, due = netmap.messages(before, previous), netmap.messages(snapshot, viewer)
            if told != due:
                fields |= self._told(dict.fromkeys(told, None), due)
        rules, known = netmap.filter_rules(snapshot, viewer), netmap.filter_rules(before, previous)
        if rules != known:
            fields["PacketFilters"] = difference(chunks_of(known, self._cache), chunks_of(rules, self._cache))
        ssh = netmap.ssh_policy(snapshot, viewer)
        if ssh != netmap.ssh_policy(before, previous):
            fields["SSHPolicy"] = ssh
        if before.doors != snapshot.doors:
            fields["DNSConfig"] = netmap.dns_config(snapshot)
        return fields

    def _wide_changes(self, before: Snapshot, snapshot: Snapshot) -> dict[str, Any]:
        """What only a change of settings, or of the policy's relays, can alter."""
        fields: dict[str, Any] = {}
        if before.settings == snapshot.settings and before.document.relays == snapshot.document.relays:
            return fields
        if (dns := netmap.dns_config(snapshot)) != netmap.dns_config(before):
            fields["DNSConfig"] = dns
        if (relays := netmap.derp_map(snapshot, self._cap_version)) != netmap.derp_map(
            before, self._cap_version
        ):
            fields["DERPMap"] = relays
        return fields

    def _peer_changes(
        self,
        before: Snapshot,
        previous: Node,
        snapshot: Snapshot,
        viewer: Node,
        changed: Iterable[int] | None,
    ) -> "_PeerChanges":
        users_changed = changed is None and before.users is not snapshot.users
        if _is_another(before, snapshot, viewer.id):
            changed = None  # whom it sees, and how, may be all different although none of them changed
        if changed is None:
            changed = _may_differ(before, previous, snapshot, viewer)
        whole: list[Node] = []
        removed: list[int] = []
        patches: list[PeerChange] = []
        unseen: list[int] = []
        owners: list[Node] = [viewer]
        for node_id in sorted(changed):
            was = _seen(before, previous, node_id)
            new = _seen(snapshot, viewer, node_id)
            if new is None:
                if was is not None:
                    removed.append(node_id)
                continue
            owners.append(new)
            if was is None:
                whole.append(new)
                continue
            if was.observed.last_seen and new.observed.online:
                unseen.append(node_id)  # neither a patch nor a whole node takes LastSeen away
            patch = self._patch(before, previous, was, snapshot, viewer, new)
            if patch is None:
                whole.append(new)
            elif patch is not _SAME:
                patches.append(patch)
        if users_changed:
            owners += (snapshot.nodes[peer_id] for peer_id in netmap.peer_ids(snapshot, viewer))
        return _PeerChanges(
            tuple(self._encoded(snapshot, viewer, node) for node in whole),
            tuple(removed),
            tuple(patches),
            tuple(unseen),
            tuple(self._new_profiles(snapshot, owners)),
        )

    def _patch(
        self, before: Snapshot, previous: Node, was: Node, snapshot: Snapshot, viewer: Node, peer: Node
    ) -> PeerChange | None:
        """The patch that turns one form of a peer into the other; ``_SAME`` if they are equal, None if none can."""
        old_view = netmap.view_of(before, previous, was)
        view = netmap.view_of(snapshot, viewer, peer)
        domains = (before.settings.domain, snapshot.settings.domain)
        if was is peer and old_view == view and domains[0] == domains[1]:
            return _SAME
        return self._cache.once(
            (id(was), id(peer), old_view, view, domains),
            (was, peer),
            lambda: _difference(netmap.peer(before, was, old_view), netmap.peer(snapshot, peer, view)),
        )


class _PeerChanges(NamedTuple):
    """The part of a difference that is about peers; the parts are objects that the cache hands to every viewer."""

    whole: tuple[msgspec.Raw, ...]
    removed: tuple[int, ...]
    patches: tuple[PeerChange, ...]
    unseen: tuple[int, ...]
    profiles: tuple[UserProfile, ...]

    def key(self) -> Hashable:
        """Equal for equal differences."""
        return (
            tuple(map(id, self.whole)),
            self.removed,
            tuple(map(id, self.patches)),
            self.unseen,
            tuple(map(id, self.profiles)),
        )

    def fields(self) -> dict[str, Any]:
        """Those of the MapResponse that have something to say."""
        fields: dict[str, Any] = {}
        if self.whole:
            fields["PeersChanged"] = list(self.whole)
        if self.removed:
            fields["PeersRemoved"] = list(self.removed)
        if self.patches:
            fields["PeersChangedPatch"] = list(self.patches)
        if self.unseen:
            fields["PeerSeenChange"] = dict.fromkeys(self.unseen, False)
        if self.profiles:
            fields["UserProfiles"] = list(self.profiles)
            # Said once more, because it makes the client build its netmap anew: what it shows of users it takes from
            # there, and a profile that comes by itself would stay a number in `tailscale status` until the next time.
            fields["CollectServices"] = False
        return fields

    def encoded(self) -> bytes:
        """As a whole message."""
        return encode(MapResponse(**self.fields()))

    def message(self) -> bytes | None:
        """The same, or None where it would say nothing."""
        return self.encoded() if any(self) else None


def _is_another(before: Snapshot, snapshot: Snapshot, node_id: int) -> bool:
    """True when the policy sees another node than before: other tags, another owner, other postures that it meets."""
    old, new = before.policy.roster.members.get(node_id), snapshot.policy.roster.members.get(node_id)
    return (old is not new and old != new) or (
        before.policy.ipv6_only(node_id) != snapshot.policy.ipv6_only(node_id)
    )


def _same_rules(before: Snapshot, snapshot: Snapshot, viewer_id: int) -> bool:
    """True when nothing differs but nodes, and checks of ssh to others."""
    return (
        before.policy is snapshot.policy
        and before.settings is snapshot.settings
        and before.users is snapshot.users
        and before.primary is snapshot.primary
        and before.doors == snapshot.doors
        and (
            before.checks is snapshot.checks
            or (
                before.checks.until == snapshot.checks.until
                and before.checks.of_target(viewer_id) == snapshot.checks.of_target(viewer_id)
            )
        )
    )


def _looks_alike(before: Snapshot, snapshot: Snapshot, viewer: Node, changed: Collection[int]) -> bool:
    """True when all who see the same nodes as this viewer are told the same of these changes.

    Under the very same policy and users nobody came or went and nobody changed hands, so each client has all profiles. What
    is left that differs between viewers are the routes through a peer, and what some policies let one see of another.
    """
    return (
        _same_rules(before, snapshot, viewer.id)
        and not viewer.system
        and not snapshot.policy.changes_looks
        and (before.carriers | snapshot.carriers).isdisjoint(changed)
        and viewer.id not in changed
    )


_SAME = PeerChange(NodeID=0)


def _may_differ(before: Snapshot, previous: Node, snapshot: Snapshot, viewer: Node) -> frozenset[int]:
    """The peers that a change of policy, users or settings may have altered for this viewer."""
    old, new = netmap.peer_ids(before, previous), netmap.peer_ids(snapshot, viewer)
    if before.nodes is not snapshot.nodes or before.settings.domain != snapshot.settings.domain:
        return old | new
    if before.policy.changes_looks or snapshot.policy.changes_looks:
        return old | new
    # The nodes are as they were. Who stays visible can differ in nothing but the routes through it.
    return (old ^ new) | (snapshot.carriers & new)


def _seen(snapshot: Snapshot, viewer: Node, node_id: int) -> Node | None:
    """The node, if the viewer sees it."""
    node = snapshot.nodes.get(node_id)
    return node if node is not None and netmap.sees(snapshot, viewer, node) else None


def _difference(old: WireNode, new: WireNode) -> PeerChange | None:
    """The patch between two forms of a node, as ``MapSession`` sends it."""
    if old == new:
        return _SAME
    if _rest(old) != _rest(new):
        return None
    changes: dict[str, Any] = {}
    for field, patched in _PATCHED.items():
        value = getattr(new, field)
        if value == getattr(old, field):
            continue
        if value is msgspec.UNSET:
            if field == "LastSeen":
                continue
            return None  # a patch cannot take a value away
        changes[patched] = value
    return PeerChange(NodeID=new.ID, **changes)


def _rest(node: WireNode) -> WireNode:
    """The node without what a patch can carry."""
    return msgspec.structs.replace(node, **_NEUTRAL)
