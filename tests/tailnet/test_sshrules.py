"""What nodes are told of the SSH rules, by who decides."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.support.checking import BY_OTHERS, CHECK, NONROOT, policy
from tests.support.policy import make_node, make_user

from doorward.model import Check, CheckState
from doorward.policy import Policy, parse_policy
from doorward.policy.ssh import HOLD_URL, account_for
from doorward.protocol.tailcfg.ssh import SSHRule
from doorward.tailnet.settings import Decide
from doorward.tailnet.sshrules import NOBODY, KeptChecks, rules_for

NOW = datetime(2026, 6, 1, tzinfo=UTC)
UNTIL = NOW + timedelta(minutes=10)
USERS = [make_user(1, "ann"), make_user(2, "bob")]
NODES = [
    make_node(1, user=1),
    make_node(2, user=2),
    make_node(3, tags=["tag:server"]),
    make_node(4, tags=["tag:ci"]),
]
SERVER = 3


def compiled(*rules: dict[str, Any]) -> Policy:
    return Policy.compile(parse_policy(policy(*(rules or (CHECK, NONROOT, BY_OTHERS)))), USERS, NODES)


def told(
    decide: Decide,
    answers: Policy | None = None,
    *,
    checks: KeptChecks = KeptChecks(until=UNTIL),  # noqa: B008 - a value
    node: int = SERVER,
    serves_ssh: bool = True,
) -> list[SSHRule]:
    return rules_for(answers or compiled(), checks, node, decide=decide, serves_ssh=serves_ssh).rules


def kind(rule: SSHRule) -> str:
    """``hold`` or ``accept``, an exclamation mark for an end, and the accounts."""
    what = "accept" if rule.action.accept is True else "hold"
    ends = "" if rule.ruleExpires is msgspec.UNSET else "!"
    names = " ".join(f"{name}={local}" for name, local in rule.sshUsers.items() if local)
    return f"{what}{ends} {names}"


def check(number: int = 1, **fields: Any) -> Check:
    (rule, *_) = compiled().document.ssh
    values: dict[str, Any] = {
        "id": number,
        "link": str(number),
        "code": "ABC-DEF",
        "source_id": 1,
        "target_id": SERVER,
        "user_id": 1,
        "ssh_user": "root",
        "account": "root",
        "rule": "ssh[0]",
        "rule_digest": rule.digest(),
        "period": 3600,
        "created": NOW,
        "expires": UNTIL,
        "state": CheckState.APPROVED,
        "until": NOW + timedelta(hours=1),
    }
    return Check(**(values | fields))


def test_under_policy_nodes_are_told_what_the_policy_says() -> None:
    answers = compiled()
    assert told(Decide.POLICY, answers) is answers.ssh_policy(SERVER).rules
    assert list(map(kind, told(Decide.POLICY))) == ["hold root=root", "hold deploy=deploy", "accept *=="]


def test_under_always_control_is_asked_about_everything() -> None:
    rules = told(Decide.ALWAYS)
    assert list(map(kind, rules)) == ["hold root=root", "hold deploy=deploy", "hold *==", "hold *=nobody"]
    assert {rule.action.holdAndDelegate for rule in rules} == {HOLD_URL}
    assert told(Decide.ALWAYS, serves_ssh=False) == rules
    assert told(Decide.ALWAYS, node=1, serves_ssh=False) == []


def test_under_fallback_an_accept_follows_its_hold_and_a_check_never_does() -> None:
    rules = told(Decide.FALLBACK)
    assert list(map(kind, rules)) == [
        "hold root=root",
        "hold deploy=deploy",
        "hold! *==",
        "accept *==",
        "hold! *=nobody",
    ]
    assert {rule.ruleExpires for rule in rules} == {UNTIL, msgspec.UNSET}
    hold, accept = rules[2:4]
    assert (hold.principals, hold.sshUsers, hold.acceptEnv) == (
        accept.principals,
        accept.sshUsers,
        accept.acceptEnv,
    )
    assert hold.action.message is msgspec.UNSET  # control's answer has it, and it is to be said once
    plain = compiled().ssh_policy(SERVER).rules
    assert told(Decide.FALLBACK, serves_ssh=False) == plain
    assert told(Decide.FALLBACK, checks=KeptChecks()) == plain


@pytest.mark.parametrize("decide", [Decide.ALWAYS, Decide.FALLBACK])
def test_the_last_hold_is_everybody_s_and_keeps_no_session_alive(decide: Decide) -> None:
    for rules in (told(decide), told(decide, node=1)):
        last = rules[-1]
        assert [principal.any for principal in last.principals] == [True]
        # A node keeps a session while some hold or accept maps to its account: this one maps to none that is used.
        for name in ("root", "ann", "0"):
            assert account_for(last.sshUsers, name) == NOBODY


def test_without_any_rule_even_the_refused_are_seen() -> None:
    assert list(map(kind, told(Decide.ALWAYS, node=1))) == ["hold *=nobody"]


def test_an_approval_becomes_an_accept_that_ends_with_its_period() -> None:
    checks = KeptChecks.of([check()])
    first, *rest = told(Decide.POLICY, checks=checks)
    assert kind(first) == "accept! root=root"
    assert first.ruleExpires == NOW + timedelta(hours=1)
    assert [principal.nodeIP for principal in first.principals] == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert rest == told(Decide.POLICY)
    # Where control decides it is asked instead.
    assert kind(told(Decide.ALWAYS, checks=checks)[0]) == "hold root=root"


@pytest.mark.parametrize(
    "fields",
    [
        {"until": None},
        {"user_id": 2},
        {"source_id": 2},
        {"source_id": 99},
        {"account": "toor"},
        {"ssh_user": "deploy"},
        {"rule_digest": "0"},
        {"target_id": 4},
    ],
    ids=str,
)
def test_an_approval_of_something_else_lets_nobody_in(fields: dict[str, Any]) -> None:
    assert told(Decide.POLICY, checks=KeptChecks.of([check(**fields)])) == told(Decide.POLICY)


def test_an_approval_ends_with_the_rule() -> None:
    checks = KeptChecks.of([check()])
    assert [kind(rule) for rule in told(Decide.POLICY, compiled(NONROOT), checks=checks)] == ["accept *=="]
    moved = told(Decide.POLICY, compiled(NONROOT, CHECK), checks=checks)
    assert kind(moved[0]) == "accept! root=root"


def test_checks_are_kept_by_number_and_by_target() -> None:
    first = KeptChecks.of([check(1), check(2), check(3, target_id=4)], UNTIL)
    assert [each.id for each in first.of_target(SERVER)] == [1, 2]
    changed = first.updated([check(1, code="XYZ-XYZ")], [2, 3, 99])
    assert [(each.id, each.code) for each in changed.of_target(SERVER)] == [(1, "XYZ-XYZ")]
    assert changed.of_target(4) == ()
    assert (sorted(changed.by_id), changed.until) == ([1], UNTIL)
    assert sorted(first.by_id) == [1, 2, 3]
    assert changed.falling_back(None).until is None
