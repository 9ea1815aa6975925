from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.policy import arrows, compiled, make_node, make_user, written
from tests.support.tailnets import BASE, GRANT, GRANTS, NODES, SSH, TAILNETS, USERS

from doorward.model import Node, Role, User
from doorward.policy import Policy, parse_policy
from doorward.policy.check import check
from doorward.policy.reach import point_of, reach


def _policy(*grants: dict[str, Any], **more: Any) -> Policy:
    return compiled(BASE | {"grants": list(grants)} | more, USERS, NODES)


def _grant(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"src": [source], "dst": [target], "ip": ["*"]} | more


ROOT = {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:a"], "users": ["root"]}
FUNNEL_WARNING = "https://tailscale.com/cap/warn-funnel-no-https"


def test_both_ends_of_a_rule_see_each_other() -> None:
    policy = _policy(_grant("alice", "tag:a"))
    assert policy.peers(1) == {4}
    assert policy.peers(4) == {1}
    assert policy.peers(2) == frozenset()
    assert policy.can_see(4, 1)
    assert not policy.can_see(2, 4)
    assert not policy.can_see(1, 1)
    assert not policy.can_see(1, 99)


def test_the_router_of_a_subnet_is_seen_for_it_from_either_side() -> None:
    assert _policy(_grant("bob", "10.1.0.0/16")).peers(4) == {2}
    assert _policy(_grant("10.1.0.0/16", "bob")).peers(4) == {2}
    assert _policy(_grant("bob", "192.168.0.0/16")).peers(4) == frozenset()


def test_a_suspended_users_nodes_see_nobody_and_nobody_sees_them() -> None:
    policy = _policy(_grant("eve", "*"), _grant("alice", "eve"), _grant("autogroup:member", "autogroup:self"))
    assert policy.peers(3) == policy.circle(3) == frozenset()
    assert policy.peers(1) == frozenset()
    assert not any(policy.can_see(one, 3) or policy.can_see(3, one) for one in (1, 2, 4))
    assert policy.filter_rules(3) == []
    assert policy.opened().peers(3) == {1, 2, 4}
    assert arrows(policy.filter_rules(1)) == [
        "100.64.0.1 fd7a:115c:a1e0::1 -> 100.64.0.1:* fd7a:115c:a1e0::1:*"
    ]


def test_doorwards_own_node_is_in_no_answer() -> None:
    policy = _policy(_grant("*", "*"))
    assert policy.peers(5) == frozenset()
    assert all(5 not in policy.peers(node) for node in (1, 2, 3, 4))
    assert not any("100.64.0.5" in text.split() for text in policy.filter_rules(1)[0].SrcIPs)
    assert policy.filter_rules(1)[0].SrcIPs[0] == "100.64.0.0-100.64.0.2"  # eve's 100.64.0.3 is cut out


@pytest.mark.parametrize(
    ("source", "target", "routes"),
    [
        ("bob", "*", ["10.0.0.0/8", "0.0.0.0/0"]),
        ("bob", "10.1.0.0/16", ["10.0.0.0/8"]),
        ("bob", "autogroup:internet", ["0.0.0.0/0"]),
        ("bob", "tag:a", []),
        ("10.1.0.0/16", "bob", ["10.0.0.0/8"]),
        ("*", "bob", ["10.0.0.0/8"]),
        ("alice", "*", []),
    ],
)
def test_routes_that_a_viewer_may_use(source: str, target: str, routes: list[str]) -> None:
    policy = _policy(_grant(source, target))
    assert [str(route) for route in policy.routes_for(2, 4)] == routes
    assert policy.routes_for(2, 99) == ()


def test_a_router_has_its_own_active_routes() -> None:
    # "::/0" is approved, and not advertised: it is not active.
    assert [str(route) for route in _policy().routes_for(4, 4)] == ["10.0.0.0/8", "0.0.0.0/0"]


def test_via_chooses_the_router() -> None:
    other = make_node(6, tags=("tag:d",), advertised=("10.0.0.0/8",), approved=("10.0.0.0/8",))
    text = written(BASE | {"grants": [_grant("bob", "10.0.0.0/8", via=["tag:d"])]})
    policy = Policy.compile(parse_policy(text), USERS, [*NODES, other])
    assert policy.peers(2) == {6}
    assert [str(route) for route in policy.routes_for(2, 6)] == ["10.0.0.0/8"]
    assert policy.routes_for(2, 4) == ()


def test_tags_and_who_may_give_them() -> None:
    policy = _policy()
    alice, bob, eve = USERS
    carol = make_user(4, "carol")
    assert [policy.may_tag(bob, tag) for tag in ("tag:a", "tag:b", "tag:c", "tag:d", "tag:x")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert policy.may_tag(alice, "tag:d")  # an administrator may change the policy, and so may give its tags
    assert not policy.may_tag(alice, "tag:x")
    assert not policy.may_tag(carol, "tag:a")
    assert not policy.may_tag(eve, "tag:a")
    assert policy.may_tag_as(["tag:a"], "tag:b")
    assert policy.may_tag_as(["tag:a"], "tag:a")
    assert not policy.may_tag_as(["tag:b"], "tag:a")
    assert not policy.may_tag_as([], "tag:b")
    assert not policy.may_tag_as(["tag:x"], "tag:x")
    assert policy.knows_tag("tag:a")
    assert not policy.knows_tag("tag:x")


def test_an_administrator_may_not_tag_while_suspended() -> None:
    assert not _policy().may_tag(make_user(1, "alice", role=Role.OWNER, suspended=True), "tag:a")


def test_routes_that_need_nobodys_approval() -> None:
    policy = _policy(
        autoApprovers={
            "routes": {"10.0.0.0/8": ["tag:a", "group:g"], "::/0": ["tag:b"], "0.0.0.0/0": ["eve"]},
            "exitNode": ["alice"],
        }
    )

    def approved(node: Node, *texts: str) -> list[str]:
        return [str(route) for route in policy.auto_approved(node, [ip_network(text) for text in texts])]

    everything = ("10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0", "192.168.0.0/16", "0.0.0.0/1")
    assert approved(make_node(9, tags=("tag:a",)), *everything) == ["10.0.0.0/8", "10.1.0.0/16"]
    assert approved(make_node(9, user=1), *everything) == ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0"]
    assert approved(make_node(9, user=2), *everything) == ["10.0.0.0/8", "10.1.0.0/16"]
    assert approved(make_node(9, tags=("tag:b",), user=1), *everything) == ["::/0"]
    assert approved(make_node(9, user=3), *everything) == []
    assert approved(make_node(9), *everything) == []


def test_attributes() -> None:
    policy = _policy(
        randomizeClientPort=True,
        nodeAttrs=[
            {"target": ["alice", "tag:a"], "attr": ["funnel"]},
            {"target": ["10.0.0.0/8", "100.64.0.2"], "attr": ["drive:share"]},
        ],
    )
    assert policy.node_attributes(1).keys() == {"funnel", FUNNEL_WARNING, "randomize-client-port"}
    assert policy.node_attributes(2).keys() == {"drive:share", "randomize-client-port"}
    assert policy.node_attributes(4).keys() == {"funnel", FUNNEL_WARNING, "randomize-client-port"}
    assert policy.node_attributes(5) == {}


def test_warnings_name_users_that_nobody_is_and_a_policy_without_rules() -> None:
    policy = compiled({"groups": {"group:g": ["alice", "alcie"]}}, USERS, NODES)
    assert [one.message for one in policy.warnings()] == [
        "there are neither acls nor grants: everything may reach everything",
        'no user is called "alcie"',
    ]


# -- properties


def _answers(policy: Policy) -> dict[str, Any]:
    ids = range(1, 8)
    return {
        "peers": [policy.peers(one) for one in ids],
        "filters": [policy.filter_rules(one) for one in ids],
        "ssh": [policy.ssh_policy(one) for one in ids],
        "routes": [policy.routes_for(one, other) for one in ids for other in ids],
        "sees": [policy.can_see(one, other) for one in ids for other in ids],
        "attributes": [policy.node_attributes(one) for one in ids],
    }


@settings(deadline=None)  # the machine may be busy
@given(
    GRANTS,
    SSH,
    TAILNETS,
    st.lists(st.tuples(TAILNETS, st.sets(st.integers(1, 7))), min_size=1, max_size=3),
    st.booleans(),
)
def test_a_policy_that_was_updated_answers_like_one_made_anew(
    grants: list[Any],
    ssh: list[Any],
    nodes: list[Node],
    changes: list[tuple[list[Node], set[int]]],
    without_eve: bool,
) -> None:
    document = parse_policy(written(BASE | {"grants": grants, "ssh": ssh}))
    users: list[User] = USERS[: 2 if without_eve else 3]
    policy = Policy.compile(document, users, nodes)
    state = {node.id: node for node in nodes}
    for changed, removed in changes:
        before = _answers(policy)  # fills every cache
        old, policy = policy, policy.updated(nodes=changed, removed=removed)
        for node_id in removed:
            state.pop(node_id, None)
        state.update((node.id, node) for node in changed)
        assert _answers(policy) == _answers(Policy.compile(document, users, state.values()))
        assert _answers(old) == before


@settings(deadline=None)  # the machine may be busy
@given(GRANTS, TAILNETS)
def test_users_that_change_are_as_good_as_new(grants: list[Any], nodes: list[Node]) -> None:
    document = parse_policy(written(BASE | {"grants": grants}))
    freed = [make_user(user.id, user.name, email=user.email, role=user.role) for user in USERS]
    policy = Policy.compile(document, USERS, nodes)
    _answers(policy)
    assert _answers(policy.updated(users=freed)) == _answers(Policy.compile(document, freed, nodes))
    assert _answers(policy.updated(users=list(USERS))) == _answers(policy)


@settings(deadline=None)  # the machine may be busy
@given(GRANTS, TAILNETS)
def test_seeing_is_mutual_and_known_without_the_set(grants: list[Any], nodes: list[Node]) -> None:
    document = parse_policy(written(BASE | {"grants": grants}))
    asked, quick = (Policy.compile(document, USERS, nodes) for _ in range(2))
    for one in range(1, 8):
        for other in range(1, 8):
            mutual = {other in asked.peers(one), one in asked.peers(other), quick.can_see(one, other)}
            assert len(mutual) == 1
            assert quick.can_see(one, other) or one == other or not quick.routes_for(one, other)


@settings(deadline=None)  # the machine may be busy
@given(GRANTS, GRANT, st.integers(0, 4), TAILNETS)
def test_a_rule_more_never_takes_access_away(
    grants: list[Any], extra: Any, where: int, nodes: list[Node]
) -> None:
    more = [*grants[:where], extra, *grants[where:]]
    before, after = (compiled(BASE | {"grants": one}, USERS, nodes) for one in (grants, more))
    for one in range(1, 8):
        assert before.peers(one) <= after.peers(one)
        assert _lets_in(before, one) <= _lets_in(after, one)
        for other in range(1, 8):
            assert set(before.routes_for(one, other)) <= set(after.routes_for(one, other))


def _lets_in(policy: Policy, node_id: int) -> set[tuple[Any, ...]]:
    """What a filter admits, one tuple for each source, destination, port range and protocol."""
    found: set[tuple[Any, ...]] = set()
    for rule in policy.filter_rules(node_id):
        protocols = tuple(rule.IPProto or ())
        for source in rule.SrcIPs:
            found.update((source, one.IP, one.Ports, protocols) for one in rule.DstPorts or ())
            found.update((source, *grant.Dsts, *(grant.CapMap or ())) for grant in rule.CapGrant or ())
    return found


def test_a_group_of_an_outside_provider_stands_wherever_a_group_does() -> None:
    group = "group:eng@example.com"
    policy_text = {
        "tagOwners": {"tag:a": [group], "tag:b": []},
        "grants": [
            {"src": [group], "dst": ["tag:b"], "ip": ["22"]},
            {"src": ["bob"], "dst": [group], "ip": ["*"]},
        ],
        "acls": [{"action": "accept", "src": [group], "dst": [f"{group}:80"]}],
        "ssh": [{"action": "accept", "src": [group], "dst": ["tag:b"], "users": ["root"]}],
        "autoApprovers": {"routes": {"10.9.0.0/16": [group]}, "exitNode": [group]},
        "nodeAttrs": [{"target": [group], "attr": ["funnel"]}],
        "tests": [{"src": group, "accept": ["tag:b:22"], "deny": ["tag:b:23"]}],
    }
    alice, bob = make_user(1, "alice"), make_user(2, "bob")
    nodes = [make_node(1, user=1), make_node(2, user=2), make_node(4, tags=["tag:b"])]
    before = compiled(policy_text, [alice, bob], nodes)
    assert before.peers(1) == frozenset()
    assert {one.message for one in before.warnings()} == {f'nobody is in "{group}" yet'}
    assert not before.may_tag(alice, "tag:a")
    alice = make_user(1, "alice", groups=("eng@example.com",))
    fresh = compiled(policy_text, [alice, bob], nodes)
    for policy in (before.updated(users=[alice, bob]), fresh):
        assert policy.peers(1) == {2, 4}
        assert arrows(policy.filter_rules(4)) == [
            "100.64.0.1 fd7a:115c:a1e0::1 -> 100.64.0.4:22 fd7a:115c:a1e0::4:22"
        ]
        assert [rule.sshUsers for rule in policy.ssh_policy(4).rules] == [{"root": "root"}]
        assert policy.may_tag(alice, "tag:a")
        assert not policy.may_tag(bob, "tag:a")
        assert policy.node_attributes(1).keys() >= {"funnel"}
        mine, his, server = (point_of(policy, node) for node in (1, 2, 4))
        assert reach(policy, mine, server, 22)
        assert not reach(policy, his, server, 22)
        assert reach(policy, his, mine, 80)
        assert policy.warnings() == []
        check(policy)


def test_nodes_that_are_kept_apart_do_not_see_each_other_and_are_seen_by_all_others() -> None:
    rules = BASE | {"grants": [_grant("*", "*")], "ssh": [ROOT]}
    policy = compiled(rules, USERS, NODES)
    before = policy.peers(1), policy.peers(2)
    cut = policy.with_cuts([(1, 2)])
    assert (cut.peers(1), cut.peers(2)) == (before[0] - {2}, before[1] - {1})
    assert not cut.can_see(1, 2)
    assert not cut.can_see(2, 1)
    assert cut.circle(4) == policy.circle(4)
    assert cut.sources(cut.document.rules[0].who) is policy.sources(policy.document.rules[0].who)
    assert cut.with_cuts(()).peers(1) == before[0]
    assert (policy.peers(1), cut.opened().peers(1)) == (before[0], before[0] | {3})


def test_a_login_ends_with_the_cut_and_the_others_stay() -> None:
    policy = compiled(BASE | {"grants": [_grant("*", "*")], "ssh": [ROOT]}, USERS, NODES)
    (rule,) = policy.ssh_policy(4).rules
    assert {one.nodeIP for one in rule.principals} >= {"100.64.0.1", "100.64.0.2"}
    cut = policy.with_cuts([(1, 4)])
    (rule,) = cut.ssh_policy(4).rules
    assert "100.64.0.1" not in {one.nodeIP for one in rule.principals}
    assert cut.ssh_match(1, 4, "root") is None
    assert cut.ssh_match(2, 4, "root") is not None


@pytest.mark.parametrize("change", [{"suspended": True}, {"approved": False}])
def test_a_node_that_is_shut_out_is_in_no_answer_until_it_is_not(change: dict[str, bool]) -> None:
    rules = BASE | {"grants": [_grant("*", "*")], "ssh": [ROOT]}
    policy = compiled(rules, USERS, NODES)
    full = policy.peers(1), policy.filter_rules(4), policy.ssh_policy(4)
    shut = policy.updated(nodes=[msgspec.structs.replace(NODES[1], **change)])
    assert shut.roster.blocked == {2, 3}
    assert shut.peers(2) == frozenset()
    assert shut.peers(1) == full[0] - {2}
    assert (shut.filter_rules(2), shut.ssh_policy(2).rules) == ([], [])
    assert not any("100.64.0.2" in rule.SrcIPs for rule in shut.filter_rules(4))
    back = shut.updated(nodes=[NODES[1]])
    assert (back.peers(1), back.filter_rules(4), back.ssh_policy(4)) == full
    gone = shut.updated(removed=[2])
    assert gone.roster.blocked == {3}


def test_without_anybody_shut_out_the_opened_policy_is_the_same() -> None:
    policy = compiled(BASE | {"grants": [_grant("*", "*")]}, USERS[:2], NODES[:2])
    assert policy.opened() is policy


def test_among_a_persons_own_devices_one_that_is_shut_out_is_none() -> None:
    own = {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}
    rules = BASE | {"grants": [_grant("autogroup:member", "autogroup:self")], "ssh": [own]}
    policy = compiled(rules, USERS, [*NODES, make_node(6, user=1)])
    full = policy.filter_rules(1), policy.ssh_policy(1)
    shut = policy.updated(nodes=[msgspec.structs.replace(make_node(6, user=1), suspended=True)])
    assert policy.peers(1) == {6}
    assert shut.peers(1) == frozenset()
    assert not any("100.64.0.6" in rule.SrcIPs for rule in shut.filter_rules(1))
    assert not any(one.nodeIP == "100.64.0.6" for rule in shut.ssh_policy(1).rules for one in rule.principals)
    back = shut.updated(nodes=[make_node(6, user=1)])
    assert (back.filter_rules(1), back.ssh_policy(1), back.peers(1)) == (*full, frozenset({6}))
