"""The HTTP/2 server against our client, and against a peer that speaks the frames by hand."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, PingAckReceived, RemoteSettingsChanged, StreamReset
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.pipes import PipeWire, http2_pair

from doorward.transport.h2 import H2Limits, H2Server
from doorward.transport.streams import StreamClosedError

App = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def read_all(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message["body"]
        if not message["more_body"]:
            return body


async def respond(send: Any, body: bytes, *, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, await read_all(receive))


async def start_stream(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": True})


async def settle(condition: Callable[[], bool]) -> None:
    """Run the loop until something is so; pytest's time limit is the other end."""
    while not condition():  # noqa: ASYNC110 - what is waited for signals nothing
        await asyncio.sleep(0)


async def test_a_request_carries_what_the_connection_knows() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await respond(
            send, await read_all(receive), status=201, headers=[(b"X-A", b"1"), (b"Connection", b"close")]
        )

    async with http2_pair(app, state={"machine_key": "k"}) as (client, _):
        response = await client.request("POST", "/machine/a%20b?q=1", [(b"ts-lb", b"n")], b"body")
        assert (response.status, response.headers) == (201, [(b"x-a", b"1")])
        assert await response.read(10) == b"body"
    scope = seen[0]
    assert (scope["type"], scope["method"], scope["path"]) == ("http", "POST", "/machine/a b")
    assert (scope["raw_path"], scope["query_string"]) == (b"/machine/a%20b", b"q=1")
    assert scope["state"] == {"machine_key": "k"}
    assert scope["client"] == ("192.0.2.1", 7)
    assert scope["headers"] == [(b"host", b"control.test:80"), (b"ts-lb", b"n"), (b"content-length", b"4")]


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
async def test_any_method_may_have_a_body(method: str) -> None:
    async with http2_pair(echo) as (client, _):
        assert await (await client.request(method, "/", (), b"{}")).read(10) == b"{}"


async def test_a_head_response_has_no_body() -> None:
    async with http2_pair(echo) as (client, _):
        response = await client.request("HEAD", "/")
        assert (response.status, await response.read(10)) == (200, b"")


async def test_many_requests_at_once_each_get_their_own_answer() -> None:
    async with http2_pair(echo) as (client, _), asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            body = str(number).encode() * 1000
            assert await (await client.request("POST", "/", (), body)).read(1 << 20) == body

        for number in range(90):
            group.create_task(one(number))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(size=st.integers(0, 900_000), step=st.integers(1000, 300_000))
