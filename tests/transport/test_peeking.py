"""Looking at a first message without taking it: whole, in pieces, cut short, or of another kind."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.protocol.test_clienthello import hello

from doorward.transport import peeking
from doorward.transport.peeking import client_hello

ACME = ("acme-tls/1",)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        theirs.setblocking(False)
        yield ours, theirs


async def test_what_was_looked_at_is_still_there() -> None:
    message = hello("door.example.com", *ACME)
    with pair() as (client, accepted):
        client.sendall(message + b"more")
        found = await client_hello(accepted)
        assert found is not None
        assert (found.server_name, found.protocols) == ("door.example.com", (b"acme-tls/1",))
        assert accepted.recv(1 << 16) == message + b"more"


async def test_a_message_in_pieces_is_waited_for_without_spinning() -> None:
    message = hello("door.example.com", *ACME)
    with pair() as (client, accepted):
        looks = []

        class Counting(socket.socket):
            def recv(self, *arguments: Any) -> bytes:
                looks.append(arguments)
                return super().recv(*arguments)

        with Counting(fileno=accepted.detach()) as counting:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(client_hello(counting))
                for part in (message[:3], message[3:40], message[40:]):
                    client.sendall(part)
                    await asyncio.sleep(0.03)
            assert looking.result() is not None
            assert len(looks) <= 3  # a header, the rest, and one for a loop that wakes too early
            # Whoever reads next is woken by a single byte again.
            assert counting.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


@pytest.mark.parametrize("said", [b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n", hello("a.example")[:100]])
async def test_a_connection_that_ends_or_speaks_something_else_is_no_proof(said: bytes) -> None:
    with pair() as (client, accepted):
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(2):
            assert await client_hello(accepted) is None


async def test_one_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peeking, "PATIENCE", 0.05)
    with pair() as (client, accepted):
        assert await client_hello(accepted) is None
        client.sendall(b"late")
