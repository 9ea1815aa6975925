"""What people may do from a browser's tab."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.policy import admitted, compiled, make_node, make_user
from tests.support.tailnets import CUTS, RICH, RICH_GRANTS, SSH, TAILNETS
from tests.support.tailnets import USERS as SOME

from doorward.model import Role, Tab, TabTarget
from doorward.policy import Policy
from doorward.policy.tabs import FromTab, Passage

USERS = [
    make_user(1, "alice", email="alice@example.com", role=Role.ADMIN),
    make_user(2, "bob", email="bob@example.org"),
    make_user(3, "eve", suspended=True),
    make_user(4, "dan", groups=("eng@example.com",)),
]
NODES = [
    make_node(1, user=1),
    make_node(2, user=2),
    make_node(3, user=3),
    make_node(5, tags=("tag:s",)),
    make_node(6, tags=("tag:c",)),
    make_node(7),
]


def _policy(*ssh: dict[str, Any], grants: Any = None) -> Policy:
    everything = [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]
    return compiled(
        {
            "grants": everything if grants is None else grants,
            "tagOwners": {"tag:s": [], "tag:c": []},
            "groups": {"group:g": ["bob"]},
            "postures": {"posture:linux": ["node:os == 'linux'"]},
            "ssh": list(ssh),
        },
        USERS,
        NODES,
    )


def _rule(source: str, target: str, *users: str, **more: Any) -> dict[str, Any]:
    return {"action": "accept", "src": [source], "dst": [target], "users": list(users or ("root",))} | more


def _at(policy: Policy, user: int, node: int) -> Passage:
    return FromTab(policy.document, policy.roster, user).at(policy.roster.members[node])


def _accounts(policy: Policy, user: int, node: int) -> dict[str, str]:
    return {one.name: one.rule.origin for one in _at(policy, user, node).accounts}


@pytest.mark.parametrize(
    ("source", "who"),
    [
        ("alice", {1}),
        ("group:g", {2}),
        ("group:eng@example.com", {4}),
        ("autogroup:member", {1, 2, 4}),
        ("autogroup:admin", {1}),
        ("user:*@example.org", {2}),
        ("tag:c", set()),
        ("autogroup:tagged", set()),
    ],
)
def test_people_are_who_the_rule_names(source: str, who: set[int]) -> None:
    policy = _policy(_rule(source, "tag:s"))
    assert {user for user in range(1, 6) if _accounts(policy, user, 5)} == who


def test_their_own_machines_are_theirs_alone() -> None:
    policy = _policy(_rule("autogroup:member", "autogroup:self", "autogroup:nonroot", "root"))
    found = {
        (user, node) for user in range(1, 5) for node in (1, 2, 3, 5, 7) if _at(policy, user, node).is_open
    }
    assert found == {(1, 1), (2, 2)}
    assert _at(policy, 1, 1).anybody is not None
    assert _accounts(policy, 1, 1) == {"root": "ssh[0]"}


def test_a_check_stands_before_an_accept_and_a_name_before_any_other() -> None:
    policy = _policy(
        _rule("alice", "tag:s", "autogroup:nonroot"),
        _rule("alice", "tag:s", "deploy", action="check"),
        _rule("bob", "tag:s", "ops"),
    )
    assert _accounts(policy, 1, 5) == {"deploy": "ssh[1]"}
    anybody = _at(policy, 1, 5).anybody
    assert anybody is not None
    assert (anybody.origin, anybody.check) == ("ssh[0]", False)


def test_an_address_gives_an_account_of_its_own() -> None:
    policy = _policy(_rule("autogroup:member", "tag:s", "localpart:*@example.com"))
    assert _accounts(policy, 1, 5) == {"alice": "ssh[0]"}
    assert _accounts(policy, 2, 5) == {}


@pytest.mark.parametrize(
    ("grant", "opens"),
    [
        ({"src": ["alice"], "dst": ["tag:s"], "ip": ["22"]}, True),
        ({"src": ["alice"], "dst": ["tag:s"], "ip": ["tcp:20-30"]}, True),
        ({"src": ["100.64.0.0/10"], "dst": ["tag:s"], "ip": ["22"]}, True),
        ({"src": ["autogroup:danger-all"], "dst": ["tag:s"], "ip": ["22"]}, True),
        ({"src": ["alice"], "dst": ["100.64.0.5"], "ip": ["22"]}, True),
        ({"src": ["alice"], "dst": ["tag:s"], "ip": ["80"]}, False),
        ({"src": ["alice"], "dst": ["tag:s"], "ip": ["udp:22"]}, False),
        ({"src": ["100.64.0.1"], "dst": ["tag:s"], "ip": ["22"]}, False),
        ({"src": ["100.64.0.0/12"], "dst": ["tag:s"], "ip": ["22"]}, False),
        ({"src": ["alice"], "dst": ["tag:c"], "ip": ["22"]}, False),
        ({"src": ["alice"], "dst": ["autogroup:internet"], "ip": ["22"]}, False),
        ({"src": ["alice"], "dst": ["tag:s"], "ip": ["22"], "srcPosture": ["posture:linux"]}, False),
    ],
)
def test_the_port_has_to_be_open(grant: dict[str, Any], opens: bool) -> None:
    policy = _policy(_rule("alice", "tag:s"), grants=[grant])
    passage = _at(policy, 1, 5)
    assert (passage.is_open, passage.opening is not None) == (opens, opens)
    assert _accounts(policy, 1, 5) == {"root": "ssh[0]"}
    assert (passage.denied is not None) is ("srcPosture" in grant)


def test_wide_addresses_are_anybody_and_nobody_in_particular() -> None:
    policy = _policy(
        _rule("alice", "autogroup:self"),
        grants=[{"src": ["100.64.0.0/10", "alice"], "dst": ["tag:s"], "ip": ["22"]}],
    )
    assert _at(policy, 2, 5).addresses
    assert not _at(policy, 1, 1).addresses


def test_a_rule_about_postures_is_said_to_be() -> None:
    policy = _policy(_rule("alice", "tag:s", srcPosture=["posture:linux"]))
    assert not _at(policy, 1, 5).is_open
    assert _at(policy, 1, 5).denied is policy.document.ssh[0]


def test_only_what_is_addressed_counts_of_two_that_are_alike() -> None:
    policy = compiled(
        {
            "grants": [{"src": ["alice"], "dst": ["100.64.0.5"], "ip": ["22"]}],
            "tagOwners": {"tag:s": []},
            "ssh": [_rule("alice", "tag:s")],
        },
        USERS,
        [make_node(5, tags=("tag:s",)), make_node(6, tags=("tag:s",))],
    )
    assert [_at(policy, 1, node).is_open for node in (5, 6)] == [True, False]
    assert [str(address) for address in _at(policy, 1, 5).addresses] == ["100.64.0.5"]


TAB = 98


def _with_tab(nodes: Any, user: int, targets: Any) -> Any:
    node = make_node(TAB, user=user, ipv4="100.100.8.8", ipv6="fd7a:115c:a1e0:8::8")
    asked = tuple(
        TabTarget(node_id=one, account=account, ssh=ssh) for one, account, ssh in dict.fromkeys(targets)
    )
    return [*nodes, msgspec.structs.replace(node, tab=Tab(session_id=1, targets=asked, grace=60))]


TARGETS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(["root", "bob", "alice"]), st.booleans()), max_size=4
)


@given(TAILNETS, RICH_GRANTS, SSH, CUTS, st.sampled_from([1, 2, 3]), TARGETS)
def test_a_tab_gets_what_was_asked_for_of_what_its_person_may_and_nobody_else_notices(
    nodes: Any, grants: Any, ssh: Any, cuts: Any, user: int, targets: Any
) -> None:
    written = RICH | {"grants": grants, "ssh": ssh}
    without = compiled(written, SOME, nodes, cuts)
    policy = compiled(written, SOME, _with_tab(nodes, user, targets), cuts)
    asked = {one for one, _, _ in targets}
    tab = policy.roster.tabs[TAB]
    ways = without.from_tab(user)
    seen = policy.peers(TAB)
    assert seen <= asked & without.roster.members.keys()
    for node_id, member in policy.roster.members.items():
        assert (TAB in policy.peers(node_id)) == (node_id in seen) == policy.can_see(node_id, TAB)
        assert policy.peers(node_id) - {TAB} == without.peers(node_id)
        passage = ways.at(member)
        for source, target in ((tab.ipv4, member.ipv4), (tab.ipv6, member.ipv6)):
            let_in = admitted(policy, node_id, source, target, 22, 6)
            if node_id in seen:
                assert let_in == (target in passage.addresses)
                for port, protocol in ((80, 6), (22, 17), (1, 1)):
                    assert not admitted(policy, node_id, source, target, port, protocol)
        for account in ("root", "bob", "alice", "other"):
            match = policy.ssh_match(TAB, node_id, account)
            if match is not None and match.account:
                assert any((one, name) == (node_id, account) for one, name, _ in targets)
                assert passage.deciding(account) is not None
        if node_id not in seen:
            assert policy.filter_rules(node_id) == without.filter_rules(node_id)
            assert policy.ssh_policy(node_id) == without.ssh_policy(node_id)
            assert policy.ssh_match(TAB, node_id, "root") is None


@given(TAILNETS, RICH_GRANTS, SSH, TARGETS)
def test_a_tab_that_comes_and_goes_leaves_the_policy_as_it_was(
    nodes: Any, grants: Any, ssh: Any, targets: Any
) -> None:
    written = RICH | {"grants": grants, "ssh": ssh}
    before = compiled(written, SOME, nodes)
    whole = compiled(written, SOME, _with_tab(nodes, 1, targets))
    grown = before.updated(nodes=_with_tab((), 1, targets))
    after = grown.updated(removed=[TAB])
    for node_id in before.roster.members:
        assert grown.filter_rules(node_id) == whole.filter_rules(node_id)
        assert grown.ssh_policy(node_id) == whole.ssh_policy(node_id)
        assert grown.peers(node_id) == whole.peers(node_id)
        assert after.filter_rules(node_id) == before.filter_rules(node_id)
        assert after.peers(node_id) == before.peers(node_id)
    assert TAB not in after.roster.tabs


def test_whom_a_cut_or_a_suspension_keeps_apart_no_tab_joins() -> None:
    nodes = _with_tab(NODES, 1, [(5, "root", True)])
    policy = compiled(
        {"tagOwners": {"tag:s": [], "tag:c": []}, "ssh": [_rule("alice", "tag:s")]}, USERS, nodes
    )
    assert policy.can_see(TAB, 5)
    assert not policy.with_cuts([(5, TAB)]).can_see(TAB, 5)
    shut = [msgspec.structs.replace(node, suspended=node.id == TAB) for node in nodes]
    assert not policy.updated(nodes=shut).can_see(TAB, 5)
    assert TAB in policy.updated(nodes=shut).roster.blocked
    suspended = [msgspec.structs.replace(one, suspended=one.id in {1, 3}) for one in USERS]
    assert not policy.updated(users=suspended).can_see(5, TAB)


NEW = 99  # a device of the person's that does not differ from any other in its addresses


@given(TAILNETS, RICH_GRANTS, SSH, CUTS, st.sampled_from([1, 2, 3]))
def test_a_tab_gets_no_further_than_a_device_of_the_same_person(
    nodes: Any, grants: Any, ssh: Any, cuts: Any, user: int
) -> None:
    nodes = [*nodes, make_node(NEW, user=user, ipv4="100.100.7.7", ipv6="fd7a:115c:a1e0:7::7")]
    policy = compiled(RICH | {"grants": grants, "ssh": ssh}, SOME, nodes, cuts)
    device = policy.roster.members[NEW]
    ways = FromTab(policy.document, policy.roster, user)
    for node_id, member in policy.roster.members.items():
        passage = ways.at(member)
        for address in passage.addresses:
            source = device.ipv4 if address.version == 4 else device.ipv6
            assert node_id == NEW or admitted(policy, node_id, source, address, 22, 6)
        for account in passage.accounts:
            match = policy.ssh_match(NEW, node_id, account.name)
            assert match is not None
            assert match.account
