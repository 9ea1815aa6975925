"""Our client, our admission and our mesh side against the stock relay."""

import asyncio
import contextlib
import os
import socket

import pytest
from tests.support.derper import running_derper
from tests.support.meshing import meshed
from tests.support.programs import require_root
from tests.support.relay import HOST, node_key, running_relay
from tests.support.waiting import until

from doorward.engine.derp import DERPClient, Event, Packet, PeerGone
from doorward.errors import Unavailable
from doorward.protocol import derp, stun
from doorward.protocol.keys import NodePublic
from doorward.relay.mesh import Peer

pytestmark = pytest.mark.interop

ALICE, BOB, CAROL = node_key(1), node_key(2), node_key(3)
MESH_KEY = "5a" * 32


async def event(client: DERPClient) -> Event:
    async with asyncio.timeout(30):
        return await client.recv()


async def gets_across(source: DERPClient, target: DERPClient) -> None:
    """Send until it arrives: a relay learns who is at the other one a moment after they came, and says until then that they are not."""
    async with asyncio.timeout(30):
        while not any(isinstance(each, Packet) for each in target._events):
            source.send(target._key.public(), b"across")
            await asyncio.sleep(0.02)
        while not isinstance(got := await target.recv(), Packet):
            pass
    assert got == Packet(source._key.public(), b"across")


async def disconnected(client: DERPClient) -> NodePublic:
    """Who is gone, by the next word of that; not those that were not there yet, and no repeats that were on the way."""
    while True:
        said = await event(client)
        if isinstance(said, PeerGone) and said.reason == derp.GONE_DISCONNECTED:
            return said.peer


async def ask_stun(port: int) -> None:
    loop, txid = asyncio.get_running_loop(), os.urandom(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect((HOST, port))
        answer = b""
        async with asyncio.timeout(30):
            while not answer:  # what comes before it listens is lost
                await loop.sock_sendall(asking, stun.request(txid))
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    answer = await asyncio.wait_for(loop.sock_recv(asking, 1000), 0.5)
        address, from_port = stun.parse_response(answer, txid)
        assert (str(address), from_port) == asking.getsockname()


@pytest.mark.parametrize("fast_start", [False, True])
async def test_our_client_is_at_home_on_a_stock_relay(fast_start: bool) -> None:
    async with running_derper() as derper:
        alice = await derper.connect(ALICE, os.urandom, fast_start=fast_start)
        bob = await derper.connect(BOB, os.urandom, fast_start=fast_start)
        assert alice.server_info == derp.ServerInfo(version=2)
        alice.note_preferred(home=True)
        async with asyncio.timeout(30):
            await alice.ping(b"12345678")
        for size in (0, 1300, derp.MAX_PACKET):
            alice.send(BOB.public(), b"x" * size)
            assert await event(bob) == Packet(ALICE.public(), b"x" * size)
        alice.send(CAROL.public(), b"TS\xf0\x9f\x92\xac" + bytes(80))
        assert await event(alice) == PeerGone(CAROL.public(), derp.GONE_NOT_HERE)
        alice.close()
        assert await event(bob) == PeerGone(ALICE.public(), derp.GONE_DISCONNECTED)
        bob.close()


async def test_both_stun_servers_answer_alike() -> None:
    async with running_derper() as derper, running_relay(tls=False, stun=True) as relay:
        await ask_stun(derper.stun_port)
        await ask_stun(relay.stun_port)


async def test_a_stock_relay_asks_us_whom_to_admit() -> None:
    asked: list[tuple[NodePublic, str]] = []

    def admit(key: NodePublic, source: str) -> bool:
        asked.append((key, source))
        return key == ALICE.public()

    async with (
        running_relay(tls=False, admit=admit) as relay,
        running_derper(
            f"-verify-client-url={relay.url}/verify", "-verify-client-url-fail-open=false"
        ) as derper,
    ):
        alice = await derper.connect(ALICE, os.urandom)
        with pytest.raises(Unavailable, match="closed"):
            await derper.connect(BOB, os.urandom)
        assert asked == [(ALICE.public(), HOST), (BOB.public(), HOST)]
        async with asyncio.timeout(30):
            await alice.ping(bytes(8))
        alice.close()


@pytest.mark.root
async def test_a_stock_relay_meshes_with_ours() -> None:
    """Stock code as a client of our relay: it watches, sees who is here, and forwards packets to them."""
    require_root()  # a mesh peer is dialled on port 443
    host = "127.77.0.1"
    async with running_relay(mesh_key=MESH_KEY, host=host, port=443) as relay:
        hub = relay.relay.hub
        alice = await relay.connect(ALICE)
        async with running_derper(f"-mesh-with=localhost/{host}", mesh_key=MESH_KEY, trusting=True) as derper:
            await until(lambda: hub.clients() == 2)
            bob = await derper.connect(BOB, os.urandom)
            carol = await relay.connect(CAROL)
            for peer in (alice, carol):
                await gets_across(bob, peer)
            bob.close()
        await until(lambda: hub.clients() == 2)
        alice.close()
        carol.close()


async def test_our_relay_meshes_with_a_stock_one() -> None:
    """Our line to stock code: it tells us who is there, and delivers what we forward."""
    async with (
        running_derper(mesh_key=MESH_KEY) as derper,
        running_relay(mesh_key=MESH_KEY) as relay,
        meshed(relay, Peer(HOST, derper.port, derper.pin)),
    ):
        alice, bob = await relay.connect(ALICE), await derper.connect(BOB, os.urandom)
        hub = relay.relay.hub
        await until(lambda: hub.elsewhere() == 1)
        alice.send(BOB.public(), b"across")
        assert await event(bob) == Packet(ALICE.public(), b"across")
        bob.close()
        await until(lambda: hub.elsewhere() == 0)
        alice.close()


async def test_a_stock_relay_with_another_mesh_key_is_no_peer() -> None:
    async with (
        running_derper(mesh_key="5b" * 32) as derper,
        running_relay(mesh_key=MESH_KEY) as relay,
        meshed(relay, Peer(HOST, derper.port, derper.pin)),
    ):
        bob = await derper.connect(BOB, os.urandom)
        await until(lambda: "insufficient permissions" in derper.log.read_text())
        assert relay.relay.hub.elsewhere() == 0
        bob.close()


@pytest.mark.root
async def test_a_stock_relay_and_ours_are_one_region() -> None:
    """Both have a line to the other: packets and news of who is gone go both ways."""
    require_root()  # a mesh peer is dialled on port 443
    host = "127.77.0.2"
    async with (
        running_relay(mesh_key=MESH_KEY, host=host, port=443) as relay,
        running_derper(f"-mesh-with=localhost/{host}", mesh_key=MESH_KEY, trusting=True) as derper,
        meshed(relay, Peer(HOST, derper.port, derper.pin)),
    ):
        alice, bob = await relay.connect(ALICE), await derper.connect(BOB, os.urandom)
        for source, target in ((alice, bob), (bob, alice), (alice, bob)):
            await gets_across(source, target)
        bob.close()
        assert await disconnected(alice) == BOB.public()
        carol = await derper.connect(CAROL, os.urandom)
        await until(lambda: relay.relay.hub.elsewhere() == 1)
        await gets_across(alice, carol)
        alice.close()
        assert await disconnected(carol) == ALICE.public()
        carol.close()
