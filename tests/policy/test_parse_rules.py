from typing import Any

import pytest
from tests.support.policy import written

from doorward.policy import Document, PolicyError, parse_policy
from doorward.protocol.tailcfg.filter import ALL_PORTS, PortRange


def _document(**sections: Any) -> Document:
    names = {"tagOwners": {"tag:r": [], "tag:s": []}, "groups": {"group:g": ["alice"]}}
    return parse_policy(written(names | sections))


def _refusal(**sections: Any) -> str:
    with pytest.raises(PolicyError) as raised:
        _document(**sections)
    return str(raised.value)


def _acl(**changes: Any) -> dict[str, Any]:
    return {"action": "accept", "src": ["alice"], "dst": ["tag:s:22"]} | changes


def _grant(**changes: Any) -> dict[str, Any]:
    return {"src": ["alice"], "dst": ["tag:s"], "ip": ["22"]} | changes


def test_an_acl_has_ports_for_each_destination_and_one_protocol() -> None:
    rule = _document(acls=[_acl(dst=["tag:s:22,80-443", "10.0.0.0/8:*"], proto="udp")]).rules[0]
    assert [(flow.target.text, flow.ports, flow.protocols) for flow in rule.flows] == [
        ("tag:s", (PortRange(22, 22), PortRange(80, 443)), (17,)),
        ("10.0.0.0/8", (ALL_PORTS,), (17,)),
    ]


def test_a_grant_has_every_service_at_every_destination() -> None:
    rule = _document(grants=[_grant(dst=["tag:s", "tag:r"], ip=["tcp:22", "53", "tcp:80"])]).rules[0]
    assert [(flow.target.text, flow.ports, flow.protocols) for flow in rule.flows] == [
        ("tag:s", (PortRange(22, 22), PortRange(80, 80)), (6,)),
        ("tag:r", (PortRange(22, 22), PortRange(80, 80)), (6,)),
        ("tag:s", (PortRange(53, 53),), ()),
        ("tag:r", (PortRange(53, 53),), ()),
    ]


def test_a_grant_of_capabilities() -> None:
    rule = _document(
        grants=[{"src": ["alice"], "dst": ["tag:s"], "app": {"example.com/cap/x": [{"a": 1}]}}]
    ).rules[0]
    assert rule.flows == ()
    assert rule.app == {"example.com/cap/x": [{"a": 1}]}
    assert [target.text for target in rule.app_targets] == ["tag:s"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": None}, "action must be specified"),
        ({"action": "drop"}, '"drop" is not a valid action'),
        ({"src": ["autogroup:self"]}, "not valid on the src side"),
        ({"dst": ["tag:s"]}, 'port range "s": invalid first integer'),
        ({"dst": ["tag:s:0"]}, "first port must be >0"),
        ({"proto": "icmp"}, "IP protocol 1 has no ports"),
        ({"proto": "tpc"}, 'unknown protocol "tpc"'),
        ({"src": ["tag:r"], "dst": ["autogroup:self:*"]}, "autogroup:self can only be used with users"),
        ({"dst": ["0.0.0.0/0:*"]}, "to allow all IP addresses"),
        ({"srk": []}, 'unknown key "srk"'),
    ],
)
def test_acls_that_are_refused(change: dict[str, Any], words: str) -> None:
    assert words in _refusal(acls=[_acl(**change)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ip": None}, "ip and app can not both be empty"),
        ({"ip": ["icmp"]}, 'port range "icmp": invalid first integer'),
        ({"src": ["*"], "dst": ["autogroup:self"]}, "autogroup:self can only be used with users"),
        ({"app": {"nonsense": []}}, "must have the form {domain}/{path}"),
        ({"app": {"tailscale.com/cap/ingress": []}}, "must not be in the tailscale.com domain"),
        ({"app": {"x.tailscale.com/cap/y": []}}, "must not be in the tailscale.com domain"),
        ({"app": {"example.com/cap/x": {}}}, "must be a list"),
        ({"dst": ["autogroup:internet"], "app": {"example.com/cap/x": []}}, "cannot use app grants"),
        ({"dst": ["10.0.0.0/8"], "via": ["tag:zzz"]}, 'tag "tag:zzz" not found'),
        ({"via": ["tag:r"]}, "via is for subnets"),
    ],
)
def test_grants_that_are_refused(change: dict[str, Any], words: str) -> None:
    assert words in _refusal(grants=[_grant(**change)])


def test_self_may_follow_everyone_in_acls_only() -> None:
    assert _document(acls=[_acl(src=["*"], dst=["autogroup:self:*"])]).rules
    assert _document(grants=[_grant(src=["group:g", "autogroup:admin"], dst=["autogroup:self"])]).rules


def test_one_fault_is_told_once() -> None:
    assert _refusal(grants=[_grant(ip=["icmp"])]).count("\n") == 0
