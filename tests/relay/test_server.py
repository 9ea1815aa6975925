"""Our client and our relay over loopback: plain and TLS, on asyncio's loop and on uvloop."""

import asyncio
import os
import resource
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.relay import HOST, RunningRelay, make_leaf, node_key, running_relay
from tests.support.waiting import until

from doorward.engine.derp import DERPClient, Packet, PeerGone, pinned_context
from doorward.errors import RemoteProtocolError, Unavailable
from doorward.protocol import derp
from doorward.protocol.keys import NodePublic
from doorward.relay import Limits
from doorward.relay.session import HANDSHAKE_SECONDS, STALL_SECONDS
from doorward.telemetry import exposition

ALICE, BOB, CAROL, DAVE = (node_key(number) for number in range(1, 5))

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def relay(request: pytest.FixtureRequest, anyio_backend: Any) -> AsyncIterator[RunningRelay]:
    async with running_relay(tls=request.param) as running:
        yield running


async def expect(client: DERPClient, event: object) -> None:
    async with asyncio.timeout(5):
        assert await client.recv() == event


@pytest.mark.parametrize("fast_start", [False, True])
async def test_two_nodes_exchange_packets(relay: RunningRelay, fast_start: bool) -> None:
    alice = await relay.connect(ALICE, fast_start=fast_start)
    bob = await relay.connect(BOB, fast_start=fast_start)
    assert alice.server_key == relay.relay.key.public()
    assert alice.server_info == derp.ServerInfo(version=2)
    sizes = [0, 1, 1300, 16384, 65536]
    for size in sizes:
        alice.send(BOB.public(), bytes([size % 251]) * size)
    for size in sizes:
        await expect(bob, Packet(ALICE.public(), bytes([size % 251]) * size))
    bob.send(ALICE.public(), b"and back")
    await expect(alice, Packet(BOB.public(), b"and back"))
    alice.close()
    await expect(bob, PeerGone(ALICE.public(), derp.GONE_DISCONNECTED))
    bob.close()


async def test_both_sides_answer_pings(relay: RunningRelay) -> None:
    alice = await relay.connect(ALICE)
    async with asyncio.timeout(5):
        await alice.ping(b"12345678")
    (connection,) = relay.relay.hub.connections_of(ALICE.public())
    before = relay.relay.hub.counts.bytes_received
    relay.relay.apply([(connection, derp.ping(b"abcdefgh"))])
    await until(lambda: relay.relay.hub.counts.bytes_received != before)
    assert relay.relay.hub.counts.bytes_received - before == derp.HEADER_SIZE + derp.PING_SIZE
    alice.close()


async def test_what_it_does_is_counted_for_the_outside(anyio_backend: Any) -> None:
    def told(line: str) -> float:
        lines = exposition().decode().splitlines()
        return next((float(entry.split()[1]) for entry in lines if entry.startswith(line)), 0.0)

    async with running_relay(tls=False) as relay:
        alice = await relay.connect(ALICE)
        relay.relay.tick()
        sent, unknown = (
            f'doorward_relay_events_total{{what="{what}"}}' for what in ("packets_sent", "dropped_unknown")
        )
        before = told(sent), told(unknown)
        alice.send(ALICE.public(), b"me")
        alice.send(BOB.public(), b"nobody")
        await expect(alice, Packet(ALICE.public(), b"me"))
        await alice.ping(bytes(8))
        relay.relay.tick()
        relay.relay.tick()  # each is told once
        assert (told(sent), told(unknown)) == (before[0] + 1, before[1] + 1)
        assert told("doorward_relay_clients") == 1
        alice.close()


