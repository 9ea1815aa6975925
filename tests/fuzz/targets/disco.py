"""Disco: packets of strangers, and messages of a peer who holds its key and lies."""

from tests.fuzz.feeding import feed

from doorward.errors import RemoteProtocolError
from doorward.protocol import disco
from doorward.protocol.keys import DiscoPrivate

COVERS = ("protocol.disco:open_message", "protocol.disco:_decode", "protocol.disco:_read_endpoint")
LIMIT = 64 << 10  # a packet

OURS = DiscoPrivate(b"\x11" * 32)
PEER = DiscoPrivate(b"\x22" * 32)
SEEDS = (
    b"\x01\x00" + bytes(12 + 32),
    b"\x02\x00" + bytes(12 + 18),
    b"\x03\x00" + bytes(36),
    disco.MAGIC + bytes(72),
)


def fuzz(data: bytes) -> None:
    """Feed ``data`` as a packet, behind the magic, and inside a box; only RemoteProtocolError may come out."""
    body = disco.Other(data[0], data[1:]) if data else disco.Other(0, b"")
    # Sealed, the version that ``seal_message`` writes is the right one; the seeds' own second byte is part of the body.
    short = disco.Other(data[0], data[2:]) if len(data) > 1 else body
    sealed = [disco.seal_message(one, PEER, OURS.public(), bytes(disco.NONCE_SIZE)) for one in (body, short)]
    for packet in (data, disco.MAGIC + data, *sealed):
        disco.looks_like_disco(packet)
        feed(packet, lambda one: disco.open_message(one, OURS), disco.sender, refusal=RemoteProtocolError)