def test_bodies_of_any_size_pass_the_windows_both_ways(size: int, step: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard = await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(0, len(heard), step):
            await send({"type": "http.response.body", "body": heard[at : at + step], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def go() -> None:
        async with http2_pair(app) as (client, _):
            response = await client.request("POST", "/", (), body[:size])
            assert await response.read(1 << 20) == body[:size]

    asyncio.run(go())


async def test_no_frame_is_larger_than_the_peer_allows_and_no_window_is_overrun() -> None:
    # The h2 library on the other side would end the connection for either.
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(3 << 20))

    async with http2_pair(app) as (client, server):
        response = await client.request("GET", "/")
        assert len(await response.read(4 << 20)) == 3 << 20
        frames = parse_frames(bytes(server.wire.sent))  # type: ignore[attr-defined]
        assert max(len(frame.data) for frame in frames if isinstance(frame, DataFrame)) == 16384


def parse_frames(wire: bytes) -> list[Any]:
    from hyperframe.frame import Frame  # noqa: PLC0415 - used here only

    frames = []
    while wire:
        frame, length = Frame.parse_frame_header(memoryview(wire[:9]))
        frame.parse_body(memoryview(wire[9 : 9 + length]))
        frames.append(frame)
        wire = wire[9 + length :]
    return frames


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_gets_413_and_the_connection_lives(announced: bool) -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await echo(scope, receive, send)

    async with http2_pair(app, limits=H2Limits(body_bytes=100_000)) as (client, _):
        if announced:
            response = await client.request("POST", "/big", (), bytes(100_001))
            assert reached == []
        else:
            response = await unannounced(client, 100_001)
        assert response.status == 413
        assert b"100000 bytes" in await response.read(1000)
        assert (await client.request("POST", "/fits", (), bytes(100_000))).status == 200


async def unannounced(client: Any, size: int) -> Any:
    """A POST without content-length, by the client's own parts."""
    from doorward.transport.h2client import Response  # noqa: PLC0415 - used here only

    stream_id = client.h2.get_next_available_stream_id()
    fields = [(b":method", b"POST"), (b":authority", b"x"), (b":scheme", b"https"), (b":path", b"/big")]
    client.h2.send_headers(stream_id, fields)
    response = client._responses[stream_id] = Response(client, stream_id)
    with contextlib.suppress(StreamClosedError):
        await client.send_body(stream_id, bytes(size), end=True)
    await response.head()
    return response


async def test_a_request_that_is_not_read_holds_one_window_and_no_more() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await respond(send, b"")

    async with http2_pair(app) as (client, server), asyncio.TaskGroup() as group:
        posting = group.create_task(client.request("POST", "/", (), bytes(500_000)))
        await settle(lambda: client.room(1) == 0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert server._streams[1].body_size == 65535
        release.set()
        assert (await posting).status == 200  # answered without reading: the rest of the body is refused
        assert (
            await (await client.request("GET", "/")).read(1) == b""
        )  # the connection's window is whole again


async def test_a_body_that_does_not_come_ends_the_wait_for_it() -> None:
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ConnectionError):
            await read_all(receive)
        ended.set()

    async with http2_pair(app, limits=H2Limits(body_seconds=0.05)) as (client, _):
        fields = [(b":method", b"POST"), (b":authority", b"x"), (b":scheme", b"https"), (b":path", b"/")]
        client.h2.send_headers(1, fields)
        client.flush()
        await ended.wait()


async def test_a_fault_in_the_app_is_a_500_and_ends_no_other_request() -> None:
    waiting = asyncio.Event()
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/bad":
            raise RuntimeError("a secret detail")
        if scope["path"] == "/late":
            await start_stream(send)
            raise RuntimeError("in the middle")
        if scope["path"] == "/silent":
            return
        waiting.set()
        await go.wait()
        await respond(send, b"fine")

    async with http2_pair(app) as (client, _), asyncio.TaskGroup() as group:
        good = group.create_task(client.request("GET", "/good"))
        await waiting.wait()
        for path in ("/bad", "/silent"):
            response = await client.request("GET", path)
            assert response.status == 500
            assert b"secret" not in await response.read(1000)
        late = await client.request("GET", "/late")
        with pytest.raises(StreamClosedError):
            await late.read(1000)
        go.set()
        assert await (await good).read(10) == b"fine"


async def test_an_app_that_listens_is_told_of_a_disconnect_and_may_finish() -> None:
    events: list[str] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        await start_stream(send)
        events.append((await receive())["type"])
        await asyncio.sleep(0.01)
        events.append("finished")
        done.set()

    async with http2_pair(app) as (client, _):
        response = await client.request("GET", "/")
        response.close()
        await done.wait()
    assert events == ["http.disconnect", "finished"]


@pytest.mark.parametrize("how", ["reset", "goodbye", "lost"])
async def test_an_app_that_does_not_listen_is_cancelled(how: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start_stream(send)
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with http2_pair(app) as (client, server):
        response = await client.request("GET", "/")
        await started.wait()
        if how == "reset":
            response.close()
        elif how == "goodbye":
            client.close()
        else:
            server.lost()
        await cancelled.wait()
        await settle(lambda: not server._streams and server._running == 0)


async def test_push_sends_now_or_not_at_all() -> None:
    go = asyncio.Event()
    results: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["extensions"]["doorward.stream"]
        results.append(stream.push(b"before the start"))
        await start_stream(send)
        results.append(stream.writable())
        results.append(stream.push(b"one "))
        results.append(stream.push(bytes(40_000)))  # three frames
        results.append(stream.push(bytes(2 << 20)))  # more than the window: nothing of it goes
        results.append(stream.push(b"two"))
        await go.wait()
        await send({"type": "http.response.body", "body": b" end"})
        results.append(stream.push(b"after the end"))

    async with http2_pair(app) as (client, _):
        response = await client.request("GET", "/")
        go.set()
        assert await response.read(1 << 20) == b"one " + bytes(40_000) + b"two end"
    assert results == [False, True, True, True, False, True, False]


async def test_push_and_send_keep_their_order_and_the_windows_agree() -> None:
    total = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal total
        stream = scope["extensions"]["doorward.stream"]
        await start_stream(send)
        for number in range(2000):
            message = number.to_bytes(4, "big") * 500
            if not stream.push(message):
                await stream.drained()
                await send({"type": "http.response.body", "body": message, "more_body": True})
            total += len(message)
        await send({"type": "http.response.body", "body": b""})

    async with http2_pair(app) as (client, server):
        body = await (await client.request("GET", "/")).read(8 << 20)
        assert len(body) == total
        assert body == b"".join(number.to_bytes(4, "big") * 500 for number in range(2000))
        await settle(lambda: not server._streams)
        # Both ends count the same window: what is left here, the client has granted and not seen used.
        assert server.h2.outbound_flow_control_window == client.h2.inbound_flow_control_window


async def test_a_slow_reader_makes_push_fail_and_nothing_grow() -> None:
    results: list[bool] = []
    go = asyncio.Event()
    drained = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["extensions"]["doorward.stream"]
        await start_stream(send)
        await go.wait()
        while stream.push(bytes(1000)):
            results.append(True)
        results.append(stream.writable())
        await stream.drained()
        results.append(stream.push(b"again"))
        drained.set()
        await asyncio.Event().wait()

    async with http2_pair(app) as (client, server):
        await client.request("GET", "/")
        wire = server.wire
        assert isinstance(wire, PipeWire)
        wire.hold()
        go.set()
        await settle(lambda: server.paused)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(wire.waiting) < 70_000
        assert results[-1] is False
        wire.release()
        await drained.wait()
        assert results[-1] is True


async def test_waiting_for_room_lets_others_run_and_ends_in_time() -> None:
    ended = asyncio.Event()
    rounds = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal rounds
        stream = scope["extensions"]["doorward.stream"]
        await start_stream(send)
        try:
            while True:  # as careless as a caller can be: what it pushes never fits
                stream.push(bytes(2 << 20))
                await stream.drained()
                rounds += 1
                if rounds > 100:
                    while stream.push(bytes(10_000)):
                        pass
        except StreamClosedError:
            ended.set()

    async with http2_pair(app, limits=H2Limits(stall_seconds=0.05)) as (client, _):
        response = await client.request("GET", "/")
        await settle(lambda: rounds > 10)
        await ended.wait()
        assert rounds > 100
        assert response._failure == "the server reset the request" or not response._failure


async def test_drained_ends_when_the_peer_goes() -> None:
    outcome = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream = scope["extensions"]["doorward.stream"]
        await start_stream(send)
        try:
            while True:
                while stream.push(bytes(10_000)):
                    pass
                await stream.drained()
        except (StreamClosedError, asyncio.CancelledError):
            outcome.set()
            raise

    async with http2_pair(app) as (client, _):
        response = await client.request("GET", "/")
        response.close()
        await outcome.wait()


async def test_a_peer_that_reads_nothing_is_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(10 << 20))

    async with http2_pair(app, limits=H2Limits(stall_seconds=0.05)) as (client, server):
        wire = server.wire
        assert isinstance(wire, PipeWire)
        response = await client.request("GET", "/")
        wire.hold()
        async for _ in response:  # opens the windows again, so that the wire fills
            break
        await settle(lambda: server.closed)
        assert wire.aborted


async def test_a_peer_that_opens_no_window_loses_its_stream_and_not_its_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"small" if scope["path"] == "/small" else bytes(2 << 20))

    async with http2_pair(app, limits=H2Limits(stall_seconds=0.05)) as (client, _):
        unread = await client.request("GET", "/")  # nobody takes its body
        await settle(lambda: bool(unread._failure))
        assert await (await client.request("GET", "/small")).read(10) == b"small"


async def test_a_quiet_connection_is_closed_and_one_with_a_stream_is_not() -> None:
    hold = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start_stream(send)
        await hold.wait()
        await send({"type": "http.response.body", "body": b"end"})

    limits = H2Limits(idle_seconds=0.05, first_request_seconds=0.05)
    async with http2_pair(app, limits=limits) as (client, _):
        await settle(lambda: client.closed)
    async with http2_pair(app, limits=limits) as (client, _):
        response = await client.request("GET", "/")
        await asyncio.sleep(0.12)
        assert not client.closed
        hold.set()
        assert await response.read(10) == b"end"
        await settle(lambda: client.closed)


class ByHand:
    """A peer made of the h2 library alone, for what our client would never send."""

    def __init__(self, group: asyncio.TaskGroup, app: App = echo, limits: H2Limits = H2Limits()) -> None:  # noqa: B008
        self.wire = PipeWire()
        self.wire.other = self.wire
        self.server = H2Server(self.wire, app, state={}, client=None, group=group, limits=limits)
        self.server.start()
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()

    def say(self, raw: bytes = b"") -> list[Any]:
        """Send what the library has prepared, and ``raw``; return the events of the answer."""
        self.server.receive(self.h2.data_to_send() + raw)
        answer, self.wire.sent = bytes(self.wire.sent), bytearray()
        return self.h2.receive_data(answer)


async def test_settings_come_first_and_pings_are_answered() -> None:
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        assert bytes(peer.wire.sent[3:5]) == b"\x04\x00"  # SETTINGS, before the client said anything
        peer.h2.ping(b"12345678")
        events = peer.say()
        changed = next(event for event in events if isinstance(event, RemoteSettingsChanged))
        assert changed.changed_settings[3].new_value == 100  # MAX_CONCURRENT_STREAMS
        assert any(isinstance(event, PingAckReceived) for event in events)
        peer.server.shutdown()


async def test_an_overlong_frame_is_refused_by_its_header() -> None:
    # The library waits for the whole of it, up to 16 MiB.
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        peer.server.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        peer.server.receive(b"\x00\x40\x01\x00\x00\x00\x00\x00")
        assert peer.wire.closed is False
        peer.server.receive(b"\x01")
        assert peer.server.closed
        assert bytes(peer.wire.sent).endswith(b"\x06")  # FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + DataFrame(1, b"no stream").serialize(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        + HeadersFrame(1, b"\xff\xff\xff", flags=["END_HEADERS"]).serialize(),
    ],
)
async def test_what_is_not_http2_ends_the_connection(raw: bytes) -> None:
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        peer.server.receive(raw)
        assert peer.server.closed
        assert peer.wire.closed
        peer.server.receive(raw)  # what still arrives is ignored


