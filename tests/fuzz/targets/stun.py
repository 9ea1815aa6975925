"""STUN: requests from anybody, answers from any server."""

from doorward.errors import RemoteProtocolError
from doorward.protocol import stun


def fuzz(data: bytes) -> None:
    """Feed ``data`` to both parsers, as it is and behind a good header; only RemoteProtocolError may come out."""
    txid = bytes(12)
    for kind in (stun.BINDING_REQUEST, stun.BINDING_SUCCESS):
        header = kind.to_bytes(2, "big") + (len(data) % 65536).to_bytes(2, "big") + stun.COOKIE + txid
        for message in (data, header + data):
            try:
                if kind == stun.BINDING_REQUEST:
                    stun.parse_request(message)
                else:
                    stun.parse_response(message, txid)
            except RemoteProtocolError:
                continue
