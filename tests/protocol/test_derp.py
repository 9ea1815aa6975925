"""DERP frames: cutting the stream, the handshake, and each frame by itself."""

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import LocalProtocolError, RemoteProtocolError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, DERPPublic, NodePrivate, NodePublic

SERVER = DERPPrivate.from_entropy(bytes([1]) * 32)
CLIENT = NodePrivate.from_entropy(bytes([2]) * 32)
PEER = NodePublic(bytes(range(32)))
NONCE = bytes(range(24))
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "derp.json").read_text())

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=20)


# --- The stream


@given(frames, st.lists(st.integers(1, 40), min_size=1))
def test_frames_are_found_however_the_stream_is_cut(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(derp.frame(kind, payload) for kind, payload in sent)
    reader, seen, at = derp.FrameReader(60), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        seen += reader.frames(stream[at : at + size])
        at += size
    assert seen == sent


@given(frames.filter(bool), st.integers(1, 40))
def test_the_first_frame_and_the_rest(sent: list[tuple[int, bytes]], size: int) -> None:
    stream = b"".join(derp.frame(kind, payload) for kind, payload in sent)
    reader = derp.FrameReader(60)
    for at in range(0, len(stream), size):
        found = reader.first(stream[at : at + size])
        if found is not None:
            kind, payload, rest = found
            assert (kind, payload) == sent[0]
            assert derp.frame(kind, payload) + rest == stream[: at + size]
            return
    pytest.fail("the first frame was not found")


def test_a_frame_beyond_the_limit_is_refused_at_its_header() -> None:
    header = derp.HEADER.pack(derp.SEND_PACKET, 101)
    for read in (derp.FrameReader(100).frames, derp.FrameReader(100).first):
        read(header[:4])
        with pytest.raises(RemoteProtocolError, match="101 bytes"):
            read(header[4:])
    assert derp.FrameReader(100).frames(derp.frame(1, bytes(100))) == [(1, bytes(100))]


def test_work_is_linear_however_small_the_pieces() -> None:
    """64 KiB in single bytes: with a copy per piece this would move 2 GB and run into the time limit."""
    reader = derp.FrameReader(derp.MAX_CLIENT_PAYLOAD)
    stream = derp.send_packet(PEER.raw, bytes(derp.MAX_PACKET)) * 4
    found = [entry for at in range(len(stream)) for entry in reader.frames(stream[at : at + 1])]
    assert [len(payload) for _, payload in found] == [32 + derp.MAX_PACKET] * 4


# --- The handshake


def test_a_handshake_tells_each_side_who_the_other_is() -> None:
    reader = derp.FrameReader(derp.MAX_SERVER_PAYLOAD)
    ((kind, payload),) = reader.frames(derp.server_key(SERVER.public()))
    assert (kind, derp.read_server_key(payload + b"later")) == (derp.SERVER_KEY, SERVER.public())
    told = derp.ClientInfo(version=2, mesh_key="ab", can_ack_pings=True, is_prober=True, app_name="x")
    ((kind, payload),) = reader.frames(derp.client_info(told, CLIENT, SERVER.public(), NONCE))
    assert kind == derp.CLIENT_INFO
    assert derp.open_client_info(payload, SERVER) == (CLIENT.public(), told)
    answer = derp.ServerInfo(2, 1000, 70_000)
    ((kind, payload),) = reader.frames(derp.server_info(answer, SERVER, CLIENT.public(), NONCE))
    assert kind == derp.SERVER_INFO
    assert derp.open_server_info(payload, CLIENT, SERVER.public()) == answer
    with pytest.raises(RemoteProtocolError, match="does not open"):
        derp.open_server_info(payload, CLIENT, DERPPrivate.from_entropy(bytes(32)).public())


@pytest.mark.parametrize("vector", VECTORS["boxes"], ids=lambda vector: vector["name"])
def test_boxes_of_other_programs_open_and_ours_are_the_same(vector: dict[str, Any]) -> None:
    server = DERPPrivate(bytes.fromhex(vector["server_private"]))
    client = NodePrivate(bytes.fromhex(vector["client_private"]))
    nonce = bytes.fromhex(vector["nonce"])
    frame = bytes.fromhex(vector["frame"])
    if vector["frame_type"] == "ClientInfo":
        info = derp.ClientInfo(version=2, can_ack_pings=True)
        assert derp.client_info(info, client, server.public(), nonce) == frame
        assert derp.open_client_info(frame[5:], server) == (client.public(), info)
    else:
        answer = derp.ServerInfo(version=2)
        assert derp.server_info(answer, server, client.public(), nonce) == frame
        assert derp.open_server_info(frame[5:], client, server.public()) == answer


def test_a_key_is_believed_only_with_its_box() -> None:
    payload = derp.client_info(derp.ClientInfo(version=2), CLIENT, SERVER.public(), NONCE)[5:]
    assert derp.open_client_info(payload, SERVER)[0] == CLIENT.public()
    for broken in (
        PEER.raw + payload[32:],
        payload[:-1],
        payload[:-1] + bytes([payload[-1] ^ 1]),
        bytes(32) + payload[32:],
        payload[:55],
        payload[:56],
        bytes(derp.MAX_CLIENT_INFO + 1),
        b"",
    ):
        with pytest.raises(RemoteProtocolError):
            derp.open_client_info(broken, SERVER)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"version":"2"}', b'{"version":\xff}'])
