from typing import Any

import msgspec
import pytest
from tests.support.policy import compiled, make_node, make_user

from doorward.policy import Policy
from doorward.policy.ssh import HOLD_URL, UID_0_SPELLINGS, account_for, account_map, localpart_of

USERS = [
    make_user(1, "alice", email="alice@example.com"),
    make_user(2, "bob", email="bob@example.org"),
    make_user(3, "eve", suspended=True),
]
NODES = [
    make_node(1, user=1),
    make_node(2, user=1),
    make_node(3, user=2),
    make_node(4, user=3),
    make_node(5, tags=("tag:s",)),
    make_node(6, tags=("tag:c",)),
    make_node(7),
]


def _policy(*rules: dict[str, Any]) -> Policy:
    return compiled({"grants": [], "tagOwners": {"tag:s": [], "tag:c": []}, "ssh": list(rules)}, USERS, NODES)


def _rule(source: str, target: str, *users: str, **more: Any) -> dict[str, Any]:
    return {"action": "accept", "src": [source], "dst": [target], "users": list(users or ("root",))} | more


def _who(policy: Policy, node_id: int) -> list[list[str]]:
    return [
        [str(principal.nodeIP) for principal in rule.principals if ":" not in str(principal.nodeIP)]
        for rule in policy.ssh_policy(node_id).rules
    ]


def test_nothing_is_said_explicitly() -> None:
    assert _policy().ssh_policy(1).rules == []
    assert _policy().ssh_policy(99).rules == []


def test_tags_are_reached_by_people_and_tags() -> None:
    policy = _policy(_rule("autogroup:member", "tag:s"), _rule("tag:c", "tag:s"))
    assert _who(policy, 5) == [["100.64.0.1", "100.64.0.2", "100.64.0.3"], ["100.64.0.6"]]
    assert [_who(policy, node) for node in (1, 3, 6, 7)] == [[], [], [], []]


@pytest.mark.parametrize("target", ["autogroup:self", "alice"])
def test_people_reach_their_own(target: str) -> None:
    policy = _policy(_rule("alice", target))
    assert _who(policy, 1) == [["100.64.0.1", "100.64.0.2"]]
    assert [_who(policy, node) for node in (3, 4, 5, 7)] == [[], [], [], []]


def test_a_suspended_user_logs_in_nowhere() -> None:
    policy = _policy(_rule("autogroup:member", "autogroup:self"), _rule("eve", "tag:s"))
    assert _who(policy, 4) == []
    assert _who(policy, 5) == []


def test_checks_stand_before_accepts() -> None:
    policy = _policy(
        _rule("alice", "tag:s", "a"), _rule("alice", "tag:s", "b", action="check"), _rule("bob", "tag:s", "c")
    )
    rules = policy.ssh_policy(5).rules
    assert [sorted(rule.sshUsers) for rule in rules] == [["b", "root"], ["a", "root"], ["c", "root"]]
    assert rules[0].action.holdAndDelegate == HOLD_URL
    assert rules[0].action.accept is not True
    assert rules[1].action.accept is True
    assert all(part in HOLD_URL for part in ("$SRC_NODE_ID", "$DST_NODE_ID", "$SSH_USER", "$LOCAL_USER"))


def test_accounts() -> None:
    guard = dict.fromkeys(UID_0_SPELLINGS, "")
    assert account_map(["root"]) == {"root": "root"}
    assert account_map(["ubuntu"]) == {"root": "", "ubuntu": "ubuntu"}
    assert account_map(["root", "ubuntu"]) == {"root": "root", "ubuntu": "ubuntu"}
    assert account_map(["autogroup:nonroot"]) == {"*": "=", "root": ""} | guard
    assert account_map(["autogroup:nonroot", "root"]) == {"*": "=", "root": "root"}
    assert account_map([]) == {"root": ""}
    assert {"0", "00", "+0", "-0", " 0", "toor"} <= set(UID_0_SPELLINGS)


