"""The HTTP/2 client against our server, and against a server that speaks the frames by hand."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamReset, WindowUpdated
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.pipes import PipeWire, http2_pair

from doorward.errors import LocalProtocolError, RemoteProtocolError, TooMany
from doorward.transport.h2 import H2Limits
from doorward.transport.h2client import H2Client
from doorward.transport.streams import StreamClosedError

HEAD = [(":status", "200"), ("x-a", "1"), ("x-a", "2")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Server:
    """A server made of the h2 library alone."""

    def __init__(self) -> None:
        self.wire = PipeWire()
        self.wire.other = self.wire
        self.client = H2Client(self.wire, authority="a")
        self.client.start()
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.say()

    def say(self) -> list[Event]:
        """Deliver what is waiting both ways; return what the client did."""
        self.client.receive(self.h2.data_to_send())
        heard, self.wire.sent = bytes(self.wire.sent), bytearray()
        return self.h2.receive_data(heard)

    @contextlib.contextmanager
    def asked(self, coroutine: Any) -> Iterator[asyncio.Task[Any]]:
        """Run a request of the client in a task that must end inside."""
        task = asyncio.get_running_loop().create_task(coroutine)
        yield task
        task.cancel()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_response_arrives_in_parts() -> None:
    server = Server()
    with server.asked(server.client.request("POST", "/p", [(b"x-b", b"3")], b"hi")) as task:
        await turn()
        events = server.say()
        request = next(event for event in events if isinstance(event, RequestReceived))
        headers: Any = request.headers
        assert dict(headers) == {
            ":method": "POST",
            ":authority": "a",
            ":scheme": "https",
            ":path": "/p",
            "x-b": "3",
            "content-length": "2",
        }
        assert next(event.data for event in events if isinstance(event, DataReceived)) == b"hi"
        server.h2.send_headers(1, HEAD)
        server.say()
        response = await task
        assert (response.status, response.get("x-a"), response.get("none")) == (200, "1", None)
        chunks = aiter(response)
        server.h2.send_data(1, b"one")
        server.say()
        assert await anext(chunks) == b"one"
        server.h2.send_data(1, b"two", end_stream=True)
        server.say()
        assert await anext(chunks) == b"two"
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
    server.client.close()


async def test_the_window_is_given_back_only_as_the_body_is_read() -> None:
    server = Server()
    with server.asked(server.client.request("GET", "/")) as task:
        await turn()
        server.say()
        server.h2.send_headers(1, HEAD)
        server.say()
        response = await task
        sent = 0
        while room := min(server.h2.local_flow_control_window(1), 16384):
            server.h2.send_data(1, bytes(room))
            sent += room
        assert not [event for event in server.say() if isinstance(event, WindowUpdated)]
        assert sent == 1 << 20
        assert len(await anext(aiter(response))) == sent
        assert [event for event in server.say() if isinstance(event, WindowUpdated)]
    server.client.close()


async def test_a_body_nobody_reads_does_not_keep_the_window_of_others() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(300_000)})

    async with http2_pair(app) as (client, _):
        for _ in range(10):
            await client.request("GET", "/")
        assert len(await (await client.request("GET", "/")).read(1 << 20)) == 300_000


@pytest.mark.parametrize("how", ["reset", "goodbye", "lost", "close"])
@pytest.mark.parametrize("when", ["before the head", "in the body"])
async def test_a_request_that_breaks_off_says_so(how: str, when: str) -> None:
    server = Server()
    with server.asked(server.client.request("GET", "/")) as task:
        await turn()
        server.say()
        if when == "in the body":
            server.h2.send_headers(1, HEAD)
            server.h2.send_data(1, b"part")
            server.say()
            await task
        if how == "reset":
            server.h2.reset_stream(1)
        elif how == "goodbye":
            server.h2.close_connection()
        elif how == "lost":
            server.client.lost()
        else:
            server.client.close()
        server.client.receive(server.h2.data_to_send())
        with pytest.raises(StreamClosedError):
            await (await task).read(100)
    if how != "reset":
        with pytest.raises(StreamClosedError, match="closed"):
            await server.client.request("GET", "/")
    server.client.close()


async def test_a_request_given_up_is_reset() -> None:
    server = Server()
    with server.asked(server.client.request("GET", "/")) as task:
        await turn()
        server.say()
        task.cancel()
        await turn()
        assert [event for event in server.say() if isinstance(event, StreamReset)]
    assert server.client._responses == {}
    server.client.close()


async def test_more_requests_than_the_server_allows_are_refused_here() -> None:
    server = Server()
    server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    server.say()
    with server.asked(server.client.request("GET", "/")):
        await turn()
        with pytest.raises(TooMany):
            await server.client.request("GET", "/")
    server.client.close()


async def test_a_request_that_http2_cannot_carry_is_our_fault() -> None:
    server = Server()
    with pytest.raises(LocalProtocolError):
        await server.client.request("GET", "/", [(b":path", b"/twice")])
    server.client.close()


async def test_a_body_over_the_readers_limit_is_the_servers_fault() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(1001)})

    async with http2_pair(app) as (client, _):
        with pytest.raises(RemoteProtocolError, match="at most 1000"):
            await (await client.request("GET", "/")).read(1000)


async def test_a_server_that_reads_no_body_ends_the_request() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()

    async with http2_pair(app, limits=H2Limits()) as (client, _):
        client.stall_seconds = 0.05
        with pytest.raises(StreamClosedError, match="took nothing"):
            await client.request("POST", "/", (), bytes(200_000))


@given(data=st.binary(max_size=300), settled=st.booleans())
@settings(deadline=None)
def test_garbage_ends_requests_and_raises_nothing_else(data: bytes, settled: bool) -> None:
    async def go() -> None:
        server = Server()
        with server.asked(server.client.request("GET", "/")) as task:
            await turn()
            if settled:
                server.say()
            server.client.receive(data)
            server.client.lost()
            with contextlib.suppress(StreamClosedError):
                await (await task).read(1000)

    asyncio.run(go())
