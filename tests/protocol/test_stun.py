"""STUN against vectors, and against whatever bytes there are."""

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doorward.errors import LocalProtocolError, RemoteProtocolError
from doorward.protocol import stun

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "stun.json").read_text())
TXID = bytes(range(12))
GOOD = stun.request(TXID)


def named(kind: str) -> list[Any]:
    return [pytest.param(entry, id=entry["name"]) for entry in VECTORS[kind]]


@pytest.mark.parametrize("vector", named("requests"))
def test_requests(vector: dict[str, str]) -> None:
    message, txid = bytes.fromhex(vector["message"]), bytes.fromhex(vector["txid"])
    assert stun.parse_request(message) == txid
    assert stun.request(txid) == message


@pytest.mark.parametrize("vector", named("responses"))
def test_responses(vector: dict[str, Any]) -> None:
    message, txid = bytes.fromhex(vector["message"]), bytes.fromhex(vector["txid"])
    seen = ip_address(vector["address"]), vector["port"]
    assert stun.response(txid, *seen) == message
    assert stun.parse_response(message, txid) == seen
    with pytest.raises(RemoteProtocolError, match="another request"):
        stun.parse_response(message, bytes(12))


@pytest.mark.parametrize("vector", named("answers_of_others"))
def test_answers_of_others(vector: dict[str, Any]) -> None:
    message, txid = bytes.fromhex(vector["message"]), bytes.fromhex(vector["txid"])
    assert stun.parse_response(message, txid) == (ip_address(vector["address"]), vector["port"])


@given(st.binary(min_size=12, max_size=12), st.ip_addresses(), st.integers(0, 65535))
def test_an_answer_says_what_was_put_in(txid: bytes, address: stun.Address, port: int) -> None:
    assert stun.parse_response(stun.response(txid, address, port), txid) == (stun.unmap(address), port)


def test_a_mapped_address_is_answered_as_ipv4() -> None:
    answer = stun.response(TXID, IPv6Address("::ffff:192.0.2.1"), 9)
    assert len(answer) == 32
    assert stun.parse_response(answer, TXID) == (IPv4Address("192.0.2.1"), 9)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_every_changed_byte_makes_a_request_worthless(at: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= change
    with pytest.raises(RemoteProtocolError):
        stun.parse_request(bytes(changed))


def signed(*attributes: bytes) -> bytes:
    """A request with these attributes and a right fingerprint at its end."""
    body = b"".join(attributes)
    before = stun._HEADER.pack(1, len(body) + 8, stun.COOKIE, TXID) + body
    return before + bytes.fromhex("80280004") + stun._fingerprint(before)


SOFTWARE = bytes.fromhex("80220008") + b"tailnode"


def test_only_tailscales_software_is_answered() -> None:
    assert stun.parse_request(signed(SOFTWARE)) == TXID
    assert stun.parse_request(signed(bytes.fromhex("00060001aa000000"), SOFTWARE)) == TXID  # padded
    with pytest.raises(RemoteProtocolError, match="other software"):
        stun.parse_request(signed())
    with pytest.raises(RemoteProtocolError, match="other software"):
        stun.parse_request(signed(bytes.fromhex("80220008") + b"sailnode"))
    with pytest.raises(RemoteProtocolError, match="last attribute"):
        stun.parse_request(stun._HEADER.pack(1, 12, stun.COOKIE, TXID) + SOFTWARE)
    with pytest.raises(RemoteProtocolError, match="last attribute"):
        stun.parse_request(stun._HEADER.pack(1, 0, stun.COOKIE, TXID))
    middle = signed(SOFTWARE)[20:]
    with pytest.raises(RemoteProtocolError, match="last attribute"):
        stun.parse_request(stun._HEADER.pack(1, len(middle) + 12, stun.COOKIE, TXID) + middle + SOFTWARE)
    with pytest.raises(RemoteProtocolError, match="1281 bytes"):
        stun.parse_request(bytes(1281))


@given(st.binary(max_size=100))
@example(GOOD[:20])
@example(stun.response(TXID, IPv4Address(1), 1)[:24])
@example(stun._HEADER.pack(0x101, 6, stun.COOKIE, TXID) + bytes.fromhex("002000020001"))
@example(stun._HEADER.pack(0x101, 12, stun.COOKIE, TXID) + bytes.fromhex("002000080003000000000000"))
@example(stun._HEADER.pack(0x101, 0, stun.COOKIE, TXID))
def test_nothing_else_is_taken_for_stun(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        stun.parse_request(message)
    with pytest.raises(RemoteProtocolError):
        stun.parse_response(message, TXID)


def test_a_transaction_id_has_its_length() -> None:
    with pytest.raises(LocalProtocolError):
        stun.request(b"short")
