"""The JSON of the coordination protocol: whatever a client may send, and what a server may send to our client."""

import contextlib
from datetime import UTC, datetime

import msgspec
from tests.support import wire

from doorward.errors import BadInput, RemoteProtocolError
from doorward.protocol.c2n import parse_request
from doorward.protocol.netmapstate import NetmapState
from doorward.protocol.tailcfg.codec import decode_request, decode_response, encode
from doorward.protocol.tailcfg.map import MapRequest, MapResponse, PingResponse
from doorward.protocol.tailcfg.register import RegisterRequest, RegisterResponse
from doorward.protocol.tailcfg.requests import (
    AuditLogRequest,
    HealthChangeRequest,
    QueryFeatureRequest,
    ServerKeys,
    SetDeviceAttributesRequest,
    SetDNSRequest,
    TokenRequest,
)

COVERS = (
    "protocol.c2n:parse_request",
    "protocol.keys:_parse_hex",
    "protocol.keys:PublicKey.parse",
    "protocol.netmapstate:_upgrade",
    "protocol.netmapstate:_check_prefix",
    "protocol.netmapstate:_check_endpoints",
    "protocol.netmapstate:NetmapState.receive",
    "protocol.tailcfg.codec:decode_request",
    "protocol.tailcfg.codec:decode_response",
    "protocol.tailcfg.codec:_from_json",
    "protocol.tailcfg.codec:_Reader.names_are_exact",
    "protocol.tailcfg.codec:_Reader.read",
    "protocol.tailcfg.codec:_Reader.read_leniently",
)
LIMIT = 1 << 20  # a request; maps may be larger, in the same form
REQUESTS: tuple[type[msgspec.Struct], ...] = (
    MapRequest,
    RegisterRequest,
    SetDNSRequest,
    TokenRequest,
    QueryFeatureRequest,
    HealthChangeRequest,
    AuditLogRequest,
    SetDeviceAttributesRequest,
    PingResponse,
)
RESPONSES: tuple[type[msgspec.Struct], ...] = (RegisterResponse, ServerKeys, MapResponse)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
FIRST = (
    b'{"Node":{"ID":1,"StableID":"n","Name":"a.b.","User":1,"Key":"nodekey:' + b"1" * 64 + b'",'
    b'"Addresses":["100.64.0.1/32"]},"Peers":[{"ID":2,"StableID":"m","Name":"c.b.","User":1,"Key":"nodekey:'
    + b"2" * 64
    + b'","Addresses":["100.64.0.2/32"]}]}'
)

SEEDS = (
    *(request.json.encode() for request in wire.REQUESTS),
    *(message.json.encode() for message in wire.MESSAGES),
    b"POST /echo HTTP/1.1\r\nHost: c2n\r\nContent-Length: 5\r\n\r\nhello",
)


def fuzz(data: bytes) -> None:
    """What is read can be written, and then read as the same; everything else is refused as bad input."""
    for kind in REQUESTS:
        try:
            value = decode_request(data, kind)
        except BadInput:
            continue
        assert decode_request(encode(value), kind) == value
    for kind in RESPONSES:
        try:
            value = decode_response(data, kind, limit=1 << 20)
        except BadInput:
            continue
        assert decode_response(encode(value), kind, limit=1 << 22) == value
    state = NetmapState()
    state.receive(FIRST, now=NOW)
    try:
        state.receive(data, now=NOW)
    except (BadInput, RemoteProtocolError):
        pass
    else:
        state.netmap()
    with contextlib.suppress(RemoteProtocolError):
        parse_request(data)
