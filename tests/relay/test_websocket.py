"""DERP over WebSocket: a client of the websockets library against our relay behind the real listener."""

import asyncio
import os
import ssl
from ipaddress import ip_network
from typing import Any

import pytest
import structlog
from tests.support.relay import HOST, RunningRelay, node_key, running_relay
from tests.support.waiting import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from doorward.engine.derp import Packet, PeerGone
from doorward.protocol import derp
from doorward.protocol.keys import NodePrivate, NodePublic

ALICE, TAB = node_key(1), node_key(2)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param}


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def dial(relay: RunningRelay, **options: Any) -> connect:
    scheme = "wss" if relay.tls else "ws"
    return connect(
        f"{scheme}://{HOST}:{relay.port}/derp",
        ssl=trusting() if relay.tls else None,
        proxy=None,
        **({"subprotocols": ["derp"], "compression": None} | options),
    )


class Tab:
    """The browser's side: frames over messages, without any alignment between the two."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.reader = derp.FrameReader(derp.MAX_SERVER_PAYLOAD)
        self.waiting: list[tuple[int, bytes]] = []

    async def frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(5):
            while not self.waiting:
                message = await self.socket.recv()
                assert isinstance(message, bytes)
                self.waiting += self.reader.frames(message)
        return self.waiting.pop(0)

    async def shake_hands(self, key: NodePrivate) -> None:
        kind, payload = await self.frame()
        assert kind == derp.SERVER_KEY
        server = derp.read_server_key(payload)
        await self.socket.send(derp.client_info(derp.ClientInfo(version=2), key, server, os.urandom(24)))
        kind, payload = await self.frame()
        assert kind == derp.SERVER_INFO
        derp.open_server_info(payload, key, server)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_tab_and_a_node_exchange_packets(tls: bool) -> None:
    async with running_relay(tls=tls) as relay, dial(relay) as socket:
        assert socket.subprotocol == "derp"
        tab = Tab(socket)
        await tab.shake_hands(TAB)
        alice = await relay.connect(ALICE)
        alice.send(TAB.public(), bytes(40_000))
        assert await tab.frame() == (derp.RECV_PACKET, ALICE.public().raw + bytes(40_000))
        sent = derp.send_packet(ALICE.public().raw, b"one") + derp.send_packet(ALICE.public().raw, b"two")
        for at in range(0, len(sent), 7):  # messages need not end where frames end
            await socket.send(sent[at : at + 7])
        async with asyncio.timeout(5):
            assert await alice.recv() == Packet(TAB.public(), b"one")
            assert await alice.recv() == Packet(TAB.public(), b"two")
        await socket.close()
        async with asyncio.timeout(5):
            assert await alice.recv() == PeerGone(TAB.public(), derp.GONE_DISCONNECTED)
        alice.close()


async def test_the_subprotocol_is_required() -> None:
    async with running_relay(tls=False) as relay:
        with pytest.raises(InvalidStatus, match="403") as refused:
            async with dial(relay, subprotocols=None):
                pass
    # For whoever looks for the proxy that took it away.
    assert b"Sec-WebSocket-Protocol" in (refused.value.response.body or b"")


PAGES = frozenset({"https://door.example.com", "http://localhost:8080"})


@pytest.mark.parametrize("origin", [None, *sorted(PAGES)])
async def test_a_program_and_a_page_of_ours_come_in(origin: str | None) -> None:
    async with running_relay(tls=False, origins=PAGES) as relay, dial(relay, origin=origin) as socket:
        await Tab(socket).shake_hands(TAB)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "http://door.example.com",
        "https://door.example.com:8443",
        "https://door.example.com.evil.example.com",
        "https://DOOR.example.com",
        "null",
        "",
    ],
)
async def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    with structlog.testing.capture_logs() as said:
        async with running_relay(tls=False, origins=PAGES) as relay:
            for _ in range(2):
                with pytest.raises(InvalidStatus, match="403"):
                    async with dial(relay, additional_headers={"Origin": origin}):
                        pass
    (line,) = (one for one in said if "another origin" in one["event"])  # once for each origin
    assert line["origin"] == origin
    assert "console.origins" in line["cure"]


async def test_two_origins_are_none_that_a_browser_sends() -> None:
    both = [("Origin", origin) for origin in sorted(PAGES)]
    async with running_relay(tls=False, origins=PAGES) as relay:
        with pytest.raises(InvalidStatus, match=r"HTTP 40[03]"):
            async with dial(relay, additional_headers=both):
                pass


async def test_whoever_invents_origins_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.testing.capture_logs() as said:
        async with running_relay(tls=False, origins=PAGES) as relay:
            for number in range(40):
                with pytest.raises(InvalidStatus, match="403"):
                    async with dial(relay, origin=Origin(f"https://{number:02}{'x' * 300}.example.com")):
                        pass
    told = [one["origin"] for one in said if "another origin" in one["event"]]
    assert len(told) == 20
    assert max(map(len, told)) == 100
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_a_relay_that_knows_no_pages_takes_any() -> None:
    async with (
        running_relay(tls=False) as relay,
        dial(relay, origin=Origin("https://x.example.com")) as socket,
    ):
        await Tab(socket).shake_hands(TAB)


@pytest.mark.parametrize("trusted", [True, False])
async def test_behind_a_proxy_that_is_trusted_the_client_is_who_it_speaks_for(trusted: bool) -> None:
    asked: list[str] = []

    def admit(_: NodePublic, source: str) -> bool:
        asked.append(source)
        return True

    proxies = [ip_network("127.0.0.0/8")] if trusted else []
    forwarded = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
    async with running_relay(tls=False, admit=admit, proxies=proxies) as relay:
        async with dial(relay, additional_headers=forwarded) as socket:
            await Tab(socket).shake_hands(TAB)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(
            b"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
            b"X-Forwarded-For: 198.51.100.7, 203.0.113.9\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        key = derp.read_server_key((await reader.readexactly(45))[5:])
        writer.write(derp.client_info(derp.ClientInfo(version=2), ALICE, key, os.urandom(24)))
        await until(lambda: len(asked) == 2)
        writer.close()
    assert set(asked) == {"203.0.113.9" if trusted else HOST}


@pytest.mark.parametrize("nonsense", ["text", b"\xff" * 8, derp.frame(derp.SEND_PACKET, bytes(64))])
async def test_what_is_no_derp_ends_the_connection(nonsense: str | bytes) -> None:
    async with running_relay(tls=False) as relay, dial(relay) as socket:
        await socket.recv()
        await socket.send(nonsense)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(5):
                await socket.recv()
        assert relay.relay.hub.clients() == 0


async def test_a_refused_and_a_deleted_node_are_closed() -> None:
    async with (
        running_relay(tls=False, admit=lambda key, _: key == TAB.public()) as relay,
        dial(relay) as socket,
        dial(relay) as other,
    ):
        await Tab(socket).shake_hands(TAB)
        with pytest.raises(ConnectionClosed):
            await Tab(other).shake_hands(ALICE)
        assert relay.relay.disconnect(TAB.public()) == 1
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(5):
                await socket.recv()


@pytest.mark.parametrize(("code", "left"), [(4000, True), (1000, False), (4001, False)])
async def test_a_page_says_by_its_code_that_it_is_left_for_good(code: int, left: bool) -> None:
    async with running_relay(tls=False) as relay, dial(relay) as socket:
        said: list[tuple[NodePublic, bool]] = []
        relay.relay.went = lambda key, gone: said.append((key, gone))
        await Tab(socket).shake_hands(TAB)
        await socket.close(code)
        await until(lambda: bool(said))
        assert said == [(TAB.public(), left)]


async def test_a_tab_that_does_not_read_costs_little_and_recovers() -> None:
    async with running_relay(tls=False) as relay, dial(relay, max_queue=2) as socket:
        tab = Tab(socket)
        await tab.shake_hands(TAB)
        alice = await relay.connect(ALICE)
        hub = relay.relay.hub
        async with asyncio.timeout(10):
            while hub.counts.dropped_data < 5000:
                alice.send_raw(derp.send_packet(TAB.public().raw, bytes(1300)) * 100)
                await alice.drain()
                await asyncio.sleep(0)
        (connection,) = hub.connections_of(TAB.public())
        assert connection.queued() <= hub.limits.data_bytes
        assert connection.owner.unsent() <= 512 * 1024
        alice.send(TAB.public(), b"last")
        async with asyncio.timeout(8):
            while (await tab.frame())[1][32:] != b"last":
                pass
        await until(lambda: not connection.paused)
        alice.close()


async def test_a_stop_closes_politely() -> None:
    async with running_relay(tls=False) as relay, dial(relay) as socket:
        await Tab(socket).shake_hands(TAB)
        relay.relay.close()
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(5):
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
