"""The HTTP/2 server inside ts2021: any byte stream below, any ASGI app above (RFC 9113).

::

    RequestReceived ─▶ one task: app(scope, receive, send)     scope["state"]: what the connection knows of its peer
    DataReceived    ─▶ receive(), which gives the window back as it is read: 64 KiB unread per connection, no more
    StreamReset     ─▶ receive() says http.disconnect; an app that is not waiting there is cancelled

A request's task lives in the task group of whoever owns the connections, and ends with its stream or connection.
``scope["extensions"]["doorward.stream"]`` is the way of the map stream: it writes its DATA frames itself, which costs a
fifth of going through the library and never waits.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import h2.events
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from doorward.telemetry import log
from doorward.transport.streams import Http2, StreamClosedError, Wire

_log = log("http2")

_CONFIG = H2Configuration(client_side=False, header_encoding=None)

# Fields of HTTP/1.1 connections that an app may set and HTTP/2 forbids (RFC 9113 section 8.2.2).
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# How long an app may take to end after it was told of a disconnect; those told by cancellation have no such time.
_DISCONNECT_GRACE = 1.0
# What "there is room" means to the map stream: a whole frame. Small windows open again in larger steps than that.
_ROOMY = 16 << 10
# Of the callbacks of all tasks: they look at none, and each would be given its own.
_CONTEXT = contextvars.Context()


@dataclass(frozen=True, slots=True, kw_only=True)
class H2Limits:
    """What a peer may take. Seconds and bytes. Whoever has a machine key may connect, and anyone can make one."""

    body_bytes: int = 1 << 20  # as headscale has it; a request over it gets 413
    body_seconds: float = 30.0  # from the head of a request to the end of its body
    streams: int = 100  # open at once on one connection; a stock client has three
    first_request_seconds: float = 30.0
    idle_seconds: float = 600.0  # with no stream open
    stall_seconds: float = 120.0  # taking nothing that was sent; a stock client's own watchdog has the same


class H2Server(Http2):
    """One connection. Call ``start`` once, then as ``Http2`` says.

    Args:
        wire: what carries the bytes.
        app: the ASGI app.
        state: becomes ``scope["state"]`` of every request, copied.
        client: the peer's address, ``scope["client"]``; None where there is none.
        group: where the tasks of requests live. A fault in one stays in that one.
        limits: see H2Limits.
    """

    __slots__ = ("_app", "_client", "_group", "_idle_timer", "_limits", "_running", "_state", "_streams")

    def __init__(
        self,
        wire: Wire,
        app: Any,
        *,
        state: Mapping[str, Any],
        client: tuple[str, int | None] | None,
        group: asyncio.TaskGroup,
        limits: H2Limits,
    ) -> None:
        super().__init__(wire, _CONFIG, stall_seconds=limits.stall_seconds)
        self._app = app
        self._state = state
        self._client = client
        self._group = group
        self._limits = limits
        self._streams: dict[int, _Stream] = {}
        self._running = 0  # tasks; those of streams already reset included
        self._idle_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send SETTINGS at once: a stock client waits for nine bytes before anything else (control.md section 7)."""
        self.h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = self._limits.streams
        self.h2.local_settings.acknowledge()  # it is in the first SETTINGS, so it holds from the start
        self.h2.initiate_connection()
        self.flush()
        self._arm_idle_timer(self._limits.first_request_seconds)

    def shutdown(self) -> None:
        """Say goodbye and end every request on the connection."""
        self.goodbye(why="the server stops")

    def lost(self, why: str = "the connection ended") -> None:
        """End every request: the peer is gone."""
        if self.closed:
            return
        super().lost(why)
        self._disarm_idle_timer()
        for stream in list(self._streams.values()):
            self._drop(stream)

    def pause_writing(self) -> None:
        """Take no more requests or pings while the peer does not read: each would make us hold an answer."""
        super().pause_writing()
        self.wire.pause_reading()

    def resume_writing(self) -> None:
        """The wire has room again."""
        super().resume_writing()
        self.wire.resume_reading()

    def handle(self, event: h2.events.Event) -> None:
        """Act on one event of the h2 library."""
        match event:
            case h2.events.RequestReceived():
                self._request(event)
            case h2.events.DataReceived():
                self._data(event)
            case h2.events.StreamEnded(stream_id=stream_id):
                if stream := self._streams.get(stream_id or 0):
                    stream.body_done = True
                    stream.wake()
            case h2.events.StreamReset(stream_id=stream_id):
                if stream := self._streams.get(stream_id or 0):
                    self._drop(stream)
            case h2.events.ConnectionTerminated():
                self.finish("the peer said goodbye")

    def _request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id or 0
        if self._running >= 2 * self._limits.streams:
            # Opening and resetting streams faster than their tasks can end (CVE-2023-44487).
            self.goodbye(ErrorCodes.ENHANCE_YOUR_CALM, "too many requests were reset")
            return
        pseudo: dict[bytes, bytes] = {}
        headers: list[tuple[bytes, bytes]] = []
        for name, value in event.headers or ():
            if bytes(name).startswith(b":"):
                pseudo[bytes(name)] = bytes(value)
            else:
                headers.append((bytes(name), bytes(value)))
        if not pseudo.get(b":path", b"").isascii():  # malformed (RFC 9113 sections 8.1.1 and 8.3.1)
            self.reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        if b":authority" in pseudo and all(name != b"host" for name, _ in headers):
            headers.insert(0, (b"host", pseudo[b":authority"]))
        raw_path, _, query = pseudo.get(b":path", b"/").partition(b"?")
        stream = _Stream(self, stream_id, head_only=pseudo.get(b":method") == b"HEAD")
        stream.deadline = self.loop.time() + self._limits.body_seconds
        self._streams[stream_id] = stream
        self._disarm_idle_timer()
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": pseudo.get(b":method", b"").decode("latin-1"),
            "scheme": pseudo.get(b":scheme", b"https").decode("latin-1"),
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self._client,
            "server": None,
            "state": dict(self._state),
            "extensions": {"doorward.stream": stream},
        }
        stream.refused = any(
            name == b"content-length" and int(value) > self._limits.body_bytes for name, value in headers
        )
        self._running += 1
        stream.task = self._group.create_task(self._serve(stream, scope))
        # Not a finally of the task: one that is cancelled before its first step never enters its code.
        stream.task.add_done_callback(stream.is_over, context=_CONTEXT)

    def _data(self, event: h2.events.DataReceived) -> None:
        stream = self._streams.get(event.stream_id or 0)
        size = event.flow_controlled_length or 0
        if stream is None or stream.refused:
            self.acknowledge(event.stream_id or 0, size)
            return
        stream.body_size += len(event.data or b"")
        stream.unread += size
        if stream.body_size > self._limits.body_bytes:
            stream.refused = True
            self.acknowledge(stream.id, stream.unread)
            stream.unread = 0
            stream.chunks.clear()
            if stream.task is not None and stream.running:
                stream.task.cancel()  # _serve takes it for what it is, and answers 413
            return
        if event.data:
            stream.chunks.append(bytes(event.data))
        stream.wake()

    async def _serve(self, stream: "_Stream", scope: MutableMapping[str, Any]) -> None:
        stream.running = True
        path = scope["path"]
        try:
            if not stream.refused:
                app = self._app(scope, stream.receive, stream.send)
                del scope  # it is the app's, which may let go of it
                await app
        except asyncio.CancelledError:
            if not stream.refused or stream.disconnected:
                raise
        except StreamClosedError:
            return  # the peer went away in the middle of the answer
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this request and no other
            _log.error("request failed", path=path, error=type(error).__name__, exc_info=True)
        if stream.started or stream.disconnected:
            return
        with contextlib.suppress(StreamClosedError):
            if stream.refused:
                await stream.answer(413, f"A request may have {self._limits.body_bytes} bytes at most.\n")
            else:
                await stream.answer(500, "Something went wrong here; the server's log has the rest.\n")

    def end(self, stream: "_Stream") -> None:
        """A request's task has ended: so does its stream."""
        self._running -= 1
        if self._streams.pop(stream.id, None) is None or self.closed:
            return
        self.acknowledge(stream.id, stream.unread)
        if not stream.ended:
            self.reset(stream.id, ErrorCodes.INTERNAL_ERROR)  # the app gave up; nothing if the peer did
        elif not stream.body_done:
            self.reset(
                stream.id, ErrorCodes.NO_ERROR
            )  # answered: the rest of the body is not wanted (section 8.1)
        self.forget_closed_streams()
        if not self._streams:
            self._arm_idle_timer(self._limits.idle_seconds)

    def _drop(self, stream: "_Stream") -> None:
        stream.disconnected = True
        self.wake()
        if stream.task is None or stream.task.done():
            return
        if stream.listening():
            stream.wake()
            self.loop.call_later(_DISCONNECT_GRACE, stream.task.cancel)
        else:
            stream.task.cancel()

    def _arm_idle_timer(self, seconds: float) -> None:
        self._disarm_idle_timer()
        self._idle_timer = self.loop.call_later(seconds, self.goodbye)

    def _disarm_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None


