"""Policies applied to topologies that are written down."""

from typing import Any

import msgspec
import pytest

from doorward.errors import BadInput
from doorward.policy import PolicyError
from doorward.tailnet.offline import Case, Topology, compile_offline, outcome

PEOPLE = [
    {"id": 7, "name": "ann", "email": "ann@example.com"},
    {"id": 9, "name": "bob", "email": "bob@example.org"},
]
NODES: dict[str, Any] = {
    "laptop": {"ipv4": "100.64.0.1", "ipv6": "fd7a:115c:a1e0::1", "user": "ann", "tags": []},
    "phone": {"ipv4": "100.64.0.2", "ipv6": "fd7a:115c:a1e0::2", "user": "bob", "tags": None},
    "router": {
        "ipv4": "100.64.0.3",
        "ipv6": "fd7a:115c:a1e0::3",
        "tags": ["tag:r"],
        "routable_ips": ["10.1.0.0/24", "10.2.0.0/24"],
        "approved_routes": ["10.1.0.0/24"],
    },
}
POLICY = """{"tagOwners": {"tag:r": []},
    "grants": [{"src": ["autogroup:owner"], "dst": ["10.1.0.0/24"], "ip": ["tcp:443"]}],
    "ssh": [{"action": "check", "src": ["ann"], "dst": ["tag:r"], "users": ["autogroup:nonroot"]}]}"""


def topology(**changes: Any) -> Topology:
    return msgspec.convert({"users": PEOPLE, "nodes": NODES} | changes, Topology)


def test_every_node_gets_what_it_would_be_sent() -> None:
    found = compile_offline(POLICY, topology())
    assert list(found) == ["laptop", "phone", "router"]
    assert found["phone"].packet_filter_rules == found["laptop"].packet_filter_rules == []
    assert found["router"].packet_filter_rules == [
        {
            "SrcIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
            "DstPorts": [{"IP": "10.1.0.0/24", "Ports": {"First": 443, "Last": 443}}],
            "IPProto": [6],
        }
    ]
    (rule,) = found["router"].ssh_rules
    assert rule["sshUsers"] == {"*": "=", "root": ""}
    assert "holdAndDelegate" in rule["action"]
    router = found["laptop"].netmap.peers["router"]
    assert router.allowed_ips == ["100.64.0.3/32", "fd7a:115c:a1e0::3/128", "10.1.0.0/24"]
    assert router.primary_routes == ["10.1.0.0/24"]
    assert found["phone"].netmap.peers == {}
    assert "magicdns-aaaa" not in found["phone"].netmap.self.cap_map


def test_the_first_user_is_the_owner_unless_roles_are_given() -> None:
    roles = [PEOPLE[0] | {"role": "member"}, PEOPLE[1] | {"role": "owner"}]
    found = compile_offline(POLICY, topology(users=roles))
    assert found["router"].packet_filter_rules[0]["SrcIPs"] == ["100.64.0.2", "fd7a:115c:a1e0::2"]


def test_a_posture_is_judged_by_what_the_topology_says() -> None:
    policy = """{"postures": {"posture:mac": ["node:os == 'macos'"], "posture:ok": ["custom:ok == true"]},
        "grants": [{"src": ["*"], "dst": ["*"], "ip": ["1"], "srcPosture": ["posture:mac"]},
                   {"src": ["*"], "dst": ["*"], "ip": ["2"], "srcPosture": ["posture:ok"]}]}"""
    nodes = NODES | {
        "laptop": NODES["laptop"] | {"hostinfo": {"OS": "macOS"}},
        "phone": NODES["phone"] | {"attributes": {"custom:ok": True}},
    }
    mac, okay = compile_offline(policy, topology(nodes=nodes))["router"].packet_filter_rules
    assert mac["SrcIPs"] == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert okay["SrcIPs"] == ["100.64.0.2", "fd7a:115c:a1e0::2"]


