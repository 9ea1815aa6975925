"""The relay client against servers that misbehave; against good ones it is tested with the relay."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.support.relay import HOST, node_key, running_relay
from tests.support.waiting import until

from doorward.engine import derp as engine
from doorward.engine.derp import DERPClient, Event, Health, Packet, PeerGone
from doorward.errors import RemoteProtocolError, Unavailable
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePublic

KEY = DERPPrivate.from_entropy(bytes(32))
ALICE, BOB = node_key(1), node_key(2)
PEER = NodePublic(bytes(range(32)))

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[int]:
    """A server that does as ``talk`` says, on the port that is yielded."""

    talking = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal talking
        talking += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        talking -= 1

    running = await asyncio.start_server(handle, HOST, 0)
    async with running:
        yield running.sockets[0].getsockname()[1]
        await until(lambda: talking == 0)


async def connect(port: int, **options: Any) -> DERPClient:
    return await DERPClient.connect(HOST, port, ALICE, entropy=os.urandom, **options)


async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The whole handshake, the server's side."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(derp.upgrade_response(KEY.public()) + derp.server_key(KEY.public()))
    kind, size = derp.HEADER.unpack(await reader.readexactly(derp.HEADER_SIZE))
    assert kind == derp.CLIENT_INFO
    key, info = derp.open_client_info(await reader.readexactly(size), KEY)
    assert (key, info) == (ALICE.public(), derp.ClientInfo(version=2, can_ack_pings=True))
    writer.write(derp.server_info(derp.ServerInfo(version=2), KEY, key, bytes(24)))


async def test_every_kind_of_news_is_told() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        writer.write(derp.frame(derp.KEEP_ALIVE) + derp.frame(0x99, b"later") + derp.restarting(1, 2))
        writer.write(derp.ping(b"are you?"))
        writer.write(derp.health("sick") + derp.peer_gone(PEER.raw, 1))
        writer.write(
            derp.peer_present(derp.PeerPresent(PEER)) + derp.frame(derp.RECV_PACKET, PEER.raw + b"x")
        )
        await writer.drain()
        assert await reader.readexactly(13) == derp.frame(derp.PONG, b"are you?")
        writer.write(derp.health(""))

    async with server(talk) as port, asyncio.timeout(5):
        client = await connect(port)
        events: list[Event] = [await client.recv() for _ in range(5)]
        assert events == [
            Health("sick"),
            PeerGone(PEER, derp.GONE_NOT_HERE),
            derp.PeerPresent(PEER),
            Packet(PEER, b"x"),
            Health(""),
        ]
        with pytest.raises(Unavailable, match="closed the connection"):
            await client.recv()
        assert not client.is_open
        with pytest.raises(Unavailable):
            client.send(PEER, b"")
        with pytest.raises(Unavailable):
            client.note_preferred(home=True)
        with pytest.raises(Unavailable):
            await client.ping(bytes(8))
        with pytest.raises(Unavailable):
            await client.drain()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "SSH"),
        (b"x" * 9000, "does not end"),
        (derp.upgrade_response(KEY.public()) + derp.frame(derp.PING, bytes(8)), "before the server's key"),
        (derp.upgrade_response(KEY.public()) + derp.frame(derp.SERVER_KEY, bytes(40)), "no DERP server"),
        (derp.upgrade_response(KEY.public()) + b"\x01\xff\xff\xff\xff", "at most"),
        (
            derp.upgrade_response(KEY.public())
            + derp.server_key(KEY.public())
            + derp.frame(derp.SERVER_INFO, bytes(60)),
            "does not open",
        ),
    ],
)
async def test_what_is_no_relay_is_named(answer: bytes, problem: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await reader.read()

    async with server(talk) as port:
        with pytest.raises(RemoteProtocolError, match=problem):
            await connect(port)


async def test_a_relay_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_SECONDS", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(talk) as port:
        with pytest.raises(Unavailable, match="does not answer"):
            await connect(port)


async def test_a_relay_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SILENCE_SECONDS", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        await writer.drain()
        await reader.read()

    async with server(talk) as port, asyncio.timeout(5):
        client = await connect(port)
        with pytest.raises(Unavailable, match="silent"):
            await client.recv()


async def test_nobody_listens() -> None:
    async with server(welcome) as port:
        pass
    with pytest.raises(Unavailable, match="cannot be reached"):
        await connect(port)


async def test_what_is_not_taken_is_not_read() -> None:
    """A caller that takes nothing: some hundred events wait here, all else waits on the other side."""
    async with running_relay(tls=False) as relay, asyncio.timeout(10):
        alice, bob = await relay.connect(ALICE), await relay.connect(BOB)
        for number in range(600):
            alice.send(BOB.public(), number.to_bytes(2, "big"))
            await alice.ping(number.to_bytes(8, "big"))  # the relay has it, and Bob's socket too
        await until(lambda: not bob._reading)
        assert len(bob._events) <= 1024
        for number in range(600):
            assert await bob.recv() == Packet(ALICE.public(), number.to_bytes(2, "big"))
        assert bob._reading
        alice.close()
        bob.close()


async def test_packets_may_go_to_a_function() -> None:
    received: list[tuple[bytes, bytes]] = []
    async with running_relay(tls=False) as relay:
        alice = await relay.connect(ALICE, on_packet=lambda source, packet: received.append((source, packet)))
        alice.send(ALICE.public(), b"me")
        await until(lambda: bool(received))
        assert received == [(ALICE.public().raw, b"me")]
        alice.close()


async def test_what_was_sent_before_a_close_arrives() -> None:
    async with running_relay(tls=False) as relay:
        alice, bob = await relay.connect(ALICE), await relay.connect(BOB)
        alice.send(BOB.public(), bytes(60_000))
        alice.close()
        alice.close()
        async with asyncio.timeout(5):
            assert await bob.recv() == Packet(ALICE.public(), bytes(60_000))
            assert await bob.recv() == PeerGone(ALICE.public(), derp.GONE_DISCONNECTED)
            with pytest.raises(Unavailable, match="was closed"):
                await alice.recv()
        bob.close()


async def test_drain_waits_until_the_connection_takes_more() -> None:
    may_read = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        await writer.drain()
        await may_read.wait()
        await reader.read()

    async with server(talk) as port, asyncio.timeout(5):
        client = await connect(port)
        await client.drain()
        while client._drained is None:
            client.send(PEER, bytes(60_000))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await client.drain()
        may_read.set()
        await client.drain()
        client.close()
