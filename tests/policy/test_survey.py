"""The answers about all nodes at once agree with those about one, and with what clients are sent."""

from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.policy import compiled, make_node
from tests.support.tailnets import BASE, CUTS, NODES, RICH, RICH_GRANTS, SSH, TAILNETS, USERS

from doorward.model import Node
from doorward.policy import Policy
from doorward.policy.ranges import of_text
from doorward.policy.reach import Goal, goal_at, ways
from doorward.policy.services import services_text
from doorward.policy.survey import INTERNET, Survey


def _policy(*grants: dict[str, Any], **more: Any) -> Policy:
    return compiled(BASE | {"grants": list(grants)} | more, USERS, NODES)


def _grant(source: str, target: str, *services: str, **more: Any) -> dict[str, Any]:
    return {"src": [source], "dst": [target], "ip": list(services)} | more


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(RICH_GRANTS, TAILNETS, CUTS, st.sampled_from([22, 80, None]), st.sampled_from([6, 17, 1]))
def test_who_can_is_everybody_of_whom_each_can(
    grants: list[Any], nodes: list[Node], cuts: list[tuple[int, int]], port: int | None, protocol: int
) -> None:
    policy = compiled(RICH | {"grants": grants}, USERS, nodes, cuts)
    members = policy.roster.members.values()
    goals = [Goal((one,), (one.ipv4, one.ipv6), port, (protocol,)) for one in members]
    goals += [goal_at(policy, ip_address(text), port, (protocol,)) for text in ("10.1.2.3", "8.8.8.8")]
    for goal in goals:
        every = {one.id: ways(policy, one, goal) for one in members}
        expected = {
            node: [(way.rule.origin, set(way.services)) for way in found]
            for node, found in every.items()
            if found
        }
        found = Survey(policy).who_can(goal)
        said = {node: [(way.rule.origin, set(way.services)) for way in each] for node, each in found.items()}
        assert said == expected


@settings(deadline=None, max_examples=60)
@given(RICH_GRANTS, TAILNETS, CUTS)
def test_what_can_is_everything_of_which_each_can_be_reached(
    grants: list[Any], nodes: list[Node], cuts: list[tuple[int, int]]
) -> None:
    policy = compiled(RICH | {"grants": grants}, USERS, nodes, cuts)
    members = policy.roster.members
    for source in members.values():
        found = Survey(policy).what_can(frozenset((source.id,)))
        own = {one.node: one for one in found if not one.destination}
        expected: dict[int, dict[str, set[Any]]] = {}
        for gate in members.values():
            goal = Goal((gate,), (gate.ipv4, gate.ipv6), None, tuple(range(256)))
            reached = ways(policy, source, goal) if gate.id != source.id else []
            if reached:
                expected[gate.id] = {way.rule.origin: set(way.services) for way in reached}
        assert {node: set(one.rules) for node, one in own.items()} == {
            node: set(rules) for node, rules in expected.items()
        }
        for node, one in own.items():
            assert set(one.services) == set().union(*expected[node].values())
        _check_beyond(policy, source.id, found)


def _check_beyond(policy: Policy, source: int, found: list[Any]) -> None:
    """What lies behind routers: an address is reached exactly if it is in a destination that is said to be."""
    for text in ("10.1.2.3", "10.9.9.9", "8.8.8.8"):
        address = ip_address(text)
        goal = goal_at(policy, address, None, (6,))
        said = any(
            one.node in {gate.id for gate in goal.gates}
            and (
                one.destination == INTERNET
                if text == "8.8.8.8"
                else one.destination not in {"", INTERNET} and address in of_text(one.destination)
            )
            and any(protocol == 6 for protocol, _ in one.services)
            for one in found
        )
        assert said == bool(ways(policy, policy.roster.members[source], goal)), text


