from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from tests.support.policy import compiled, make_node
from tests.support.tailnets import BASE, GRANTS, NODES, TAILNETS, USERS

from doorward.model import Node
from doorward.policy import Policy
from doorward.policy.ranges import Address, of_text
from doorward.policy.reach import point, point_of, reach, who_can


def _policy(*grants: dict[str, Any]) -> Policy:
    return compiled(BASE | {"grants": list(grants)}, USERS, NODES)


def _grant(source: str, target: str, *services: str, **more: Any) -> dict[str, Any]:
    return {"src": [source], "dst": [target], "ip": list(services)} | more


def test_names_the_rules_by_which_a_connection_is_allowed() -> None:
    policy = _policy(
        _grant("alice", "bob", "22"), _grant("*", "bob", "tcp:1-100"), _grant("alice", "bob", "udp:22")
    )
    alice, bob, eve = (point_of(policy, node) for node in (1, 2, 3))
    assert [rule.origin for rule in reach(policy, alice, bob, 22)] == ["grants[0]", "grants[1]"]
    assert [rule.origin for rule in reach(policy, alice, bob, 22, 17)] == ["grants[0]", "grants[2]"]
    assert reach(policy, alice, bob, 443) == []
    assert reach(policy, bob, alice, 22) == []
    assert reach(policy, eve, bob, 22) == []  # suspended, and cut out of "*"


def test_who_can_reach_an_address_behind_a_router() -> None:
    policy = _policy(_grant("bob", "10.1.0.0/16", "80"), _grant("alice", "10.1.0.0/16", "*", via=["tag:b"]))
    assert list(who_can(policy, point(policy, ip_address("10.1.2.3")), 80)) == [2]
    assert who_can(policy, point(policy, ip_address("10.2.0.1")), 80) == {}


def test_the_internet_needs_an_exit_node() -> None:
    policy = _policy(_grant("bob", "autogroup:internet", "443"))
    assert list(who_can(policy, point(policy, ip_address("8.8.8.8")), 443)) == [2]
    assert who_can(policy, point(policy, ip_address("192.168.0.1")), 443) == {}
    assert who_can(policy.updated(removed=[4]), point(policy, ip_address("8.8.8.8")), 443) == {}


def test_self_is_the_same_owner() -> None:
    policy = _policy(_grant("autogroup:member", "autogroup:self", "22")).updated(nodes=[make_node(6, user=1)])
    assert [rule.origin for rule in reach(policy, point_of(policy, 1), point_of(policy, 6), 22)] == [
        "grants[0]"
    ]
    assert reach(policy, point_of(policy, 2), point_of(policy, 6), 22) == []


@settings(deadline=None)  # the machine may be busy
@given(GRANTS, TAILNETS)
def test_agrees_with_the_filters_that_clients_get(grants: list[Any], nodes: list[Node]) -> None:
    policy = compiled(BASE | {"grants": grants}, USERS, nodes)
    for target in policy.roster.members:
        for source in policy.roster.members:
            for port, protocol in ((22, 6), (80, 6), (22, 17)):
                here, there = point_of(policy, source), point_of(policy, target)
                said = bool(reach(policy, here, there, port, protocol))
                assert said == _admitted(policy, target, here.address, there.address, port, protocol)


def _admitted(
    policy: Policy, node_id: int, source: Address, target: Address, port: int, protocol: int
) -> bool:
    """What the node's packet filter would do."""
    return any(
        any(_holds(text, source) for text in rule.SrcIPs)
        and protocol in (rule.IPProto or (1, 6, 17, 58))
        and any(
            _holds(one.IP, target) and one.Ports.First <= port <= one.Ports.Last
            for one in rule.DstPorts or ()
        )
        for rule in policy.filter_rules(node_id)
    )


def _holds(text: str, address: Address) -> bool:
    if text == "*":
        return True
    whole = of_text(text)
    return whole.version == address.version and whole.first <= int(address) <= whole.last
