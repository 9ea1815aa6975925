from typing import Any

import pytest
from msgspec import UNSET
from tests.support.policy import arrows, compiled, make_node, make_user

from doorward.policy import Policy
from doorward.policy.ranges import INTERNET

USERS = [make_user(1, "alice"), make_user(2, "bob")]
NODES = [
    make_node(1, user=1),
    make_node(2, user=2),
    make_node(3, tags=("tag:s",)),
    make_node(4, tags=("tag:r",), advertised=("10.0.0.0/16",), approved=("10.0.0.0/16",)),
    make_node(5, tags=("tag:x",), advertised=("0.0.0.0/0", "::/0"), approved=("0.0.0.0/0", "::/0")),
    make_node(6, system=True),
]
TAGS: dict[str, list[str]] = {"tag:s": [], "tag:r": [], "tag:x": []}
A, B, S, R = (f"100.64.0.{n} fd7a:115c:a1e0::{n}" for n in (1, 2, 3, 4))


def _policy(**sections: Any) -> Policy:
    return compiled({"tagOwners": TAGS, "grants": []} | sections, USERS, NODES)


def _grant(source: str, target: str, *services: str, **more: Any) -> dict[str, Any]:
    return {"src": [source], "dst": [target], "ip": list(services or ("*",))} | more


def test_only_the_destination_gets_the_rule() -> None:
    policy = _policy(grants=[_grant("alice", "tag:s", "tcp:22", "53")])
    assert arrows(policy.filter_rules(3)) == [
        f"{A} -> 100.64.0.3:22 fd7a:115c:a1e0::3:22 [6]",
        f"{A} -> 100.64.0.3:53 fd7a:115c:a1e0::3:53",
    ]
    assert [policy.filter_rules(node) for node in (1, 2, 4, 5)] == [[], [], [], []]


def test_rules_with_the_same_sources_become_one_at_the_place_of_the_first() -> None:
    policy = _policy(
        grants=[_grant("alice", "bob", "1"), _grant("tag:s", "tag:r", "2"), _grant("alice", "tag:r", "3")]
    )
    assert arrows(policy.filter_rules(4)) == [
        f"{A} -> 100.64.0.4:3 fd7a:115c:a1e0::4:3",
        f"{S} -> 100.64.0.4:2 fd7a:115c:a1e0::4:2",
    ]


def test_a_router_lets_in_what_goes_to_its_subnets_and_nobody_elses() -> None:
    policy = _policy(grants=[_grant("alice", "10.0.1.0/24", "80"), _grant("bob", "192.168.0.0/16")])
    assert arrows(policy.filter_rules(4)) == [f"{A} -> 10.0.1.0/24:80"]
    assert policy.filter_rules(3) == []


def test_an_exit_node_lets_in_what_goes_to_the_internet() -> None:
    policy = _policy(grants=[_grant("alice", "autogroup:internet", "443")])
    assert arrows(policy.filter_rules(5)) == [f"{A} -> " + " ".join(f"{one}:443" for one in INTERNET)]
    assert policy.filter_rules(4) == []


def test_an_exit_node_does_not_count_as_a_router_of_every_subnet() -> None:
    policy = _policy(grants=[_grant("alice", "8.8.8.0/24")])
    assert policy.filter_rules(5) == []


def test_via_keeps_to_routers_with_the_tag() -> None:
    policy = _policy(grants=[_grant("alice", "10.0.0.0/16", via=["tag:s"])])
    assert policy.filter_rules(4) == []
    policy = _policy(grants=[_grant("alice", "10.0.0.0/16", via=["tag:r"])])
    assert arrows(policy.filter_rules(4)) == [f"{A} -> 10.0.0.0/16:*"]


def test_rules_with_via_are_merged_among_themselves_only() -> None:
    policy = _policy(
        grants=[
            _grant("alice", "192.168.0.0/16", via=["tag:r"]),
            _grant("bob", "10.0.0.0/16", "1"),
            _grant("alice", "10.0.0.0/16", "2"),
        ]
    )
    assert arrows(policy.filter_rules(4)) == [f"{B} -> 10.0.0.0/16:1", f"{A} -> 10.0.0.0/16:2"]


def test_self_is_the_owner_alone_and_stands_after_names() -> None:
    policy = compiled(
        {"acls": [{"action": "accept", "src": ["*"], "dst": ["autogroup:self:22", "alice:80"]}]},
        USERS,
        [*NODES, make_node(7, user=1)],
    )
    (everyone, own) = arrows(policy.filter_rules(1))
    assert everyone.endswith("-> 100.64.0.1:80 fd7a:115c:a1e0::1:80")
    assert own == (
        "100.64.0.1 100.64.0.7 fd7a:115c:a1e0::1 fd7a:115c:a1e0::7 -> 100.64.0.1:22 fd7a:115c:a1e0::1:22"
    )
    assert policy.filter_rules(3) == []


def test_capabilities_go_to_own_addresses_and_bring_their_companions() -> None:
    drive = "tailscale.com/cap/drive"
    policy = _policy(grants=[{"src": ["alice"], "dst": ["tag:s"], "app": {drive: [{"shares": ["*"]}]}}])
    assert arrows(policy.filter_rules(3)) == [f"{A} -> 100.64.0.3/32+fd7a:115c:a1e0::3/128 ['{drive}']"]
    assert arrows(policy.filter_rules(1)) == [
        f"{S} -> 100.64.0.1/32+fd7a:115c:a1e0::1/128 ['{drive}-sharer']"
    ]


def test_a_capability_at_one_address_is_held_out_there_only() -> None:
    policy = _policy(grants=[{"src": ["alice"], "dst": ["100.64.0.3"], "app": {"example.com/cap/x": []}}])
    assert arrows(policy.filter_rules(3)) == [f"{A} -> 100.64.0.3/32 ['example.com/cap/x']"]


def test_ports_without_sources_make_no_rule() -> None:
    policy = _policy(grants=[_grant("nobody", "*")])
    assert [policy.filter_rules(node.id) for node in NODES] == [[]] * len(NODES)


def test_a_capability_that_nobody_holds_is_sent_as_the_hosted_service_sends_it() -> None:
    policy = _policy(grants=[{"src": ["nobody"], "dst": ["*"], "app": {"e.com/c": []}}])
    (rule,) = policy.filter_rules(1)
    assert rule.SrcIPs == []
    assert rule.CapGrant is not UNSET


@pytest.mark.parametrize("node_id", [6, 99])
def test_doorwards_own_nodes_and_unknown_ones_have_no_filter_here(node_id: int) -> None:
    policy = _policy(grants=[_grant("*", "*")])
    assert policy.filter_rules(node_id) == []
    assert policy.peers(node_id) == frozenset()


def test_nodes_share_the_list_of_their_sources() -> None:
    policy = _policy(grants=[_grant("autogroup:member", "*")])
    assert policy.filter_rules(1)[0].SrcIPs is policy.filter_rules(2)[0].SrcIPs
