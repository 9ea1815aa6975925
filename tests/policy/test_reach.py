from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from tests.support.policy import admitted, compiled, make_node
from tests.support.tailnets import BASE, CUTS, NODES, RICH, RICH_GRANTS, TAILNETS, USERS

from doorward.model import Node
from doorward.policy import Policy
from doorward.policy.reach import Goal, Lack, goal_at, near_miss, point_of, reach, ways
from doorward.policy.services import services_text


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


def _ways(policy: Policy, address: str, port: int) -> dict[int, list[str]]:
    """Which nodes reach an address, and by which rules."""
    goal = goal_at(policy, ip_address(address), port, (6,))
    found = {
        one.id: [way.rule.origin for way in ways(policy, one, goal)] for one in policy.roster.members.values()
    }
    return {node: rules for node, rules in found.items() if rules}


def test_an_address_behind_a_router() -> None:
    policy = _policy(
        _grant("bob", "10.1.0.0/16", "80"),
        _grant("alice", "10.1.0.0/16", "*", via=["tag:b"]),
        _grant("alice", "10.1.0.0/24", "*", via=["tag:a"]),
    )
    assert _ways(policy, "10.1.2.3", 80) == {2: ["grants[0]"]}
    assert _ways(policy, "10.1.0.3", 80) == {2: ["grants[0]"], 1: ["grants[2]"]}
    assert _ways(policy, "10.2.0.1", 80) == {}
    assert goal_at(policy, ip_address("192.168.0.1"), 80, (6,)).gates == ()


def test_the_internet_needs_an_exit_node() -> None:
    policy = _policy(_grant("bob", "autogroup:internet", "443"))
    assert _ways(policy, "8.8.8.8", 443) == {2: ["grants[0]"]}
    assert _ways(policy, "192.168.0.1", 443) == {}
    assert _ways(policy.updated(removed=[4]), "8.8.8.8", 443) == {}


def test_self_is_the_same_owner() -> None:
    policy = _policy(_grant("autogroup:member", "autogroup:self", "22")).updated(nodes=[make_node(6, user=1)])
    assert [rule.origin for rule in reach(policy, point_of(policy, 1), point_of(policy, 6), 22)] == [
        "grants[0]"
    ]
    assert reach(policy, point_of(policy, 2), point_of(policy, 6), 22) == []


ASKED = ((22, 6), (80, 6), (22, 17), (0, 1))


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(RICH_GRANTS, TAILNETS)
def test_agrees_with_the_filters_that_clients_get(grants: list[Any], nodes: list[Node]) -> None:
    policy = compiled(RICH | {"grants": grants}, USERS, nodes)
    for target in policy.roster.members.values():
        for source in policy.roster.members.values():
            for port, protocol in ASKED:
                here, there = point_of(policy, source.id), point_of(policy, target.id)
                let_in = admitted(policy, target.id, here.address, there.address, port, protocol)
                if not any(
                    "via" in grant for grant in grants
                ):  # a test of a policy does not ask who carries it
                    assert bool(reach(policy, here, there, port, protocol)) == let_in
                goal = Goal((target,), (target.ipv4,), port, (protocol,))
                assert bool(ways(policy, source, goal)) == let_in
                six = admitted(policy, target.id, source.ipv6, target.ipv6, port, protocol)
                assert bool(ways(policy, source, Goal((target,), (target.ipv6,), port, (protocol,)))) == six
                both = Goal((target,), (target.ipv4, target.ipv6), port, (protocol,))
                assert bool(ways(policy, source, both)) == (let_in or six)


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(RICH_GRANTS, TAILNETS)
def test_agrees_with_the_filters_of_routers(grants: list[Any], nodes: list[Node]) -> None:
    policy = compiled(RICH | {"grants": grants}, USERS, nodes)
    for text in ("10.1.2.3", "10.9.9.9", "8.8.8.8"):
        address = ip_address(text)
        for port, protocol in ASKED:
            goal = goal_at(policy, address, port, (protocol,))
            for source in policy.roster.members.values():
                let_in = any(
                    admitted(policy, gate.id, source.ipv4, address, port, protocol) for gate in goal.gates
                )
                assert bool(ways(policy, source, goal)) == let_in


def test_each_way_says_what_it_opens() -> None:
    policy = _policy(_grant("alice", "bob", "22", "tcp:80-90"), _grant("*", "bob", "tcp:85-100", "icmp:*"))
    alice, bob = (policy.roster.members[node] for node in (1, 2))
    found = ways(policy, alice, Goal((bob,), (bob.ipv4, bob.ipv6)))
    assert [(way.rule.origin, services_text(way.services)) for way in found] == [
        ("grants[0]", "tcp 22,80-90"),
        ("grants[1]", "tcp 85-100"),
    ]


def _miss(policy: Policy, source: int, target: int, port: int | None = 22, attributes: Any = None) -> Any:
    members = policy.roster.members
    goal = Goal((members[target],), (members[target].ipv4, members[target].ipv6), port)
    assert ways(policy, members[source], goal) == []
    return near_miss(policy, members[source], goal, name="laptop", attributes=attributes or {})