def test_json_that_is_not_what_we_know_is_refused(text: bytes) -> None:
    box = derp._box(CLIENT, SERVER.public())
    with pytest.raises(RemoteProtocolError):
        derp.open_client_info(CLIENT.public().raw + bytes(box.encrypt(text, NONCE)), SERVER)
    with pytest.raises(RemoteProtocolError):
        derp.open_server_info(bytes(box.encrypt(text, NONCE)), CLIENT, SERVER.public())


def test_members_of_later_versions_are_ignored() -> None:
    box = derp._box(CLIENT, SERVER.public())
    sealed = bytes(box.encrypt(b'{"version":3,"New":[1]}', NONCE))
    assert derp.open_client_info(CLIENT.public().raw + sealed, SERVER)[1] == derp.ClientInfo(version=3)


def test_no_mesh_key_shows() -> None:
    assert "secret" not in repr(derp.ClientInfo(mesh_key="secret"))


def test_a_key_of_small_order_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="key exchange"):
        derp.client_info(derp.ClientInfo(), CLIENT, DERPPublic(bytes(32)), NONCE)


def test_a_nonce_has_its_length() -> None:
    with pytest.raises(LocalProtocolError):
        derp.client_info(derp.ClientInfo(), CLIENT, SERVER.public(), b"short")


# --- The other frames


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_frames_are_laid_out_as_the_note_says(vector: dict[str, Any]) -> None:
    peer = PEER.raw
    made = {
        "server key": lambda: derp.server_key(DERPPublic(peer)),
        "send": lambda: derp.send_packet(peer, b"hi"),
        "forward": lambda: derp.forward_packet(peer, bytes(32), b"hi"),
        "preferred": lambda: derp.note_preferred(True),
        "not preferred": lambda: derp.note_preferred(False),
        "gone": lambda: derp.peer_gone(peer, derp.GONE_DISCONNECTED),
        "not here": lambda: derp.peer_gone(peer, derp.GONE_NOT_HERE),
        "present": lambda: derp.peer_present(
            derp.PeerPresent(PEER, IPv4Address("192.0.2.1"), 443, derp.PresenceFlag.REGULAR)
        ),
        "present without address": lambda: derp.peer_present(
            derp.PeerPresent(PEER, flags=derp.PresenceFlag.MESH_PEER | derp.PresenceFlag.NOT_IDEAL)
        ),
        "close peer": lambda: derp.close_peer(peer),
        "ping": lambda: derp.ping(b"12345678"),
        "pong": lambda: derp.pong_for(b"12345678"),
        "pong for a long ping": lambda: derp.pong_for(b"12345678" + bytes(900)),
        "health": lambda: derp.health("sick"),
        "healthy": lambda: derp.health(""),
        "restarting": lambda: derp.restarting(1000, 60000),
        "keep-alive": lambda: derp.frame(derp.KEEP_ALIVE),
    }[vector["name"]]()
    assert made.hex() == vector["frame"]


