"""Noise: a handshake, a record stream, an answer, an early payload; all from a hostile peer."""

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from tests.fuzz.feeding import feed, pieces

from doorward.errors import RemoteProtocolError
from doorward.protocol.keys import ChallengePublic, MachinePrivate
from doorward.protocol.noise import (
    ClientHandshake,
    EarlyPayloadStripper,
    NoiseTransport,
    ServerHandshake,
    encode_early_payload,
    encode_error,
    parse_error,
)

COVERS = (
    "protocol.noise:NoiseTransport.receive",
    "protocol.noise:ServerHandshake.receive",
    "protocol.noise:ClientHandshake.receive",
    "protocol.noise:parse_error",
    "protocol.noise:EarlyPayloadStripper.receive",
)
LIMIT = 256 << 10  # one read of a socket

SERVER = MachinePrivate(b"\x11" * 32)
CLIENT = MachinePrivate(b"\x22" * 32)
EPHEMERAL = MachinePrivate(b"\x33" * 32)
KEY = bytes(32)


def _seeds() -> tuple[bytes, ...]:
    client = ClientHandshake(CLIENT, SERVER.public(), EPHEMERAL, 145)
    _, _, response, _ = ServerHandshake(SERVER, EPHEMERAL).receive(client.initiation)
    records = NoiseTransport(send_key=KEY, receive_key=KEY).send(b"text" * 2000)
    early = encode_early_payload(ChallengePublic(b"\x44" * 32))
    return (
        client.initiation,
        response,
        response + records,
        records,
        early + b"PRI * HTTP/2.0",
        encode_error("no"),
    )


SEEDS = _seeds()


def _in_pieces(reader: EarlyPayloadStripper | NoiseTransport, data: bytes) -> None:
    for piece in pieces(data):
        reader.receive(piece)


def _record(data: bytes) -> None:
    """A record that opens, whatever it says: the peer holds the key."""
    sealed = ChaCha20Poly1305(KEY).encrypt(bytes(12), data[:4000], None)
    opened = NoiseTransport(send_key=KEY, receive_key=KEY).receive(
        b"\x04" + len(sealed).to_bytes(2, "big") + sealed
    )
    assert opened == data[:4000]


def fuzz(data: bytes) -> None:
    """Feed ``data`` to every parser; nothing but RemoteProtocolError may come out."""
    feed(
        data,
        ServerHandshake(SERVER, EPHEMERAL).receive,
        ClientHandshake(CLIENT, SERVER.public(), EPHEMERAL, 145).receive,
        NoiseTransport(send_key=KEY, receive_key=KEY).receive,
        lambda given: _in_pieces(NoiseTransport(send_key=KEY, receive_key=KEY), given),
        _record,
        EarlyPayloadStripper().receive,
        lambda given: _in_pieces(EarlyPayloadStripper(), given),
        parse_error,
        refusal=RemoteProtocolError,
    )