def test_the_rule_that_came_closest_and_what_is_missing() -> None:
    port = _policy(
        _grant("alice", "tag:a", "80"), _grant("alice", "tag:b", "22"), _grant("bob", "tag:a", "22")
    )
    found = _miss(port, 1, 4)
    assert (found.rule.origin, found.lacks) == ("grants[0]", (Lack.SERVICE,))
    assert found.words == "it lets alice reach tag:a at port 80; tcp 22 is not among that"
    source = _policy(_grant("bob", "tag:a", "22"), _grant("alice", "tag:b", "22"))
    found = _miss(source, 1, 4)
    assert (found.rule.origin, found.lacks) == ("grants[0]", (Lack.SOURCE,))
    assert found.words.endswith("; laptop is none of bob")
    target = _policy(_grant("alice", "tag:b", "22"), _grant("bob", "tag:b", "22"))
    assert (_miss(target, 1, 4).rule.origin, _miss(target, 1, 4).lacks) == ("grants[0]", (Lack.TARGET,))
    both = _policy(_grant("bob", "tag:a", "80"))
    assert _miss(both, 1, 4).lacks == (Lack.SERVICE, Lack.SOURCE)
    own = _policy(_grant("autogroup:member", "autogroup:self", "*"))
    assert _miss(own, 1, 2).words.endswith("; the destination is none of the same person of autogroup:self")
    assert _miss(_policy(_grant("bob", "tag:b", "22")), 1, 4) is None
    assert _miss(_policy(), 1, 4) is None


def test_a_posture_that_is_not_met_is_named_with_what_fails() -> None:
    postures = {"posture:new": ["node:tsVersion >= '1.80'", "node:os == 'linux'"]}
    grant = _grant("alice", "tag:a", "22", srcPosture=["posture:new"])
    policy = compiled(BASE | {"postures": postures, "grants": [grant]}, USERS, NODES)
    found = _miss(policy, 1, 4, attributes={"node:os": "linux", "node:tsversion": "1.70"})
    assert found.lacks == (Lack.POSTURE,)
    assert found.words.endswith("laptop does not meet posture:new: node:tsVersion >= '1.80'")


def test_a_router_that_may_not_carry_it_is_named() -> None:
    policy = _policy(_grant("alice", "10.1.0.0/16", "*", via=["tag:b"]))
    alice = policy.roster.members[1]
    found = near_miss(
        policy, alice, goal_at(policy, ip_address("10.1.2.3"), 80, (6,)), name="laptop", attributes={}
    )
    assert found is not None
    assert found.lacks == (Lack.ROUTER,)
    assert found.words.endswith("it goes only through routers with tag:b")


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(RICH_GRANTS, TAILNETS)
def test_what_lacks_nothing_lets_in(grants: list[Any], nodes: list[Node]) -> None:
    policy = compiled(RICH | {"grants": grants}, USERS, nodes)
    for target in policy.roster.members.values():
        for source in policy.roster.members.values():
            goal = Goal((target,), (target.ipv4,), 22)
            missed = near_miss(policy, source, goal, name="x", attributes={})
            parted = policy.roster.parted(source.id, target.id)
            if not ways(policy, source, goal) and not parted:
                assert missed is None or missed.lacks


@settings(deadline=None, max_examples=60)
@given(RICH_GRANTS, TAILNETS, CUTS)
def test_whoever_is_parted_reaches_nothing_and_all_else_is_as_without(
    grants: list[Any], nodes: list[Node], cuts: list[tuple[int, int]]
) -> None:
    policy = compiled(RICH | {"grants": grants}, USERS, nodes, cuts)
    opened = policy.opened()
    shut = {node.id for node in nodes if node.suspended or (node.user_id == 3 and not node.tags)}
    for source in policy.roster.members.values():
        for target in policy.roster.members.values():
            goal = Goal((target,), (target.ipv4,), 22)
            pair = {source.id, target.id}
            if pair & shut or any(pair == {*cut} for cut in cuts):
                assert not ways(policy, source, goal)
                assert source.id == target.id or not policy.can_see(source.id, target.id)
                assert target.id not in policy.peers(source.id)
            else:
                found = [way.rule.origin for way in ways(policy, source, goal)]
                assert found == [way.rule.origin for way in ways(opened, source, goal)]


def test_a_rule_that_lacks_nothing_says_that_it_is_not_the_policy() -> None:
    policy = compiled(BASE | {"grants": [_grant("alice", "bob", "22")]}, USERS, NODES, [(1, 2)])
    alice, bob = policy.roster.members[1], policy.roster.members[2]
    found = near_miss(policy, alice, Goal((bob,), (bob.ipv4,), 22), name="x", attributes={})
    assert found is not None
    assert (found.lacks, found.words) == (
        (),
        "it lets alice reach bob at port 22; but somebody is shut out, or the two are kept apart",
    )
