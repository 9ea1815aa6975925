"""What each node is told of the others and of itself (control.md, sections 13 to 19)."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from typing import Any

import msgspec
import pytest
from tests.support.policy import arrows, make_node, make_user

from doorward.model import DOORWARD_USER_ID, TAGGED_DEVICES_USER_ID, Node, Role
from doorward.policy import parse_policy
from doorward.protocol.keys import DiscoPublic
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.protocol.tailcfg.hostinfo import Hostinfo, Service
from doorward.tailnet import netmap
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.settings import DNS, Settings
from doorward.tailnet.snapshot import Snapshot

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PIN = "sha256-raw:" + "0" * 64
SETTINGS = Settings(
    domain="tailnet.test",
    url="http://127.0.0.1:8080",
    display_name="Home",
    door_host="door.tailnet.test",
    door_ports=(443, 8443),
    derp_map=DERPMap(
        Regions={
            900: DERPRegion(
                RegionID=900,
                RegionCode="home",
                RegionName="Home",
                Nodes=[
                    DERPNode(Name="a", RegionID=900, HostName="192.0.2.1", CertName=PIN),
                    DERPNode(Name="b", RegionID=900, HostName="b.example", CertName="b.example"),
                ],
            )
        }
    ),
)
USERS = [
    make_user(1, "ann", role=Role.OWNER),
    make_user(2, "bob", role=Role.ADMIN),
    make_user(3, "eve", role=Role.NETWORK_ADMIN),
]
OWN = '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}'
NOTHING = '{"grants": []}'
ROUTED = """{"hosts": {"lab": "10.1.0.0/24"}, "grants": [
    {"src": ["ann"], "dst": ["lab"], "ip": ["*"]},
    {"src": ["bob"], "dst": ["autogroup:internet"], "ip": ["*"]},
    {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}"""
ROUTES = ("10.1.0.0/24", "10.2.0.0/24", "0.0.0.0/0", "::/0")


def snapshot_of(*nodes: Node, policy: str = OWN, settings: Settings = SETTINGS) -> Snapshot:
    return Snapshot.build(settings, USERS, nodes, parse_policy(policy), policy)


def seen(node: Node, **changes: Any) -> Node:
    return msgspec.structs.replace(node, observed=msgspec.structs.replace(node.observed, **changes))


def as_json(value: Any) -> Any:
    return msgspec.json.decode(encode(value))


# Nodes


def test_a_whole_peer() -> None:
    node = seen(
        msgspec.structs.replace(make_node(7, user=1), name="laptop", key_expiry=NOW + timedelta(days=1)),
        disco_key=DiscoPublic(b"\x05" * 32),
        endpoints=("192.0.2.1:41641", "[2001:db8::1]:41641"),
        home_derp=900,
        cap_version=142,
        online=True,
        hostinfo=Hostinfo(OS="linux", Hostname="Laptop", Services=[Service(Proto="peerapi4", Port=1234)]),
    )
    assert as_json(netmap.peer(snapshot_of(node), node, netmap.View())) == {
        "ID": 7,
        "StableID": "n7",
        "Name": "laptop.tailnet.test.",
        "User": 1,
        "Key": "nodekey:" + "0" * 63 + "7",
        "KeyExpiry": "2026-06-02T00:00:00Z",
        "Machine": "mkey:" + "0" * 63 + "7",
        "DiscoKey": "discokey:" + "05" * 32,
        "Addresses": ["100.64.0.7/32", "fd7a:115c:a1e0::7/128"],
        "Endpoints": ["192.0.2.1:41641", "[2001:db8::1]:41641"],
        "HomeDERP": 900,
        "Hostinfo": {
            "OS": "linux",
            "Hostname": "Laptop",
            "Services": [{"Proto": "peerapi4", "Port": 1234}],
        },
        "Created": "2026-01-01T00:00:00Z",
        "Cap": 142,
        "Online": True,
        "MachineAuthorized": True,
    }


def test_what_is_not_known_is_not_said() -> None:
    node = make_node(7, user=1)
    told = as_json(netmap.peer(snapshot_of(node), node, netmap.View()))
    assert not {"DiscoKey", "HomeDERP", "KeyExpiry", "LastSeen", "AllowedIPs", "PrimaryRoutes", "Tags"} & set(
        told
    )
    assert told["Online"] is False
    assert told["Endpoints"] == []


def test_last_seen_is_said_only_of_those_who_are_away() -> None:
    away = seen(make_node(7, user=1), last_seen=NOW)
    assert as_json(netmap.peer(snapshot_of(away), away, netmap.View()))["LastSeen"] == "2026-06-01T00:00:00Z"
    here = seen(away, online=True)
    assert "LastSeen" not in as_json(netmap.peer(snapshot_of(here), here, netmap.View()))
    assert "LastSeen" not in as_json(netmap.self_node(snapshot_of(away), away))


def test_a_node_that_asks_is_online_and_authorised() -> None:
    node = make_node(7, user=1)
    told = netmap.self_node(snapshot_of(node), node)
    assert told.Online is True
    assert told.MachineAuthorized


def test_peers_learn_no_more_of_a_host_than_they_need() -> None:
    shown = {
        "IPNVersion", "OS", "Hostname", "ShieldsUp", "AppConnector", "PeerRelay", "Location", "RoutableIPs",
        "Services", "sshHostKeys",
    }  # fmt: skip
    everything: dict[str, Any] = {}
    for info in msgspec.structs.fields(Hostinfo):
        if info.type is str:
            everything[info.name] = "x"
        elif info.type is bool:
            everything[info.name] = True
    node = seen(make_node(7, user=1), hostinfo=Hostinfo(**everything))
    told = as_json(netmap.peer(snapshot_of(node), node, netmap.View()))["Hostinfo"]
    assert set(told) == shown & set(everything)


# Routes


def lab(**changes: Any) -> Snapshot:
    router = seen(make_node(1, user=3, advertised=ROUTES, approved=ROUTES), online=True, **changes)
    return snapshot_of(router, *(make_node(n, user=n - 1) for n in (2, 3, 4)), policy=ROUTED)


def told_of_router(snapshot: Snapshot, viewer: int) -> Any:
    router = snapshot.nodes[1]
    return as_json(netmap.peer(snapshot, router, netmap.view_of(snapshot, snapshot.nodes[viewer], router)))


def test_each_viewer_gets_the_routes_it_may_use() -> None:
    snapshot = lab()
    own = ["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]
    ann = told_of_router(snapshot, 2)
    assert ann["AllowedIPs"] == [*own, "10.1.0.0/24"]
    assert ann["PrimaryRoutes"] == ["10.1.0.0/24"]
    assert ann["Hostinfo"]["RoutableIPs"] == ["10.1.0.0/24"]
    bob = told_of_router(snapshot, 3)
    assert bob["AllowedIPs"] == [*own, "0.0.0.0/0", "::/0"]
    assert "PrimaryRoutes" not in bob
    eve = told_of_router(snapshot, 4)
    assert "AllowedIPs" not in eve
    assert "PrimaryRoutes" not in eve


def test_a_router_knows_all_that_goes_through_it() -> None:
    snapshot = lab()
    told = as_json(netmap.self_node(snapshot, snapshot.nodes[1]))
    assert set(told["AllowedIPs"]) == {"100.64.0.1/32", "fd7a:115c:a1e0::1/128", *ROUTES}
    assert told["PrimaryRoutes"] == ["10.1.0.0/24", "10.2.0.0/24"]


def test_a_standby_router_carries_nothing() -> None:
    snapshot = lab()
    standby = seen(make_node(9, user=3, advertised=ROUTES, approved=ROUTES), online=True)
    snapshot, _ = snapshot.with_nodes([standby])
    told = as_json(netmap.peer(snapshot, standby, netmap.view_of(snapshot, snapshot.nodes[2], standby)))
    assert "AllowedIPs" not in told
    assert netmap.routes_through(snapshot, snapshot.nodes[3], standby) == (
        ip_network("0.0.0.0/0"),
        ip_network("::/0"),
    )
    assert "PrimaryRoutes" not in as_json(netmap.self_node(snapshot, standby))


def test_what_is_not_advertised_any_more_goes_through_nobody() -> None:
    snapshot = lab(hostinfo=Hostinfo(RoutableIPs=["10.2.0.0/24"]))
    assert "AllowedIPs" not in told_of_router(snapshot, 2)
    assert "AllowedIPs" not in told_of_router(snapshot, 3)
    told = as_json(netmap.self_node(snapshot, snapshot.nodes[1]))
    assert told["PrimaryRoutes"] == ["10.2.0.0/24"]


# Doorward's own node


def with_door(policy: str = NOTHING) -> Snapshot:
    system = msgspec.structs.replace(make_node(9, system=True), name="doorward")
    return snapshot_of(
        system, make_node(1, user=1), make_node(2, user=2), make_node(3, tags=["tag:x"]), policy=policy
    )


@pytest.mark.parametrize("policy", [NOTHING, OWN, '{"grants": [{"src":["*"],"dst":["*"],"ip":["*"]}]}'])
def test_only_the_doors_ports_are_open_at_our_own_node(policy: str) -> None:
    snapshot = with_door(policy)
    assert arrows(netmap.filter_rules(snapshot, snapshot.nodes[9])) == [
        (
            "100.64.0.0/10 fd7a:115c:a1e0::/48 -> 100.64.0.9:443 100.64.0.9:8443 "
            "fd7a:115c:a1e0::9:443 fd7a:115c:a1e0::9:8443 [6]"
        )
    ]
    assert netmap.ssh_policy(snapshot, snapshot.nodes[9]).rules == []


def test_without_a_door_nothing_is_open() -> None:
    snapshot = with_door().with_settings(msgspec.structs.replace(SETTINGS, door_ports=()))
    assert netmap.filter_rules(snapshot, snapshot.nodes[9]) == []


def test_everybody_sees_our_own_node_whatever_the_policy_says() -> None:
    snapshot = with_door()
    for node_id in (1, 2, 3):
        node = snapshot.nodes[node_id]
        assert netmap.peer_ids(snapshot, node) == {9}
        assert netmap.sees(snapshot, node, snapshot.nodes[9])
        assert not netmap.sees(snapshot, node, snapshot.nodes[3 if node_id == 1 else 1])
    assert netmap.peer_ids(snapshot, snapshot.nodes[9]) == {1, 2, 3}
    assert not netmap.sees(snapshot, snapshot.nodes[9], snapshot.nodes[9])


def test_our_own_node_lets_nobody_in_at_others() -> None:
    policy = '{"grants": [{"src":["*"],"dst":["*"],"ip":["*"]}]}'
    snapshot = with_door(policy)
    (rule,) = netmap.filter_rules(snapshot, snapshot.nodes[1])
    door = snapshot.nodes[9].ipv4
    for source in rule.SrcIPs:
        assert source != "*"
        first, _, last = source.partition("-")
        if ":" not in source and last:
            assert not IPv4Address(first) <= door <= IPv4Address(last)
        elif ":" not in source:
            assert door not in ip_network(source)


def test_our_own_node_uses_no_routes() -> None:
    router = seen(make_node(1, user=1, advertised=ROUTES, approved=ROUTES), online=True)
    snapshot, _ = with_door('{"grants": [{"src":["*"],"dst":["*"],"ip":["*"]}]}').with_nodes([router])
    assert netmap.routes_through(snapshot, snapshot.nodes[9], router) == ()
    assert netmap.routes_through(snapshot, snapshot.nodes[2], router) != ()


# DNS


def test_names_for_everybody() -> None:
    dns = DNS(
        search=("example.com",),
        nameservers=("192.0.2.53",),
        split={"corp.example": ("10.0.0.53",), "own.example": ()},
        records=(DNSRecord(Name="wiki.example", Type="A", Value="192.0.2.80"),),
    )
    snapshot = with_door().with_settings(msgspec.structs.replace(SETTINGS, dns=dns))
    assert as_json(netmap.dns_config(snapshot)) == {
        "Proxied": True,
        "Domains": ["tailnet.test", "example.com"],
        "Resolvers": [{"Addr": "192.0.2.53"}],
        "Routes": {"corp.example": [{"Addr": "10.0.0.53"}], "own.example": []},
        "ExtraRecords": [
            # Untyped and IPv4 last, as the proxies of clients in user space need it.
            {"Name": "door.tailnet.test", "Value": "fd7a:115c:a1e0::9"},
            {"Name": "wiki.example", "Value": "192.0.2.80"},
            {"Name": "door.tailnet.test", "Value": "100.64.0.9"},
        ],
    }


def test_the_door_has_no_record_while_our_own_node_is_not_there() -> None:
    config = netmap.dns_config(snapshot_of(make_node(1, user=1)))
    assert config.ExtraRecords == []


def test_the_doors_name_as_a_nodes_name() -> None:
    replace = msgspec.structs.replace
    assert SETTINGS.door_label == "door"
    assert replace(SETTINGS, door_host="Door.Tailnet.Test").door_label == "door"
    assert replace(SETTINGS, door_host="door.example.com").door_label == ""
    assert replace(SETTINGS, door_host="a.b.tailnet.test").door_label == ""
    assert replace(SETTINGS, door_host="localhost").door_label == ""
    assert replace(SETTINGS, door_host="").door_label == ""


# Relays


def test_an_older_client_gets_no_pins_and_keeps_real_names() -> None:
    snapshot = snapshot_of()
    assert netmap.derp_map(snapshot, 115) == SETTINGS.derp_map
    told = netmap.derp_map(snapshot, 114)
    assert [node.CertName for node in told.Regions[900].Nodes] == ["", "b.example"]
    assert [node.CertName for node in SETTINGS.derp_map.Regions[900].Nodes] == [PIN, "b.example"]


# People


def test_profiles() -> None:
    nodes = [make_node(1, user=1), make_node(2, user=1, tags=["tag:x"]), make_node(9, system=True)]
    snapshot = snapshot_of(*nodes)
    assert [netmap.profile_of(snapshot, node).LoginName for node in nodes] == [
        "ann",
        "tagged-devices",
        "doorward",
    ]
    users = [netmap.self_node(snapshot, node).User for node in nodes]
    assert users == [1, TAGGED_DEVICES_USER_ID, DOORWARD_USER_ID]
    assert [netmap.profile_of(snapshot, node).ID for node in nodes] == users
    assert netmap.profile(make_user(4, "dan")).DisplayName == "dan"


@pytest.mark.parametrize(
    ("node", "admin", "owner"),
    [
        (make_node(1, user=1), True, True),
        (make_node(1, user=2), True, False),
        (make_node(1, user=3), False, False),
        (make_node(1, user=1, tags=["tag:x"]), False, False),
        (make_node(1, system=True), False, False),
    ],
)
def test_capabilities(node: Node, *, admin: bool, owner: bool) -> None:
    caps = netmap.self_node(snapshot_of(node), node).CapMap
    assert ("https://tailscale.com/cap/is-admin" in caps, "https://tailscale.com/cap/is-owner" in caps) == (
        admin,
        owner,
    )
    assert caps["https://tailscale.com/cap/ssh"] is None
    assert caps["https://tailscale.com/cap/file-sharing"] is None
    assert caps["default-auto-update"] == [False]
    assert caps["tailnet-display-name"] == ["Home"]
    assert "https://tailscale.com/cap/tailnet-lock" not in caps


def test_peers_are_not_told_a_nodes_own_capabilities() -> None:
    node = make_node(1, user=1)
    assert netmap.peer(snapshot_of(node), node, netmap.View()).CapMap == {}


def test_attributes_of_the_policy_are_capabilities() -> None:
    policy = '{"nodeAttrs": [{"target": ["ann"], "attr": ["funnel"]}], "grants": []}'
    nodes = [make_node(1, user=1), make_node(2, user=2)]
    snapshot = snapshot_of(*nodes, policy=policy)
    assert "funnel" in netmap.self_node(snapshot, nodes[0]).CapMap
    assert "funnel" not in netmap.self_node(snapshot, nodes[1]).CapMap


# Messages


def test_routes_that_wait_are_said_with_the_cure() -> None:
    node = make_node(1, user=1, advertised=["10.1.0.0/24", "::/0", "x"], approved=["10.1.0.0/24"])
    snapshot = snapshot_of(seen(node, cap_version=142))
    told = netmap.messages(snapshot, snapshot.nodes[1])
    assert list(told) == ["routes-wait"]
    assert "doorward nodes routes node-1 --approve ::/0" in told["routes-wait"].Text


def test_a_client_that_knows_no_pins_is_told_so() -> None:
    snapshot = snapshot_of(seen(make_node(1, user=1), cap_version=113))
    assert list(netmap.messages(snapshot, snapshot.nodes[1])) == ["relay-authority"]
    bare = snapshot.with_settings(msgspec.structs.replace(SETTINGS, derp_map=DERPMap()))
    assert netmap.messages(bare, bare.nodes[1]) == {}


# The cache


def test_a_peers_json_is_made_once_for_all_who_see_the_same() -> None:
    cache, snapshot = PeerCache(), lab()
    router = snapshot.nodes[1]
    plain = cache.get(snapshot, router, netmap.View())
    assert cache.get(snapshot, router, netmap.View()) is plain
    routed = cache.get(snapshot, router, netmap.View(router.approved_routes))
    assert routed is not plain
    assert cache.get(snapshot, router, netmap.View()) is plain
    assert bytes(plain) == encode(netmap.peer(snapshot, router, netmap.View()))


def test_a_changed_node_or_domain_is_made_anew() -> None:
    cache, snapshot = PeerCache(), lab()
    router = snapshot.nodes[1]
    plain = cache.get(snapshot, router, netmap.View())
    after, _ = snapshot.with_nodes([msgspec.structs.replace(router, name="new")])
    assert b'"new.tailnet.test."' in bytes(cache.get(after, after.nodes[1], netmap.View()))
    moved = snapshot.with_settings(msgspec.structs.replace(SETTINGS, domain="other.test"))
    assert b'"node-1.other.test."' in bytes(cache.get(moved, router, netmap.View()))
    cache.forget(1)
    assert bytes(cache.get(snapshot, router, netmap.View())) == bytes(plain)


# What the policy says beyond rules


def _routers(grants: str, *, online: tuple[bool, bool] = (True, True)) -> Snapshot:
    policy = '{"tagOwners": {"tag:a": [], "tag:b": []}, "grants": [' + grants + "]}"
    subnet = ("10.1.0.0/24",)
    routers = [
        seen(make_node(10 + n, tags=[tag], advertised=subnet, approved=subnet), online=online[n])
        for n, tag in enumerate(("tag:a", "tag:b"))
    ]
    return snapshot_of(make_node(1, user=1), make_node(2, user=2), *routers, policy=policy)


def _router_of(snapshot: Snapshot, viewer: int) -> list[int]:
    return [
        router
        for router in (10, 11)
        if netmap.routes_through(snapshot, snapshot.nodes[viewer], snapshot.nodes[router])
    ]


BY_ROUTER = """{"src": ["ann"], "dst": ["10.1.0.0/24"], "ip": ["*"], "via": ["tag:a"]},
    {"src": ["bob"], "dst": ["10.1.0.0/24"], "ip": ["*"], "via": ["tag:b"]}"""


def test_who_must_go_by_another_router_gets_it_although_it_stands_by() -> None:
    snapshot = _routers(BY_ROUTER)
    assert (_router_of(snapshot, 1), _router_of(snapshot, 2)) == ([10], [11])
    told = as_json(netmap.self_node(snapshot, snapshot.nodes[11]))
    assert told["AllowedIPs"][-1] == "10.1.0.0/24"  # it carries the subnet,
    assert "PrimaryRoutes" not in told  # though it is not the active router


def test_of_the_routers_that_may_be_used_one_that_is_online_is() -> None:
    either = '{"src": ["ann"], "dst": ["10.1.0.0/24"], "ip": ["*"], "via": ["tag:a", "tag:b"]}'
    assert _router_of(_routers(either), 1) == [10]
    assert _router_of(_routers(either, online=(False, True)), 1) == [11]


def test_when_a_router_goes_all_routers_of_its_subnet_are_touched() -> None:
    snapshot = _routers(BY_ROUTER)
    _, touched = snapshot.with_nodes([seen(snapshot.nodes[11], online=False)])
    assert touched >= {10, 11}


def test_attributes_with_values_and_those_that_stand_on_peers() -> None:
    policy = """{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "nodeAttrs": [
        {"target": ["*"], "attr": ["suggest-exit-node", "dns-subdomain-resolve", "default-auto-update"]},
        {"target": ["ann"], "app": {"example.com/app": [{"a": 1}]}},
        {"target": ["*"], "app": {"example.com/app": [{"b": 2}]}}]}"""
    exits = ("0.0.0.0/0", "::/0")
    nodes = [make_node(1, user=1), make_node(2, user=2, advertised=exits, approved=exits)]
    snapshot = snapshot_of(*nodes, policy=policy)
    caps = netmap.self_node(snapshot, nodes[0]).CapMap
    assert caps["example.com/app"] == [{"a": 1}, {"b": 2}]
    assert caps["default-auto-update"] == [False]  # the policy names it and says no value
    seen_by = {
        viewer: netmap.peer(snapshot, peer, netmap.view_of(snapshot, nodes[viewer - 1], peer)).CapMap
        for viewer, peer in ((1, nodes[1]), (2, nodes[0]))
    }
    assert seen_by[1] == {"dns-subdomain-resolve": None, "suggest-exit-node": None}
    assert seen_by[2] == {"dns-subdomain-resolve": None}  # no exit node


def test_a_node_without_ipv4_sees_none_and_shows_none() -> None:
    policy = """{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
        "nodeAttrs": [{"target": ["ann"], "attr": ["disable-ipv4"]}]}"""
    nodes = [make_node(number, user=number) for number in (1, 2, 3)]
    snapshot = snapshot_of(*nodes, policy=policy)

    def addresses(viewer: int, peer: int) -> list[str]:
        there = nodes[peer - 1]
        return netmap.peer(snapshot, there, netmap.view_of(snapshot, nodes[viewer - 1], there)).Addresses

    assert netmap.self_node(snapshot, nodes[0]).Addresses == ["fd7a:115c:a1e0::1/128"]
    assert addresses(1, 2) == ["fd7a:115c:a1e0::2/128"]
    assert addresses(2, 1) == ["fd7a:115c:a1e0::1/128"]
    assert len(addresses(2, 3)) == 2
    whole = snapshot_of(*nodes, policy='{"disableIPv4": true}')
    assert all(len(netmap.self_node(whole, node).Addresses) == 1 for node in nodes)


def test_one_route_for_all_is_a_question_of_macs() -> None:
    mac = seen(make_node(1, user=1), hostinfo=Hostinfo(OS="macOS"))
    snapshot = snapshot_of(mac, make_node(2, user=2), policy='{"OneCGNATRoute": "mac-always", "grants": []}')
    assert "one-cgnat?v=true" in netmap.self_node(snapshot, snapshot.nodes[1]).CapMap
    assert "one-cgnat?v=true" not in netmap.self_node(snapshot, snapshot.nodes[2]).CapMap


def test_the_policy_changes_the_relays_and_never_takes_the_last() -> None:
    def regions(relays: str) -> dict[int, str]:
        snapshot = snapshot_of(make_node(1, user=1), policy='{"derpMap": ' + relays + "}")
        return {
            number: region.RegionName for number, region in netmap.derp_map(snapshot, 142).Regions.items()
        }

    more = '"Regions": {"901": {"RegionName": "More", "Nodes": [{"HostName": "r.example.com"}]}}'
    assert regions("{}") == {900: "Home"}
    assert regions("{" + more + "}") == {900: "Home", 901: "More"}
    assert regions('{"OmitDefaultRegions": true, ' + more + "}") == {901: "More"}
    assert regions('{"Regions": {"900": null}}') == {900: "Home"}


@pytest.mark.parametrize("change", [{"suspended": True}, {"approved": False}])
def test_doorwards_own_node_and_one_that_is_shut_out_do_not_see_each_other(change: dict[str, bool]) -> None:
    shut = msgspec.structs.replace(make_node(2, user=1), **change)
    snapshot = snapshot_of(make_node(1, user=1), shut, make_node(9, system=True))
    own, other = snapshot.nodes[9], snapshot.nodes[1]
    assert netmap.peer_ids(snapshot, shut) == frozenset()
    assert netmap.peer_ids(snapshot, own) == {1}
    assert netmap.peer_ids(snapshot, other) == {9}
    assert not any(
        netmap.sees(snapshot, *pair) for pair in ((own, shut), (shut, own), (other, shut), (shut, other))
    )
    assert netmap.sees(snapshot, own, other)
    assert netmap.self_node(snapshot, shut).MachineAuthorized is False
    assert netmap.self_node(snapshot, other).MachineAuthorized is True
    assert ("approval-wait" in netmap.messages(snapshot, shut)) == ("approved" in change)


def test_a_router_that_is_shut_out_gives_its_subnets_up_at_once() -> None:
    routers = [make_node(number, user=1, advertised=ROUTES[:1], approved=ROUTES[:1]) for number in (1, 2)]
    snapshot = snapshot_of(*routers, policy=ROUTED)
    prefix = ip_network(ROUTES[0])
    assert snapshot.primary[prefix] == 1
    after, touched = snapshot.with_nodes([msgspec.structs.replace(routers[0], suspended=True)])
    assert (after.primary[prefix], touched) == (2, frozenset({1, 2}))
