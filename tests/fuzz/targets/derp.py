"""DERP: what a hostile client may send to the hub, a hostile server to a client, and every single frame."""

from nacl.public import Box, PrivateKey, PublicKey
from tests.fuzz.feeding import feed

from doorward.errors import RemoteProtocolError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePrivate, NodePublic
from doorward.relay.connection import Limits
from doorward.relay.hub import Hub

COVERS = (
    "protocol.derp:FrameReader.spans",
    "protocol.derp:FrameReader.frames",
    "protocol.derp:FrameReader.first",
    "protocol.derp:read_server_key",
    "protocol.derp:open_client_info",
    "protocol.derp:open_server_info",
    "protocol.derp:read_recv_packet",
    "protocol.derp:read_note_preferred",
    "protocol.derp:read_peer_gone",
    "protocol.derp:read_address",
    "protocol.derp:read_peer_present",
    "protocol.derp:read_key",
    "protocol.derp:read_restarting",
    "relay.hub:Hub.receive",
)
LIMIT = 1 << 20  # a server's largest frame, and of a client's, sixteen in one read

SERVER = DERPPrivate(b"\x11" * 32)
CLIENT = NodePrivate(b"\x22" * 32)
LIMITS = Limits()
NONCE = bytes(derp.NONCE_SIZE)
HERE, ELSEWHERE, NOWHERE = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
MESH = derp.PresenceFlag.MESH_PEER
BOX = Box(PrivateKey(CLIENT.raw), PublicKey(SERVER.public().raw))

SEEDS = (
    derp.send_packet(HERE, b"packet")
    + derp.send_packet(ELSEWHERE, b"packet")
    + derp.send_packet(NOWHERE, b"x"),
    derp.forward_packet(HERE, HERE, b"packet") + derp.frame(derp.WATCH_CONNS) + derp.close_peer(HERE),
    derp.ping(b"8 bytes.")
    + derp.note_preferred(True)
    + derp.frame(derp.KEEP_ALIVE)
    + derp.frame(0x7F, b"new"),
    derp.peer_gone(HERE, 1) + derp.health("problem") + derp.restarting(10, 20),
    derp.peer_present(derp.PeerPresent(NodePublic(HERE), None, 0, MESH)),
    derp.server_key(SERVER.public()),
    derp.client_info(derp.ClientInfo(version=2, mesh_key="00" * 32), CLIENT, SERVER.public(), NONCE),
    b'{"version":2,"meshKey":"","CanAckPings":true,"IsProber":false,"TokenBucketBytesPerSecond":1}',
    b"DERP\xf0\x9f\x94\x91" + SERVER.public().raw,
)


def _hub(data: bytes) -> None:
    """A connection that proved the mesh key, the most that anyone may: in two reads and one, then to a reader that is paused."""
    hub = Hub(LIMITS, bytes, mesh_key="00" * 32)
    hostile, _ = hub.connect(NodePublic(bytes(32)), 0, flags=MESH)
    reader, _ = hub.connect(NodePublic(HERE), 0)
    line = hub.open_line(NodePublic(b"\x04" * 32), 0)
    hub.learn(line, NodePublic(ELSEWHERE))
    middle = len(data) // 2
    for part in (data[:middle], data[middle:], data):
        for _, written in hub.receive(hostile, part, 1):
            assert written
    hub.pause(reader)
    hub.pause(hostile)
    hub.receive(hostile, data, 1)
    assert reader.queued() <= LIMITS.data_bytes + LIMITS.disco_bytes + LIMITS.control_bytes
    hub.resume(reader)
    hub.disconnect(hostile)


def fuzz(data: bytes) -> None:
    """Feed ``data`` to every parser; nothing but RemoteProtocolError may come out."""
    sealed = bytes(BOX.encrypt(data, NONCE))
    feed(
        data,
        _hub,
        derp.FrameReader(derp.MAX_SERVER_PAYLOAD).frames,
        derp.FrameReader(derp.MAX_CLIENT_INFO).first,
        derp.read_server_key,
        lambda payload: derp.open_client_info(payload, SERVER),
        lambda _: derp.open_client_info(CLIENT.public().raw + sealed, SERVER),
        lambda payload: derp.open_server_info(payload, CLIENT, SERVER.public()),
        lambda _: derp.open_server_info(sealed, CLIENT, SERVER.public()),
        derp.read_recv_packet,
        derp.read_note_preferred,
        derp.pong_for,
        derp.read_peer_gone,
        derp.read_peer_present,
        lambda payload: derp.read_key(payload, "ClosePeer"),
        derp.read_restarting,
        refusal=RemoteProtocolError,
    )