def test_a_refusal_is_an_outcome_with_every_fault() -> None:
    policy = '{"grnts": [],\n "grants": [{"src": ["tag:x"], "dst": ["*"], "ip": ["*"]}]}'
    found = outcome(Case(policy, topology(), "two faults"))
    assert (found.name, found.code, found.nodes) == ("two faults", 400, {})
    assert found.message == (
        'policy.hujson:1:2: unknown key "grnts" in the policy\npolicy.hujson:2:22: src=tag not found: "tag:x"'
    )


def test_the_files_own_tests_count() -> None:
    policy = '{"grants": [], "tests": [{"src": "ann", "accept": ["100.64.0.3:22"]}]}'
    assert "test(s) failed" in str(outcome(Case(policy, topology())).message)


def test_a_domain_is_that_of_those_who_run_the_tailnet() -> None:
    policy = '{"grants": [{"src": ["user:*@%s"], "dst": ["*"], "ip": ["*"]}]}'
    assert compile_offline(policy % "example.com", topology())
    assert compile_offline(policy % "passkey", topology())
    with pytest.raises(PolicyError, match=r"example\.org is not associated with this Tailnet"):
        compile_offline(policy % "example.org", topology())
    nobody = [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]
    assert compile_offline(policy % "example.org", topology(users=nobody))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"user": "eve", "tags": []}, 'belongs to "eve"'),
        ({"user": None, "tags": []}, 'belongs to "None"'),
        ({"user": "ann", "ipv4": "100.64.0.999"}, '"100.64.0.999" is no address'),
        ({"user": "ann", "ipv6": "100.64.0.9"}, '"100.64.0.9" is no address'),
        ({"user": "ann", "approved_routes": ["10.0.0.1/8"]}, '"10.0.0.1/8" is no address or prefix'),
    ],
)
def test_a_topology_that_makes_no_sense_is_refused(node: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        compile_offline("{}", topology(nodes={"a": NODES["laptop"] | node}))


BY_PLACE = """{"postures": {"posture:de": ["ip:country == 'DE'"], "posture:lab": ["ip:address IN ['192.0.2.0/24']"]},
    "grants": [{"src": ["*"], "dst": ["tag:r"], "ip": ["tcp:1"], "srcPosture": ["posture:de"]},
               {"src": ["*"], "dst": ["tag:r"], "ip": ["tcp:2"], "srcPosture": ["posture:lab"]}],
    "tagOwners": {"tag:r": []}}"""


def test_a_topology_may_say_where_nodes_come_from() -> None:
    nodes = dict(NODES)
    nodes["laptop"] = NODES["laptop"] | {"attributes": {"ip:address": "198.51.100.1", "ip:country": "de"}}
    nodes["phone"] = NODES["phone"] | {"attributes": {"ip:address": "192.0.2.7", "ip:country": "FR"}}
    one, two = compile_offline(BY_PLACE, topology(nodes=nodes))["router"].packet_filter_rules
    assert (one["DstPorts"][0]["Ports"]["First"], one["SrcIPs"]) == (1, ["100.64.0.1", "fd7a:115c:a1e0::1"])
    assert (two["DstPorts"][0]["Ports"]["First"], two["SrcIPs"]) == (2, ["100.64.0.2", "fd7a:115c:a1e0::2"])


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"ip:country": "DE"}, {}, "ip:country is that of an address"),
        ({"ip:address": "here"}, {}, '"here" is no address'),
        (
            {"ip:address": "192.0.2.7", "ip:country": "DE"},
            {"ip:address": "192.0.2.7", "ip:country": "FR"},
            "no address is in two countries",
        ),
    ],
)
def test_places_that_make_no_sense_are_refused(
    first: dict[str, str], second: dict[str, str], words: str
) -> None:
    nodes = {"a": NODES["laptop"] | {"attributes": first}, "b": NODES["phone"] | {"attributes": second}}
    with pytest.raises(BadInput, match=words):
        compile_offline("{}", topology(nodes=nodes))
