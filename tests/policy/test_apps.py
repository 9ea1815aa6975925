import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support import nouns

from doorward.model import User
from doorward.policy import Policy, parse_policy
from doorward.policy.apps import (
    APP,
    LARGEST,
    PROTECTED,
    REGISTER,
    TSIDP,
    Elsewhere,
    Entitlement,
    entitlement,
    groups_of,
    may_register,
    merged,
    problems_of,
)

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
ANN, BOB, EVE = 1, 2, 3
ANNS, BOBS, TAGGED = 10, 20, 30


def policy(*grants: tuple[list[str], dict[str, list[Any]]], **sections: Any) -> Policy:
    rules = [{"src": src, "dst": ["*"], "app": app} for src, app in grants]
    text = json.dumps(
        {"groups": {"group:ops": ["ann"]}, "tagOwners": {"tag:ci": []}, "grants": rules} | sections
    )
    people = [
        User(id=ANN, name="ann", created=CREATED),
        User(id=BOB, name="bob", created=CREATED),
        User(id=EVE, name="eve", created=CREATED, suspended=True),
    ]
    nodes = [nouns.node(ANNS, ANN, id=ANNS), nouns.node(BOBS, BOB, id=BOBS)]
    nodes.append(nouns.node(TAGGED, None, id=TAGGED, tags=("tag:ci",)))
    return Policy.compile(parse_policy(text), people, nodes)


def test_a_policy_that_says_nothing_of_apps_leaves_them_to_all_people() -> None:
    silent = policy()
    assert entitlement(silent, "grafana", ANN, ANNS) == Entitlement(allowed=True)
    assert entitlement(silent, "grafana", BOB, None).allowed
    assert not entitlement(silent, "grafana", EVE, None).allowed
    assert not entitlement(silent, "grafana", 99, None).allowed


def test_once_it_does_only_those_who_are_named_may() -> None:
    ruled = policy((["group:ops"], {APP: [{"apps": ["grafana"], "roles": ["admin", "a"]}]}))
    assert entitlement(ruled, "grafana", ANN, ANNS).roles == ("a", "admin")
    assert entitlement(ruled, "grafana", ANN, None).allowed
    assert not entitlement(ruled, "grafana", BOB, BOBS).allowed
    assert not entitlement(ruled, "wiki", ANN, ANNS).allowed


def test_what_tokens_may_be_exchanged_for_is_said_and_never_assumed() -> None:
    assert entitlement(policy(), "gateway", ANN, ANNS).resources == frozenset()
    ruled = policy(
        (["ann"], {APP: [{"apps": ["gateway"], "resources": ["https://a"]}, {"resources": ["https://b"]}]}),
        (["*"], {APP: [{"apps": ["gateway"]}]}),
    )
    assert entitlement(ruled, "gateway", ANN, ANNS).resources == {"https://a", "https://b"}
    assert entitlement(ruled, "wiki", ANN, ANNS).resources == {"https://b"}
    assert entitlement(ruled, "gateway", BOB, BOBS).resources == frozenset()


def test_scopes_at_the_next_server_are_those_of_the_entries_that_name_it() -> None:
    entries = [
        {"resources": ["https://a", "https://b"], "scopes": ["read"]},
        {"resources": ["https://a"], "scopes": ["write"]},
        {"resources": ["https://b", "https://c"]},
        {"scopes": ["admin"]},
    ]
    handed = entitlement(policy((["ann"], {APP: entries})), "gateway", ANN, ANNS).handed
    assert handed == {"https://a": {"read", "write"}, "https://b": {"read"}}


def test_words_about_people_go_and_come_only_where_it_is_said() -> None:
    there = {"issuer": "https://as.example", "resource": "https://api.example", "scopes": ["read"]}
    silent = entitlement(policy(), "agent", ANN, ANNS)
    assert (silent.elsewhere, silent.assertions) == ((), frozenset())
    ruled = policy(
        (["ann"], {APP: [{"apps": ["agent"], "elsewhere": [there], "assertions": ["corp"]}]}),
        (["ann"], {APP: [{"apps": ["agent"], "elsewhere": [there], "assertions": ["other"]}]}),
        (["*"], {APP: [{"apps": ["agent"]}]}),
    )
    found = entitlement(ruled, "agent", ANN, None)
    assert found.elsewhere == (
        Elsewhere(issuer="https://as.example", resource="https://api.example", scopes=("read",)),
    )
    assert found.assertions == {"corp", "other"}
    assert entitlement(ruled, "agent", BOB, BOBS) == Entitlement(allowed=True)
    for bad in ({"resource": "https://api.example"}, {"issuer": "x", "other": 1}, "https://as.example"):
        assert problems_of(APP, [{"elsewhere": [bad]}])


def test_an_entry_that_cannot_be_read_lets_nobody_in() -> None:
    broken = policy((["*"], {APP: [{"app": ["grafana"]}, "x"]}))
    found = entitlement(broken, "grafana", ANN, ANNS)
    assert not found.allowed
    assert len(found.problems) == 2
    assert "grants[0]" in found.problems[0]


