"""Disco packets: there and back, with the right keys only."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import LocalProtocolError, RemoteProtocolError
from doorward.protocol import disco
from doorward.protocol.keys import DiscoPrivate, DiscoPublic, NodePublic

ALICE, BOB, EVE = (DiscoPrivate.from_entropy(bytes([number]) * 32) for number in (1, 2, 3))
NODE = NodePublic(bytes([9]) * 32)
NONCE = bytes(24)

txids = st.binary(min_size=12, max_size=12)
endpoints = st.tuples(
    st.ip_addresses().filter(lambda a: not (isinstance(a, IPv6Address) and a.ipv4_mapped)),
    st.integers(0, 65535),
).filter(lambda endpoint: int(endpoint[0]) != 0 or endpoint[0].version == 6)
messages = st.one_of(
    st.builds(disco.Ping, txids),
    st.builds(disco.Ping, txids, st.just(NODE), st.integers(0, 1500)),
    st.builds(disco.Pong, txids, endpoints),
    st.builds(disco.CallMeMaybe, st.lists(endpoints, max_size=20).map(tuple)),
    st.builds(disco.Other, st.integers(4, 255), st.binary(max_size=100)),
)


@given(messages, st.binary(min_size=24, max_size=24))
def test_a_message_arrives_as_it_was_sent(message: disco.Message, nonce: bytes) -> None:
    packet = disco.seal_message(message, ALICE, BOB.public(), nonce)
    assert disco.looks_like_disco(packet)
    assert disco.sender(packet) == ALICE.public()
    assert disco.open_message(packet, BOB) == (ALICE.public(), message)
    with pytest.raises(RemoteProtocolError, match="does not open"):
        disco.open_message(packet, EVE)
    with pytest.raises(RemoteProtocolError, match="does not open"):
        disco.open_message(packet[:-1], BOB)


def test_sizes_on_the_wire_are_those_of_stock_clients() -> None:
    assert len(disco.seal_message(disco.Ping(bytes(12), NODE), ALICE, BOB.public(), NONCE)) == 124
    pong = disco.Pong(bytes(12), (ip_address("192.0.2.1"), 1))
    assert len(disco.seal_message(pong, ALICE, BOB.public(), NONCE)) == 110
    assert disco.HEADER_SIZE == 62


def test_the_answer_to_a_ping_through_a_relay_names_the_region() -> None:
    ping = disco.Ping(b"txid--txid--", NODE)
    assert disco.answer_ping(ping, 900) == disco.Pong(b"txid--txid--", (IPv4Address("127.3.3.40"), 900))


def plain(text: bytes) -> disco.Message:
    return disco._decode(text)


def test_bytes_behind_what_we_know_are_left_unread() -> None:
    assert plain(b"\x02\x00" + bytes(30) + b"more") == disco.Pong(bytes(12), (IPv6Address(0), 0))
    assert plain(b"\x03\x00" + bytes(17)) == disco.CallMeMaybe(())
    assert plain(b"\x01\x00" + bytes(12) + b"half a key") == disco.Ping(bytes(12))
    assert plain(b"\x01\x01" + bytes(12)) == disco.Other(1, bytes(12)), "a later version"
    assert plain(b"\x07\x00via") == disco.Other(7, b"via")


@pytest.mark.parametrize("text", [b"", b"\x01", b"\x01\x00" + bytes(11), b"\x02\x00" + bytes(29)])
def test_messages_that_are_too_short_are_refused(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        plain(text)


@given(st.binary(max_size=200))
def test_other_bytes_are_no_disco(data: bytes) -> None:
    assert not disco.looks_like_disco(data)
    with pytest.raises(RemoteProtocolError):
        disco.sender(data)
    with pytest.raises(RemoteProtocolError):
        disco.open_message(disco.MAGIC + data, BOB)


def test_a_key_of_small_order_is_refused() -> None:
    weak = DiscoPublic(bytes(32))
    with pytest.raises(RemoteProtocolError, match="key exchange"):
        disco.seal_message(disco.Ping(bytes(12)), ALICE, weak, NONCE)
    with pytest.raises(RemoteProtocolError):
        disco.open_message(disco.MAGIC + weak.raw + bytes(60), BOB)


def test_what_cannot_be_sent_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError, match="nonce"):
        disco.seal_message(disco.Ping(bytes(12)), ALICE, BOB.public(), b"")
    with pytest.raises(LocalProtocolError, match="node key"):
        disco.seal_message(disco.Ping(bytes(12), None, 5), ALICE, BOB.public(), NONCE)
