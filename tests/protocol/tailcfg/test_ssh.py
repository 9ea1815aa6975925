"""SSH policy: its fields begin with a lower-case letter, and an empty policy is said."""

from datetime import UTC, datetime

from doorward.protocol.tailcfg.codec import decode_response, encode
from doorward.protocol.tailcfg.ssh import (
    SSHAction,
    SSHPolicy,
    SSHPrincipal,
    SSHRecorderFailure,
    SSHRule,
)


def test_no_rules_are_said_because_they_revoke() -> None:
    assert encode(SSHPolicy(rules=[])) == b'{"rules":[]}'


def test_a_whole_rule() -> None:
    rule = SSHRule(
        principals=[SSHPrincipal(nodeIP="100.64.0.1"), SSHPrincipal(any=True)],
        sshUsers={"*": "=", "root": ""},
        action=SSHAction(
            accept=True,
            sessionDuration=3_600_000_000_000,
            recorders=["100.64.0.9:80"],
            onRecordingFailure=SSHRecorderFailure(RejectSessionWithMessage="No recorder."),
        ),
        ruleExpires=datetime(2026, 1, 2, tzinfo=UTC),
        acceptEnv=["LANG"],
    )
    written = encode(SSHPolicy(rules=[rule]))
    assert written == (
        b'{"rules":[{"principals":[{"nodeIP":"100.64.0.1"},{"any":true}],"sshUsers":{"*":"=","root":""},'
        b'"action":{"accept":true,"sessionDuration":3600000000000,"recorders":["100.64.0.9:80"],'
        b'"onRecordingFailure":{"RejectSessionWithMessage":"No recorder."}},'
        b'"ruleExpires":"2026-01-02T00:00:00Z","acceptEnv":["LANG"]}]}'
    )
    assert decode_response(written, SSHPolicy, limit=1000) == SSHPolicy(rules=[rule])


def test_refusing_is_not_the_same_as_saying_nothing() -> None:
    assert encode(SSHAction(reject=True, message="No.")) == b'{"message":"No.","reject":true}'
    assert encode(SSHAction()) == b"{}"