def test_a_slip_is_said_when_the_policy_is_read() -> None:
    slips = policy(
        (["*"], {APP: [{"app": ["x"]}, {"claims": {"sub": "x"}}, {"apps": ["good"]}], TSIDP: [1, {}]})
    )
    said = [one.message for one in slips.warnings()]
    assert len(said) == 3
    assert all(one.startswith("grants[0]: ") for one in said)
    assert "the claim 'sub' is doorward's own" in said[1]


def test_entries_add_up_in_any_order() -> None:
    one = (["ann"], {APP: [{"scopes": ["groups"], "groups": ["x"], "claims": {"team": ["b"], "floor": 1}}]})
    two = (["*"], {APP: [{"scopes": ["email"], "groups": ["y"], "claims": {"team": ["a"], "floor": 2}}]})
    forth, back = (entitlement(policy(*pair), "wiki", ANN, ANNS) for pair in ((one, two), (two, one)))
    assert forth == back
    assert forth.scopes == frozenset({"groups", "email"})
    assert forth.groups == ("x", "y")
    assert forth.claims == {"team": ["a", "b"]}
    assert "floor" in forth.problems[0]
    free = policy(one, (["*"], {APP: [{}]}))
    assert entitlement(free, "wiki", ANN, ANNS).scopes is None


def test_conditions_on_devices_need_the_device() -> None:
    text = policy(
        postures={"posture:linux": ["node:os == 'linux'"]},
        grants=[
            {"src": ["ann"], "dst": ["*"], "srcPosture": ["posture:linux"], "app": {APP: [{}]}},
        ],
    )
    assert not entitlement(text, "wiki", ANN, ANNS).allowed  # of an unknown system
    assert not entitlement(text, "wiki", ANN, None).allowed


def test_tsidps_own_capability_adds_claims_and_keeps_nobody_out() -> None:
    both = {TSIDP: [{"extraClaims": {"a": 1, "sub": "x"}, "users": ["*"], "includeInUserInfo": True}]}
    found = entitlement(policy((["ann"], both)), "wiki", ANN, ANNS)
    assert (found.allowed, found.claims, found.userinfo) == (True, {"a": 1}, {"a": 1})
    assert "'sub'" in found.problems[0]
    hidden = policy((["ann"], {TSIDP: [{"extraClaims": {"a": 1}}]}))
    assert entitlement(hidden, "wiki", ANN, ANNS).userinfo == {}
    assert entitlement(hidden, "wiki", BOB, BOBS).claims == {}


@pytest.mark.parametrize("name", sorted(PROTECTED))
def test_no_policy_says_what_tokens_say_by_themselves(name: str) -> None:
    """T19."""
    assert merged([{name: "x"}], []) == {}


def test_claims_have_a_size() -> None:
    problems: list[str] = []
    assert merged([{"small": 1, "large": "x" * LARGEST}], problems) == {"small": 1}
    assert problems == ["the claim 'large' is too large"]


def test_the_groups_of_the_policy() -> None:
    assert groups_of(policy(), ANN) == ("ops",)
    assert groups_of(policy(), BOB) == ()


def test_the_policy_of_the_guide_is_one() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guide" / "apps.md"
    text = next(part for part in guide.read_text(encoding="utf-8").split("```") if '"grants"' in part)
    document = parse_policy(text.strip())
    assert len(document.rules) == 2
    assert document.remarks == ()


def test_an_app_that_comes_by_itself_is_named_by_its_address_too() -> None:
    url = "https://claude.example/client.json"
    ruled = policy((["ann"], {APP: [{"apps": [url], "roles": ["agent"]}]}))
    assert not entitlement(ruled, "claude.example~1", ANN, ANNS).allowed
    assert entitlement(ruled, "claude.example~1", ANN, ANNS, url).roles == ("agent",)


@pytest.mark.parametrize(
    ("capability", "good"),
    [
        ({REGISTER: [{}]}, True),
        ({REGISTER: []}, False),
        ({REGISTER: [{"apps": ["x"]}]}, False),
        ({TSIDP: [{"allow_dcr": True}]}, True),
        ({TSIDP: [{"allow_dcr": False}]}, False),
        ({TSIDP: [{"allow_dcr": "yes"}]}, False),
        ({TSIDP: [{}]}, False),
        ({APP: [{}]}, False),
    ],
)
def test_whose_programs_may_register_apps(capability: dict[str, Any], good: bool) -> None:
    ruled = policy((["ann", "eve"], capability))
    assert may_register(ruled, ANN, ANNS) is good
    assert not may_register(ruled, BOB, BOBS)
    assert not may_register(ruled, EVE, 0)
    assert not may_register(ruled, 99, 0)
    # To let somebody register apps says nothing of who may use any.
    assert entitlement(ruled, "wiki", BOB, BOBS).allowed is (APP not in capability)


def test_nobody_registers_apps_where_the_policy_says_nothing() -> None:
    assert not may_register(policy(), ANN, ANNS)


def test_an_entry_about_registering_is_empty() -> None:
    assert problems_of(REGISTER, [{}]) == []
    assert problems_of(REGISTER, [{"apps": ["x"]}])