def test_localparts_are_for_their_own_user_only() -> None:
    policy = _policy(_rule("autogroup:member", "tag:s", "localpart:*@example.com", "deploy"))
    rules = policy.ssh_policy(5).rules
    assert [rule.sshUsers for rule in rules] == [
        {"deploy": "deploy", "root": ""},
        {"alice": "alice"},
        {"deploy": "deploy", "root": ""},
    ]
    assert _who(policy, 5) == [["100.64.0.1", "100.64.0.2"], ["100.64.0.1", "100.64.0.2"], ["100.64.0.3"]]


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("alice@example.com", "alice"),
        ("Alice@Example.com", "alice"),
        ("a.b-c@example.com", "a.b-c"),
        ("root@example.com", ""),
        ("toor@example.com", ""),
        ("0@example.com", ""),
        ("alice+x@example.com", ""),
        ("alice@example.org", ""),
        ("*@example.com", ""),
        ("", ""),
    ],
)
def test_a_localpart_is_never_worth_more_than_an_account(address: str, account: str) -> None:
    assert localpart_of(make_user(1, "x", email=address), {"example.com"}) == account


def test_environment_is_passed_on() -> None:
    rules = _policy(_rule("alice", "tag:s", acceptEnv=["GIT_*"])).ssh_policy(5).rules
    assert rules[0].acceptEnv == ["GIT_*"]


def test_nodes_that_let_in_the_same_people_share_the_rule() -> None:
    nodes = [make_node(1, user=1), make_node(2, tags=("tag:s",)), make_node(3, tags=("tag:s",))]
    policy = compiled({"tagOwners": {"tag:s": []}, "ssh": [_rule("alice", "tag:s")]}, USERS, nodes)
    assert policy.ssh_policy(2).rules[0] is policy.ssh_policy(3).rules[0]


def test_the_rule_that_decides_is_the_one_that_the_node_would_find() -> None:
    policy = _policy(
        _rule("autogroup:member", "tag:s", "autogroup:nonroot"),
        _rule("alice", "tag:s", "root", "deploy", action="check"),
        _rule("tag:c", "tag:s", "deploy"),
    )

    def decided(source: int, ssh_user: str, node: int = 5) -> tuple[str, str] | None:
        found = policy.ssh_match(source, node, ssh_user)
        return None if found is None else (found.rule.origin, found.account)

    assert decided(1, "root") == ("ssh[1]", "root")
    assert decided(1, "deploy") == ("ssh[1]", "deploy")  # the check, although an accept stands before it
    assert decided(1, "www") == ("ssh[0]", "www")
    assert decided(3, "deploy") == ("ssh[0]", "deploy")
    assert decided(3, "root") == ("ssh[0]", "")
    assert decided(6, "deploy") == ("ssh[2]", "deploy")
    assert decided(6, "www") == ("ssh[2]", "")
    assert decided(4, "www") is None  # suspended
    assert decided(1, "root", node=1) is None
    assert decided(99, "root") is None
    assert decided(1, "root", node=99) is None


def test_what_lets_a_session_in_has_the_rule_s_own_flags() -> None:
    options = {"doorward:forwarding": {"agent": False}, "doorward:message": "hi"}
    accept = _policy(_rule("alice", "tag:s", **options)).ssh_match(1, 5, "root")
    check = _policy(_rule("alice", "tag:s", action="check", **options)).ssh_match(1, 5, "root")
    assert accept is not None
    assert check is not None
    for action in (accept.action, check.action):
        assert (action.accept, action.allowLocalPortForwarding) == (True, True)
        assert action.allowAgentForwarding is msgspec.UNSET
    assert accept.action.message == "hi"
    assert check.action.message is msgspec.UNSET  # it came with the question


def test_localparts_are_each_person_s_own() -> None:
    policy = _policy(_rule("autogroup:member", "tag:s", "localpart:*@example.com"))
    found = policy.ssh_match(1, 5, "alice")
    assert found is not None
    assert found.account == "alice"
    other = policy.ssh_match(3, 5, "alice")
    assert other is not None
    assert other.account == ""


@pytest.mark.parametrize(
    "name", ["0", "00", "+0", "-0", " 0", "0x0", "007", "1000", "a b", "", "root\n", "a/b"]
)
def test_no_number_becomes_an_account(name: str) -> None:
    assert account_for({"*": "=", "root": ""}, name) == ""


def test_names_become_accounts_as_the_map_says() -> None:
    users = {"*": "=", "root": "", "web": "www"}
    names = ["ann", "Ann.B-c_1", "svc$", "root", "web"]
    assert [account_for(users, name) for name in names] == ["ann", "Ann.B-c_1", "svc$", "", "www"]
    assert account_for({"*": "ubuntu"}, "0") == "ubuntu"
    assert account_for({"deploy": "app"}, "other") == ""
