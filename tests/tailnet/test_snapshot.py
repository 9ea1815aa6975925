"""However many changes led to it, a snapshot answers as one made from scratch."""

from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.policy import make_node, make_user

from doorward.errors import NotFound
from doorward.model import Node, Prefix
from doorward.policy import parse_policy
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot, advertised, serving

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SETTINGS = Settings(domain="tailnet.test", url="http://127.0.0.1:8080")
ALL = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
TAGGED = """{"tagOwners": {"tag:web": ["ann"]},
             "grants": [{"src": ["ann"], "dst": ["tag:web"], "ip": ["22"]},
                        {"src": ["bob"], "dst": ["10.0.0.0/8"], "ip": ["*"]}]}"""
USERS = [make_user(1, "ann"), make_user(2, "bob")]
NET = ip_network("10.0.0.0/24")


def snapshot_of(*nodes: Node, policy: str = ALL, users: Iterable[Any] = USERS) -> Snapshot:
    return Snapshot.build(SETTINGS, users, nodes, parse_policy(policy), policy)


def router(node_id: int, *routes: str, online: bool = True, approved: bool = True) -> Node:
    node = make_node(node_id, user=1, advertised=routes, approved=routes if approved else ())
    return seen(node, online=online)


def seen(node: Node, **changes: Any) -> Node:
    return msgspec.structs.replace(node, observed=msgspec.structs.replace(node.observed, **changes))


# Any sequence of changes

ROUTES = ["10.0.0.0/24", "10.0.1.0/24", "0.0.0.0/0", "::/0", "nonsense", "10.0.0.1/24"]
IDS = st.integers(1, 5)
NODES = st.builds(
    lambda number, user, tags, online, key, name, machine, routes, approved: seen(
        msgspec.structs.replace(
            make_node(number, user=user, tags=tags),
            node_key=NodePublic(bytes([number, key]) * 16),
            machine_key=MachinePublic(bytes([machine]) * 32),
            name=f"{name}-{number}",
            approved_routes=tuple(ip_network(route) for route in approved),
        ),
        online=online,
        hostinfo=Hostinfo(RoutableIPs=routes),
    ),
    IDS,
    st.sampled_from([1, 2]),
    st.sampled_from([(), ("tag:web",)]),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from("ab"),
    st.integers(1, 3),
    st.lists(st.sampled_from(ROUTES), unique=True),
    st.lists(st.sampled_from(ROUTES[:4]), unique=True),
)
BATCH = st.tuples(
    st.lists(NODES, max_size=4, unique_by=lambda node: node.id), st.frozensets(st.integers(1, 7), max_size=2)
)


@given(st.lists(BATCH, max_size=12), st.sampled_from([ALL, TAGGED]))
@settings(deadline=None)
def test_indexes_follow_every_change(batches: list[tuple[list[Node], frozenset[int]]], policy: str) -> None:
    snapshot = snapshot_of(policy=policy)
    expected: dict[int, Node] = {}
    for changed, gone in batches:
        removed = gone - {node.id for node in changed}
        before = snapshot
        snapshot, touched = snapshot.with_nodes(changed, removed)
        known = {node_id for node_id in removed if node_id in expected}
        assert touched >= {node.id for node in changed} | known
        for node_id in known:
            del expected[node_id]
        expected.update({node.id: node for node in changed})
        for prefix in set(before.primary) | set(snapshot.primary):
            was, now = before.primary.get(prefix), snapshot.primary.get(prefix)
            if was != now:
                assert {was, now} - {None} <= touched
    same_answers(snapshot, snapshot_of(*expected.values(), policy=policy))


def same_answers(one: Snapshot, other: Snapshot) -> None:
    assert dict(one.nodes) == dict(other.nodes)
    for node in other.nodes.values():
        assert one.node_by_key(node.node_key) == other.node_by_key(node.node_key) == node
        assert one.node_by_name(node.name) == node
        assert one.node_by_stable_id(node.stable_id) == node
        assert one.node_by_address(node.ipv4) == one.node_by_address(node.ipv6) == node
        assert one.nodes_of_machine(node.machine_key) == other.nodes_of_machine(node.machine_key)
        assert one.policy.peers(node.id) == other.policy.peers(node.id)
        assert one.policy.filter_rules(node.id) == other.policy.filter_rules(node.id)
        for peer in other.nodes:
            assert one.policy.routes_for(node.id, peer) == other.policy.routes_for(node.id, peer)
    for index in ("_by_key", "_by_name", "_by_stable_id", "_by_address", "_by_machine", "_routers"):
        assert dict(getattr(one, index)) == dict(getattr(other, index)), index
    assert (
        one.carriers == other.carriers == {node.id for node in other.nodes.values() if node.approved_routes}
    )
    # Which of several routers it is depends on the past; that there is one, and a living one if any lives, does not.
    assert set(one.primary) == set(other.primary)
    for prefix, chosen in one.primary.items():
        carriers = {node.id for node in one.nodes.values() if prefix in serving(node)}
        alive = {node_id for node_id in carriers if one.nodes[node_id].observed.online}
        assert chosen in (alive or carriers)