async def test_a_slow_reader_costs_neither_memory_nor_others(relay: RunningRelay) -> None:
    """Dave stops reading under a flood. The relay holds little for him, and Bob's packets still come in time."""
    alice = await relay.connect(ALICE)
    bob = await relay.connect(BOB)
    dave = await relay.connect(DAVE)
    assert dave._transport is not None
    dave._transport.pause_reading()
    hub, packet = relay.relay.hub, bytes(1300)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    burst = derp.send_packet(DAVE.public().raw, packet) * 100
    total = 0
    async with asyncio.timeout(20):
        while hub.counts.dropped_data < 20_000:
            alice.send_raw(burst)
            total += 100
            await alice.drain()
            await asyncio.sleep(0)
    (connection,) = hub.connections_of(DAVE.public())
    assert connection.paused
    assert connection.queued() <= hub.limits.data_bytes
    assert len(connection.data.frames) <= hub.limits.data_packets
    # The write buffer: its mark and one read of a sender, with TLS another 64 KiB below it.
    assert connection.owner.unsent() <= 512 * 1024
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 * 1024, f"{grown} KiB for a reader that does not read"
    async with asyncio.timeout(5):
        for number in range(50):
            alice.send(BOB.public(), number.to_bytes(2, "big"))
            await expect(bob, Packet(ALICE.public(), number.to_bytes(2, "big")))
        # Dave reads again: what waited comes, the newest packets among it, and he is well.
        alice.send(DAVE.public(), b"last")
        dave._transport.resume_reading()
        received = 0
        while (await dave.recv()) != Packet(ALICE.public(), b"last"):
            received += 1
        assert received + hub.counts.dropped_data == total
        alice.send(DAVE.public(), b"and one more")
        await expect(dave, Packet(ALICE.public(), b"and one more"))
    for client in (alice, bob, dave):
        client.close()


async def test_a_refused_node_is_closed_without_a_word(anyio_backend: Any) -> None:
    asked: list[tuple[NodePublic, str]] = []

    async def admit(key: NodePublic, source: str) -> bool:
        asked.append((key, source))
        await asyncio.sleep(0.01)
        if key == CAROL.public():
            raise OSError("the node table is away")
        return key == ALICE.public()

    async with running_relay(tls=False, admit=admit) as relay:
        alice = await relay.connect(ALICE)
        for refused in (BOB, CAROL):
            with pytest.raises(Unavailable, match="closed"):
                await relay.connect(refused)
        assert asked == [(key.public(), HOST) for key in (ALICE, BOB, CAROL)]
        assert relay.relay.hub.clients() == 1
        alice.close()


async def test_packets_sent_before_the_answer_arrive_after_it(anyio_backend: Any) -> None:
    gate = asyncio.Event()

    async def admit(key: NodePublic, source: str) -> bool:
        if key == BOB.public():
            await gate.wait()
        return True

    async with running_relay(tls=False, admit=admit) as relay:
        alice = await relay.connect(ALICE)
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        info = derp.client_info(derp.ClientInfo(version=2), BOB, relay.relay.key.public(), os.urandom(24))
        early = derp.send_packet(ALICE.public().raw, b"early")
        writer.write(derp.upgrade_request("x", fast_start=True) + info + early[:20])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(early[20:])
        await writer.drain()
        gate.set()
        await expect(alice, Packet(BOB.public(), b"early"))
        writer.close()
        await writer.wait_closed()
        assert (await reader.read()).startswith(derp.server_key(relay.relay.key.public()))
        alice.close()


async def test_the_newest_connection_of_a_key_gets_its_packets(relay: RunningRelay) -> None:
    alice = await relay.connect(ALICE)
    old = await relay.connect(BOB)
    new = await relay.connect(BOB)
    alice.send(BOB.public(), b"1")
    await expect(new, Packet(ALICE.public(), b"1"))
    old.note_preferred(home=True)  # any frame makes it the active one
    await old.ping(bytes(8))
    alice.send(BOB.public(), b"2")
    await expect(old, Packet(ALICE.public(), b"2"))
    old.close()
    await until(lambda: len(relay.relay.hub.connections_of(BOB.public())) == 1)
    alice.send(BOB.public(), b"3")
    await expect(new, Packet(ALICE.public(), b"3"))
    alice.close()
    new.close()


