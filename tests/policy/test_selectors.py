from ipaddress import ip_network

import pytest

from doorward.policy.document import Kind
from doorward.policy.selectors import (
    Names,
    check_source,
    check_tag_name,
    check_target,
    parse_ports,
    parse_prefix,
    parse_protocol,
    parse_selector,
    parse_service,
    split_target,
)
from doorward.policy.words import WordError, closest
from doorward.protocol.tailcfg.filter import ALL_PORTS, PortRange

NAMES = Names(
    groups=frozenset(["group:dev"]), tags=frozenset(["tag:server"]), hosts={"db": ip_network("10.0.0.7/32")}
)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("*", Kind.EVERYONE, ""),
        (" tag:server ", Kind.TAG, "tag:server"),
        ("group:dev", Kind.GROUP, "group:dev"),
        ("autogroup:member", Kind.AUTOGROUP, "member"),
        ("autogroup:it-admin", Kind.AUTOGROUP, "it-admin"),
        ("alice", Kind.USER, "alice"),
        ("Alice@Example.com", Kind.USER, "alice@example.com"),
        ("alice@", Kind.USER, "alice@"),
        ("user:*@Example.com", Kind.DOMAIN, "example.com"),
        ("db", Kind.PREFIX, ""),
        ("10.0.0.0/8", Kind.PREFIX, ""),
        ("fd00::1", Kind.PREFIX, ""),
        ("bad", Kind.USER, "bad"),  # all hex digits, and yet no address
    ],
)
def test_words_and_what_they_name(text: str, kind: Kind, value: str) -> None:
    selector = parse_selector(text, NAMES)
    assert (selector.kind, selector.value) == (kind, value)


def test_spellings_of_one_thing_are_one_selector() -> None:
    assert (
        parse_selector("db", NAMES)
        == parse_selector("10.0.0.7", NAMES)
        == parse_selector("10.0.0.7/32", NAMES)
    )
    assert parse_selector("Alice", NAMES) == parse_selector("alice", NAMES)


@pytest.mark.parametrize(
    ("text", "message", "cure"),
    [
        ("tag:serer", 'src=tag not found: "tag:serer"', 'Did you mean "tag:server"?'),
        ("tag:zzz", 'src=tag not found: "tag:zzz"', 'Add "tag:zzz" to "tagOwners".'),
        ("group:x", 'src=group not found: "group:x"', 'Add "group:x" to "groups".'),
        ("autogroup:members", "not a known autogroup", 'Did you mean "autogroup:member"?'),
        ("ipset:a", "ipset not found", "Add"),
        ("svc:web", "not supported yet", "Name the nodes"),
        ("posture:a", "is a condition", "srcPosture"),
        ("host:bd", "host not found", "Add it"),
        ("%bogus%", '"%bogus%": invalid address', "Name a user"),
        ("", '"": invalid address', "Name a user"),
        ("10.0.0.1/8", "bits set after its prefix length", 'Write "10.0.0.0/8".'),
        ("10.0.0.0/33", "invalid address", "Write it like"),
        ("1.2.3", "invalid address", "Write it like"),
        ("user:*@", "is not a domain", "Write it like"),
        ("a b", "invalid address", "Name a user"),
    ],
)
def test_refuses_and_says_what_would_do(text: str, message: str, cure: str) -> None:
    with pytest.raises(WordError) as raised:
        parse_selector(text, NAMES, role="src=")
    assert message in raised.value.message
    assert cure in raised.value.cure


def test_some_names_stand_on_one_side_only() -> None:
    for text in ("autogroup:self", "autogroup:internet"):
        with pytest.raises(WordError, match="not valid on the src side"):
            check_source(parse_selector(text, NAMES))
    for text in ("autogroup:danger-all", "0.0.0.0/0", "::/0"):
        with pytest.raises(WordError):
            check_target(parse_selector(text, NAMES))
    assert check_target(parse_selector("10.0.0.0/8", NAMES)).prefix == ip_network("10.0.0.0/8")


