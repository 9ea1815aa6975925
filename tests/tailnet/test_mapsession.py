"""What a client knows after any number of differences is what a full map would have told it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.policy import make_node, make_user

from doorward.model import Attribute, Cut, Node, Observed, Role
from doorward.policy import parse_policy
from doorward.protocol.keys import DiscoPublic, NodePublic
from doorward.protocol.netmapstate import NetmapState
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet.mapsession import MapSession
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.settings import DNS, Settings
from doorward.tailnet.snapshot import Snapshot

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SETTINGS = Settings(
    domain="tailnet.test",
    url="http://127.0.0.1:8080",
    door_host="door.tailnet.test",
    door_ports=(8443,),
    derp_map=DERPMap(
        Regions={
            900: DERPRegion(
                RegionID=900,
                RegionCode="home",
                RegionName="home",
                Nodes=[
                    DERPNode(
                        Name="900a", RegionID=900, HostName="127.0.0.1", CertName="sha256-raw:" + "0" * 64
                    )
                ],
            )
        }
    ),
)
POLICIES = [
    '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}',
    '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}',
    """{"groups": {"group:dev": ["ann"]}, "tagOwners": {"tag:web": ["ann"]},
        "grants": [{"src": ["group:dev"], "dst": ["tag:web"], "ip": ["tcp:22", "443"]},
                   {"src": ["tag:web"], "dst": ["10.0.0.0/8"], "ip": ["*"]},
                   {"src": ["bob"], "dst": ["autogroup:internet"], "ip": ["*"]}],
        "ssh": [{"action": "accept", "src": ["group:dev"], "dst": ["tag:web"], "users": ["root"]}]}""",
    '{"grants": []}',
    """{"tagOwners": {"tag:web": [], "tag:r": []},
        "postures": {"posture:mac": ["node:os == 'macos'"], "posture:ok": ["custom:ok == true"]},
        "grants": [{"src": ["autogroup:member"], "dst": ["tag:web"], "ip": ["*"], "srcPosture": ["posture:mac"]},
                   {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"], "srcPosture": ["posture:ok"]},
                   {"src": ["ann"], "dst": ["tag:r", "tag:web"], "ip": ["22"]},
                   {"src": ["ann"], "dst": ["10.0.0.0/24"], "ip": ["*"], "via": ["tag:r"]},
                   {"src": ["bob"], "dst": ["10.0.0.0/24"], "ip": ["*"], "via": ["tag:web"]}],
        "nodeAttrs": [{"target": ["tag:web"], "attr": ["disable-ipv4", "dns-subdomain-resolve"]},
                      {"target": ["*"], "attr": ["suggest-exit-node"], "app": {"a.com/b": [1]}}],
        "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"],
                 "srcPosture": ["posture:ok"], "recorder": ["tag:r"], "doorward:message": "hello"}]}""",
    """{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "disableIPv4": true, "OneCGNATRoute": "mac-always",
        "derpMap": {"Regions": {"901": {"Nodes": [{"HostName": "r.example.com"}]}}}}""",
]
ROUTES = ["10.0.0.0/24", "192.168.7.0/24", "0.0.0.0/0", "::/0"]


def world(policy: str = POLICIES[1]) -> Snapshot:
    users = [make_user(1, "ann"), make_user(2, "bob")]
    return Snapshot.build(SETTINGS, users, [], parse_policy(policy), policy)


@dataclass
class Viewer:
    """A session and the client that listens to it."""

    session: MapSession
    cache: PeerCache
    client: NetmapState = field(default_factory=NetmapState)
    changed: set[int] | None = field(default_factory=set)

    def start(self, snapshot: Snapshot) -> None:
        self.client.receive(self.session.first(snapshot, NOW), now=NOW)

    def catch_up(self, snapshot: Snapshot) -> bytes | None:
        message = self.session.next(snapshot, None if self.changed is None else frozenset(self.changed))
        self.changed = set()
        if message is not None:
            self.client.receive(message, now=NOW)
        return message

    def knows_all(self, snapshot: Snapshot) -> None:
        fresh = NetmapState()
        fresh.receive(MapSession(self.session.node_id, 142, PeerCache()).first(snapshot, NOW), now=NOW)
        assert self.client.netmap() == fresh.netmap()


def viewer_of(
    node_id: int, snapshot: Snapshot, *, cap_version: int = 142, cache: PeerCache | None = None
) -> Viewer:
    cache = cache or PeerCache()
    viewer = Viewer(MapSession(node_id, cap_version, cache), cache)
    viewer.start(snapshot)
    return viewer


def observed(node: Node, **changes: Any) -> Node:
    return msgspec.structs.replace(node, observed=msgspec.structs.replace(node.observed, **changes))


NODE = st.integers(1, 6)
ANY_NODE = st.sampled_from([1, 2, 3, 4, 5, 6, 91, 93])  # those that listen, too
CHANGE = st.one_of(
    st.tuples(st.just("add"), NODE, st.sampled_from([1, 2]), st.sampled_from([(), ("tag:web",), ("tag:r",)])),
    st.tuples(st.just("remove"), NODE),
    st.tuples(st.just("says"), ANY_NODE, st.sampled_from([True, False, None])),
    st.tuples(st.just("os"), ANY_NODE, st.sampled_from(["macOS", "linux"])),
    st.tuples(st.just("rename"), NODE, st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("tags"), ANY_NODE, st.sampled_from([(), ("tag:web",), ("tag:r",)])),
    st.tuples(st.just("online"), NODE, st.booleans()),
    st.tuples(
        st.just("endpoints"),
        NODE,
        st.sampled_from([(), ("192.0.2.1:1",), ("192.0.2.1:1", "[2001:db8::1]:9")]),
    ),
    st.tuples(st.just("disco"), NODE, st.integers(1, 9)),
    st.tuples(st.just("home"), NODE, st.sampled_from([900, 901])),
    st.tuples(st.just("key"), NODE, st.integers(100, 200)),
    st.tuples(st.just("expiry"), NODE, st.sampled_from([None, NOW, NOW + timedelta(days=1)])),
    st.tuples(
        st.just("routes"), ANY_NODE, st.lists(st.sampled_from(ROUTES), unique=True, max_size=3), st.booleans()
    ),
    st.tuples(st.just("keys"), NODE, st.sampled_from([None, ["ssh-ed25519 AAAA"]])),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
    st.tuples(
        st.just("user"),
        st.sampled_from([1, 2]),
        st.sampled_from(["", "x"]),
        st.sampled_from(Role),
        st.booleans(),
    ),
    st.tuples(st.just("shut"), ANY_NODE, st.booleans(), st.booleans()),
    st.tuples(st.just("cut"), ANY_NODE, ANY_NODE, st.booleans()),
    st.tuples(
        st.just("dns"), st.sampled_from([DNS(), DNS(magic_dns=False), DNS(nameservers=("192.0.2.53",))])
    ),
)


def apply(snapshot: Snapshot, change: tuple[Any, ...], step: int) -> tuple[Snapshot, frozenset[int] | None]:
    """One change; returns the snapshot after it and the nodes touched."""
    kind, *rest = change
    if kind == "policy":
        return snapshot.with_policy(parse_policy(rest[0]), rest[0]), None
    if kind == "dns":
        return snapshot.with_settings(msgspec.structs.replace(snapshot.settings, dns=rest[0])), None
    if kind == "user":
        name, role, suspended = rest[1:]
        users = dict(snapshot.users)
        users[rest[0]] = msgspec.structs.replace(
            users[rest[0]], display_name=name, role=role, suspended=suspended
        )
        return snapshot.with_users(users[number] for number in sorted(users)), None
    if kind == "cut":
        return parted(snapshot, *rest)
    node_id = rest[0]
    known = snapshot.nodes.get(node_id)
    if kind == "add":
        if known is not None:
            return snapshot, frozenset()
        node = make_node(node_id, user=rest[1], tags=rest[2])
        node = observed(node, cap_version=142, disco_key=DiscoPublic(bytes([node_id]) * 32), home_derp=900)
        return tuple(snapshot.with_nodes([node]))  # type: ignore[return-value]
    if known is None:
        return snapshot, frozenset()
    if kind == "remove":
        return tuple(snapshot.with_nodes([], [node_id]))  # type: ignore[return-value]
    return tuple(snapshot.with_nodes([altered(snapshot, known, kind, rest[1:], step)]))  # type: ignore[return-value]


def parted(snapshot: Snapshot, one: int, other: int, made: bool) -> tuple[Snapshot, frozenset[int]]:
    """A cut is made, or lifted."""
    first, second = min(one, other), max(one, other)
    number = 100 * first + second
    cut = Cut(id=number, first=first, second=second, created=NOW, created_by="cli")
    if first == second:
        return snapshot, frozenset()
    return tuple(snapshot.with_cuts([cut] if made else (), () if made else [number]))  # type: ignore[return-value]


def altered(snapshot: Snapshot, node: Node, kind: str, rest: list[Any], step: int) -> Node:
    replace = msgspec.structs.replace
    match kind:
        case "rename":
            name = f"{rest[0]}-{node.id}"
            return replace(node, name=name)
        case "tags":
            return replace(node, tags=rest[0])
        case "online":
            seen = None if rest[0] else NOW + timedelta(seconds=step)
            return observed(node, online=rest[0], last_seen=seen)
        case "endpoints":
            return observed(node, endpoints=rest[0])
        case "disco":
            return observed(node, disco_key=DiscoPublic(bytes([rest[0]]) * 32))
        case "home":
            return observed(node, home_derp=rest[0])
        case "key":
            return replace(node, node_key=NodePublic(bytes([rest[0], node.id]) * 16))
        case "expiry":
            return replace(node, key_expiry=rest[0])
        case "routes":
            hostinfo = replace(node.observed.hostinfo, RoutableIPs=rest[0])
            approved = tuple(sorted((ip_network(route) for route in rest[0]), key=str)) if rest[1] else ()
            return replace(observed(node, hostinfo=hostinfo), approved_routes=approved)
        case "shut":
            return replace(node, suspended=rest[0], approved=rest[1])
        case "says":
            said = () if rest[0] is None else (Attribute(key="custom:ok", value=rest[0]),)
            return replace(node, attributes=said)
        case "os":
            return observed(node, hostinfo=replace(node.observed.hostinfo, OS=rest[0]))
        case "keys":
            return observed(node, hostinfo=replace(node.observed.hostinfo, sshHostKeys=rest[0]))
    raise AssertionError(kind)


LOOKERS = st.frozensets(st.integers(0, 3), max_size=4)


@given(changes=st.lists(st.tuples(CHANGE, LOOKERS), max_size=40), policy=st.sampled_from(POLICIES))
@settings(max_examples=150, deadline=None)
def test_differences_add_up_to_the_full_map(
    changes: list[tuple[tuple[Any, ...], frozenset[int]]], policy: str
) -> None:
    snapshot = world(policy)
    system = make_node(90, system=True)
    first = [
        make_node(91, user=1),
        make_node(92, user=2),
        make_node(93, tags=("tag:web",), advertised=ROUTES),
        make_node(94, user=1),
    ]
    snapshot, _ = snapshot.with_nodes([system, *first])
    shared = PeerCache()
    viewers = [viewer_of(node_id, snapshot, cache=shared) for node_id in (90, 91, 93, 94)]
    for step, (change, lookers) in enumerate(changes):
        snapshot, touched = apply(snapshot, change, step)
        for viewer in viewers:
            if touched is None:
                viewer.changed = None
            elif viewer.changed is not None:
                viewer.changed |= touched
        for looker in lookers:
            viewers[looker].catch_up(snapshot)
            viewers[looker].knows_all(snapshot)
    for viewer in viewers:
        viewer.catch_up(snapshot)
        viewer.knows_all(snapshot)


def test_who_see_the_same_are_told_with_one_message() -> None:
    snapshot, _ = world(POLICIES[0]).with_nodes([make_node(n, user=1 + (n > 4)) for n in range(1, 7)])
    cache = PeerCache()
    viewers = {n: viewer_of(n, snapshot, cache=cache) for n in range(1, 7)}
    moved, touched = snapshot.with_nodes([observed(snapshot.nodes[4], endpoints=("192.0.2.1:1",))])
    said: dict[int, bytes | None] = {}
    for number, viewer in viewers.items():
        viewer.changed = set(touched)
        said[number] = viewer.catch_up(moved)
        viewer.knows_all(moved)
    assert said[1] == b'{"PeersChangedPatch":[{"NodeID":4,"Endpoints":["192.0.2.1:1"]}]}'
    assert said[2] is said[1] is said[3]
    assert b'"Node":{' in (said[4] or b"")  # of itself it is told otherwise
    assert (said[5], said[6]) == (None, None)


def test_who_may_use_another_route_of_a_peer_is_told_so() -> None:
    """The rule that is shared with those who see the same does not reach as far as routes."""
    policy = """{"grants": [{"src": ["*"], "dst": ["tag:r"], "ip": ["*"]},
                            {"src": ["ann"], "dst": ["10.0.0.0/24"], "ip": ["*"]}], "tagOwners": {"tag:r": []}}"""
    router = make_node(3, tags=("tag:r",), advertised=ROUTES[:1], approved=ROUTES[:1])
    snapshot, _ = world(policy).with_nodes([make_node(1, user=1), make_node(2, user=2), router])
    cache = PeerCache()
    viewers = [viewer_of(n, snapshot, cache=cache) for n in (1, 2)]
    for online in (False, True):
        snapshot, touched = snapshot.with_nodes(
            [observed(snapshot.nodes[3], online=online, endpoints=("192.0.2.1:1",))]
        )
        for viewer in viewers:
            viewer.changed = set(touched)
            viewer.catch_up(snapshot)
            viewer.knows_all(snapshot)
    routes = [
        next(peer for peer in viewer.client.netmap().peers if peer.ID == 3).AllowedIPs for viewer in viewers
    ]
    assert routes[0] != routes[1]


def test_a_cut_tells_the_two_and_nobody_else_anything() -> None:
    snapshot, _ = world(POLICIES[0]).with_nodes([make_node(n, user=1) for n in range(1, 5)])
    viewers = [viewer_of(n, snapshot) for n in (1, 2, 3)]
    after, touched = parted(snapshot, 2, 1, True)
    assert touched == {1, 2}
    said = []
    for viewer in viewers:
        viewer.changed = set(touched)
        said.append(viewer.catch_up(after))
        viewer.knows_all(after)
    assert said == [b'{"PeersRemoved":[2]}', b'{"PeersRemoved":[1]}', None]


def test_who_waits_for_an_administrator_is_told_so_and_has_nobody() -> None:
    waits = msgspec.structs.replace(make_node(1, user=1), approved=False)
    snapshot, _ = world().with_nodes([waits, make_node(2, user=1)])
    viewer = viewer_of(1, snapshot)
    shown = viewer.client.netmap()
    assert (shown.node.MachineAuthorized, list(shown.peers)) == (False, [])
    after, message = follow(snapshot, viewer, make_node(1, user=1))
    assert b'"MachineAuthorized":true' in (message or b"")
    assert [peer.ID for peer in viewer.client.netmap().peers] == [2]
    viewer.knows_all(after)


def test_who_is_deleted_has_nobody_and_needs_a_login() -> None:
    _, viewer = pair()
    assert viewer.client.netmap().packet_filter
    message = viewer.session.farewell(NOW)
    viewer.client.receive(message, now=NOW)
    left = viewer.client.netmap()
    assert (left.node.KeyExpiry, left.peers, left.packet_filter) == (NOW, (), ())
    assert left.ssh_policy is not None
    assert left.ssh_policy.rules == []
    with pytest.raises(RuntimeError, match="first"):
        MapSession(1, 142, PeerCache()).farewell(NOW)


def test_a_peer_that_comes_back_is_no_longer_last_seen() -> None:
    snapshot, viewer = pair()
    gone = observed(snapshot.nodes[2], online=False, last_seen=NOW)
    snapshot, _ = follow(snapshot, viewer, gone)
    snapshot, message = follow(snapshot, viewer, observed(gone, online=True, last_seen=None))
    assert fields_of(message) == {"PeersChangedPatch", "PeerSeenChange"}
    viewer.knows_all(snapshot)


def test_a_disco_key_made_while_away_is_known_after_the_return() -> None:
    """Clients ignore a new disco key of an offline peer, so it is said again when the peer is back."""
    snapshot, viewer = pair()
    gone = observed(snapshot.nodes[2], online=False, last_seen=NOW, disco_key=DiscoPublic(b"1" * 32))
    snapshot, _ = follow(snapshot, viewer, gone)
    restarted = observed(gone, disco_key=DiscoPublic(b"2" * 32))
    snapshot, _ = follow(snapshot, viewer, restarted)
    snapshot, _ = follow(snapshot, viewer, observed(restarted, online=True, last_seen=None))
    viewer.knows_all(snapshot)


def fields_of(message: bytes | None) -> set[str]:
    return set() if message is None else set(msgspec.json.decode(message))


def pair() -> tuple[Snapshot, Viewer]:
    nodes = [make_node(1, user=1), observed(make_node(2, user=1), online=True)]
    snapshot, _ = world().with_nodes(nodes)
    return snapshot, viewer_of(1, snapshot)


def follow(snapshot: Snapshot, viewer: Viewer, node: Node) -> tuple[Snapshot, bytes | None]:
    after, touched = snapshot.with_nodes([node])
    viewer.changed = set(touched)
    return after, viewer.catch_up(after)


@pytest.mark.parametrize(
    ("changes", "patch"),
    [
        ({"endpoints": ("192.0.2.7:41641",)}, {"Endpoints": ["192.0.2.7:41641"]}),
        ({"endpoints": ()}, None),
        ({"home_derp": 901}, {"DERPRegion": 901}),
        ({"online": False, "last_seen": NOW}, {"Online": False, "LastSeen": "2026-06-01T00:00:00Z"}),
    ],
)
def test_an_observation_travels_as_a_patch(changes: dict[str, Any], patch: dict[str, Any] | None) -> None:
    snapshot, viewer = pair()
    _, message = follow(snapshot, viewer, observed(snapshot.nodes[2], **changes))
    if patch is None:
        assert message is None
    else:
        assert message is not None
        assert msgspec.json.decode(message) == {"PeersChangedPatch": [{"NodeID": 2, **patch}]}


def test_a_name_travels_as_the_whole_peer() -> None:
    snapshot, viewer = pair()
    _, message = follow(snapshot, viewer, msgspec.structs.replace(snapshot.nodes[2], name="other"))
    assert fields_of(message) == {"PeersChanged"}


def test_a_new_peer_brings_its_owner() -> None:
    snapshot, viewer = pair()
    _, message = follow(snapshot, viewer, make_node(3, user=2))
    # The last makes stock clients build their netmap anew, without which they show the owner as a number.
    assert fields_of(message) == {"PeersChanged", "UserProfiles", "CollectServices"}


def test_what_nobody_sees_is_not_told() -> None:
    text = POLICIES[0]
    snapshot, _ = world(text).with_nodes([make_node(1, user=1)])
    viewer = viewer_of(1, snapshot)
    _, message = follow(snapshot, viewer, make_node(3, user=2))
    assert message is None


def test_an_older_client_gets_health_and_no_pin() -> None:
    advertising = make_node(1, user=1, advertised=["10.0.0.0/24"])
    snapshot, _ = world().with_nodes([observed(advertising, cap_version=113)])
    viewer = viewer_of(1, snapshot, cap_version=113)
    netmap = viewer.client.netmap()
    assert netmap.derp_map is not None
    assert netmap.derp_map.Regions[900].Nodes[0].CertName == ""
    assert len(netmap.health) == 2
    assert netmap.display_messages == {}


def test_the_first_message_says_everything_even_where_there_is_nothing() -> None:
    snapshot, _ = world('{"grants": []}').with_nodes([make_node(1, user=1)])
    viewer = viewer_of(1, snapshot)
    message = msgspec.json.decode(viewer.session.first(snapshot, NOW))
    assert message["SSHPolicy"] == {"rules": []}
    assert message["PacketFilters"] == {"base": []}
    assert message["Node"]["MachineAuthorized"] is True


def test_next_needs_a_first() -> None:
    snapshot, _ = world().with_nodes([make_node(1, user=1)])
    with pytest.raises(RuntimeError, match="first"):
        MapSession(1, 142, PeerCache()).next(snapshot, None)


def test_hostinfo_reaches_peers_only_in_part() -> None:
    secretive = observed(
        make_node(2, user=1), hostinfo=Hostinfo(Hostname="h", BackendLogID="private", OS="linux")
    )
    snapshot, _ = world().with_nodes([make_node(1, user=1), secretive])
    peer = viewer_of(1, snapshot).client.netmap().peer(2)
    assert peer is not None
    assert isinstance(peer.Hostinfo, Hostinfo)
    assert (peer.Hostinfo.OS, peer.Hostinfo.BackendLogID) == ("linux", "")


def test_observed_is_whole() -> None:
    """Every observation is either shown to peers or known to be private: a new field must be decided on."""
    shown = {
        "disco_key",
        "hostinfo",
        "endpoints",
        "home_derp",
        "cap_version",
        "online",
        "last_seen",
        "held_by",
        "came_from",
    }
    assert {info.name for info in msgspec.structs.fields(Observed)} == shown
