import json
from typing import Any

import pytest

from doorward.policy import PolicyError, parse_policy


def _ipsets(**sets: Any) -> dict[str, list[str]]:
    written = {name.replace("_", ":"): entries for name, entries in sets.items()}
    document = parse_policy(
        json.dumps({"ipsets": written, "hosts": {"db": "10.9.0.7", "net": "10.8.0.0/16"}})
    )
    return {name: [str(one) for one in ranges] for name, ranges in document.ipsets.items()}


def test_an_ipset_is_worked_out_in_order() -> None:
    found = _ipsets(
        ipset_a=["add 10.0.0.0/24", "remove 10.0.0.64/26", "add 10.0.0.65", "add 10.0.0.10-10.0.0.20"],
        ipset_b=["ipset:a", "host:db", "net", "fd00::1"],
        ipset_c=["add ipset:b", "remove ipset:a"],
        ipset_d=["add 0.0.0.0/0", "remove autogroup:internet"],
        ipset_e=[],
    )
    assert found["ipset:a"] == ["10.0.0.0/26", "10.0.0.65", "10.0.0.128/25"]
    assert found["ipset:b"] == [*found["ipset:a"], "10.8.0.0/16", "10.9.0.7", "fd00::1"]
    assert found["ipset:c"] == ["10.8.0.0/16", "10.9.0.7", "fd00::1"]
    assert found["ipset:d"] == [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
    ]
    assert found["ipset:e"] == []


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (
            {"ipset:a": ["ipset:b"], "ipset:b": ["ipset:c"], "ipset:c": ["ipset:a"]},
            '"ipset:a" contains itself',
        ),
        ({"ipset:a": ["ipset:x"]}, 'ipset not found: "ipset:x"'),
        ({"ipset:a": ["tag:x"]}, '"tag:x" cannot be in an ipset'),
        ({"ipset:a": ["ann@example.com"]}, "cannot be in an ipset"),
        ({"ipset:a": ["10.0.0.1/8"]}, "has bits set after its prefix length"),
        ({"ipset:a": ["10.0.0.9-10.0.0.1"]}, "invalid address"),
        ({"ipset:a": ["nonsense"]}, "invalid address"),
        ({"ipset:a": ["10.0.0.0/8", "remove 10.1.0.0/16"]}, 'needs "add" or "remove" before it'),
        ({"a": []}, "names must start with 'ipset:'"),
        ({"ipset:a": [f"10.{n // 100}.{n % 100}.1" for n in range(2100)]}, "comes to 2100 ranges"),
        ({f"ipset:{n}": [f"ipset:{n + 1}"] for n in range(30)} | {"ipset:30": []}, "nested deeper than 20"),
    ],
)
def test_ipsets_that_are_refused(sets: dict[str, list[str]], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(json.dumps({"ipsets": sets}))
    assert words in str(raised.value)
    assert all(one.cure for one in raised.value.diagnostics)


@pytest.mark.parametrize(
    ("postures", "words"),
    [
        ({"latest": ["node:os == 'linux'"]}, "posture names must start with 'posture:'"),
        ({"posture:a": []}, "has 0 assertions"),
        ({"posture:a": ["node:os === 'linux'"]}, "is not a posture assertion"),
        ({"posture:a": "node:os == 'linux'"}, "must be a list"),
    ],
)
def test_postures_that_are_refused(postures: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(json.dumps({"postures": postures}))
    assert words in str(raised.value)


def test_a_group_inside_a_group_is_refused_as_the_hosted_service_does() -> None:
    with pytest.raises(PolicyError, match="group members cannot be recursive"):
        parse_policy('{"groups": {"group:a": ["ann"], "group:b": ["group:a"]}}')
