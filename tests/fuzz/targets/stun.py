"""STUN: requests from anybody, answers from any server."""

from ipaddress import ip_address

from tests.fuzz.feeding import feed

from doorward.errors import RemoteProtocolError
from doorward.protocol import stun

COVERS = (
    "protocol.stun:parse_request",
    "protocol.stun:parse_response",
    "protocol.stun:_attributes",
    "protocol.stun:_open",
    "protocol.stun:_read_address",
)
LIMIT = 64 << 10  # a datagram
TXID = bytes(12)
SEEDS = (
    stun.request(TXID),
    stun.response(TXID, ip_address("192.0.2.1"), 3478),
    stun.response(TXID, ip_address("2001:db8::1"), 3478),
    b"\x00\x01\x00\x08\x00\x01\x0d\x96\xc0\x00\x02\x01",
)


def fuzz(data: bytes) -> None:
    """Feed ``data`` to both parsers, as it is and behind a good header; only RemoteProtocolError may come out."""
    for kind in (stun.BINDING_REQUEST, stun.BINDING_SUCCESS):
        header = kind.to_bytes(2, "big") + (len(data) % 65536).to_bytes(2, "big") + stun.COOKIE + TXID
        for message in (data, header + data):
            if kind == stun.BINDING_REQUEST:
                feed(message, stun.parse_request, refusal=RemoteProtocolError)
            else:
                feed(message, lambda one: stun.parse_response(one, TXID), refusal=RemoteProtocolError)