class _Stream:
    """One request and its response; also the ``doorward.stream`` extension, whose methods are the public ones.

    The extension works once the response has started by ``http.response.start`` and a body message with ``more_body``.
    """

    __slots__ = (
        "_connection",
        "_head_only",
        "_sending",
        "_waiter",
        "body_done",
        "body_reported",
        "body_size",
        "chunks",
        "deadline",
        "disconnected",
        "ended",
        "id",
        "refused",
        "running",
        "started",
        "task",
        "unread",
    )

    def __init__(self, connection: H2Server, stream_id: int, *, head_only: bool) -> None:
        self.id = stream_id
        self.task: asyncio.Task[None] | None = None
        self.chunks: list[bytes] = []
        self.unread = 0  # of the window: the chunks and their padding
        self.body_size = 0
        self.body_done = False
        self.body_reported = False
        self.deadline = 0.0
        self.refused = False  # the body is over the limit
        self.running = False  # the task has taken its first step
        self.disconnected = False
        self.started = False
        self.ended = False
        self._connection = connection
        self._head_only = head_only
        self._sending = False
        self._waiter: asyncio.Future[None] | None = None

    def is_over(self, _: asyncio.Task[None]) -> None:
        """The request's task has ended."""
        self._connection.end(self)

    # The extension.

    def push(self, data: bytes) -> bool:
        """Send ``data`` now, whole, or not at all; True if it was sent.

        False when the response has not started or is over, another message is on its way, the peer's windows are too
        small for it, or the connection holds more than it likes: the caller then knows the peer is slow, and has queued
        nothing.
        """
        connection = self._connection
        size = len(data)
        if size > connection.room(self.id) or not self._free():
            return False
        # What h2.send_data would do, without its checks: the stream is open for sending and the room was looked at.
        library = connection.h2
        library.outbound_flow_control_window -= size
        library.streams[self.id].outbound_flow_control_window -= size
        largest = library.max_outbound_frame_size
        tail = b"\x00\x00" + self.id.to_bytes(4, "big")  # DATA, no flags, the stream (RFC 9113 section 4.1)
        if size <= largest:
            connection.wire.write(size.to_bytes(3, "big") + tail + data)
        else:
            frames = []
            for at in range(0, size, largest):
                chunk = data[at : at + largest]
                frames += [len(chunk).to_bytes(3, "big"), tail, chunk]
            connection.wire.write(b"".join(frames))
        return True

    def writable(self) -> bool:
        """True when there is room for a message of 16 KiB now."""
        return self._free() and self._connection.room(self.id) >= _ROOMY

    async def drained(self) -> None:
        """Wait until ``writable``, and let others run at least once.

        What was refused may be larger than that: send it by ``http.response.body``, which waits for room as it goes.
        Raises StreamClosedError when the stream is over, or the peer makes no room for ``stall_seconds``.
        """
        await asyncio.sleep(0)
        connection = self._connection
        try:
            async with asyncio.timeout(connection.stall_seconds):
                while not self.writable():
                    if self.disconnected or self.ended or not connection.is_open(self.id):
                        raise StreamClosedError("the peer closed the stream")
                    await connection.changed()
        except TimeoutError:
            connection.reset(self.id, ErrorCodes.FLOW_CONTROL_ERROR)
            raise StreamClosedError(
                f"the peer made no room for {connection.stall_seconds:g} seconds"
            ) from None

    def _free(self) -> bool:
        return self.started and not self._sending and not self.ended and not self.disconnected

    # ASGI.

    async def receive(self) -> MutableMapping[str, Any]:
        while True:
            if self.chunks or (self.body_done and not self.body_reported):
                body = b"".join(self.chunks)
                self.chunks.clear()
                unread, self.unread = self.unread, 0
                self._connection.acknowledge(self.id, unread)
                self.body_reported = self.body_done
                return {"type": "http.request", "body": body, "more_body": not self.body_done}
            if self.disconnected or self.ended:
                return {"type": "http.disconnect"}
            self._waiter = self._connection.loop.create_future()
            try:
                async with asyncio.timeout_at(None if self.body_done else self.deadline):
                    await self._waiter
            except TimeoutError:
                self.disconnected = True
            finally:
                self._waiter = None

    async def send(self, message: Mapping[str, Any]) -> None:
        if self.disconnected or self.ended:
            return  # as ASGI 2.3 has it: sending to nobody is no fault of the app's
        if message["type"] == "http.response.start":
            if self.started:
                raise RuntimeError("http.response.start was sent twice")
            fields = [(b":status", str(message["status"]).encode())]
            fields += [
                (bytes(name).lower(), bytes(value))
                for name, value in message.get("headers", ())
                if bytes(name).lower() not in _HOP_BY_HOP
            ]
            self._connection.h2.send_headers(self.id, fields)
            self.started = True  # written with the first body message, in one record
            return
        if message["type"] != "http.response.body" or not self.started:
            raise RuntimeError(f"{message['type']} is not what comes next in a response")
        body = b"" if self._head_only else message.get("body", b"")
        more = message.get("more_body", False)
        if not body and more:
            self._connection.flush()  # else the headers leave with the body, in one record
        self._sending = True
        try:
            await self._connection.send_body(self.id, body, end=not more)
        finally:
            self._sending = False
            self._connection.wake()
        if not more:
            self.ended = True
            self.wake()

    async def answer(self, status: int, text: str) -> None:
        """A whole response of our own."""
        body = text.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def listening(self) -> bool:
        """True while the app waits in ``receive``."""
        return self._waiter is not None

    def wake(self) -> None:
        """Let ``receive`` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
