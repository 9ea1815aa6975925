"""Relays of their own, as processes: alone, meshed with each other, and in shards."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from tests.support.relay import HOST, listening, node_key, running_relay
from tests.support.relay_process import ROOT, RelayProcess, relay_process
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.waiting import eventually

from doorward.engine.derp import DERPClient, Event, Packet, PeerGone
from doorward.errors import BadInput, Unavailable
from doorward.protocol import derp
from doorward.protocol.keys import NodePrivate
from doorward.server.relay_process import Order, RelayOptions
from doorward.server.relay_shard import derp_map

ALICE, BOB, CAROL = (node_key(number) for number in range(1, 4))
MESH_KEY = "5a" * 32


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder() -> Iterator[Path]:
    # In /tmp directly: pytest's folders make paths too long for a socket address.
    with tempfile.TemporaryDirectory(prefix="dw-relay-", dir="/tmp") as name:
        yield Path(name)


def options(folder: Path, **more: object) -> RelayOptions:
    given = {"folder": folder, "hostname": HOST, "listen": f"{HOST}:0", "admit_anyone": True, **more}
    return RelayOptions(**given)  # type: ignore[arg-type]


async def event(client: DERPClient) -> Event:
    async with asyncio.timeout(5):
        return await client.recv()


async def reach(source: DERPClient, target: DERPClient) -> None:
    """Send until something arrives: news of a node takes a moment to cross the mesh."""
    assert source._key is not None
    async with asyncio.timeout(10):
        while not target._events:
            source.send(target._key.public(), b"hello")
            await asyncio.sleep(0.02)
    assert await event(target) == Packet(source._key.public(), b"hello")
    target._events.clear()


async def test_two_relays_of_a_region_pass_packets_to_each_other(folder: Path) -> None:
    ports = []
    for _ in range(2):
        with listening() as bound:
            ports.append(bound.getsockname()[1])
    key = folder / "mesh.key"
    key.write_text(MESH_KEY)
    key.chmod(0o600)
    pins = []
    for name in ("first", "second"):
        (node,) = json.loads(derp_map(options(folder / name / "relay", listen=f"{HOST}:1"), 901, "x"))[
            "Regions"
        ]["901"]["Nodes"]
        pins.append(node["CertName"])
    # Everybody is given the same list; each leaves itself out.
    mesh = [
        "--admit-anyone",
        f"--mesh-key-file={key}",
        "--mesh-with",
        *(f"https://{HOST}:{port}#{pin}" for port, pin in zip(ports, pins, strict=True)),
    ]
    async with contextlib.AsyncExitStack() as stack:
        first, second = await asyncio.gather(
            stack.enter_async_context(relay_process(folder / "first", *mesh, port=ports[0])),
            stack.enter_async_context(relay_process(folder / "second", *mesh, port=ports[1])),
        )
        assert [first.pin, second.pin] == pins, "what was printed before is what it shows"
        alice, bob = await first.connect(ALICE), await second.connect(BOB)
        assert alice.server_key != bob.server_key
        await reach(alice, bob)
        await reach(bob, alice)
        bob.close()
        assert await event(alice) == PeerGone(BOB.public(), derp.GONE_DISCONNECTED)
        intruder = await first.connect(CAROL, mesh_key="5b" * 32)
        intruder.send_raw(derp.frame(derp.WATCH_CONNS))
        with pytest.raises(Unavailable, match="closed"):
            await event(intruder)
        alice.close()
    assert "mesh peer is ourselves" in first.log.read_text()
    assert MESH_KEY not in first.log.read_text() + second.log.read_text()


async def on_every_shard(relay: RelayProcess, shards: int, number: int) -> list[DERPClient]:
    """One client on each shard, with keys from ``number`` on."""
    found: dict[int, DERPClient] = {}
    last = number + 200
    while len(found) < shards:
        assert number < last, "the kernel spreads connections"
        client = await relay.connect(node_key(number))
        number += 1
        if found.setdefault(relay.worker_of(client), client) is not client:
            client.close()
    return list(found.values())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not spread connections over sockets")
async def test_shards_are_one_relay_and_a_killed_one_comes_back(folder: Path) -> None:
    async with relay_process(folder, "--admit-anyone", "--shards=2") as relay:
        one, other = await on_every_shard(relay, 2, 1000)
        assert one.server_key == other.server_key
        await reach(one, other)
        await reach(other, one)
        forwarded = 'doorward_relay_events_total{what="packets_forwarded"}'

        async def both_forward() -> bool:
            return all([(await relay.metrics(shard)).get(forwarded, 0) > 0 for shard in range(2)])

        await eventually(both_forward)
        worker = relay.worker_of(other)
        os.kill(worker, signal.SIGKILL)
        assert await event(one) == PeerGone(other._key.public(), derp.GONE_DISCONNECTED)
        # Whoever comes meanwhile waits and is not refused; some land on the new shard.
        again = await on_every_shard(relay, 2, 2000)
        (new,) = (client for client in again if relay.worker_of(client) != relay.worker_of(one))
        assert relay.worker_of(new) != worker
        await reach(one, new)
        await reach(new, one)
        for client in (one, other, *again):
            client.close()
    assert not list(relay.folder.glob("*.sock"))


async def test_control_decides_whom_it_admits_and_without_control_nobody(folder: Path) -> None:
    asked: list[str] = []

    def admit(key: object, source: str) -> bool:
        asked.append(source)
        return key == ALICE.public()

    with listening() as bound:
        port = bound.getsockname()[1]
    verify = f"--verify-url=http://{HOST}:{port}/verify"
    async with relay_process(folder, verify) as relay:
        with pytest.raises(Unavailable, match="closed"):
            await relay.connect(ALICE)
        async with running_relay(tls=False, admit=admit, port=port):
            async with asyncio.timeout(10):
                while True:  # it asks again two seconds after a silence
                    try:
                        alice = await relay.connect(ALICE)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.1)
            with pytest.raises(Unavailable, match="closed"):
                await relay.connect(BOB)
            assert asked == [HOST, HOST]
        with pytest.raises(Unavailable, match="closed"):
            await relay.connect(CAROL)
        async with asyncio.timeout(5):
            await alice.ping(bytes(8))
        alice.close()
        reader, writer = await asyncio.open_unix_connection(relay.folder / "shard-0.sock")
        writer.write(b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b" 404 " in await reader.readline(), "it answers for nobody else"
        writer.close()
    assert "control does not answer" in relay.log.read_text()


async def is_cut(client: DERPClient) -> bool:
    return not client.is_open


async def test_nodes_that_control_no_longer_admits_are_thrown_out_and_the_others_stay(folder: Path) -> None:
    keys = {
        name: NodePrivate.from_entropy(os.urandom(32))
        for name in ("stays", "deleted", "expired", "suspended", "shut")
    }
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(environ={"DOORWARD_TAILSCALED": "off"}))
        api = await stack.enter_async_context(administrator(server))
        for user in ("alice", "bob"):
            await server.user(user)
        for name, key in keys.items():
            owner = "bob" if name == "suspended" else "alice"
            client = await stack.enter_async_context(simulated(server.url, name, node_key=key))
            await client.join(auth_key=await server.key("--user", owner))
        relay = await stack.enter_async_context(
            relay_process(folder, f"--verify-url={server.url}/verify", "--verify-every=1s")
        )
        at = {name: await relay.connect(key) for name, key in keys.items()}
        (await api.delete("/nodes/deleted")).raise_for_status()
        (await api.post("/nodes/expired/expire")).raise_for_status()
        (await api.patch("/users/bob", json={"suspended": True})).raise_for_status()
        (await api.post("/nodes/shut/suspend")).raise_for_status()
        for name in ("deleted", "expired", "suspended", "shut"):
            await eventually(partial(is_cut, at[name]))
        async with asyncio.timeout(5):
            await at["stays"].ping(bytes(8))
        with pytest.raises(Unavailable, match="closed"):
            await relay.connect(keys["deleted"])
        # Control that is away throws nobody out.
        await server.stop()
        await asyncio.sleep(3)
        async with asyncio.timeout(5):
            await at["stays"].ping(bytes(8))
        assert (await relay.metrics())["doorward_relay_thrown_out_total"] == 4
        for each in at.values():
            each.close()
    assert relay.log.read_text().count("node thrown out of the relay") == 4


def test_a_second_relay_on_one_folder_is_refused(folder: Path) -> None:
    command = [sys.executable, "-m", "doorward", "relay", f"--hostname={HOST}", f"--listen={HOST}:0"]
    command += ["--stun=off", "--admit-anyone", f"--data-dir={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline().startswith(b"ready https://127.0.0.1:")
            second = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            assert (second.returncode, second.stdout) == (1, "")
            assert "another relay runs with" in second.stderr
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(5) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"admit_anyone": False}, "not said whom"),
        ({"verify_url": "https://x/verify"}, "not said whom"),
        ({"admit_anyone": False, "verify_url": "x/verify"}, "no http"),
        ({"certificate": Path("x")}, "belong together"),
        ({"certificate_key": Path("x")}, "belong together"),
        ({"mesh_with": ("https://x",)}, "by a key that they share"),
        ({"verify_every": 0.5}, "without a pause"),
        ({"hostname": "relay_1.example.com"}, "neither a DNS name nor an IP address"),
        ({"hostname": "fe80::1%eth0"}, "neither a DNS name nor an IP address"),
        ({"hostname": "rel\u00e4y.example"}, "neither a DNS name nor an IP address"),
        ({"shards": 0}, "1 to 64"),
        ({"shards": 65}, "1 to 64"),
        ({"shards": 2, "mesh_key_file": Path("x")}, "cannot mesh"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, more: dict[str, object], message: str) -> None:
    options(folder).check()
    with pytest.raises(BadInput, match=message):
        options(folder, **more).check()


def test_an_order_survives_its_way_and_hides_its_key(folder: Path) -> None:
    order = Order(
        options=options(folder, mesh_with=("unix:/x",)), mesh_key=MESH_KEY, peers=("unix:/x",), says_pin=True
    )
    assert MESH_KEY not in repr(order)
    sent = msgspec.json.encode(order, enc_hook=str)
    assert msgspec.json.decode(sent, type=Order, dec_hook=lambda kind, value: kind(value)) == order
