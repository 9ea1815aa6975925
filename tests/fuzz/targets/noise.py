"""Noise: a handshake, a record stream, an answer, an early payload; all from a hostile peer."""

from doorward.errors import RemoteProtocolError
from doorward.protocol.keys import MachinePrivate
from doorward.protocol.noise import (
    ClientHandshake,
    EarlyPayloadStripper,
    NoiseTransport,
    ServerHandshake,
    parse_error,
)

SERVER = MachinePrivate(b"\x11" * 32)
CLIENT = MachinePrivate(b"\x22" * 32)
EPHEMERAL = MachinePrivate(b"\x33" * 32)


def fuzz(data: bytes) -> None:
    """Feed ``data`` to every parser; nothing but RemoteProtocolError may come out."""
    for parse in (
        ServerHandshake(SERVER, EPHEMERAL).receive,
        ClientHandshake(CLIENT, SERVER.public(), EPHEMERAL, 145).receive,
        NoiseTransport(send_key=bytes(32), receive_key=bytes(32)).receive,
        EarlyPayloadStripper().receive,
        parse_error,
    ):
        try:
            parse(data)
        except RemoteProtocolError:
            continue