def test_what_several_nodes_can_is_the_sum() -> None:
    policy = _policy(
        _grant("100.64.0.1", "tag:a", "22"),
        _grant("100.64.0.6", "tag:a", "80"),
        _grant("alice", "bob", "tcp:1"),
    ).updated(nodes=[make_node(6, user=1)])
    found = Survey(policy).what_can(frozenset((1, 6)))
    assert [(one.node, one.destination, services_text(one.services), list(one.rules)) for one in found] == [
        (2, "", "tcp 1", ["grants[2]"]),
        (4, "", "ports 22,80", ["grants[0]", "grants[1]"]),
    ]


def test_what_lies_behind_a_router_is_said_by_range() -> None:
    policy = _policy(
        _grant("alice", "*", "icmp:*"),
        _grant("alice", "10.1.0.0/16", "80"),
        _grant("bob", "autogroup:internet", "*"),
    )
    alice = Survey(policy).what_can(frozenset((1,)))
    assert [(one.node, one.destination) for one in alice] == [
        (2, ""),
        (4, ""),
        (4, "10.0.0.0/8"),
        (4, "10.1.0.0/16"),
        (4, INTERNET),
    ]
    assert [(one.node, one.destination) for one in Survey(policy).what_can(frozenset((2,)))] == [
        (4, INTERNET)
    ]


@settings(deadline=None, max_examples=60)
@given(SSH, TAILNETS)
def test_logins_agree_with_the_ssh_policies_that_clients_get(ssh: list[Any], nodes: list[Node]) -> None:
    policy = compiled(BASE | {"grants": [], "ssh": ssh}, USERS, nodes)
    survey, members = Survey(policy), policy.roster.members
    for gate in members:
        for account in ("root", "bob", "ubuntu"):
            said = {node: rule.check for node, rule in survey.ssh_as(gate, account).items()}
            expected = {
                node: check
                for node in members
                if node != gate and (check := _verdict(policy, node, gate, account)) is not None
            }
            assert said == expected
        for node in members:
            if node != gate:
                reached = survey.ssh(frozenset((node,)), gate)
                names = {name for one in reached for name in one.accounts}
                assert bool(names) == any(
                    _verdict(policy, node, gate, account) is not None for account in ("root", "bob", "alice")
                )


def _verdict(policy: Policy, source: int, gate: int, account: str) -> bool | None:
    """Whether the gate's client asks for a check; None where it refuses."""
    for rule in policy.ssh_policy(gate).rules:
        here = any(one.nodeIP in policy.roster.members[source].texts for one in rule.principals)
        if here and rule.sshUsers.get(account, rule.sshUsers.get("*", "")):
            return rule.action.accept is not True
    return None


def test_accounts_in_words() -> None:
    policy = _policy(
        ssh=[
            {"action": "accept", "src": ["alice"], "dst": ["tag:a"], "users": ["autogroup:nonroot"]},
            {"action": "accept", "src": ["alice"], "dst": ["tag:a"], "users": ["autogroup:nonroot", "root"]},
            {"action": "check", "src": ["group:g"], "dst": ["tag:a"], "users": ["web", "root"]},
            {"action": "accept", "src": ["bob"], "dst": ["tag:a"], "users": ["localpart:*@example.com"]},
        ]
    )
    survey = Survey(policy)
    assert [(one.rule.origin, one.accounts) for one in survey.ssh(frozenset((1,)), 4)] == [
        ("ssh[2]", ("root", "web")),
        ("ssh[0]", ("any account but root",)),
        ("ssh[1]", ("any account", "root")),
    ]
    assert [one.accounts for one in survey.ssh(frozenset((2,)), 4)] == [("root", "web"), ("bob",)]
    assert {node: rule.origin for node, rule in survey.ssh_as(4, "root").items()} == {
        1: "ssh[2]",
        2: "ssh[2]",
    }
    assert {node: rule.origin for node, rule in survey.ssh_as(4, "bob").items()} == {1: "ssh[0]", 2: "ssh[3]"}
