"""Noise: the recorded handshakes, the record layer under every cut, and what a bad peer may try."""

import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput, LocalProtocolError, RemoteProtocolError
from doorward.protocol.keys import ChallengePrivate, MachinePrivate, MachinePublic
from doorward.protocol.noise import (
    INITIATION_SIZE,
    MAX_FRAME,
    MAX_PLAINTEXT,
    RESPONSE_SIZE,
    ClientHandshake,
    EarlyPayloadStripper,
    NoiseTransport,
    ServerHandshake,
    encode_early_payload,
    encode_error,
    parse_error,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "noise.json"

SERVER = MachinePrivate(b"\x11" * 32)
CLIENT = MachinePrivate(b"\x22" * 32)
CLIENT_EPHEMERAL = MachinePrivate(b"\x33" * 32)
SERVER_EPHEMERAL = MachinePrivate(b"\x44" * 32)

# Points of small order (RFC 7748 section 6.1 warns of them): zero, one, and two of order eight.
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


class Message(msgspec.Struct, forbid_unknown_fields=True):
    plaintext: str
    frames: str


class Case(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    version: int
    server_static: str
    client_static: str
    client_ephemeral: str
    server_ephemeral: str
    server_public: str
    client_public: str
    initiation: str
    response: str
    client_to_server: list[Message]
    server_to_client: list[Message]


class Vectors(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    cases: list[Case]


CASES = msgspec.json.decode(VECTORS.read_bytes(), type=Vectors).cases


def client_handshake(version: int = 145) -> ClientHandshake:
    return ClientHandshake(CLIENT, SERVER.public(), CLIENT_EPHEMERAL, version)


def pair() -> tuple[NoiseTransport, NoiseTransport]:
    """The record layers of a client and a server that have shaken hands."""
    handshake = client_handshake()
    _, _, response, server = ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(handshake.initiation)
    answer = handshake.receive(response)
    assert answer is not None
    return answer[0], server


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_recorded_conversations(case: Case) -> None:
    server = MachinePrivate(bytes.fromhex(case.server_static))
    client = MachinePrivate(bytes.fromhex(case.client_static))
    assert server.public().raw.hex() == case.server_public
    handshake = ClientHandshake(
        client, server.public(), MachinePrivate(bytes.fromhex(case.client_ephemeral)), case.version
    )
    assert handshake.initiation.hex() == case.initiation
    responder = ServerHandshake(server, MachinePrivate(bytes.fromhex(case.server_ephemeral)))
    who, version, response, server_side = responder.receive(bytes.fromhex(case.initiation))
    assert (who.raw.hex(), version) == (case.client_public, case.version)
    assert response.hex() == case.response
    answer = handshake.receive(response)
    assert answer is not None
    client_side, rest = answer
    assert rest == b""
    for sender, receiver, messages in (
        (client_side, server_side, case.client_to_server),
        (server_side, client_side, case.server_to_client),
    ):
        for message in messages:
            assert sender.send(bytes.fromhex(message.plaintext)).hex() == message.frames
            assert receiver.receive(bytes.fromhex(message.frames)).hex() == message.plaintext


def test_the_notes_own_vector_is_the_first_case() -> None:
    raw = json.loads(VECTORS.read_text())["cases"][0]
    assert raw["initiation"].startswith(
        "00910100607b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14"
    )
    assert raw["response"].endswith("3e6bb724869747b9edde7346ebd00e8c83be")
    assert raw["client_to_server"][1]["frames"] == "0400152383fda3ae9709b771c7e70e177f2d20b9151658f9"


@given(text=st.binary(max_size=10_000), cuts=st.lists(st.integers(1, 5000), max_size=40))
def test_any_text_in_any_pieces_arrives_whole(text: bytes, cuts: list[int]) -> None:
    client, server = pair()
    wire = client.send(text)
    received = b""
    for cut in cuts:
        received += server.receive(wire[:cut])
        wire = wire[cut:]
    assert received + server.receive(wire) == text


@given(texts=st.lists(st.binary(max_size=100), max_size=10))
def test_many_records_in_one_read(texts: list[bytes]) -> None:
    client, server = pair()
    assert server.receive(b"".join(map(client.send, texts))) == b"".join(texts)


@pytest.mark.parametrize(("size", "records"), [(0, 0), (1, 1), (MAX_PLAINTEXT, 1), (MAX_PLAINTEXT + 1, 2)])
def test_writes_are_split_at_the_largest_record(size: int, records: int) -> None:
    wire = pair()[0].send(bytes(size))
    lengths = []
    while wire:
        lengths.append(3 + int.from_bytes(wire[1:3], "big"))
        wire = wire[lengths[-1] :]
    assert len(lengths) == records
    assert all(length <= MAX_FRAME for length in lengths)


def test_a_record_without_text_is_legal() -> None:
    client, server = pair()
    assert server.receive(client._seal(ChaCha20Poly1305(client._send_key), b"") + client.send(b"x")) == b"x"


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_changed_bit_breaks_the_connection_for_good(at: int, bit: int) -> None:
    client, server = pair()
    wire = bytearray(client.send(b"some text to change"))
    wire[at % len(wire)] ^= 1 << bit
    # A longer length only waits for more; the bytes that follow then make it fail.
    with pytest.raises(RemoteProtocolError):
        server.receive(bytes(wire) + bytes(MAX_FRAME))
    with pytest.raises(RemoteProtocolError):
        server.receive(client.send(b"later"))


def test_a_repeated_and_a_swapped_record_are_refused() -> None:
    client, server = pair()
    first, second = client.send(b"first"), client.send(b"second")
    with pytest.raises(RemoteProtocolError, match="does not decrypt"):
        server.receive(second)
    client, server = pair()
    first = client.send(b"first")
    assert server.receive(first) == b"first"
    with pytest.raises(RemoteProtocolError, match="does not decrypt"):
        server.receive(first)


@pytest.mark.parametrize("header", ["0400 0f", "040ffe", "04ffff", "010020", "030020", "ff0020"])
def test_a_bad_frame_header_is_refused_before_its_body_arrives(header: str) -> None:
    with pytest.raises(RemoteProtocolError, match="expected a record"):
        pair()[1].receive(bytes.fromhex(header))


def test_the_counter_never_wraps() -> None:
    client, server = pair()
    client._send_count = server._receive_count = 2**64 - 2
    last = client.send(b"the last")
    assert server.receive(last) == b"the last"
    with pytest.raises(LocalProtocolError):
        client.send(b"one too many")
    with pytest.raises(RemoteProtocolError, match="more Noise records"):
        server.receive(last)


@given(data=st.binary(max_size=200))
def test_garbage_never_makes_a_handshake(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(data)


@given(at=st.integers(0, INITIATION_SIZE - 1), bit=st.integers(0, 7))
def test_every_bit_of_the_initiation_counts(at: int, bit: int) -> None:
    initiation = bytearray(client_handshake().initiation)
    initiation[at] ^= 1 << bit
    # X25519 ignores the top bit of a public key, but the key is hashed as it was sent.
    with pytest.raises(RemoteProtocolError):
        ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(bytes(initiation))


@given(at=st.integers(0, RESPONSE_SIZE - 1), bit=st.integers(0, 7))
def test_every_bit_of_the_response_counts(at: int, bit: int) -> None:
    handshake = client_handshake()
    response = bytearray(ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(handshake.initiation)[2])
    response[at] ^= 1 << bit
    with pytest.raises(RemoteProtocolError):
        handshake.receive(bytes(response) + bytes(MAX_FRAME))


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_public_key_of_small_order_is_the_peers_fault(point: bytes) -> None:
    initiation = client_handshake().initiation
    with pytest.raises(RemoteProtocolError, match="cannot be used"):
        ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(initiation[:5] + point + initiation[37:])
    handshake = client_handshake()
    response = ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(handshake.initiation)[2]
    with pytest.raises(RemoteProtocolError, match="cannot be used"):
        handshake.receive(response[:3] + point + response[35:])
    with pytest.raises(RemoteProtocolError, match="cannot be used"):
        ClientHandshake(CLIENT, MachinePublic(point), CLIENT_EPHEMERAL, 1)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_client_key_of_small_order_is_refused_although_it_decrypts(point: bytes) -> None:
    class Liar(MachinePrivate):
        public_raw = point

    initiation = ClientHandshake(Liar(bytes(32)), SERVER.public(), CLIENT_EPHEMERAL, 1).initiation
    with pytest.raises(RemoteProtocolError, match="cannot be used"):
        ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(initiation)


def test_a_client_of_another_server_is_told_so() -> None:
    other = MachinePrivate(b"\x55" * 32)
    with pytest.raises(RemoteProtocolError, match="another key") as caught:
        ServerHandshake(other, SERVER_EPHEMERAL).receive(client_handshake().initiation)
    assert caught.value.cure


def test_a_handshake_object_serves_once() -> None:
    handshake = client_handshake()
    server = ServerHandshake(SERVER, SERVER_EPHEMERAL)
    response = server.receive(handshake.initiation)[2]
    with pytest.raises(LocalProtocolError):
        server.receive(handshake.initiation)
    assert handshake.receive(response)
    with pytest.raises(LocalProtocolError):
        handshake.receive(response)


@pytest.mark.parametrize("version", [-1, 65536])
def test_a_version_that_does_not_fit_is_refused(version: int) -> None:
    with pytest.raises(BadInput):
        client_handshake(version)


def test_the_answer_may_come_in_pieces_with_records_behind_it() -> None:
    handshake = client_handshake()
    _, _, response, server = ServerHandshake(SERVER, SERVER_EPHEMERAL).receive(handshake.initiation)
    for at in range(RESPONSE_SIZE - 1):
        assert handshake.receive(response[at : at + 1]) is None
    answer = handshake.receive(response[-1:] + server.send(b"settings"))
    assert answer is not None
    transport, rest = answer
    assert transport.receive(rest) == b"settings"


def test_the_error_frame_carries_its_text() -> None:
    frame = encode_error("unknown key: log in again, société")
    assert frame[:1] == b"\x03"
    assert parse_error(frame) == "unknown key: log in again, société"
    handshake = client_handshake()
    assert handshake.receive(frame[:5]) is None
    with pytest.raises(RemoteProtocolError, match="log in again"):
        handshake.receive(frame[5:])


def test_a_peers_text_is_cut_and_cleaned() -> None:
    assert parse_error(encode_error("a\x1b[31m\n")) == "a?[31m?"
    assert len(encode_error("é" * 5000)) <= MAX_FRAME
    assert len(parse_error(encode_error("é" * 5000))) == 500


@pytest.mark.parametrize("frame", [b"", b"\x03\x00", b"\x03\x00\x05abc", b"\x04\x00\x00"])
def test_what_is_no_error_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_error(frame)


CHALLENGE = ChallengePrivate(b"\x66" * 32).public()


@given(cuts=st.lists(st.integers(1, 60), max_size=20), early=st.booleans())
def test_the_early_payload_is_taken_out_wherever_it_is_cut(cuts: list[int], early: bool) -> None:
    settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
    wire = (encode_early_payload(CHALLENGE) if early else b"") + settings
    stripper = EarlyPayloadStripper()
    received = b""
    for cut in cuts:
        received += stripper.receive(wire[:cut])
        wire = wire[cut:]
    assert received + stripper.receive(wire) == settings
    assert stripper.challenge == (CHALLENGE if early else None)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff\xffTS\xff\xff\xff\xff",
        b"\xff\xff\xffTS\x00\x00\x00\x01{",
        b'\xff\xff\xffTS\x00\x00\x00\x19{"nodeKeyChallenge":"no"}',
        b'\xff\xff\xffTS\x00\x00\x00\x16{"nodeKeyChallenge":5}',
    ],
)
def test_a_bad_early_payload_is_the_servers_fault(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        EarlyPayloadStripper().receive(payload)


def test_an_early_payload_need_not_hold_a_challenge() -> None:
    stripper = EarlyPayloadStripper()
    assert stripper.receive(b"\xff\xff\xffTS\x00\x00\x00\x02{}rest") == b"rest"
    assert stripper.challenge is None