def test_peer_present_is_read_in_all_its_lengths() -> None:
    full = derp.PeerPresent(PEER, IPv6Address("2001:db8::1"), 41641, derp.PresenceFlag.PROBER)
    payload = derp.peer_present(full)[5:]
    assert len(payload) == 51
    assert derp.read_peer_present(payload) == full
    assert derp.read_peer_present(payload + b"later") == full
    assert derp.read_peer_present(payload[:50]) == derp.PeerPresent(PEER, full.address, 41641)
    assert derp.read_peer_present(payload[:32]) == derp.PeerPresent(PEER)
    four = derp.PeerPresent(PEER, IPv4Address("192.0.2.1"), 1)
    assert derp.read_peer_present(derp.peer_present(four)[5:]) == four


def test_frames_are_read_back() -> None:
    assert derp.read_recv_packet(PEER.raw + b"data") == (PEER.raw, b"data")
    assert derp.read_peer_gone(PEER.raw + b"\x01") == (PEER.raw, derp.GONE_NOT_HERE)
    assert derp.read_peer_gone(PEER.raw) == (PEER.raw, derp.GONE_DISCONNECTED)
    assert derp.read_note_preferred(b"\x01")
    assert not derp.read_note_preferred(b"\x00")
    assert derp.read_key(PEER.raw, "x") == PEER.raw
    assert derp.read_restarting(derp.restarting(5, 6)[5:]) == (5, 6)


@pytest.mark.parametrize(
    ("read", "payload"),
    [
        (derp.read_server_key, derp.MAGIC + bytes(31)),
        (derp.read_server_key, bytes(40)),
        (derp.read_recv_packet, bytes(31)),
        (derp.read_peer_gone, bytes(31)),
        (derp.read_peer_present, bytes(31)),
        (derp.read_note_preferred, b""),
        (derp.read_note_preferred, b"12"),
        (derp.pong_for, bytes(7)),
        (derp.pong_for, bytes(1001)),
        (derp.read_restarting, bytes(7)),
        (lambda payload: derp.read_key(payload, "ClosePeer"), bytes(33)),
    ],
)
def test_frames_of_a_wrong_length_are_refused(read: Any, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(payload)


def test_no_packet_is_larger_than_derp_carries() -> None:
    largest = bytes(derp.MAX_PACKET)
    assert len(derp.send_packet(bytes(32), largest)) == 5 + 32 + 65536
    assert len(derp.forward_packet(bytes(32), bytes(32), largest)) == 5 + 64 + 65536
    with pytest.raises(LocalProtocolError):
        derp.send_packet(bytes(32), largest + b"x")
    with pytest.raises(LocalProtocolError):
        derp.forward_packet(bytes(32), bytes(32), largest + b"x")


# --- HTTP


def test_the_request_and_its_headers() -> None:
    assert derp.upgrade_request("relay:443", fast_start=True, ideal_node="900a") == (
        b"GET /derp HTTP/1.1\r\nHost: relay:443\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
        b"Derp-Fast-Start: 1\r\nIdeal-Node: 900a\r\n\r\n"
    )
    assert b"Fast" not in derp.upgrade_request("relay")
    with pytest.raises(LocalProtocolError):
        derp.upgrade_request("relay\r\nX: y")
    assert derp.wants_derp([(b"host", b"x"), (b"upgrade", b"dErP")])
    assert not derp.wants_derp([(b"upgrade", b"websocket")])
    assert derp.wants_fast_start([(b"derp-fast-start", b"1")])
    assert not derp.wants_fast_start([(b"derp-fast-start", b"0")])
    assert derp.is_not_ideal([(b"ideal-node", b"900a")])
    assert not derp.is_not_ideal([(b"ideal-node", b" ")])


def test_the_response_names_version_and_key() -> None:
    head = derp.upgrade_response(SERVER.public()).decode()
    assert head.startswith("HTTP/1.1 101 ")
    assert head.endswith("\r\n\r\n")
    assert "\r\nDerp-Version: 2\r\n" in head
    assert f"\r\nDerp-Public-Key: {SERVER.public().raw.hex()}\r\n" in head
