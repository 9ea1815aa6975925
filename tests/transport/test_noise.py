"""ts2021 end to end on loopback: our client, a WebSocket, bad peers; and the stock daemon."""

import asyncio
import base64
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import pytest
import websockets
from tests.support.certificates import tls_contexts
from tests.support.programs import OLDEST_CLIENT, Client, require_client
from tests.support.waiting import until
from websockets.asyncio.client import connect

from doorward.clock import SystemClock
from doorward.errors import BadInput, RemoteProtocolError, Unavailable
from doorward.protocol.keys import ChallengePrivate, MachinePrivate
from doorward.protocol.noise import ClientHandshake, ServerHandshake, encode_early_payload
from doorward.transport.h2 import H2Limits
from doorward.transport.listener import Limits, ListenerSpec, serve
from doorward.transport.noise import UPGRADE_TOKEN, Ts2021, decode_initiation, dial
from doorward.transport.sources import Networks
from doorward.transport.streams import StreamClosedError
from doorward.transport.turns import Turns

HOST = "127.0.0.1"
SERVER = MachinePrivate.from_entropy(bytes(range(32)))
CLIENT = MachinePrivate.from_entropy(bytes(range(1, 33)))


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class Inner:
    """The app inside Noise: remembers scopes and bodies, echoes, or streams."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], bytes]] = []
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self.pushed = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.requests.append((scope, body))
        self.arrived.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] != "/stream":
            answer = b'{"MachineAuthorized":true}' if scope["path"] == "/machine/register" else body
            await send({"type": "http.response.body", "body": answer})
            return
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        stream = scope["extensions"]["doorward.stream"]
        try:
            while True:
                while stream.push(b"m" * 10_000):
                    self.pushed += 1
                await stream.drained()
        finally:
            self.ended.set()


class Site:
    """A running server."""

    def __init__(self, port: int, inner: Inner, service: Ts2021, stop: asyncio.Event) -> None:
        self.port = port
        self.inner = inner
        self.service = service
        self.stop = stop
        self.url = f"http://{HOST}:{port}"


@contextlib.asynccontextmanager
async def site(
    *,
    tls: bool = False,
    limits: H2Limits = H2Limits(),  # noqa: B008 - frozen
    proxies: Networks = (),
) -> AsyncIterator[Site]:
    sock = socket.socket()
    sock.bind((HOST, 0))
    inner, stop, ready = Inner(), asyncio.Event(), asyncio.Event()
    async with Ts2021(inner, SERVER, entropy=secrets.token_bytes, limits=limits) as service:

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await service.websocket(scope, receive, send)
                return
            body = json.dumps({"publicKey": str(SERVER.public()), "legacyPublicKey": "mkey:" + "0" * 64})
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body.encode()})

        spec = ListenerSpec(name="public", sockets=[sock], ssl_context=tls_contexts()[0] if tls else None)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                serve(
                    [spec],
                    outer,
                    {UPGRADE_TOKEN: service.takeover},
                    clock=SystemClock(),
                    stop=stop,
                    ready=ready,
                    limits=Limits(shutdown=1),
                    proxies=proxies,
                )
            )
            await ready.wait()
            try:
                yield Site(sock.getsockname()[1], inner, service, stop)
            finally:
                stop.set()


async def call(site: Site, **arguments: Any) -> Any:
    arguments = {"version": 113, "entropy": secrets.token_bytes, **arguments}
    url = arguments.pop("url", site.url)
    return await dial(url, CLIENT, arguments.pop("server", SERVER.public()), **arguments)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_request_through_everything(tls: bool) -> None:
    async with site(tls=tls) as here:
        url = f"https://localhost:{here.port}" if tls else here.url
        client = await call(here, url=url, ssl_context=tls_contexts()[1] if tls else None)
        body = secrets.token_bytes(300_000)
        assert await (await client.request("POST", "/echo", (), body)).read(1 << 20) == body
        scope, _ = here.inner.requests[0]
        assert scope["state"] == {"machine_key": CLIENT.public(), "noise_version": 113, "guest": ANY}
        assert scope["client"][0] == HOST
        client.close()


async def test_a_slow_reader_of_the_stream_costs_a_bounded_amount_and_is_let_go() -> None:
    async with site(limits=H2Limits(stall_seconds=0.2)) as here:
        client = await call(here)
        response = await client.request("GET", "/stream")
        async for _ in response:
            break
        client.wire.pause_reading()
        await here.inner.ended.wait()
        # What the sockets and the windows took, and no more: a loopback socket holds a few MB.
        assert here.inner.pushed * 10_000 < 20 << 20
        client.wire.abort()


async def test_stopping_ends_open_streams_at_once() -> None:
    async with site() as here:
        client = await call(here)
        response = await client.request("GET", "/stream")
        here.stop.set()
        with pytest.raises(StreamClosedError):
            await response.read(1 << 30)
        await here.inner.ended.wait()


async def test_a_client_that_vanishes_ends_its_requests() -> None:
    async with site() as here:
        client = await call(here)
        await client.request("GET", "/stream")
        client.wire.abort()
        await here.inner.ended.wait()
        while here.service._open:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)


async def upgrade(port: int, *headers: str, method: str = "POST", path: str = "/ts2021") -> tuple[Any, Any]:
    reader, writer = await asyncio.open_connection(HOST, port)
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        f"Upgrade: {UPGRADE_TOKEN}",
        "Connection: upgrade",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return reader, writer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def handshake(server: MachinePrivate = SERVER) -> tuple[ClientHandshake, str]:
    made = ClientHandshake(CLIENT, server.public(), MachinePrivate.from_entropy(secrets.token_bytes(32)), 130)
    return made, base64.b64encode(made.initiation).decode()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("X-None: 1", b"is missing"),
        ("X-Tailscale-Handshake:", b"is missing"),
        ("X-Tailscale-Handshake: %%%", b"not standard base64"),
        ("X-Tailscale-Handshake: AAAA", b"holds 3 bytes, expected 101"),
    ],
)
async def test_a_bad_handshake_header_gets_400_and_the_reason(header: str, text: bytes) -> None:
    async with site() as here:
        reader, writer = await upgrade(here.port, header)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert text in answer
        await close(writer)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/ts2021", b"405"), ("POST", "/ts2020", b"404")]
)
async def test_the_wrong_method_or_path_gets_an_ordinary_answer(
    method: str, path: str, status: bytes
) -> None:
    async with site() as here:
        reader, writer = await upgrade(
            here.port, f"X-Tailscale-Handshake: {handshake()[1]}", method=method, path=path
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 " + status)
        await close(writer)


async def test_a_handshake_for_another_key_is_refused_in_noises_own_words() -> None:
    async with site() as here:
        other = MachinePrivate.from_entropy(bytes(32))
        with pytest.raises(RemoteProtocolError, match=r"refused the Noise handshake: .*another key"):
            await call(here, server=other.public())
        made, header = handshake(other)
        reader, writer = await upgrade(here.port, f"X-Tailscale-Handshake: {header}")
        head, _, frame = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert frame[:1] == b"\x03"
        with pytest.raises(RemoteProtocolError):
            made.receive(frame)
        await close(writer)


async def test_head_response_and_settings_come_in_one_piece() -> None:
    async with site() as here:
        made, header = handshake()
        reader, writer = await upgrade(here.port, f"X-Tailscale-Handshake: {header}")
        head, _, rest = (await reader.read(4096)).partition(b"\r\n\r\n")
        assert head == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade"
        )
        answer = made.receive(rest)
        assert answer is not None
        noise, records = answer
        assert noise.receive(records)[3:5] == b"\x04\x00"  # SETTINGS: no early payload
        await close(writer)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x04\xff\xff",  # a record over 4096 bytes
        b"\x03\x00\x01x",
        b"\x04\x00\x10" + bytes(16),  # does not decrypt
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_after_the_handshake_ends_the_connection(garbage: bytes) -> None:
    async with site() as here:
        _, header = handshake()
        reader, writer = await upgrade(here.port, f"X-Tailscale-Handshake: {header}")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        while here.service._open:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)
        await close(writer)


async def test_a_connection_that_never_asks_is_closed() -> None:
    async with site(limits=H2Limits(first_request_seconds=0.05)) as here:
        client = await call(here)
        while not client.closed:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


# The client against servers that misbehave.


@contextlib.asynccontextmanager
async def fake(answer: Any) -> AsyncIterator[str]:
    """A server whose answer to the upgrade is ``answer(initiation)``; None says nothing at all."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line = next(line for line in head.split("\r\n") if line.startswith("X-Tailscale-Handshake: "))
        said = answer(base64.b64decode(line.partition(": ")[2]))
        if said is not None:
            with contextlib.suppress(RuntimeError):  # uvloop's way to say that the client has hung up
                for at in range(0, len(said), 7):
                    writer.write(said[at : at + 7])
                    await asyncio.sleep(0)
        else:
            await reader.read()
        await close(writer)

    server = await asyncio.start_server(serve_one, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"x" * 20_000,
        b"",
        SWITCH,
        SWITCH + b"\x02\x00\x31" + bytes(48),
        SWITCH + b"\x02\x00\x30" + bytes(48),
        SWITCH + b"\x03\x00\x03no!",
    ],
)
async def test_the_client_refuses_a_server_that_does_not_shake_hands(said: bytes) -> None:
    async with fake(lambda _: said) as url:
        with pytest.raises(RemoteProtocolError):
            await dial(url, CLIENT, SERVER.public(), version=1, entropy=secrets.token_bytes)


