"""That connections which share a read buffer never see each other's bytes."""

import asyncio
import os
import ssl
from typing import Any

import pytest
from tests.support.certificates import tls_contexts
from tests.support.waiting import until

from doorward.transport.readbuffer import TLS_READ_BUFFER, ReadBuffer

PARTS = 40


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": False}


class Listed(asyncio.Protocol):
    """Keeps what comes, in a buffer that is lent."""

    def __init__(self, reading: ReadBuffer, made: list["Listed"]) -> None:
        self.received = b""
        self.lent = False
        self._reading = reading
        made.append(self)

    def connection_made(self, transport: Any) -> None:
        self.lent = self._reading.lend(transport)
        self.protocol = getattr(transport, "_ssl_protocol", None)

    def data_received(self, data: bytes) -> None:
        self.received += data


async def test_connections_share_one_buffer_and_nothing_else() -> None:
    server_side, client_side = tls_contexts()
    reading, made = ReadBuffer(), list[Listed]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Listed(reading, made), "127.0.0.1", 0, ssl=server_side)
    async with server:
        port = server.sockets[0].getsockname()[1]
        texts = [os.urandom(20_000) * PARTS for _ in range(3)]
        writers = [await connect(port, client_side) for _ in texts]

        async def send(writer: asyncio.StreamWriter, text: bytes) -> None:
            for part in range(PARTS):
                writer.write(text[20_000 * part : 20_000 * (part + 1)])
                await writer.drain()

        async with asyncio.TaskGroup() as group:
            for writer, text in zip(writers, texts, strict=True):
                group.create_task(send(writer, text))
        await until(lambda: {len(each.received) for each in made} == {len(texts[0])})
        assert {each.received for each in made} == set(texts)
        assert all(each.lent for each in made)
        assert len({id(each.protocol._ssl_buffer) for each in made}) == 1  # type: ignore[union-attr]
        assert len(made[0].protocol._ssl_buffer) == TLS_READ_BUFFER  # type: ignore[union-attr]
        for writer in writers:
            writer.close()
            await writer.wait_closed()


async def connect(port: int, context: ssl.SSLContext) -> asyncio.StreamWriter:
    return (await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost"))[1]


async def test_without_tls_there_is_nothing_to_lend() -> None:
    reading, made = ReadBuffer(), list[Listed]()
    server = await asyncio.get_running_loop().create_server(lambda: Listed(reading, made), "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await until(lambda: bool(made))
        assert not made[0].lent
        writer.close()
        await writer.wait_closed()


def test_a_connection_that_may_ask_for_more_keeps_its_own() -> None:
    class Larger(asyncio.sslproto.SSLProtocol):
        max_size = 2 * TLS_READ_BUFFER

    class Transport:
        _ssl_protocol = Larger.__new__(Larger)

    assert not ReadBuffer().lend(Transport())
