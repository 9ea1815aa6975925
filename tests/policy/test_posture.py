from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

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
        ("ip:place == 'DE'", 'unknown posture attribute "ip:place"'),
        ("ip:country == 'Germany'", '"Germany" is not a country'),
        ("ip:country IN ['DE', 49]", '"49" is not a country'),
        ("ip:country > 'DE'", "places are not larger or smaller"),
        ("ip:address < '192.0.2.7'", "places are not larger or smaller"),
        ("ip:address == 'here'", '"here" is not an address or a prefix'),
        ("ip:address == '192.0.2.7/24'", '"192.0.2.7/24" is not an address or a prefix'),
        ("ip:address IN ['192.0.2.7', 3221225991]", '"3221225991" is not an address or a prefix'),
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


AT_HOME: dict[str, AttributeValue] = {"ip:address": "192.0.2.7", "ip:country": "DE"}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("ip:address == '192.0.2.7'", True),
        ("ip:address == '192.0.2.8'", False),
        ("ip:address != '192.0.2.8'", True),
        ("ip:address IN ['2001:db8::/32', '192.0.2.0/24']", True),
        ("ip:address NOT IN ['2001:db8::/32', '192.0.2.0/24']", False),
        ("ip:address NOT IN ['2001:db8::/32']", True),
        ("ip:Address IS SET", True),
        ("ip:address NOT SET", False),
        ("ip:country == 'de'", True),
        ("ip:country != 'DE'", False),
        ("ip:country IN ['FR', 'DE']", True),
        ("ip:country NOT IN ['FR']", True),
        ("ip:country NOT SET", False),
    ],
)
def test_places(text: str, verdict: bool) -> None:
    assert parse_assertion(text).holds(AT_HOME) is verdict


def test_an_address_is_compared_as_one_whatever_its_spelling() -> None:
    assert parse_assertion("ip:address == '2001:DB8:0::7'").holds({"ip:address": "2001:db8::7"})


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32))
def test_an_address_is_in_a_prefix_or_outside_of_it(
    address: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, length: int
) -> None:
    network = ip_network((int(other).to_bytes(4 if other.version == 4 else 16), length), strict=False)
    said: dict[str, AttributeValue] = {"ip:address": str(address)}
    inside = parse_assertion(f"ip:address IN ['{network}']").holds(said)
    assert inside is (address in network)
    assert parse_assertion(f"ip:address != '{network}'").holds(said) is not inside


@pytest.mark.parametrize(
    "text", ["ip:address == '192.0.2.7'", "ip:address != '192.0.2.7'", "ip:address NOT IN ['192.0.2.7']"]
)
@pytest.mark.parametrize("said", [{}, {"ip:address": "nowhere"}, {"ip:address": True}])
def test_who_comes_from_nowhere_is_neither_here_nor_elsewhere(
    text: str, said: dict[str, AttributeValue]
) -> None:
    assert not parse_assertion(text).holds(said)


def test_where_a_node_comes_from_is_what_control_sees_and_never_said() -> None:
    claims: dict[str, AttributeValue] = {"ip:address": "192.0.2.7", "ip:country": "DE"}
    seen = ip_address("198.51.100.1")
    assert attributes_of(Hostinfo(), claims) == {}
    assert attributes_of(Hostinfo(), claims, seen) == {"ip:address": "198.51.100.1"}
    france: dict[IPv4Address | IPv6Address, str] = {seen: "FR"}
    assert attributes_of(Hostinfo(), claims, seen, france.get) == {
        "ip:address": "198.51.100.1",
        "ip:country": "FR",
    }
    assert attributes_of(Hostinfo(), claims, seen, lambda _: None) == {"ip:address": "198.51.100.1"}
