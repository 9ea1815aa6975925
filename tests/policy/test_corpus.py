"""Replays recorded cases: what a real tailnet made of a policy, node by node.

The recordings are not part of the project. They are looked for in ``$DOORWARD_CORPUS`` and in ``../shared/corpus``. Every
case goes through the very function that ``doorward policy compile --cases`` uses. What is compared follows from the kind of
the case, as its recorder says; no case is treated by its name or its text.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.require import missing

from doorward.tailnet.offline import Case, outcome

Recorded = dict[str, Any]

# What a policy cannot set.
_NOT_POLICY = (
    "https://tailscale.com/cap/is-admin",
    "https://tailscale.com/cap/is-owner",
    "https://tailscale.com/cap/tailnet-lock",
    "https://tailscale.com/cap/funnel-ports",
    "service-host",
    "store-appc-routes",
    "tailnet-display-name",
    "tailnet.maxKeyDuration",
    "native-ipv4",
    "probe-udp-lifetime",
    "ssh-behavior-v1",
    "ssh-env-vars",
)

_VERDICT_ONLY = frozenset(("policytest",))  # their recorded nodes are empty, or of another tailnet
_WITH_SSH = frozenset(("ssh", "sshtest"))
_WITH_PEERS = frozenset(("routes", "grant", "issue_3212"))


@pytest.fixture(scope="module")
def corpus() -> list[Recorded]:
    folder = os.environ.get("DOORWARD_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus"
    path = Path(folder) / "policy-cases.jsonl.gz"
    if not path.exists():
        missing(f"the recorded policy cases at {path}; DOORWARD_CORPUS can name another folder")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _bag(items: Iterable[Any] | None) -> Counter[str]:
    return Counter(json.dumps(item, sort_keys=True) for item in items or ())


def _rule(rule: dict[str, Any]) -> tuple[Any, ...]:
    grants = [
        (
            sorted(grant["Dsts"]),
            {name: values or None for name, values in (grant.get("CapMap") or {}).items()},
        )
        for grant in rule.get("CapGrant") or ()
    ]
    return (_bag(rule.get("SrcIPs")), _bag(rule.get("DstPorts")), _bag(rule.get("IPProto")), grants)


def _ssh(rule: dict[str, Any]) -> tuple[Any, ...]:
    action = rule["action"]
    return (
        sorted(principal["nodeIP"] for principal in rule["principals"]),
        rule["sshUsers"],
        "hold" if "holdAndDelegate" in action else action,
        rule.get("acceptEnv") or [],
    )


def _caps(capabilities: dict[str, Any] | None) -> dict[str, Any]:
    return {
        name: values or None
        for name, values in (capabilities or {}).items()
        if not name.startswith(_NOT_POLICY)
    }


def _routers_first(case: Recorded) -> Recorded:
    """The case, its nodes in an order in which they may have been made.

    Of several routers of one subnet the oldest is the active one. The recording does not say which is oldest, but its netmaps
    say which was active.
    """
    active: set[str] = set()
    for name, node in case["nodes"].items():
        netmap = node.get("netmap") or {}
        if (netmap.get("self") or {}).get("primary_routes"):
            active.add(name)
    nodes = case["topology"]["nodes"]
    ordered = {name: nodes[name] for name in sorted(nodes, key=lambda name: name not in active)}
    return case | {"topology": case["topology"] | {"nodes": ordered}}


def _node_faults(kind: str, ours: dict[str, Any], recorded: dict[str, Any]) -> Iterable[str]:
    if [_rule(rule) for rule in ours["packet_filter_rules"]] != [
        _rule(rule) for rule in recorded.get("packet_filter_rules") or ()
    ]:
        yield f"filter {ours['packet_filter_rules']}, recorded {recorded.get('packet_filter_rules')}"
    if kind in _WITH_SSH and [_ssh(rule) for rule in ours["ssh_rules"]] != [
        _ssh(rule) for rule in recorded.get("ssh_rules") or ()
    ]:
        yield f"ssh {ours['ssh_rules']}, recorded {recorded.get('ssh_rules')}"
    netmap = recorded.get("netmap")
    if netmap and kind == "nodeattrs":
        yield from _attribute_faults(ours["netmap"], netmap)
    if netmap and kind in _WITH_PEERS:
        yield from _peer_faults(ours["netmap"], netmap)


def _attribute_faults(ours: dict[str, Any], recorded: dict[str, Any]) -> Iterable[str]:
    if _caps(ours["self"].get("cap_map")) != _caps(recorded["self"].get("cap_map")):
        yield f"own capabilities {ours['self'].get('cap_map')}, recorded {recorded['self'].get('cap_map')}"
    if ours["self"]["addresses"] != recorded["self"]["addresses"]:
        yield f"own addresses {ours['self']['addresses']}, recorded {recorded['self']['addresses']}"
    for name, peer in (recorded.get("peers") or {}).items():
        mine = ours["peers"].get(name, {})
        if _caps(mine.get("cap_map")) != _caps(peer.get("cap_map")) or mine["addresses"] != peer["addresses"]:
            yield f"peer {name} {mine}, recorded {peer}"


def _peer_faults(ours: dict[str, Any], recorded: dict[str, Any]) -> Iterable[str]:
    peers = recorded.get("peers") or {}
    if ours["peers"].keys() != peers.keys():
        yield f"peers {sorted(ours['peers'])}, recorded {sorted(peers)}"
        return
    for name, mine, theirs in (
        ("self", ours["self"], recorded["self"]),
        *((name, ours["peers"][name], peers[name]) for name in peers),
    ):
        for field in ("addresses", "allowed_ips", "primary_routes"):
            if _bag(mine.get(field)) != _bag(theirs.get(field)):
                yield f"{field} of {name} {mine.get(field)}, recorded {theirs.get(field)}"


def _faults(case: Recorded) -> list[str]:
    kind = case["name"].split("/")[0]
    found: dict[str, Any] = msgspec.to_builtins(outcome(msgspec.convert(_routers_first(case), Case)))
    if case["code"] != 200:
        if found["code"] == 200:
            return [f"accepted, and should be refused with {case['message']!r}"]
        return [] if case["message"] in found["message"] else [f"refused with {found['message']!r}"]
    if found["code"] != 200:
        return [f"refused with {found['message']!r}"]
    if kind in _VERDICT_ONLY:
        return []
    return [
        f"{name}: {fault}"
        for name, recorded in case["nodes"].items()
        if name in found["nodes"]
        for fault in _node_faults(kind, found["nodes"][name], recorded)
    ]


def test_every_recorded_case_passes(corpus: list[Recorded]) -> None:
    wrong = {case["name"]: faults for case in corpus if (faults := _faults(case))}
    assert not wrong, "\n".join(f"{name}: {fault}" for name, faults in wrong.items() for fault in faults[:3])
    kinds = Counter(case["name"].split("/")[0] for case in corpus)
    print(f"replayed {len(corpus)} cases: {dict(kinds)}")  # noqa: T201 - shown by `pytest -s`
    assert len(corpus) >= 534  # recordings that are not found must not pass for agreement


def test_every_refusal_has_a_place_and_a_cure(corpus: list[Recorded]) -> None:
    refused = [case for case in corpus if case["code"] != 200]
    assert len(refused) >= 85
    for case in refused:
        found = outcome(msgspec.convert(case, Case))
        assert found.message is not None
        assert found.message.startswith("policy.hujson:"), case["name"]


def test_a_thousand_cases_take_less_than_a_minute_of_one_core(corpus: list[Recorded]) -> None:
    from time import process_time  # noqa: PLC0415 - the one test that is about time

    cases = [msgspec.convert(case, Case) for case in corpus[:100]]
    start = process_time()
    for case in cases:
        outcome(case)
    assert process_time() - start < 6
