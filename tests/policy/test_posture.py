from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.posture import (
    MAX_VALUES,
    AttributeValue,
    Operator,
    Posture,
    attributes_of,
    parse_assertion,
    version_key,
)
from doorward.policy.words import WordError
from doorward.protocol.tailcfg.hostinfo import Hostinfo

LAPTOP: dict[str, AttributeValue] = {
    "node:os": "macos",
    "node:osversion": "15.3.1",
    "node:tsversion": "1.102.4",
    "node:tsautoupdate": True,
    "custom:tier": "prod",
    "custom:score": 80,
    "custom:ratio": 0.5,
}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("node:os == 'macos'", True),
        ('node:os == "macos"', True),
        ("node:os=='linux'", False),
        ("node:os != 'linux'", True),
        ("NODE:OS IN ['linux', 'macos']", True),
        ("node:os in ['linux']", False),
        ("node:os NOT IN ['linux', 'windows']", True),
        ("node:os not in ['macos']", False),
        ("node:osVersion >= '15.3'", True),
        ("node:osVersion < '15.10'", True),
        ("node:tsVersion > '1.9'", True),
        ("node:tsVersion > '1.102.4'", False),
        ("node:tsVersion <= '1.102.4'", True),
        ("node:tsAutoUpdate == true", True),
        ("node:tsAutoUpdate != false", True),
        ("node:tsAutoUpdate > 0", False),  # true is no number
        ("node:tsAutoUpdate == 1", False),
        ("custom:score >= 80", True),
        ("custom:score < 80.5", True),
        ("custom:score == '80'", False),  # a text is no number
        ("custom:ratio > 0.4", True),
        ("custom:tier IS SET", True),
        ("custom:tier NOT SET", False),
        # What is not set satisfies nothing but NOT SET.
        ("custom:other NOT SET", True),
        ("custom:other IS SET", False),
        ("custom:other == 'x'", False),
        ("custom:other != 'x'", False),
        ("custom:other NOT IN ['x']", False),
        ("custom:other < 5", False),
    ],
)
def test_assertions(text: str, verdict: bool) -> None:
    assert parse_assertion(text).holds(LAPTOP) is verdict


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a posture assertion"),
        ("node:os", "is not a posture assertion"),
        ("node:os ==", "is not a posture assertion"),
        ("node:os == 'a' 'b'", "is not a posture assertion"),
        ("node:os = 'a'", "is not a posture assertion"),
        ("node:os == macos", "is not a posture assertion"),
        ("node:os IN 'a'", "is not a posture assertion"),
        ("node:os IN []", "is not a posture assertion"),
        ("node:os IN ['a' 'b']", "is not a posture assertion"),
        ("node:os IN ['a',]", "is not a posture assertion"),
        ("node:os SET", "is not a posture assertion"),
        ("node:os IS NOT SET", "is not a posture assertion"),
        ("'node:os' == 'a'", "is not a posture assertion"),
        ("os == 'a'", '"os" is not a posture attribute'),
        ("node:osversoin == 'a'", 'unknown posture attribute "node:osversoin"'),
        ("ip:country == 'DE'", "is not known to postures yet"),
        ("nod:os == 'a'", 'unknown posture attribute "nod:os"'),
        (f"node:os IN [{','.join(['1'] * (MAX_VALUES + 1))}]", "a list of more than"),
    ],
)
def test_what_is_no_assertion_is_refused_with_a_cure(text: str, words: str) -> None:
    with pytest.raises(WordError) as raised:
        parse_assertion(text)
    assert words in raised.value.message
    assert raised.value.cure


def test_a_mistyped_attribute_is_guessed() -> None:
    with pytest.raises(WordError) as raised:
        parse_assertion("node:osVersoin == '1'")
    assert raised.value.cure == 'Did you mean "node:osVersion"?'


def test_a_posture_needs_every_assertion_and_at_least_one() -> None:
    both = Posture((parse_assertion("node:os == 'macos'"), parse_assertion("custom:tier == 'prod'")))
    assert both.met_by(LAPTOP)
    assert not both.met_by({"node:os": "macos"})
    assert both.failing({"node:os": "macos"}) == ("custom:tier == 'prod'",)
    assert not Posture(()).met_by(LAPTOP)


@pytest.mark.parametrize(
    ("less", "more"),
    [("1.9", "1.10"), ("1.80.3", "1.102"), ("1", "1.1"), ("10.0.19041", "10.0.22000"), ("9", "v10")],
)
def test_versions_are_compared_piece_by_piece(less: str, more: str) -> None:
    assert version_key(less) < version_key(more)
    assert parse_assertion(f"node:osVersion > '{less}'").holds({"node:osversion": more})
    assert not parse_assertion(f"node:osVersion > '{more}'").holds({"node:osversion": less})


def test_builds_and_trailing_zeros_count_for_nothing() -> None:
    assert version_key("1.102.4-t1234-g5678") == version_key("1.102.4") == version_key("1.102.4.0")
    assert version_key("") == ()
    assert not parse_assertion("node:osVersion >= ''").holds({"node:osversion": "1"})


def test_what_a_host_says_of_itself() -> None:
    host = Hostinfo(
        OS="macOS", OSVersion="15.3", IPNVersion="1.83.12-tabc", StateEncrypted=True, AllowsUpdate=True
    )
    assert attributes_of(host, {"custom:Tier": "a", "node:os": "linux"}) == {
        "node:os": "macos",
        "node:osversion": "15.3",
        "node:tsversion": "1.83.12",
        "node:tsreleasetrack": "unstable",
        "node:tsautoupdate": True,
        "node:tsstateencrypted": True,
        "custom:tier": "a",
    }
    assert attributes_of(Hostinfo()) == {}
    assert attributes_of(Hostinfo(OS="linux", IPNVersion="1.102.4"))["node:tsreleasetrack"] == "stable"


_VALUES = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.floats(allow_nan=False))


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">=", "IN", "NOT IN"])
def test_only_not_set_is_true_of_what_is_not_set(operator: str) -> None:
    right = "['x']" if "IN" in operator else "'x'"
    assertion = parse_assertion(f"custom:a {operator} {right}")
    assert assertion.operator is Operator(operator)
    assert not assertion.holds({})


@given(_VALUES, _VALUES)
def test_any_two_values_can_be_asked_about(actual: AttributeValue, wanted: AttributeValue) -> None:
    for operator in ("==", "!=", "<", ">="):
        base = parse_assertion(f"custom:a {operator} 'x'")
        one = type(base)(base.attribute, base.operator, (wanted,), "")
        assert one.holds({"custom:a": actual}) in {True, False}


@given(st.text(max_size=40))
def test_any_text_is_an_assertion_or_is_refused(text: str) -> None:
    with suppress(WordError):
        assert parse_assertion(text).text == text
