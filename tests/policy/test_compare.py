"""What a change of the policy means for each node: exactly what the filters say, in people's words."""

from typing import Any

import pytest
from hypothesis import given, settings
from tests.support.policy import admitted, compiled, make_node
from tests.support.tailnets import NODES, RICH, RICH_GRANTS, TAILNETS, USERS

from doorward.model import Node
from doorward.policy import Policy
from doorward.policy.compare import Labels, compare

NAMES = {1: "alice", 2: "bob", 3: "eve", None: "nobody"}


def _labels(policy: Policy) -> Labels:
    members = policy.roster.members
    return Labels(
        {one: f"node-{one}" for one in members},
        {one.id: " ".join(sorted(one.tags)) or NAMES[one.owner] for one in members.values()},
    )


def _pair(before: dict[str, Any], after: dict[str, Any], nodes: list[Node]) -> tuple[Policy, Policy]:
    return compiled(RICH | before, USERS, nodes), compiled(RICH | after, USERS, nodes)


def _compared(before: dict[str, Any], after: dict[str, Any], nodes: list[Node] = NODES) -> dict[str, Any]:
    old, new = _pair(before, after, nodes)
    return {one.node: (one.lost, one.gained) for one in compare(old, new, _labels(old))}


ASKED = [(port, protocol) for port in (21, 22, 80, 65535) for protocol in (6, 17)] + [(0, 1)]


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(RICH_GRANTS, RICH_GRANTS, TAILNETS)
def test_a_node_is_named_exactly_if_its_filter_lets_somebody_else_in_otherwise(
    before: list[Any], after: list[Any], nodes: list[Node]
) -> None:
    old, new = _pair({"grants": before}, {"grants": after}, nodes)
    found = {one.node: one for one in compare(old, new, _labels(old))}
    for gate in old.roster.members.values():
        lost = gained = False
        for source in old.roster.members.values():
            for port, protocol in ASKED if source.id != gate.id else ():
                was, will = (
                    admitted(policy, gate.id, source.ipv4, gate.ipv4, port, protocol) for policy in (old, new)
                )
                lost |= was and not will
                gained |= will and not was
        change = found.get(f"node-{gate.id}")
        lines = ((), ()) if change is None else (change.lost, change.gained)
        assert tuple(any(map(_is_own, each)) for each in lines) == (lost, gained), lines


def _is_own(line: str) -> bool:
    """About the network, the node itself, and other nodes."""
    what, _, who = line.partition(" from ")
    return "node" in who and " of " not in what and not what.startswith(("ssh", "capability", "attribute"))


@settings(deadline=None, max_examples=30)
@given(RICH_GRANTS, TAILNETS)
def test_the_same_rules_in_another_order_are_no_difference(grants: list[Any], nodes: list[Node]) -> None:
    assert _compared({"grants": grants}, {"grants": [*reversed(grants), *grants]}, nodes) == {}


def grant(source: str, target: str, *services: str) -> dict[str, Any]:
    return {"src": [source], "dst": [target], "ip": list(services)}


@pytest.mark.parametrize(
    ("before", "after", "lost", "gained"),
    [
        ([], [grant("alice", "bob", "22")], (), ("port 22 from alice (node-1)",)),
        (
            [grant("alice", "bob", "tcp:1-100")],
            [grant("alice", "bob", "tcp:1-21,23-100")],
            ("tcp 22 from alice (node-1)",),
            (),
        ),
        ([grant("alice", "bob", "22")], [grant("alice", "bob", "*")], (), ("icmp",)),
        (
            [grant("*", "bob", "*")],
            [grant("alice", "bob", "*"), grant("tag:a", "bob", "*")],
            ("all ports from 10.0.0.0/8",),
            (),
        ),
        ([grant("tag:a", "bob", "22")], [grant("100.64.0.4", "bob", "22")], (), ()),
        (
            [grant("alice", "bob", "tcp:22"), grant("tag:a", "bob", "tcp:22")],
            [grant("tag:a", "bob", "tcp:22")],
            ("tcp 22 from alice (node-1)",),
            (),
        ),
        ([grant("bob", "bob", "*")], [], (), ()),
    ],
)
def test_what_a_node_lets_in(before: Any, after: Any, lost: Any, gained: Any) -> None:
    found = _compared({"grants": before}, {"grants": after}).get("node-2", ((), ()))
    if gained == ("icmp",):
        assert found == ((), ("tcp/udp 1-21,23-65535 from alice (node-1)",))
    else:
        assert found == (lost, gained)


def test_behind_a_router_and_beyond_an_exit() -> None:
    found = _compared(
        {"grants": [grant("alice", "10.1.0.0/16", "443")]},
        {"grants": [grant("alice", "10.1.2.0/24", "443"), grant("bob", "autogroup:internet", "*")]},
    )
    assert found == {
        "node-4": (
            ("port 443 of 10.1.0.0/16 from alice (node-1)",),
            ("all ports of the internet from bob (node-2)",),
        )
    }


def test_logins_capabilities_and_attributes() -> None:
    rule = {"src": ["alice"], "dst": ["tag:a"], "users": ["autogroup:nonroot"]}
    cap = {"src": ["alice"], "dst": ["tag:a"], "app": {"example.com/cap/x": [{"may": "read"}]}}
    found = _compared(
        {"grants": [], "ssh": [rule | {"action": "accept"}]},
        {
            "grants": [cap],
            "ssh": [rule | {"action": "check"}, rule | {"action": "accept", "users": ["root"]}],
            "nodeAttrs": [{"target": ["tag:a"], "attr": ["custom:x"]}],
        },
    )
    assert found["node-4"] == (
        ("ssh as any account but root from alice (node-1)",),
        (
            'capability example.com/cap/x = [{"may": "read"}] from alice (node-1)',
            "ssh as any account but root after a check from alice (node-1)",
            "ssh as root from alice (node-1)",
            "attribute custom:x",
        ),
    )


def test_many_are_counted_and_all_are_every_node() -> None:
    nodes = [make_node(number, user=1) for number in range(1, 12)] + [make_node(12, user=2)]
    found = _compared({"grants": []}, {"grants": [grant("alice", "bob", "22")]}, nodes)
    assert found == {"node-12": ((), ("port 22 from every node",))}
    nodes.append(make_node(13, tags=("tag:a",)))
    found = _compared({"grants": []}, {"grants": [grant("alice", "bob", "22")]}, nodes)
    assert found == {"node-12": ((), ("port 22 from alice (all 11 nodes)",))}
    found = _compared({"grants": []}, {"grants": [grant("100.64.0.0/29", "bob", "22")]}, nodes)
    assert found == {"node-12": ((), ("port 22 from alice (7 of 11 nodes)",))}
    found = _compared({"grants": []}, {"grants": [grant("10.0.0.0/8", "tag:a", "22")]}, nodes)
    assert found == {"node-13": ((), ("port 22 from 10.0.0.0/8",))}