def test_two_nodes_may_swap_what_is_unique() -> None:
    first, second = make_node(1, user=1), make_node(2, user=1)
    swapped = [
        msgspec.structs.replace(
            first, name=second.name, node_key=second.node_key, ipv4=second.ipv4, ipv6=second.ipv6
        ),
        msgspec.structs.replace(
            second, name=first.name, node_key=first.node_key, ipv4=first.ipv4, ipv6=first.ipv6
        ),
    ]
    after, _ = snapshot_of(first, second).with_nodes(swapped)
    same_answers(after, snapshot_of(*swapped))


def test_the_snapshot_before_stays_as_it_was() -> None:
    before = snapshot_of(make_node(1, user=1), make_node(2, user=2))
    before.with_nodes([msgspec.structs.replace(before.nodes[1], name="new")], [2])
    before.with_users(USERS[:1])
    before.with_policy(parse_policy(TAGGED), TAGGED)
    same_answers(before, snapshot_of(make_node(1, user=1), make_node(2, user=2)))
    assert set(before.users) == {1, 2}
    assert before.policy_text == ALL


def test_what_did_not_change_is_shared() -> None:
    before = snapshot_of(make_node(1, user=1), make_node(2, user=1))
    after, touched = before.with_nodes([seen(before.nodes[1], endpoints=("192.0.2.1:1",))])
    assert touched == {1}
    assert after.policy is before.policy
    assert after.nodes[2] is before.nodes[2]
    assert after.users is before.users


# Routers


def test_the_oldest_router_that_is_online_carries_a_subnet() -> None:
    offline = router(1, "10.0.0.0/24", online=False)
    snapshot = snapshot_of(offline, router(2, "10.0.0.0/24"), router(3, "10.0.0.0/24"))
    assert dict(snapshot.primary) == {NET: 2}


def test_a_subnet_stays_with_its_router_while_that_is_online() -> None:
    snapshot = snapshot_of(router(2, "10.0.0.0/24"))
    snapshot, touched = snapshot.with_nodes([router(1, "10.0.0.0/24")])
    assert snapshot.primary[NET] == 2
    assert touched == {1}


@pytest.mark.parametrize("how", ["offline", "removed", "rejected", "withdrawn"])
def test_a_subnet_moves_when_its_router_fails(how: str) -> None:
    snapshot = snapshot_of(router(1, "10.0.0.0/24"), router(2, "10.0.0.0/24"))
    assert snapshot.primary[NET] == 1
    match how:
        case "offline":
            after, touched = snapshot.with_nodes([router(1, "10.0.0.0/24", online=False)])
        case "removed":
            after, touched = snapshot.with_nodes([], [1])
        case "rejected":
            after, touched = snapshot.with_nodes([router(1, "10.0.0.0/24", approved=False)])
        case _:
            after, touched = snapshot.with_nodes([router(1)])
    assert after.primary[NET] == 2
    assert touched == {1, 2}
    back, _ = after.with_nodes([router(1, "10.0.0.0/24")])
    assert back.primary[NET] == 2


def test_while_all_are_offline_the_last_one_keeps_the_subnet() -> None:
    snapshot = snapshot_of(router(1, "10.0.0.0/24"), router(2, "10.0.0.0/24", online=False))
    snapshot, _ = snapshot.with_nodes([router(1, "10.0.0.0/24", online=False)])
    assert snapshot.primary[NET] == 1
    snapshot, _ = snapshot.with_nodes([router(2, "10.0.0.0/24")])
    assert snapshot.primary[NET] == 2


def test_an_exit_route_has_no_single_router() -> None:
    snapshot = snapshot_of(router(1, "0.0.0.0/0", "::/0"), router(2, "0.0.0.0/0", "::/0"))
    assert dict(snapshot.primary) == {}


def test_only_what_is_advertised_and_approved_is_served() -> None:
    node = make_node(
        1, advertised=["10.0.0.0/24", "10.9.0.0/16", "x"], approved=["10.0.0.0/24", "10.7.0.0/16"]
    )
    assert serving(node) == {NET}
    expected: set[Prefix] = {NET, ip_network("10.9.0.0/16")}
    assert advertised(node) == expected


# Looking up


@pytest.mark.parametrize(
    "text",
    [
        "node-7",
        "NODE-7",
        " node-7 ",
        "node-7.tailnet.test",
        "node-7.tailnet.test.",
        "n7",
        "7",
        "100.64.0.7",
        "fd7a:115c:a1e0::7",
        "FD7A:115C:A1E0:0::7",
    ],
)
def test_a_node_is_found_by_what_people_write(text: str) -> None:
    assert snapshot_of(make_node(7, user=1), make_node(8, user=1)).find_node(text).id == 7


@pytest.mark.parametrize(
    "text", ["", "9", "node-9", "100.64.0.9", "node-7.elsewhere.test", "n", "::1", "1/2"]
)
def test_who_is_not_there_is_not_found(text: str) -> None:
    with pytest.raises(NotFound, match="there is no node"):
        snapshot_of(make_node(7, user=1)).find_node(text)


