"""Disco: packets of strangers, and messages of a peer who holds its key and lies."""

from doorward.errors import RemoteProtocolError
from doorward.protocol import disco
from doorward.protocol.keys import DiscoPrivate

OURS = DiscoPrivate(b"\x11" * 32)
PEER = DiscoPrivate(b"\x22" * 32)


def fuzz(data: bytes) -> None:
    """Feed ``data`` as a packet, behind the magic, and inside a box; only RemoteProtocolError may come out."""
    body = disco.Other(data[0], data[1:]) if data else disco.Other(0, b"")
    sealed = disco.seal_message(body, PEER, OURS.public(), bytes(disco.NONCE_SIZE))
    for packet in (data, disco.MAGIC + data, sealed):
        disco.looks_like_disco(packet)
        try:
            disco.open_message(packet, OURS)
        except RemoteProtocolError:
            continue
