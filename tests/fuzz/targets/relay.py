"""The relay's edges: a connection from its first byte, /verify and its answers, challenges, addresses of other relays."""

import ssl
from typing import Any

from starlette.applications import Starlette
from tests.fuzz.feeding import FakeTransport, feed, in_loop, pieces, text_of
from tests.support.clock import FakeClock

from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePrivate, NodePublic
from doorward.relay import mesh
from doorward.relay.routes import relay_routes
from doorward.relay.server import Relay
from doorward.relay.session import Session, _address
from doorward.relay.verify import Verifier
from doorward.transport.fetch import Answer
from doorward.transport.listener import UpgradeRequest

COVERS = (
    "relay.mesh:Peer.parse",
    "relay.mesh:read_mesh_key",
    "relay.routes:_generate_204",
    "relay.routes:_read",
    "relay.routes:_verify.verify",
    "relay.server:Relay.takeover",
    "relay.session:Session.data_received",
    "relay.session:_address",
    "relay.session:Session._route",
    "relay.verify:Verifier._ask",
)
LIMIT = 256 << 10  # one read of a socket
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used, and quickly made

SERVER = DERPPrivate(b"\x11" * 32)
CLIENT = NodePrivate(b"\x22" * 32)
HELLO = derp.client_info(derp.ClientInfo(version=2), CLIENT, SERVER.public(), bytes(derp.NONCE_SIZE))
SEEDS = (
    HELLO + derp.ping(b"8 bytes.") + derp.send_packet(b"\x01" * 32, b"packet"),
    HELLO[:40],
    derp.note_preferred(True) + derp.frame(derp.WATCH_CONNS),
    b'{"NodePublic":"nodekey:' + b"1" * 64 + b'","Source":"192.0.2.1"}',
    b'{"Allow":true}',
    b"https://relay.example.com:8443/derp#sha256-raw:" + b"a" * 64,
    b"unix:/run/relay.sock",
    b"0" * 64,
    b"challenge.A_b:1",
    b"fe80::1%eth0",
)


class _Answering:
    def __init__(self, status: int, data: bytes) -> None:
        self._answer = Answer(status, {}, data)

    async def request(self, *_: Any, **__: Any) -> Answer:
        return self._answer


async def _verified(data: bytes) -> None:
    for status in (200, 503, 404):
        verifier = Verifier("http://127.0.0.1/verify", FakeClock(), ssl_context=PLAIN)
        verifier._fetcher, fetcher = _Answering(status, data), verifier._fetcher  # type: ignore[assignment]
        await verifier.admit(CLIENT.public(), text_of(data[:100]))
        await fetcher.__aexit__(None, None, None)


async def _session(relay: Relay, data: bytes) -> None:
    """A client's bytes, in several reads, on a connection whose every packet the hub takes."""
    session = Session(relay, source=text_of(data[:40]), port=1)
    transport = FakeTransport()
    session.connection_made(transport)
    for part in pieces(data):
        session.data_received(part)
    session.connection_lost(None)
    assert transport.written <= 64 * len(data) + 4096  # no amplifier


async def _request(
    app: Starlette, method: str, path: str, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) < 500

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": headers,
        "query_string": b"",
        "root_path": "",
    }
    await app(scope, receive, send)


def _upgrade(data: bytes) -> UpgradeRequest:
    value = data[:200].replace(b"\r", b"").replace(b"\n", b"")
    return UpgradeRequest(
        method="GET",
        path="/derp",
        query=b"",
        headers=(
            (b"upgrade", b"derp"),
            (b"derp-fast-start", value),
            (b"ideal-node", value),
            (b"connection", value),
        ),
        transport=FakeTransport(),
        peer=None,
        local=None,
        listener="public",
        identity=None,
        leftover=b"",
    )


def fuzz(data: bytes) -> None:
    """Nothing ends but the connection, or the request, that it came by."""
    text = text_of(data)
    feed(text, mesh.Peer.parse, mesh.read_mesh_key, NodePublic.parse)
    _address(text)

    async def all_of_them() -> None:
        relay = Relay(SERVER, lambda *_: True, FakeClock(), bytes, mesh_key="00" * 32)
        app = Starlette(routes=relay_routes(lambda *_: True))
        await _session(relay, data)
        await _session(relay, HELLO + data)
        relay.takeover(_upgrade(data))
        await _request(app, "POST", "/verify", data, [])
        value = data[:200].replace(b"\r", b"").replace(b"\n", b"")
        await _request(app, "GET", "/generate_204", b"", [(b"x-tailscale-challenge", value)])
        await _verified(data)

    in_loop(all_of_them)
