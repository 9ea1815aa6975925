"""What programs answer that doorward starts or asks: the daemon's LocalAPI, versions, a relay's certificates."""

import asyncio
from functools import partial
from pathlib import Path
from unittest.mock import patch

from tests.fuzz.feeding import FakeTransport, feed, in_loop, pieces, text_of
from tests.support.clock import FakeClock

from doorward.engine import client, localapi, programs
from doorward.engine.base import EngineError, Ping, Status
from doorward.engine.controlconn import ControlConnection
from doorward.engine.derp import DERPClient, read_meta_certificate
from doorward.errors import DoorwardError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, MachinePrivate, NodePrivate
from doorward.relay.certificate import meta_certificate
from doorward.transport.h2client import H2Client

COVERS = (
    "engine.client:_target",
    "engine.controlconn:ControlConnection.__init__",
    "engine.derp:read_meta_certificate",
    "engine.derp:DERPClient._read_head",
    "engine.derp:DERPClient._frame",
    "engine.localapi:LocalApi._open",
    "engine.localapi:_decode",
    "engine.localapi:_is_outside",
    "engine.programs:parse_version",
    "transport.h2client:Response.begin",
)
LIMIT = 256 << 10  # of a status; the daemon is ours, and a line of its bus may have far more

SERVER = DERPPrivate(b"\x11" * 32)
MACHINE = MachinePrivate(b"\x33" * 32)
NODE = NodePrivate(b"\x22" * 32)
NONCE = bytes(derp.NONCE_SIZE)


def _h2_answer() -> bytes:
    """SETTINGS, and a response to the first request."""
    import h2.config  # noqa: PLC0415 - only here
    import h2.connection  # noqa: PLC0415

    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(
        1, [(":method", "POST"), (":authority", "a"), (":scheme", "https"), (":path", "/")], end_stream=True
    )
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200"), ("content-length", "5")])
    server.send_data(1, b"hello", end_stream=True)
    server.ping(b"8 bytes.")
    server.close_connection()
    return bytes(server.data_to_send())


SEEDS = (
    (
        b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"Node":{"StableID":"n1","Name":"a.","Addresses":["100.64.0.1/32"]},'
        b'"UserProfile":{"LoginName":"ann"},"CapMap":{"a":null}}'
    ),
    (
        b'HTTP/1.0 200 OK\r\n\r\n{"BackendState":"Running","AuthURL":"","TailscaleIPs":["100.64.0.1"],"Self":{"ID":"n1","Online":true,'
        b'"HostName":"h","DNSName":"h.","Tags":null},"Peer":{},"Health":["x"],"MagicDNSSuffix":"x","Version":"1.102.4"}'
    ),
    b'HTTP/1.1 404 Not Found\r\n\r\n{"State":6,"BrowseToURL":"https://x","ErrMessage":null}\n',
    b'{"IP":"100.64.0.1","NodeName":"x","LatencySeconds":0.1,"Endpoint":"1.2.3.4:5","DERPRegionID":1,"Err":""}',
    b"https://control.example.com:8443/machine/answer/abc?x=y",
    b"1.102.4-ERR-BuildInfo\n  go version: go1.26.8",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + derp.server_key(SERVER.public()) + derp.health("x"),
    derp.server_key(SERVER.public())
    + derp.server_info(derp.ServerInfo(version=2), SERVER, NODE.public(), NONCE)
    + derp.peer_gone(b"\x01" * 32, 1)
    + derp.ping(b"8 bytes.")
    + derp.frame(derp.RECV_PACKET, b"\x01" * 32 + b"packet")
    + derp.frame(derp.PEER_PRESENT, b"\x01" * 32 + bytes(16) + b"\x01\x00\x03"),
    meta_certificate(SERVER.public(), FakeClock().now()),
    _h2_answer(),
)


async def _ask(data: bytes, call: str) -> None:
    """One call, answered with these bytes."""

    async def connect(_: str, *, limit: int) -> tuple[asyncio.StreamReader, FakeTransport]:
        reader = asyncio.StreamReader(limit=limit)
        reader.feed_data(data)
        reader.feed_eof()
        return reader, FakeTransport()

    api = localapi.LocalApi(Path("socket"))
    with patch.object(asyncio, "open_unix_connection", connect):
        try:
            if call == "watch":
                async for _ in api.watch(localapi.WATCH_STATE):
                    pass
            elif call == "dial":
                await api.dial("100.64.0.1", 22)
            elif call == "whois":
                await api.whois("100.64.0.1:1")
            else:
                await api.status()
        except EngineError:
            return


async def _relay(data: bytes, *, head: bool) -> None:
    """A relay that we are a client of."""
    guest = DERPClient(NODE, NONCE, derp.ClientInfo(version=2), None)
    guest.connection_made(FakeTransport())
    guest._start("relay:443", not head)
    for part in pieces(data):
        guest.data_received(part)
    guest.close()


async def _control(data: bytes) -> None:
    """A control server, behind Noise, that has been asked something."""
    asked = H2Client(FakeTransport(), authority="a")
    asked.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(_one_request(asked))
        await asyncio.sleep(0)
        for part in pieces(data):
            asked.receive(part)
            await asyncio.sleep(0)
        asked.close()


async def _one_request(asked: H2Client) -> None:
    try:
        response = await asked.request("POST", "/machine/map", body=b"{}")
        await response.read(1 << 16)
    except DoorwardError:
        return


def fuzz(data: bytes) -> None:
    """Nonsense from a program is an error that says so; a relay's or control's ends the connection."""
    text = text_of(data)
    programs.parse_version(text)
    localapi._is_outside(text)
    feed(text, client._target, lambda given: ControlConnection(given, MACHINE, version=1, entropy=bytes))
    read_meta_certificate(data)
    for kind in (Status, Ping, localapi._WhoIsAnswer, localapi.Notify, dict):
        feed(data, partial(localapi._decode, kind=kind), refusal=EngineError)

    async def all_of_them() -> None:
        for call in ("status", "whois", "watch", "dial"):
            await _ask(data, call)
        await _ask(b"HTTP/1.0 200 OK\r\n\r\n" + data, "watch")
        await _relay(data, head=True)
        await _relay(data, head=False)
        await _control(data)

    in_loop(all_of_them)
