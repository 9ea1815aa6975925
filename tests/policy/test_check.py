from typing import Any

import msgspec
import pytest
from tests.support.policy import compiled, make_node, make_user

from doorward.policy import PolicyError
from doorward.policy.check import check

USERS = [make_user(1, "alice", email="alice@example.com"), make_user(2, "bob")]
NODES = [
    make_node(1, user=1),
    make_node(2, user=2),
    make_node(3, tags=("tag:s",)),
    make_node(4, tags=("tag:s",)),
]
BASE: dict[str, Any] = {
    "tagOwners": {"tag:s": [], "tag:empty": []},
    "hosts": {"db": "10.0.0.7", "one": "100.64.0.3"},
    "grants": [
        {"src": ["alice"], "dst": ["tag:s"], "ip": ["tcp:22"]},
        {"src": ["alice"], "dst": ["db"], "ip": ["*"]},
        {"src": ["bob"], "dst": ["one"], "ip": ["udp:53"]},
    ],
    "ssh": [
        {"action": "accept", "src": ["alice"], "dst": ["tag:s"], "users": ["autogroup:nonroot"]},
        {"action": "check", "src": ["alice"], "dst": ["tag:s"], "users": ["root"]},
    ],
}


def _check(**sections: Any) -> None:
    check(compiled(BASE | sections, USERS, NODES))


