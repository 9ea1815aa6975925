"""DERP: what a hostile client may send to the hub, a hostile server to a client, and every single frame."""

from doorward.errors import RemoteProtocolError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePrivate, NodePublic
from doorward.relay.connection import Limits
from doorward.relay.hub import Hub

SERVER = DERPPrivate(b"\x11" * 32)
CLIENT = NodePrivate(b"\x22" * 32)
MESH = derp.PresenceFlag.MESH_PEER


def _hub(data: bytes) -> None:
    hub = Hub(Limits(), bytes, mesh_key="00" * 32)
    hostile, _ = hub.connect(NodePublic(bytes(32)), 0, flags=MESH)
    hub.connect(NodePublic(b"\x01" * 32), 0)
    middle = len(data) // 2
    for part in (data[:middle], data[middle:]):
        for _, written in hub.receive(hostile, part, 1):
            assert written


def _frames(data: bytes) -> None:
    derp.FrameReader(derp.MAX_SERVER_PAYLOAD).frames(data)


def _first(data: bytes) -> None:
    derp.FrameReader(derp.MAX_CLIENT_INFO).first(data)


def fuzz(data: bytes) -> None:
    """Feed ``data`` to every parser; nothing but RemoteProtocolError may come out."""
    for parse in (
        _hub,
        _frames,
        _first,
        derp.read_server_key,
        lambda payload: derp.open_client_info(payload, SERVER),
        lambda payload: derp.open_server_info(payload, CLIENT, SERVER.public()),
        derp.read_recv_packet,
        derp.read_note_preferred,
        derp.pong_for,
        derp.read_peer_gone,
        derp.read_peer_present,
        lambda payload: derp.read_key(payload, "ClosePeer"),
        derp.read_restarting,
    ):
        try:
            parse(data)
        except RemoteProtocolError:
            continue