@given(data=st.binary(max_size=300), preface=st.booleans())
@settings(deadline=None)
def test_garbage_raises_nothing(data: bytes, preface: bool) -> None:
    async def go() -> None:
        async with asyncio.TaskGroup() as group:
            peer = ByHand(group)
            if preface:
                peer.say()
            peer.server.receive(data)
            await asyncio.sleep(0)
            peer.server.lost()

    asyncio.run(go())


REQUEST = [(":method", "POST"), (":authority", "x"), (":scheme", "https"), (":path", "/")]


async def test_more_streams_than_allowed_end_the_connection() -> None:
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group, limits=H2Limits(streams=3))
        for number in range(4):
            peer.h2.send_headers(1 + 2 * number, REQUEST)
        assert any(isinstance(event, ConnectionTerminated) for event in peer.say())
        assert peer.server.closed


async def test_streams_opened_and_reset_too_fast_end_the_connection_and_leave_no_task() -> None:
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        peer = ByHand(group, app, H2Limits(streams=5))
        peer.say()
        for number in range(50):
            peer.h2.send_headers(1 + 2 * number, REQUEST)
            peer.h2.reset_stream(1 + 2 * number)
        events = peer.say()
        assert any(isinstance(event, ConnectionTerminated) for event in events)
        await settle(lambda: peer.server._running == 0)
        assert peer.server._streams == {}
        assert calls <= 10