@pytest.mark.parametrize(
    "test",
    [
        {"src": "alice", "accept": ["tag:s:22", "db:5432"], "deny": ["tag:s:23", "bob:22"]},
        {"src": "alice@example.com", "deny": ["tag:s:22"], "proto": "udp"},
        {"src": "bob", "accept": ["one:53"], "proto": "17"},
        {"src": "100.64.0.1", "accept": ["100.64.0.3:22", "10.0.0.7:1"]},
        {"src": "tag:s", "deny": ["alice:22"]},
    ],
)
def test_what_holds_passes(test: dict[str, Any]) -> None:
    _check(tests=[test])


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"src": "alice", "accept": ["tag:s:23"]}, "alice (100.64.0.1) cannot reach tag:s:23"),
        ({"src": "alice", "deny": ["tag:s:22"]}, "alice (100.64.0.1) can reach tag:s:22"),
        (
            {"src": "bob", "accept": ["tag:s:53"], "proto": "udp"},
            "cannot reach",
        ),  # one of two nodes is not enough
        ({"src": "alice"}, "needs src, and accept or deny"),
        ({"accept": ["tag:s:22"]}, "needs src, and accept or deny"),
        ({"src": "ghost", "deny": ["tag:s:22"]}, '"ghost" stands for no node'),
        ({"src": "tag:empty", "deny": ["tag:s:22"]}, '"tag:empty" stands for no node'),
        ({"src": "alice", "deny": ["tag:empty:22"]}, '"tag:empty" stands for no node'),
        ({"src": "tag:x", "deny": ["tag:s:22"]}, "tag not found"),
        ({"src": "*", "deny": ["tag:s:22"]}, "too wide"),
        ({"src": "alice", "deny": ["*:22"]}, "too wide"),
        ({"src": "alice", "deny": ["10.0.0.0/8:22"]}, "is a prefix"),
        ({"src": "alice", "accept": ["tag:s:*"]}, "about one port"),
        ({"src": "alice", "accept": ["tag:s:22,22"]}, "about one port"),
        ({"src": "alice", "accept": ["tag:s"]}, "invalid first integer"),
        ({"src": "alice", "accept": ["tag:s:22"], "proto": "tpc"}, "unknown protocol"),
    ],
)
def test_what_does_not_hold_fails(test: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        _check(tests=[test])
    assert "test(s) failed: tests[0]: " in str(raised.value)
    assert words in str(raised.value)
    assert raised.value.cure


@pytest.mark.parametrize(
    "test",
    [
        {"src": "alice", "dst": ["tag:s"], "accept": ["deploy", "root"], "check": ["root"]},
        {"src": "bob", "dst": ["tag:s"], "deny": ["deploy", "root"]},
        {"src": "alice", "dst": ["one", "100.64.0.4"], "accept": ["deploy"], "deny": ["0"]},
    ],
)
def test_ssh_that_holds_passes(test: dict[str, Any]) -> None:
    _check(sshTests=[test])


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"src": "bob", "dst": ["tag:s"], "accept": ["deploy"]}, "bob cannot log in as deploy"),
        ({"src": "alice", "dst": ["tag:s"], "deny": ["deploy"]}, "alice can log in as deploy"),
        ({"src": "alice", "dst": ["tag:s"], "check": ["deploy"]}, "is not asked to check"),
        ({"src": "alice", "dst": ["tag:s"]}, "needs src, dst, and accept, deny or check"),
        ({"src": "alice", "dst": [], "deny": ["root"]}, "needs src, dst"),
        ({"src": "alice", "dst": ["tag:x"], "deny": ["root"]}, 'SSH tests dst contains unknown tag "tag:x"'),
        ({"src": "alice", "dst": ["*"], "deny": ["root"]}, 'SSH tests dst contains disallowed element "*"'),
        ({"src": "alice", "dst": ["10.0.0.0/8"], "deny": ["root"]}, "disallowed element"),
        ({"src": "alice", "dst": ["tag:empty"], "deny": ["root"]}, "stands for no node"),
        ({"src": "ghost", "dst": ["tag:s"], "deny": ["root"]}, "stands for no node"),
    ],
)
def test_ssh_that_does_not_hold_fails(test: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        _check(sshTests=[test])
    assert words in str(raised.value)


def test_every_failure_is_told_in_the_order_of_the_file() -> None:
    with pytest.raises(PolicyError) as raised:
        _check(
            tests=[{"src": "alice", "deny": ["tag:s:22"]}, {"src": "bob", "accept": ["tag:s:22"]}],
            sshTests=[{"src": "bob", "dst": ["tag:s"], "accept": ["root"]}],
        )
    assert [one.message.split(": ")[1] for one in raised.value.diagnostics] == [
        "tests[0]",
        "tests[1]",
        "sshTests[0]",
    ]


@pytest.mark.parametrize(
    ("attributes", "passes"),
    [({"custom:ok": True}, True), ({"custom:ok": False}, False), ({}, False), (None, False)],
)
@pytest.mark.parametrize("target", ["100.64.0.1", "autogroup:self"])
def test_a_test_may_say_what_its_source_is_like(
    attributes: dict[str, Any] | None, passes: bool, target: str
) -> None:
    test = {"src": "alice", "accept": ["100.64.0.1:22"]}
    policy = {
        "postures": {"posture:ok": ["custom:ok == true"]},
        "grants": [{"src": ["alice"], "dst": [target], "ip": ["22"], "srcPosture": ["posture:ok"]}],
        "tests": [test if attributes is None else test | {"srcPostureAttrs": attributes}],
    }
    judged = compiled(policy, [make_user(1, "alice")], [make_node(1, user=1), make_node(2, user=1)])
    if passes:
        check(judged)
    else:
        with pytest.raises(PolicyError, match="cannot reach"):
            check(judged)


def test_suspensions_and_cuts_are_no_reason_for_a_test_to_fail() -> None:
    """Else nobody could change the policy while somebody is shut out."""
    tests = [{"src": "alice", "accept": ["tag:s:22"], "deny": ["bob:22"]}]
    logins = [{"src": "alice", "dst": ["tag:s"], "accept": ["ann"]}]
    users = [msgspec.structs.replace(USERS[0], suspended=True), USERS[1]]
    nodes = [*NODES[:2], msgspec.structs.replace(NODES[2], suspended=True), NODES[3]]
    written = BASE | {"tests": tests, "sshTests": logins}
    for policy in (
        compiled(written, users, NODES),
        compiled(written, USERS, nodes),
        compiled(written, USERS, NODES, [(1, 3)]),
    ):
        check(policy)
    with pytest.raises(PolicyError, match="can reach"):
        check(compiled(BASE | {"tests": [{"src": "alice", "deny": ["tag:s:22"]}]}, users, NODES))
