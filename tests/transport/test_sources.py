"""Addresses as limits see them, and whom a proxy speaks for."""

from ipaddress import ip_address, ip_network

import pytest

from doorward.transport.sources import address_key, forwarded_for, is_among, source_address


def test_the_key_of_an_address_is_what_one_asker_owns() -> None:
    assert address_key(("192.0.2.7", 1)) == "192.0.2.7"
    assert address_key(("2001:db8:1:2:3::4", 1)) == address_key(("2001:db8:1:2::9", 2)) == "2001:db8:1:2::/64"
    assert address_key(("::ffff:192.0.2.7", 1)) == "192.0.2.7"
    assert address_key(None) == "local"
    assert address_key(("testclient", 1)) == "testclient"


def test_only_an_address_inside_a_network_is_among_them() -> None:
    networks = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]
    assert is_among(("192.0.2.9", 1), networks)
    assert is_among(("::ffff:192.0.2.9", 1, 0, 0), networks)
    assert is_among(("2001:db8::1", 1, 0, 0), networks)
    assert not is_among(("198.51.100.1", 1), networks)
    assert not is_among(("testclient", 1), networks)
    assert not is_among(None, networks)
    assert not is_among(("192.0.2.9", 1), ())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((b"203.0.113.9",), ("203.0.113.9", 0)),
        ((b"10.0.0.1, 203.0.113.9",), ("203.0.113.9", 0)),
        ((b"203.0.113.9", b"203.0.113.10"), ("203.0.113.10", 0)),
        ((b"2001:db8::1",), ("2001:db8::1", 0)),
        ((b"203.0.113.9, nobody",), None),
        ((b"",), None),
        ((), None),
    ],
)
def test_of_what_proxies_said_the_last_word_counts(
    values: tuple[bytes, ...], expected: tuple[str, int] | None
) -> None:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", value) for value in values)]
    assert forwarded_for(headers) == expected


def test_an_address_has_one_spelling() -> None:
    assert (
        source_address(("192.0.2.7", 1))
        == source_address(("::ffff:192.0.2.7", 1, 0, 0))
        == ip_address("192.0.2.7")
    )
    assert source_address(("2001:DB8:0::7", 1)) == ip_address("2001:db8::7")
    assert source_address(("fe80::1%eth0", 1, 0, 2)) == ip_address("fe80::1")
    assert source_address(None) is None
    assert source_address(("testclient", 1)) is None
