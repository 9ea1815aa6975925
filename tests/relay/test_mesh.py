"""Two relays of ours as one region, over TLS with a pin and over a Unix socket."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.clock import FakeClock
from tests.support.meshing import MESH_KEY, meshed
from tests.support.relay import HOST, RunningRelay, make_leaf, node_key, running_relay, server_context
from tests.support.waiting import until

from doorward.engine.derp import DERPClient, Event, Packet, PeerGone
from doorward.errors import BadInput
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePublic
from doorward.relay.mesh import Peer, read_mesh_key
from doorward.relay.session import MESH_STALL_SECONDS

ALICE, BOB, CAROL = (node_key(number) for number in range(1, 4))
OTHER_KEY = "5b" * 32
PIN = "sha256-raw:" + "0a" * 32


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why connections to relays failed."""
    found: list[str] = []
    connect = DERPClient.connect.__func__  # type: ignore[attr-defined]

    async def watched(*arguments: object, **options: object) -> object:
        try:
            return await connect(*arguments, **options)
        except Exception as error:
            found.append(str(error))
            raise

    monkeypatch.setattr(DERPClient, "connect", classmethod(watched))
    return found


def at(relay: RunningRelay) -> Peer:
    return Peer(host=relay.host, port=relay.port, pin=make_leaf().pin)


async def event(client: DERPClient) -> Event:
    async with asyncio.timeout(5):
        return await client.recv()


def knows(relay: RunningRelay, key: NodePublic) -> bool:
    return key.raw in relay.relay.hub._elsewhere


async def test_nodes_at_two_relays_of_a_region_reach_each_other() -> None:
    async with running_relay(mesh_key=MESH_KEY) as first, running_relay(mesh_key=MESH_KEY) as second:
        early = await first.connect(ALICE)
        async with meshed(first, at(second)), meshed(second, at(first)):
            late = await second.connect(BOB)
            await until(lambda: knows(first, BOB.public()) and knows(second, ALICE.public()))
            for size in (0, 1300, derp.MAX_PACKET):
                early.send(BOB.public(), b"x" * size)
                assert await event(late) == Packet(ALICE.public(), b"x" * size)
                late.send(ALICE.public(), b"y" * size)
                assert await event(early) == Packet(BOB.public(), b"y" * size)
            assert first.relay.hub.counts.packets_forwarded == 3
            late.close()
            assert await event(early) == PeerGone(BOB.public(), derp.GONE_DISCONNECTED)
            assert not knows(first, BOB.public())
        early.close()


async def test_a_line_comes_up_when_its_relay_does_and_again_after_it_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    peer = Peer(unix_socket=path)
    async with running_relay(mesh_key=MESH_KEY, tls=False) as here:
        alice = await here.connect(ALICE)
        async with meshed(here, peer):
            for _ in range(2):
                async with running_relay(mesh_key=MESH_KEY, tls=False, path=path) as there:
                    bob = await DERPClient.connect("localhost", 0, BOB, entropy=os.urandom, unix_socket=path)
                    await until(lambda: knows(here, BOB.public()))
                    alice.send(BOB.public(), b"hello")
                    assert await event(bob) == Packet(ALICE.public(), b"hello")
                    assert there.relay.hub.clients() == 2
                    bob.close()
                await until(lambda: not knows(here, BOB.public()))
                path.unlink(missing_ok=True)  # newer Pythons remove it themselves
        alice.close()


async def test_a_peer_with_another_mesh_key_is_no_peer() -> None:
    async with running_relay(mesh_key=MESH_KEY) as first, running_relay(mesh_key=OTHER_KEY) as second:
        bob = await second.connect(BOB)
        before = second.relay.hub.counts.connections
        async with meshed(first, at(second)):
            # It even comes in, where anybody does, and is thrown out at its first word.
            await until(lambda: second.relay.hub.counts.connections >= before + 2)
            assert first.relay.hub.elsewhere() == 0
        bob.close()


async def test_a_relay_does_not_mesh_with_itself() -> None:
    async with running_relay(mesh_key=MESH_KEY) as relay:
        alice = await relay.connect(ALICE)
        async with meshed(relay, at(relay)) as running:
            await until(running.done)
        assert relay.relay.hub.elsewhere() == 0
        alice.close()


