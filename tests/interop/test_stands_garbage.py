"""Nonsense, silence and greed at every listener: it costs whoever sends it their connection, and nobody else anything."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.interop

HEAD = b"GET /key HTTP/1.1\r\nHost: x\r\n"


class Listener:
    """One of doorward's doors, and how to knock: with TLS where it is a TLS one and ``inside`` is asked for."""

    def __init__(self, server: Server, name: str) -> None:
        self.name = name
        self._server = server
        self._ports = {
            "public": int(server.url.rpartition(":")[2]),
            "relay": server.relay_port,
            "door": server.door_port,
        }

    async def connect(self, *, inside: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.name == "admin":
            return await asyncio.open_unix_connection(self._server.folder / "doorward.sock")
        context = None
        if inside and self.name != "public":
            context = ssl.create_default_context(cafile=self._server.folder / "tls" / "authority.pem")
            context.check_hostname = False
        return await asyncio.open_connection("127.0.0.1", self._ports[self.name], ssl=context)


NAMES = ("public", "relay", "door", "admin")
# What is said, and whether inside TLS where there is any.
NONSENSE: list[tuple[bytes, bool]] = [
    (b"", False),
    (os.urandom(1), False),
    (os.urandom(4000), False),
    (os.urandom(4000), True),
    (b"\x16\x03\x01\x40\x00\x01" + os.urandom(300), False),  # the beginning of a TLS greeting that never ends
    (b"\x16\x03\x01\x00\x05hello", False),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", True),
    (HEAD[:-5], True),
    (HEAD + b"X: " + b"a" * 200_000, True),
    (HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(30_000)) + b"\r\n", True),
    (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", True),
    (
        b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n",
        True,
    ),
    (
        b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
        b"X-Tailscale-Handshake: " + b"A" * 134 + b"==\r\n\r\n" + os.urandom(2000),
        True,
    ),
    (
        b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n" + os.urandom(5000),
        True,
    ),
    (
        b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n\x02\xff\xff\xff\xff",
        True,
    ),
    (
        b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: derp\r\n\r\n"
        + os.urandom(3000),
        True,
    ),
    (b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"[" * 100_000, True),
    (b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", True),
    (b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n[[[[[", True),
]


async def _say(listener: Listener, words: bytes, *, inside: bool) -> None:
    """Say it, take whatever is answered, and hold the line until it is cut."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await listener.connect(inside=inside)
        try:
            writer.write(words)
            await writer.drain()
            await reader.read()
        finally:
            writer.transport.abort()


def _descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.worker_pid()}/fd").iterdir()))


def _memory(server: Server) -> int:
    """Bytes of the worker that are its own in memory."""
    for line in Path(f"/proc/{server.worker_pid()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@contextlib.contextmanager
def _stun(server: Server) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", server.stun_port))
        sender.settimeout(3)
        yield sender


async def test_garbage_at_every_listener_harms_nobody_else(server: Server) -> None:
    async with machines(server, "laptop", "other") as (laptop, other):
        await server.own_node()
        worker = server.worker_pid()
        quiet = await _joining(server, "first")
        descriptors, memory = _descriptors(server), _memory(server)
        talking: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                for words, inside in NONSENSE:
                    for _ in range(5):
                        said = _say(Listener(server, name), words, inside=inside)
                        talking.append(group.create_task(said))
            with _stun(server) as sender:
                for size in (0, 1, 19, 20, 40, 1400, 9000):
                    for _ in range(20):
                        sender.send(os.urandom(size))
                await asyncio.sleep(1)
                # Meanwhile: the others go on, a change reaches them, and somebody new joins, all in no time.
                began = time.monotonic()
                assert "pong from other" in await laptop.ping("other")
                joined = await _joining(server, "newcomer")
                async with administrator(server) as api:
                    assert (await api.get("/status")).json()["online"] >= 2
                assert "newcomer" in (await laptop.cli("status")).stdout
                print(f"joined in {joined:.2f} s among garbage, all in {time.monotonic() - began:.1f} s")  # noqa: T201
                assert joined < max(2, 20 * quiet)
                # A Binding request of a client (RFC 5389, with the SOFTWARE and FINGERPRINT that clients add) is answered.
                report = await laptop.cli("netcheck", "--format=json")
                assert '"UDP": true' in report.stdout
            print(f"memory {(_memory(server) - memory) >> 20} MiB more while all of it was held")  # noqa: T201
            assert _memory(server) - memory < 100 << 20
            held = sum(not task.done() for task in talking)
            print(f"{held} of {len(talking)} connections were still open")  # noqa: T201
            for task in talking:
                task.cancel()
        assert server.worker_pid() == worker
        await until(lambda: _descriptors(server) <= descriptors + 10, seconds=10)
        assert "pong from laptop" in await other.ping("laptop")
        await eventually(laptop.is_well)
        log = server.log.read_text(errors="replace")
        assert "Traceback" not in log
        assert "[error" not in log


async def _joining(server: Server, name: str) -> float:
    """How many seconds it takes somebody new to join."""
    async with simulated(server.url, name) as newcomer, administrator(server) as api:
        key = (await api.post("/keys", json={"user": "alice"})).json()["secret"]
        began = time.monotonic()
        await newcomer.join(auth_key=key)
        return time.monotonic() - began


def _abort(writer: asyncio.StreamWriter) -> None:
    """Cut a connection. The writer is kept until then: one that is dropped closes its connection by itself."""
    writer.transport.abort()


async def test_many_silent_connections_leave_room_for_others(server: Server) -> None:
    """Connections that say nothing cost a descriptor each, until their time is over, and delay nobody."""
    async with contextlib.AsyncExitStack() as stack:
        await server.user("alice")
        quiet = await _joining(server, "first")
        for _ in range(400):
            for name in ("public", "relay"):
                _, writer = await Listener(server, name).connect(inside=False)
                stack.callback(_abort, writer)
        assert await _joining(server, "newcomer") < max(2, 20 * quiet)
