"""What both ends of HTTP/2 share: flow control that never overruns, and the library's insides that it leans on."""

import asyncio
from importlib.metadata import version
from typing import Any

import pytest
from h2.connection import H2Connection
from tests.support.pipes import PipeWire, http2_pair

from doorward.transport.h2client import H2Client
from doorward.transport.streams import Http2, StreamClosedError


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_insides_of_h2_that_we_use_are_as_they_were() -> None:
    assert version("h2").startswith("4.4."), "look at push, room and receive again, then move this line"
    connection = H2Connection()
    assert isinstance(connection.incoming_buffer._data, bytearray)
    assert connection.outbound_flow_control_window == 65535
    assert connection.max_outbound_frame_size == connection.max_inbound_frame_size == 16384
    connection.initiate_connection()
    connection.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "a"), (":authority", "b")])
    stream = connection.streams[1]
    assert stream.outbound_flow_control_window == 65535
    assert stream.closed is False


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def hold(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


async def test_there_is_no_room_while_the_wire_is_full_and_none_on_a_stream_that_is_gone() -> None:
    async with http2_pair(hold) as (client, _), asyncio.TaskGroup() as group:
        asking = group.create_task(client.request("GET", "/"))
        await turns()
        assert client.room(1) == 65535
        client.pause_writing()
        assert client.room(1) == 0
        client.resume_writing()
        assert client.room(1) == 65535
        assert client.room(99) == 0
        assert not client.is_open(99)
        asking.cancel()


async def test_whoever_waits_for_room_hears_of_the_end() -> None:
    async with http2_pair(hold) as (client, _), asyncio.TaskGroup() as group:

        async def post() -> None:
            with pytest.raises(StreamClosedError):
                await client.request("POST", "/", (), bytes(100_000))

        group.create_task(post())
        await turns()
        assert client.room(1) == 0
        client.lost()


async def test_a_full_wire_has_its_time_and_then_the_connection_ends() -> None:
    wire = PipeWire()
    wire.other = wire
    client = H2Client(wire, authority="a", stall_seconds=0.02)
    client.start()
    client.pause_writing()
    client.resume_writing()
    await asyncio.sleep(0.04)
    assert not wire.aborted
    client.pause_writing()
    client.pause_writing()
    await asyncio.sleep(0.04)
    assert (wire.aborted, client.why_closed) == (True, "the peer read nothing for 0.02 seconds")
    client.resume_writing()
    client.pause_writing()  # late words of a wire that is gone
    client.lost()


async def test_after_the_end_every_verb_is_silent() -> None:
    wire = PipeWire()
    wire.other = wire
    client: Http2 = H2Client(wire, authority="a")
    client.lost()
    for act in (client.flush, client.goodbye, client.wake, lambda: client.reset(1, 0)):  # type: ignore[arg-type]
        act()
    client.finish("again")
    client.acknowledge(1, 5)
    client.receive(b"late")
    assert wire.sent == b""