@pytest.mark.parametrize("early", [True, False])
async def test_the_client_takes_an_early_payload_or_none(early: bool) -> None:
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    goodbye = b"\x00\x00\x08\x07\x00" + bytes(12)

    def answer(initiation: bytes) -> bytes:
        ephemeral = MachinePrivate.from_entropy(secrets.token_bytes(32))
        _, _, response, noise = ServerHandshake(SERVER, ephemeral).receive(initiation)
        payload = encode_early_payload(ChallengePrivate(bytes(32)).public()) if early else b""
        return SWITCH + response + noise.send(payload) + noise.send(settings + goodbye)

    async with fake(answer) as url:
        client = await dial(url, CLIENT, SERVER.public(), version=1, entropy=secrets.token_bytes)
        while not client.closed:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)
        assert client.why_closed == "the server said goodbye"


async def test_the_client_gives_up_in_time_and_on_nobody() -> None:
    async with fake(lambda _: None) as url:
        with pytest.raises(Unavailable):
            await dial(url, CLIENT, SERVER.public(), version=1, entropy=secrets.token_bytes, seconds=0.05)
    with pytest.raises(Unavailable):
        await dial(url, CLIENT, SERVER.public(), version=1, entropy=secrets.token_bytes)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "x:1", ""])
async def test_an_address_that_cannot_be_dialled(url: str) -> None:
    with pytest.raises(BadInput):
        await dial(url, CLIENT, SERVER.public(), version=1, entropy=secrets.token_bytes)