async def test_a_relay_other_than_the_pinned_one_hears_nothing_of_the_mesh_key(refusals: list[str]) -> None:
    key = DERPPrivate.from_entropy(os.urandom(32))
    heard: list[bytes] = []

    class Impostor(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            # It speaks first, as no relay does.
            transport.write(derp.upgrade_response(key.public()) + derp.server_key(key.public()))

        def data_received(self, data: bytes) -> None:
            heard.append(data)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Impostor, HOST, 0, ssl=server_context(key))
    port = server.sockets[0].getsockname()[1]
    async with running_relay(mesh_key=MESH_KEY) as relay:
        async with meshed(relay, Peer(host=HOST, port=port, pin=PIN)):
            await until(lambda: len(refusals) >= 3)
        assert all("another certificate" in said for said in refusals)
        assert heard == []
    server.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused(refusals: list[str]) -> None:
    async with running_relay(mesh_key=MESH_KEY) as first, running_relay(mesh_key=MESH_KEY) as second:
        async with meshed(first, Peer(host=second.host, port=second.port)):
            await until(lambda: bool(refusals))
        assert "certificate verify failed" in refusals[0].lower()
        assert second.relay.hub.counts.connections == 0


async def test_a_line_that_takes_nothing_is_cut_after_longer_than_a_clients(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "relay.sock"
    async with (
        running_relay(mesh_key=MESH_KEY, tls=False, clock=clock) as here,
        running_relay(mesh_key=MESH_KEY, tls=False, path=path) as there,
    ):
        alice = await here.connect(ALICE)
        bob = await DERPClient.connect("localhost", 0, BOB, entropy=os.urandom, unix_socket=path)
        async with meshed(here, Peer(unix_socket=path)):
            await until(lambda: knows(here, BOB.public()))
            hub = here.relay.hub
            line = hub._elsewhere[BOB.public().raw].lines[0]
            (incoming,) = (
                one for one in there.relay.hub._active.values() if derp.PresenceFlag.MESH_PEER in one.flags
            )
            assert incoming.owner.patience == MESH_STALL_SECONDS
            incoming.owner._wire.pause_reading()
            while not line.paused:
                alice.send(BOB.public(), bytes(60_000))
                await asyncio.sleep(0)
            for _ in range(60):
                alice.send(BOB.public(), bytes(60_000))
            await until(lambda: hub.counts.dropped_data > 0)
            assert line.queued() <= hub.limits.line_bytes
            here.relay.tick()
            clock.advance(MESH_STALL_SECONDS - 1)
            here.relay.tick()
            assert not line.closed
            clock.advance(2)
            here.relay.tick()
            await until(lambda: line.closed)
            await until(lambda: knows(here, BOB.public()))  # and dialled again
            bob.close()
        alice.close()


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("https://relay.example.com", Peer("relay.example.com", 443)),
        ("https://relay.example.com:8443/derp", Peer("relay.example.com", 8443)),
        (f"https://127.0.0.1:1/#{PIN}", Peer("127.0.0.1", 1, PIN)),
        ("https://[::1]:8443", Peer("::1", 8443)),
        ("unix:/run/relay.sock", Peer(unix_socket=Path("/run/relay.sock"))),
    ],
)
def test_where_a_peer_is(text: str, peer: Peer) -> None:
    assert Peer.parse(text) == peer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "relay.example.com:443",
        "http://relay.example.com",
        "https://",
        "https://relay.example.com:x",
        "https://relay.example.com:65536",
        "https://[::1",
        "https://user:password@relay.example.com",
        "https://relay.example.com/other",
        f"https://relay.example.com#{PIN[:-1]}",
        f"https://relay.example.com#{PIN.upper()}",
        f"https://relay.example.com#{PIN.removeprefix('sha256-raw:')}",
    ],
)
def test_what_is_no_place_of_a_peer(text: str) -> None:
    with pytest.raises(BadInput, match="not the address of a relay"):
        Peer.parse(text)


def test_a_mesh_key_is_read_and_never_shown() -> None:
    assert read_mesh_key("  " + MESH_KEY.upper() + "\n") == MESH_KEY
    for wrong in ("", "5a" * 31, "zz" * 32, MESH_KEY + "00"):
        with pytest.raises(BadInput) as caught:
            read_mesh_key(wrong)
        assert not wrong or wrong not in caught.value.sentence()