async def test_a_deleted_node_is_thrown_out(relay: RunningRelay) -> None:
    bob, again = await relay.connect(BOB), await relay.connect(BOB)
    assert relay.relay.disconnect(BOB.public()) == 2
    assert relay.relay.disconnect(BOB.public()) == 0
    for client in (bob, again):
        with pytest.raises(Unavailable, match="closed the connection"):
            async with asyncio.timeout(5):
                await client.recv()
    assert relay.relay.hub.clients() == 0


@pytest.mark.parametrize(
    "frames",
    [
        derp.frame(derp.SEND_PACKET, bytes(31)),
        derp.HEADER.pack(derp.SEND_PACKET, derp.MAX_CLIENT_PAYLOAD + 1),
        derp.frame(derp.SEND_PACKET, bytes(32 + derp.MAX_PACKET + 1)),
        derp.frame(derp.NOTE_PREFERRED, b""),
        derp.frame(derp.PING, bytes(7)),
        derp.frame(derp.WATCH_CONNS),
        derp.frame(derp.CLOSE_PEER, bytes(32)),
        derp.frame(derp.FORWARD_PACKET, bytes(64)),
        derp.frame(derp.CLIENT_INFO, bytes(56)),
    ],
    ids=["short", "huge", "long packet", "preferred", "ping", "watch", "close", "forward", "info"],
)
async def test_a_broken_rule_costs_only_its_own_connection(anyio_backend: Any, frames: bytes) -> None:
    async with running_relay(tls=False) as relay:
        alice, bob = await relay.connect(ALICE), await relay.connect(BOB)
        alice.send_raw(frames)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5):
                await alice.recv()
        async with asyncio.timeout(5):
            await bob.ping(bytes(8))
        bob.close()


async def test_a_client_without_its_key_does_not_get_in(anyio_backend: Any) -> None:
    async with running_relay(tls=False) as relay:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        forged = bytearray(
            derp.client_info(derp.ClientInfo(version=2), ALICE, relay.relay.key.public(), bytes(24))
        )
        forged[derp.HEADER_SIZE : derp.HEADER_SIZE + 32] = BOB.public().raw
        writer.write(derp.upgrade_request("x", fast_start=True) + forged)
        async with asyncio.timeout(5):
            assert await reader.read() == derp.server_key(relay.relay.key.public())
        writer.close()
        assert relay.relay.hub.clients() == 0


async def test_a_slow_handshake_ends(anyio_backend: Any) -> None:
    clock = FakeClock()
    async with running_relay(tls=False, clock=clock) as relay:
        reader, writer = await asyncio.open_connection(HOST, relay.port)
        writer.write(derp.upgrade_request("x"))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head == derp.upgrade_response(relay.relay.key.public())
            clock.advance(HANDSHAKE_SECONDS - 1)
            relay.relay.tick()
            await reader.readexactly(len(derp.server_key(relay.relay.key.public())))
            clock.advance(1)
            relay.relay.tick()
            assert await reader.read() == b""
        writer.close()