def test_an_initiation_is_decoded_strictly() -> None:
    good = base64.b64encode(bytes(101)).decode()
    assert decode_initiation(good) == bytes(101)
    for bad in (None, "", good[:-1], good.replace("A", "-"), good + "\n", good + "AAAA"):
        with pytest.raises(BadInput):
            decode_initiation(bad)


# WebSocket, as a browser does it.


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_browser_gets_the_same_over_a_websocket(*, proxied: bool) -> None:
    async with site(proxies=[ip_network("127.0.0.0/8")] if proxied else ()) as here:
        made, header = handshake()
        url = f"ws://{HOST}:{here.port}/ts2021?X-Tailscale-Handshake={quote(header, safe='')}"
        async with connect(
            url,
            subprotocols=[websockets.Subprotocol(UPGRADE_TOKEN)],
            compression=None,
            additional_headers={"X-Forwarded-For": "203.0.113.9"},
        ) as ws:
            assert ws.subprotocol == UPGRADE_TOKEN
            answer = None
            while answer is None:
                message = await ws.recv()
                assert isinstance(message, bytes)
                answer = made.receive(message)
            noise, rest = answer
            from h2.connection import H2Connection  # noqa: PLC0415 - used here only

            h2 = H2Connection()
            h2.initiate_connection()
            h2.receive_data(noise.receive(rest))
            body = secrets.token_bytes(60_000)
            h2.send_headers(
                1, [(":method", "POST"), (":path", "/echo"), (":scheme", "https"), (":authority", "x")]
            )
            for at in range(0, len(body), 16384):
                h2.send_data(1, body[at : at + 16384])
            h2.end_stream(1)
            wire = noise.send(h2.data_to_send())
            for at in range(0, len(wire), 5000):  # message boundaries mean nothing
                await ws.send(wire[at : at + 5000])
            heard = b""
            while len(heard) < len(body):
                message = await ws.recv()
                assert isinstance(message, bytes)
                for event in h2.receive_data(noise.receive(message)):
                    heard += getattr(event, "data", None) or b""
                    if size := getattr(event, "flow_controlled_length", 0):
                        h2.acknowledge_received_data(size, 1)
                await ws.send(noise.send(h2.data_to_send()))
            assert heard == body
        scope, _ = here.inner.requests[0]
        assert scope["state"]["machine_key"] == CLIENT.public()
        assert scope["client"][0] == ("203.0.113.9" if proxied else HOST)
        while here.service._open:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("query", "protocols"),
    [("", [UPGRADE_TOKEN]), ("X-Tailscale-Handshake=AAAA", [UPGRADE_TOKEN]), ("good", [])],
)
async def test_a_bad_websocket_handshake_gets_400(query: str, protocols: list[Any]) -> None:
    async with site() as here:
        query = f"X-Tailscale-Handshake={quote(handshake()[1], safe='')}" if query == "good" else query
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with connect(f"ws://{HOST}:{here.port}/ts2021?{query}", subprotocols=protocols or None):
                pass
        assert caught.value.response.status_code == 400


