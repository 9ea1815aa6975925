from datetime import timedelta
from typing import Any

import pytest
from tests.support.policy import written

from doorward.policy import PolicyError, parse_policy
from doorward.policy.document import Forwarding, Localpart, SSHRule
from doorward.policy.parse_ssh import parse_check_period
from doorward.policy.words import WordError


def _rule(**changes: Any) -> SSHRule:
    rule = {"action": "accept", "src": ["alice"], "dst": ["tag:s"], "users": ["root"]} | changes
    names = {"grants": [], "tagOwners": {"tag:s": [], "tag:r": []}, "hosts": {"db": "100.64.0.9"}}
    return parse_policy(written(names | {"ssh": [rule]})).ssh[0]


def test_an_entry_in_full() -> None:
    rule = _rule(
        action=" check",
        users=["autogroup:nonroot", "localpart:*@Example.com", "deploy "],
        checkPeriod="1h30m",
        acceptEnv=["GIT_*", "LANG"],
    )
    assert rule.check
    assert rule.accounts == ("autogroup:nonroot", "deploy")
    assert rule.localparts == (Localpart("example.com"),)
    assert rule.check_period == timedelta(minutes=90)
    assert rule.accept_env == ("GIT_*", "LANG")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": ""}, "action must be specified"),
        ({"action": "Accept"}, '"Accept" is not a valid action'),
        ({"users": []}, "users must be specified"),
        ({"users": None}, "users must be specified"),
        ({"users": [""]}, 'user "" is not valid'),
        ({"users": ["*"]}, 'user "*" is not valid'),
        ({"recorder": ["tag:nothing"]}, 'recorder: tag not found: "tag:nothing"'),
        ({"srcPosture": ["posture:x"]}, 'posture not found: "posture:x"'),
        ({"doorward:message": "a\x07b"}, "must be printable text"),
        ({"doorward:sessionDuration": "soon"}, 'time: invalid duration "soon"'),
        ({"doorward:sessionDuration": "0s"}, "is a duration above zero"),
        ({"action": "check", "doorward:sessionDuration": "1h"}, "for the accept action"),
        ({"doorward:forwarding": {"agents": False}}, 'unknown key "agents"'),
        ({"doorward:mesage": "x"}, 'unknown key "doorward:mesage"'),
        ({"users": ["=", "a"]}, 'user "=" is not valid'),
        ({"users": ["-0"]}, 'user "-0" is not valid'),
        ({"acceptEnv": [""]}, "acceptEnv values cannot be empty"),
        ({"acceptEnv": ["A=B"]}, "is not the name of an environment variable"),
        ({"checkPeriod": "1h"}, "checkPeriod is only for the check action"),
        ({"action": "check", "src": ["tag:r"]}, '"check" action does not support tags in src'),
        ({"action": "check", "src": ["autogroup:tagged"]}, '"check" action does not support tags in src'),
        ({"src": ["*"]}, 'invalid src "*"'),
        ({"src": ["100.64.0.1"]}, 'invalid src "100.64.0.1"'),
        ({"dst": ["*"]}, 'invalid dst "*"'),
        ({"dst": ["db"]}, 'invalid dst "db"'),
        ({"dst": ["autogroup:member"]}, 'invalid dst "autogroup:member"'),
        ({"dst": ["bob"]}, "users in dst are only allowed from the same user"),
        ({"src": ["tag:r"], "dst": ["autogroup:self"]}, "autogroup:self can only be used with users"),
    ],
)
def test_entries_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        _rule(**change)
    assert words in str(raised.value)
    assert raised.value.cure


def test_a_user_may_reach_what_is_their_own_by_name() -> None:
    assert _rule(dst=["alice"]).targets[0].text == "alice"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12h", 43200),
        ("90m", 5400),
        ("1h0m1s", 3601),
        ("0s", 0),
        ("0", 0),
        ("always", 0),
        ("1.5m", 90),
        ("168h", 604800),
    ],
)
def test_check_periods(text: str, seconds: float) -> None:
    assert parse_check_period(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        ("12", 'time: invalid duration "12"'),
        ("1d", 'time: invalid duration "1d"'),
        ("-1m", "checkPeriod -1m0s must be a positive duration"),
        ("168h0m1s", "checkPeriod 168h0m1s is above the max (168h)"),
        ("9" * 400 + "h", "is above the max"),
    ],
)
def test_check_periods_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(WordError) as raised:
        parse_check_period(text)
    assert message in raised.value.message


@pytest.mark.parametrize(
    "account", ["tag:s", "autogroup:member", "localpart:*@", "localpart:foo", "\N{BEER MUG}"]
)
def test_words_of_the_language_are_accounts_as_in_the_hosted_service_and_remarked_on(account: str) -> None:
    rule = {"action": "accept", "src": ["alice"], "dst": ["alice"], "users": [account]}
    document = parse_policy(written({"ssh": [rule]}))
    assert document.ssh[0].accounts == (account,)
    assert [one.message for one in document.remarks] == [
        f'"{account}" in ssh[0] is taken as the name of an account, and no system has one like it'
    ]


def test_what_the_protocol_can_do_beyond_other_languages() -> None:
    rule = _rule(
        recorder=["tag:s"],
        enforceRecorder=True,
        **{
            "doorward:message": "Be careful.",
            "doorward:sessionDuration": "8h",
            "doorward:forwarding": {"agent": False},
        },
    )
    assert rule.recorders == ("tag:s",)
    assert rule.enforce_recorder
    assert rule.message == "Be careful."
    assert rule.session_duration == timedelta(hours=8)
    assert rule.forwarding == Forwarding(agent=False)


def test_a_tag_is_asked_only_where_somebody_else_approves() -> None:
    with pytest.raises(PolicyError, match='"check" action does not support tags in src'):
        _rule(action="check", src=["tag:r"])
    rule = _rule(action="check", src=["tag:r"], **{"doorward:approvers": ["alice", "autogroup:admin"]})
    assert [selector.text for selector in rule.approvers] == ["alice", "autogroup:admin"]
    with pytest.raises(PolicyError, match='"check" action does not support tags in src'):
        _rule(action="check", src=["tag:r"], **{"doorward:approvers": []})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"doorward:approvers": ["alice"]}, '"doorward:approvers" is only for the check action'),
        ({"action": "check", "doorward:approvers": ["tag:r"]}, '"tag:r" cannot approve a check'),
        ({"action": "check", "doorward:approvers": ["autogroup:tagged"]}, "cannot approve a check"),
        ({"action": "check", "doorward:approvers": "alice"}, "must be a list"),
    ],
)
def test_only_people_approve_and_only_checks(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        _rule(**change)


def test_a_rule_is_the_same_wherever_it_stands_and_another_with_every_word() -> None:
    base: dict[str, Any] = {"action": "check", "src": ["alice", "bob"], "users": ["root", "deploy"]}
    digest = _rule(**base).digest()
    assert _rule(**base, **{"doorward:message": "hello"}).digest() == digest
    assert _rule(**base | {"src": ["bob", "alice"], "users": ["deploy", "root"]}).digest() == digest
    others: list[dict[str, Any]] = [
        {"src": ["alice"]},
        {"dst": ["tag:r"]},
        {"users": ["root"]},
        {"users": ["root", "deploy", "localpart:*@example.com"]},
        {"checkPeriod": "1h"},
        {"checkPeriod": "always"},
        {"doorward:approvers": ["alice"]},
        {"recorder": ["tag:r"]},
    ]
    assert len({digest, *(_rule(**base | other).digest() for other in others)}) == len(others) + 1