def test_a_name_goes_before_a_number() -> None:
    named = msgspec.structs.replace(make_node(8, user=1), name="7")
    assert snapshot_of(make_node(7, user=1), named).find_node("7").id == 8


def test_owners() -> None:
    snapshot = snapshot_of(
        make_node(1, user=1), make_node(2, user=1, tags=["tag:web"]), make_node(3, system=True)
    )
    assert [snapshot.owner_name(snapshot.nodes[n]) for n in (1, 2, 3)] == [
        "ann",
        "tagged-devices",
        "doorward",
    ]
    assert snapshot.owner(snapshot.nodes[2]) is None
    assert snapshot.system == {3}
    assert snapshot.fqdn(snapshot.nodes[1]) == "node-1.tailnet.test"
    after, _ = snapshot.with_nodes([], [3])
    assert after.system == frozenset()


def test_suspension_is_of_people_and_not_of_tags() -> None:
    users = [make_user(1, "ann", suspended=True)]
    snapshot = snapshot_of(make_node(1, user=1), make_node(2, user=1, tags=["tag:web"]), users=users)
    assert snapshot.suspended(snapshot.nodes[1])
    assert not snapshot.suspended(snapshot.nodes[2])
    assert snapshot.user_by_name("ann") == users[0]
    assert snapshot.user_by_name("Ann") is None


def test_one_machine_has_a_node_for_each_of_its_users() -> None:
    machine = MachinePublic(b"\x07" * 32)
    nodes = [msgspec.structs.replace(make_node(n, user=n), machine_key=machine) for n in (1, 2)]
    snapshot = snapshot_of(*nodes)
    assert snapshot.nodes_of_machine(machine) == nodes
    after, _ = snapshot.with_nodes([], [1])
    assert after.nodes_of_machine(machine) == nodes[1:]
    assert after.with_nodes([], [2]).snapshot.nodes_of_machine(machine) == []


def test_addresses_of_both_families_lead_to_the_node() -> None:
    snapshot = snapshot_of(make_node(7, user=1))
    assert snapshot.node_by_address(IPv4Address("100.64.0.7")) == snapshot.nodes[7]
    assert snapshot.node_by_address(IPv6Address("fd7a:115c:a1e0::8")) is None


def test_a_name_that_is_given_away_before_it_is_known_to_be_free_stays_given() -> None:
    """Another process freed it; that is told after our own change that gave it to somebody else."""
    named = [
        msgspec.structs.replace(make_node(number, user=1), name=name)
        for number, name in ((1, "first"), (2, "second"))
    ]
    snapshot = snapshot_of(*named)
    taken = msgspec.structs.replace(snapshot.nodes[2], name="first")
    snapshot, _ = snapshot.with_nodes([taken])
    freed = msgspec.structs.replace(snapshot.nodes[1], name="other")
    snapshot, _ = snapshot.with_nodes([freed])
    assert snapshot.node_by_name("first") == taken
    assert snapshot.node_by_name("other") == freed
    assert snapshot.node_by_name("second") is None
    snapshot, _ = snapshot.with_nodes([msgspec.structs.replace(taken, name="third")], [1])
    assert snapshot.node_by_name("first") is None
    assert list(snapshot.nodes) == [2]


PLACED = """{"postures": {"posture:lab": ["ip:address == '192.0.2.7'"], "posture:de": ["ip:country == 'DE'"]},
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["1"], "srcPosture": ["posture:lab"]},
               {"src": ["*"], "dst": ["*"], "ip": ["2"], "srcPosture": ["posture:de"]}]}"""


def _from(node: Node, address: str) -> Node:
    seen = msgspec.structs.replace(node.observed, came_from=IPv4Address(address))
    return msgspec.structs.replace(node, observed=seen)


def _ports_open(made: Snapshot) -> list[int]:
    return sorted(
        port.Ports.First
        for rule in made.policy.filter_rules(2)
        if rule.SrcIPs
        for port in rule.DstPorts or ()
    )


def test_where_a_node_comes_from_counts_where_the_policy_asks() -> None:
    users, nodes = [make_user(1, "ann")], [make_node(1, user=1), make_node(2, user=1)]
    indifferent = snapshot_of(*nodes, users=users)
    assert indifferent.with_nodes([_from(nodes[0], "192.0.2.7")]).snapshot.policy is indifferent.policy
    placed = indifferent.with_policy(parse_policy(PLACED), PLACED)
    assert _ports_open(placed) == []
    there = placed.with_nodes([_from(nodes[0], "192.0.2.7")]).snapshot
    assert _ports_open(there) == [1]
    places: dict[IPv4Address | IPv6Address, str] = {IPv4Address("192.0.2.8"): "DE"}
    known = there.with_settings(msgspec.structs.replace(there.settings, country_of=places.get))
    assert _ports_open(known) == [1]
    elsewhere = known.with_nodes([_from(nodes[0], "192.0.2.8")]).snapshot
    assert _ports_open(elsewhere) == [2]
    assert _ports_open(elsewhere.with_settings(SETTINGS)) == []
    assert _ports_open(there.with_nodes([nodes[0]]).snapshot) == []