@pytest.mark.parametrize("message", ["text", b"\x04\xff\xff", b"\x04\x00\x10" + bytes(16)])
async def test_a_websocket_that_speaks_garbage_is_closed(message: str | bytes) -> None:
    async with site() as here:
        _, header = handshake()
        url = f"ws://{HOST}:{here.port}/ts2021?X-Tailscale-Handshake={quote(header, safe='')}"
        async with connect(url, subprotocols=[websockets.Subprotocol(UPGRADE_TOKEN)]) as ws:
            await ws.send(message)
            async for _ in ws:
                pass
            assert ws.close_code == 1000
        while here.service._open:  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0)


async def test_a_websocket_for_another_key_hears_noises_own_words() -> None:
    async with site() as here:
        made, header = handshake(MachinePrivate.from_entropy(bytes(32)))
        url = f"ws://{HOST}:{here.port}/ts2021?X-Tailscale-Handshake={quote(header, safe='')}"
        async with connect(url, subprotocols=[websockets.Subprotocol(UPGRADE_TOKEN)]) as ws:
            frame = await ws.recv()
            assert isinstance(frame, bytes)
            with pytest.raises(RemoteProtocolError, match="another key"):
                made.receive(frame)


async def test_a_websocket_that_reads_nothing_is_let_go() -> None:
    async with site(limits=H2Limits(stall_seconds=0.2)) as here:
        made, header = handshake()
        url = f"ws://{HOST}:{here.port}/ts2021?X-Tailscale-Handshake={quote(header, safe='')}"
        subprotocols = [websockets.Subprotocol(UPGRADE_TOKEN)]
        async with connect(url, subprotocols=subprotocols, compression=None, max_queue=1) as ws:
            first = await ws.recv()
            assert isinstance(first, bytes)
            answer = made.receive(first)
            assert answer is not None
            from h2.connection import H2Connection  # noqa: PLC0415 - used here only
            from h2.settings import SettingCodes  # noqa: PLC0415 - used here only

            h2 = H2Connection()
            h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 1 << 30
            h2.local_settings.acknowledge()
            h2.initiate_connection()
            h2.increment_flow_control_window(1 << 30)
            h2.send_headers(
                1,
                [(":method", "GET"), (":path", "/stream"), (":scheme", "https"), (":authority", "x")],
                end_stream=True,
            )
            await ws.send(answer[0].send(h2.data_to_send()))
            await here.inner.ended.wait()
            assert here.inner.pushed * 10_000 < 20 << 20
            ws.transport.abort()