async def test_a_stream_reset_before_its_task_began_leaves_nothing() -> None:
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        peer.h2.send_headers(1, REQUEST)
        peer.h2.reset_stream(1)
        peer.say()
        await settle(lambda: peer.server._running == 0)
        assert peer.server._streams == {}
        peer.h2.send_headers(3, REQUEST, end_stream=True)
        peer.say()
        await settle(lambda: not peer.server._streams)
        assert not any(isinstance(event, StreamReset) for event in peer.say())
        peer.server.shutdown()


async def test_a_target_with_other_bytes_than_ascii_is_reset() -> None:
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        peer.h2.send_headers(
            1,
            [(name, "/a/?\xff" if name == ":path" else value) for name, value in REQUEST],
            end_stream=True,
        )
        reset = [event.error_code for event in peer.say() if isinstance(event, StreamReset)]
        assert reset == [ErrorCodes.PROTOCOL_ERROR]
        assert peer.server._streams == {}
        peer.h2.send_headers(3, REQUEST, end_stream=True)
        assert not any(isinstance(event, StreamReset) for event in peer.say())
        await settle(lambda: not peer.server._streams)
        peer.server.shutdown()


async def test_reading_stops_while_the_peer_does_not_read() -> None:
    # Every ping would make us hold an answer to it.
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        paused: list[str] = []
        peer.wire.pause_reading = lambda: paused.append("pause")  # type: ignore[method-assign]
        peer.wire.resume_reading = lambda: paused.append("resume")  # type: ignore[method-assign]
        peer.server.pause_writing()
        peer.server.resume_writing()
        assert paused == ["pause", "resume"]
        peer.server.shutdown()


async def test_a_reset_for_a_stream_that_is_answered_is_no_fault() -> None:
    async with asyncio.TaskGroup() as group:
        peer = ByHand(group)
        peer.h2.send_headers(1, REQUEST, end_stream=True)
        peer.say()
        await settle(lambda: not peer.server._streams)
        peer.say(RstStreamFrame(1).serialize())
        assert not peer.server.closed
        peer.server.shutdown()


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}] * 2,
        [{"type": "http.nonsense"}],
    ],
)
async def test_an_app_that_breaks_asgi_gets_an_error(messages: list[Any]) -> None:
    caught: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            for message in messages:
                await send(message)
        except RuntimeError as error:
            caught.append(str(error))
            raise

    async with http2_pair(app) as (client, _):
        response = await client.request("GET", "/")
        if response.status != 500:  # the head was on its way already: then the stream is reset
            with pytest.raises(StreamClosedError):
                await response.read(10)
    assert len(caught) == 1
