"""Many connections that get half way and stay there, without a task for each."""

import asyncio
import base64
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.support.server import Server

from doorward.engine.controlconn import fetch_server_key
from doorward.protocol.keys import MachinePrivate
from doorward.protocol.noise import ClientHandshake
from doorward.protocol.tailcfg.capability import OUR_CAPVER

KINDS = ("tcp", "tls", "http", "noise", "derp")
AT_ONCE = 200


class Crowd:
    """Connections that were opened, and which of them are still there. Ends with ``close``.

    Args:
        server: whom they crowd.
        source: an address of 127.0.0.0/8 that they come from.
    """

    def __init__(self, server: Server, source: str = "127.0.0.1") -> None:
        self._server = server
        self._source = source
        self._sockets: list[socket.socket] = []

    async def open(self, kind: str, count: int) -> None:
        """So many more that stop where ``kind`` says: accepted, or in the middle of TLS, of a request's head, of
        Noise (before the first request), or of DERP (before ClientInfo)."""
        port = self._server.relay_port if kind == "tls" else self._server.listens_at[1]
        words = await self._words(kind)
        for begin in range(0, count, AT_ONCE):
            fresh = []
            for _ in range(min(AT_ONCE, count - begin)):
                made = socket.socket()
                made.setblocking(False)
                made.bind((self._source, 0))
                assert made.connect_ex(("127.0.0.1", port)) in {0, errno.EINPROGRESS}
                fresh.append(made)
            await asyncio.sleep(0.01)
            for made in fresh:
                # One that was sent away already, or waits in the queue of a full listener, says nothing.
                with contextlib.suppress(OSError):
                    made.send(words)
            self._sockets += fresh
            await asyncio.sleep(0.01)

    async def _words(self, kind: str) -> bytes:
        if kind == "tls":
            return _half_of_a_hello()
        if kind == "http":
            return b"GET /key HTTP/1.1\r\nHost: x\r\n"
        if kind == "derp":
            return b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
        if kind == "noise":
            return await initiation(self._server)
        return b""

    def there(self) -> int:
        """How many have not been closed by the server."""
        return sum(map(_is_open, self._sockets))

    def close(self) -> None:
        """End them all."""
        for one in self._sockets:
            one.close()
        self._sockets.clear()


async def initiation(server: Server) -> bytes:
    """A request that starts Noise as it should be; the same one may be said any number of times."""
    key = await fetch_server_key(server.url)
    machine, ephemeral = (MachinePrivate.from_entropy(os.urandom(32)) for _ in range(2))
    handshake = ClientHandshake(machine, key, ephemeral, OUR_CAPVER)
    return (
        b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
        b"X-Tailscale-Handshake: " + base64.b64encode(handshake.initiation) + b"\r\n\r\n"
    )


def _half_of_a_hello() -> bytes:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    hello = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    words = outgoing.read()
    return words[: len(words) // 2]


def _is_open(one: socket.socket) -> bool:
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def crowd(server: Server, source: str = "127.0.0.1") -> Iterator[Crowd]:
    """One that is closed at the end."""
    made = Crowd(server, source)
    try:
        yield made
    finally:
        made.close()


class Process:
    """What the kernel says of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def memory(self) -> int:
        """Bytes of its own."""
        for line in (self._folder / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def descriptors(self) -> int:
        """How many are open."""
        return len(list((self._folder / "fd").iterdir()))

    def cpu(self) -> float:
        """Seconds so far."""
        return sum(map(_scheduled, (self._folder / "task").iterdir())) / 1e9


def _scheduled(thread: Path) -> int:
    """Nanoseconds that a thread has run; none for one that has just ended."""
    try:
        return int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0