# The stock daemon.


@pytest.mark.interop
@pytest.mark.parametrize("client_version", [None, OLDEST_CLIENT], ids=["newest", "oldest"])
async def test_the_stock_daemon_registers_through_listener_noise_and_http2(
    tmp_path: Path, client_version: str | None
) -> None:
    client = require_client(client_version)
    async with site() as here:
        await run_daemon(client, tmp_path, here)
        scope, body = here.inner.requests[0]
        register = json.loads(body)
        assert (scope["method"], scope["path"]) == ("POST", "/machine/register")
        assert scope["state"]["noise_version"] == register["Version"] >= 113
        assert register["Hostinfo"]["IPNVersion"].startswith(".".join(map(str, client.version)))
        assert not scope["state"]["machine_key"].is_zero()
        assert register["Auth"]["AuthKey"] == "the-key"
        assert register["NodeKey"].startswith("nodekey:")


async def run_daemon(client: Client, folder: Path, here: Site) -> None:
    """Start a daemon, tell it to log in, and end it once its first request is in."""
    sock = f"{folder}/s"
    with (folder / "log").open("wb") as log:
        daemon = await asyncio.create_subprocess_exec(
            client.tailscaled,
            "--tun=userspace-networking",
            "--no-logs-no-support",
            f"--socket={sock}",
            f"--statedir={folder}",
            "--port=0",
            stdout=log,
            stderr=log,
        )
        up = None
        try:
            async with asyncio.timeout(20):
                while not Path(sock).exists():  # noqa: ASYNC110, ASYNC240 - the daemon signals nothing else
                    await asyncio.sleep(0.02)
                up = await asyncio.create_subprocess_exec(
                    client.tailscale,
                    f"--socket={sock}",
                    "up",
                    f"--login-server={here.url}",
                    "--auth-key=the-key",
                    stdout=log,
                    stderr=log,
                )
                await here.inner.arrived.wait()
        finally:
            for process in (up, daemon):
                if process is not None and process.returncode is None:
                    process.kill()
                if process is not None:
                    await process.wait()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_handshakes_that_wait_for_their_turn_lose_nothing(tls: bool) -> None:
    async with site(tls=tls) as here:
        here.service.turns = turns = Turns(rate=200, burst=1)
        url = f"https://localhost:{here.port}" if tls else here.url
        context = tls_contexts()[1] if tls else None
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(call(here, url=url, ssl_context=context)) for _ in range(12)]
            await asyncio.sleep(0)
        for made in calls:
            client = made.result()
            answer = await client.request("POST", "/echo", (), b"hello")
            assert await answer.read(100) == b"hello"
            client.close()
        assert turns.waiting == 0


async def test_who_leaves_while_it_waits_is_forgotten() -> None:
    async with site() as here:
        here.service.turns = turns = Turns(rate=0.001, burst=1)
        turns.ask("somebody else", lambda: None)
        calling = [asyncio.wait_for(call(here), 0.2) for _ in range(3)]
        for failed in await asyncio.gather(*calling, return_exceptions=True):
            assert isinstance(failed, TimeoutError | Unavailable)
        await until(lambda: all(turn.act is None for queue in turns._queues.values() for turn in queue))
        assert here.service._open == set()


async def test_who_says_more_than_it_should_before_its_turn_is_cut() -> None:
    async with site() as here:
        here.service.turns = turns = Turns(rate=0.001, burst=1)
        turns.ask("somebody else", lambda: None)
        reader, writer = await asyncio.open_connection(HOST, here.port)
        handshake = ClientHandshake(CLIENT, SERVER.public(), MachinePrivate(secrets.token_bytes(32)), 113)
        initiation = base64.b64encode(handshake.initiation).decode()
        head = f"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: {UPGRADE_TOKEN}\r\nConnection: upgrade\r\n"
        writer.write(f"{head}X-Tailscale-Handshake: {initiation}\r\n\r\n".encode() + bytes(40_000))
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.transport.abort()
        await until(lambda: all(turn.act is None for queue in turns._queues.values() for turn in queue))