async def test_keep_alives_come_and_a_stalled_reader_goes(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    async with running_relay(tls=False, clock=clock) as relay:
        alice, dave = await relay.connect(ALICE), await relay.connect(DAVE)
        counts = relay.relay.hub.counts
        assert alice._transport is not None
        assert dave._transport is not None
        heard: list[int] = []
        monkeypatch.setattr(DERPClient, "_news", lambda _self, kind, _payload: heard.append(kind))
        clock.advance(66)
        relay.relay.tick()
        await until(lambda: bool(heard))
        assert set(heard) == {derp.KEEP_ALIVE}
        dave._transport.pause_reading()
        async with asyncio.timeout(10):
            while counts.dropped_data == 0:
                alice.send(DAVE.public(), bytes(65000))
                await alice.drain()
                await asyncio.sleep(0)
        relay.relay.tick()
        clock.advance(STALL_SECONDS - 1)
        relay.relay.tick()
        assert relay.relay.hub.clients() == 2
        clock.advance(1)
        relay.relay.tick()
        assert relay.relay.hub.clients() == 1
        alice.close()
        dave.close()


async def test_a_rate_limit_slows_a_sender_and_loses_nothing(anyio_backend: Any) -> None:
    limits = Limits(bytes_per_second=4 * 1024 * 1024, bytes_burst=128 * 1024)
    async with running_relay(tls=False, limits=limits) as relay:
        alice, bob = await relay.connect(ALICE), await relay.connect(BOB)
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.timeout(8):
            for _ in range(50):
                alice.send_raw(derp.send_packet(BOB.public().raw, bytes(1300)) * 40)
                await alice.drain()
            for _ in range(2000):
                await expect(bob, Packet(ALICE.public(), bytes(1300)))
        # 2.6 MB, of which 128 KiB come at once, and a last read of up to 256 KiB is paid for only afterwards.
        assert loop.time() - start > 0.4
        alice.close()
        bob.close()


async def test_the_wrong_certificate_or_service_is_named(anyio_backend: Any) -> None:
    async with running_relay() as relay:
        with pytest.raises(Unavailable, match="another certificate"):
            await relay.connect(ALICE, pin="sha256-raw:" + "0" * 64)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await DERPClient.connect(
                HOST, relay.port, ALICE, entropy=os.urandom, context=ssl.create_default_context()
            )
        async with running_relay(tls=False) as plain:
            with pytest.raises(Unavailable):
                await plain.connect(ALICE, context=pinned_context(), pin=make_leaf().pin)


async def test_requests_for_other_things_are_refused(anyio_backend: Any) -> None:
    async with running_relay(tls=False) as relay:
        for request, status in (
            (b"GET /else HTTP/1.1\r\n", b"404"),
            (b"POST /derp HTTP/1.1\r\n", b"405"),
        ):
            reader, writer = await asyncio.open_connection(HOST, relay.port)
            writer.write(request + b"Host: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
            async with asyncio.timeout(5):
                assert (await reader.read()).split(b" ")[1] == status
            writer.close()


async def test_when_the_relay_stops_clients_are_closed_and_new_ones_refused(anyio_backend: Any) -> None:
    async with running_relay(tls=False) as relay:
        alice = await relay.connect(ALICE)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(5):
            await alice.recv()
    assert not relay.relay.running()


async def test_a_mesh_peer_watches_forwards_and_closes(anyio_backend: Any) -> None:
    mesh_key = "ab" * 32
    async with running_relay(
        tls=False, admit=lambda key, _: key == ALICE.public(), mesh_key=mesh_key
    ) as relay:
        alice = await relay.connect(ALICE)
        mesh = await relay.connect(BOB, mesh_key=mesh_key)
        with pytest.raises(Unavailable):
            await relay.connect(CAROL, mesh_key="cd" * 32)
        mesh.send_raw(derp.frame(derp.WATCH_CONNS))
        async with asyncio.timeout(5):
            seen = {await mesh.recv(), await mesh.recv()}
        assert {present.peer for present in seen if isinstance(present, derp.PeerPresent)} == {
            ALICE.public(),
            BOB.public(),
        }
        mesh.send_raw(derp.forward_packet(CAROL.public().raw, ALICE.public().raw, b"from afar"))
        await expect(alice, Packet(CAROL.public(), b"from afar"))
        mesh.send_raw(derp.close_peer(ALICE.public().raw))
        await expect(mesh, PeerGone(ALICE.public(), derp.GONE_DISCONNECTED))
        with pytest.raises(Unavailable):
            await alice.recv()
        mesh.close()


@pytest.mark.parametrize("anyio_backend", LOOPS[:1], indirect=True)
async def test_tls_on_asyncio_shares_a_read_buffer(anyio_backend: Any) -> None:
    async with running_relay() as relay:
        alice, bob = await relay.connect(ALICE), await relay.connect(BOB)
        ends = [relay.relay.hub.connections_of(each.public())[0] for each in (ALICE, BOB)]
        assert len({id(end.owner._wire._ssl_protocol._ssl_buffer) for end in ends}) == 1
        alice.close()
        bob.close()


async def test_nobody_can_speak_http_to_the_client(anyio_backend: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RemoteProtocolError, match="404"):
            await DERPClient.connect(HOST, port, ALICE, entropy=os.urandom)