@pytest.mark.parametrize("tag", ["tag:a", "tag:A-1", "tag:web-server"])
def test_good_tags(tag: str) -> None:
    check_tag_name(tag)


@pytest.mark.parametrize(
    "tag", ["a", "tag:", "tag:1a", "tag:-a", "tag:сервер", "tag:a b", "tag:a_b", "tag:a:b"]
)
def test_bad_tags(tag: str) -> None:
    with pytest.raises(WordError):
        check_tag_name(tag)


def test_ports() -> None:
    assert parse_ports("*") == (ALL_PORTS,)
    assert parse_ports("22") == (PortRange(22, 22),)
    assert parse_ports("22, 80-443") == (PortRange(22, 22), PortRange(80, 443))
    assert parse_ports("1-65535") == (PortRange(1, 65535),)


@pytest.mark.parametrize(
    "text", ["", "0", "x", "22-", "-22", "443-80", "65536", "1-70000", "22,", "²", "9" * 30]
)
def test_bad_ports(text: str) -> None:
    with pytest.raises(WordError, match="port range"):
        parse_ports(text)


def test_protocols() -> None:
    assert [parse_protocol(text) for text in ("tcp", "UDP", "icmp", "132", "0")] == [6, 17, 1, 132, 0]
    for text in ("", "tpc", "256", "-1", "²"):
        with pytest.raises(WordError):
            parse_protocol(text)


def test_services_of_grants() -> None:
    assert parse_service("*") == ((), (ALL_PORTS,))
    assert parse_service("80-443") == ((), (PortRange(80, 443),))
    assert parse_service("tcp:22") == ((6,), (PortRange(22, 22),))
    assert parse_service("icmp:*") == ((1,), (ALL_PORTS,))
    assert parse_service("*:53") == ((), (PortRange(53, 53),))
    with pytest.raises(WordError, match="has no ports"):
        parse_service("icmp:8")


def test_targets_of_acls_are_cut_at_the_last_colon() -> None:
    assert split_target("tag:server:22") == ("tag:server", "22")
    assert split_target("[fd00::1]:22") == ("fd00::1", "22")
    assert split_target("[fd00::]/64:22") == ("fd00::/64", "22")
    assert split_target("fd00::/64:22") == ("fd00::/64", "22")
    with pytest.raises(WordError, match="has no ports"):
        split_target("alice")


def test_prefixes_and_near_words() -> None:
    assert parse_prefix("10.0.0.1") == ip_network("10.0.0.1/32")
    assert parse_prefix("fd00::") == ip_network("fd00::/128")
    assert closest("gruops", ["groups", "hosts"]) == "groups"
    assert closest("xyz", ["groups"]) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("group:Eng@Example.com", "group:Eng@example.com"),  # the provider's own word, and a domain
        ("group:Domain Users@example.com", "group:Domain Users@example.com"),
        ("group:ops@lists.example.org@example.com", "group:ops@lists.example.org@example.com"),
        ("group:/eng/web@sso.example.com", "group:/eng/web@sso.example.com"),
    ],
)
def test_a_group_with_a_domain_is_an_outside_provider_s(text: str, value: str) -> None:
    selector = parse_selector(text, NAMES)
    assert (selector.kind, selector.value, selector.text) == (Kind.GROUP, value, text)


def test_a_group_that_the_file_defines_is_the_file_s() -> None:
    names = Names(groups=frozenset(["group:Eng@Example.com"]), tags=frozenset(), hosts={})
    assert parse_selector("group:Eng@Example.com", names).value == "group:Eng@Example.com"


@pytest.mark.parametrize("text", ["group:eng", "group:@example.com", "group:eng@", "group:eng@exa mple"])
def test_no_other_group_is_known_without_the_file(text: str) -> None:
    with pytest.raises(WordError, match="group not found"):
        parse_selector(text, NAMES)
