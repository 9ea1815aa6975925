"""What both ends of an HTTP/2 connection share: the bytes below it, flow control above it, and when to give up.

A ``Wire`` carries the bytes: a Noise connection, a WebSocket, a pipe in a test. ``Http2`` drives the h2 library over it
by plain calls: whoever reads calls ``receive``, whoever is told of a full or emptied buffer calls ``pause_writing`` and
``resume_writing``, and ``lost`` ends everything. It has no task of its own, so a quiet connection costs only memory.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

import h2.events
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, ProtocolError

from doorward.errors import RemoteProtocolError
from doorward.transport.lean import LeanConnection

# One burst is what is sealed and written before the wire may say that it is full: the usual high-water mark.
_BURST = 64 << 10
_FRAME_HEADER = 9  # RFC 9113 section 4.1: the first three bytes are the length


class Wire(Protocol):
    """A byte stream that takes bytes without waiting, and says later when it has too many."""

    def write(self, data: bytes) -> None:
        """Send, in order. Ignored once closed."""

    def close(self) -> None:
        """End after what was written."""

    def abort(self) -> None:
        """End now."""

    def pause_reading(self) -> None:
        """Deliver nothing until ``resume_reading``."""

    def resume_reading(self) -> None:
        """Deliver again."""


class StreamClosedError(RemoteProtocolError):
    """The peer, or the end of the connection, closed the stream under a request or response."""


class Http2:
    """One HTTP/2 connection. Subclasses handle its events in ``handle`` and its end in ``lost``.

    Args:
        wire: what carries the bytes.
        config: of the h2 library; says which side this is.
        stall_seconds: how long the peer may take no byte of what it asked for, before its stream or connection ends.
    """

    # Slots: there may be ten thousand of these.
    __slots__ = ("_stall_timer", "_waiters", "closed", "h2", "loop", "paused", "stall_seconds", "wire")

    def __init__(self, wire: Wire, config: H2Configuration, *, stall_seconds: float) -> None:
        self.wire = wire
        self.h2 = LeanConnection(config)
        self.loop = asyncio.get_running_loop()
        self.stall_seconds = stall_seconds
        self.closed = False
        self.paused = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def handle(self, event: h2.events.Event) -> None:
        """Act on one event of the h2 library."""
        raise NotImplementedError

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer. A peer that breaks HTTP/2 gets a GOAWAY and the end; nothing is raised."""
        if self.closed or not data:
            return
        try:
            events: Iterable[h2.events.Event] = self.h2.receive_data(data)
        except ProtocolError:
            self.flush()  # h2 has prepared the GOAWAY that says what was wrong
            self.finish("the peer broke the rules of HTTP/2")
            return
        for event in events:
            if self._is_over():
                return
            if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
                self.wake()
            else:
                self.handle(event)
        # The library looks at a frame's length only when the whole frame is there, and that may be 16 MiB.
        waiting = self.h2.incoming_buffer._data  # noqa: SLF001 - guarded by a test and the pinned version
        if (
            len(waiting) >= _FRAME_HEADER
            and int.from_bytes(waiting[:3], "big") > self.h2.max_inbound_frame_size
        ):
            self.goodbye(ErrorCodes.FRAME_SIZE_ERROR, "a frame of the peer's is too long")
        self.flush()

    def _is_over(self) -> bool:
        return self.closed  # asked anew: handling an event may end the connection

    def flush(self) -> None:
        """Write what the h2 library has prepared."""
        data = self.h2.data_to_send()
        if data and not self.closed:
            self.wire.write(data)

    def goodbye(self, code: ErrorCodes = ErrorCodes.NO_ERROR, why: str = "closed") -> None:
        """Send GOAWAY and close; requests that run end as if the connection were lost."""
        if not self.closed:
            self.h2.close_connection(code)
            self.flush()
            self.finish(why)

    def finish(self, why: str) -> None:
        """Close the wire after what was written, and end everything on the connection."""
        if not self.closed:
            self.wire.close()
            self.lost(why)

    def lost(self, why: str = "the connection ended") -> None:  # noqa: ARG002 - for subclasses
        """The wire is gone. Called once by whoever reads it, or by ``finish``; later calls do nothing."""
        self.closed = True
        self._stop_stall_timer()
        self.wake()

    def pause_writing(self) -> None:
        """The wire has more than it likes to hold. It has ``stall_seconds`` to get rid of it."""
        self.paused = True
        if self._stall_timer is None and not self.closed:
            self._stall_timer = self.loop.call_later(self.stall_seconds, self._stalled)

    def resume_writing(self) -> None:
        """The wire has room again."""
        self.paused = False
        self._stop_stall_timer()
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits for room look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Wait until there may be more room, or the end."""
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def room(self, stream_id: int) -> int:
        """How many bytes may be sent on a stream now; 0 also for one that is gone."""
        if self.closed or self.paused:
            return 0
        stream = self.h2.streams.get(stream_id)
        if stream is None or stream.closed:
            return 0
        return int(min(self.h2.outbound_flow_control_window, stream.outbound_flow_control_window))

    def is_open(self, stream_id: int) -> bool:
        """True while something may be sent on the stream, if not now."""
        stream = self.h2.streams.get(stream_id)
        return not self.closed and stream is not None and not stream.closed

    async def send_body(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Send ``data`` as the windows and the wire allow, and the stream's end with it if ``end``.

        Raises StreamClosedError when the stream ends first, or the peer makes no room for ``stall_seconds``.
        """
        at, size = 0, len(data)
        view = memoryview(data)
        while at < size:
            burst = min(self.room(stream_id), _BURST)
            if burst <= 0:
                await self._await_room(stream_id)
                continue
            stop = min(size, at + burst)
            while at < stop:
                chunk = view[at : min(stop, at + self.h2.max_outbound_frame_size)]
                at += len(chunk)
                self.h2.send_data(stream_id, chunk, end_stream=end and at == size)
            self.flush()
        if end and not size:
            if not self.is_open(stream_id):
                raise StreamClosedError("the peer closed the stream before it ended")
            self.h2.end_stream(stream_id)
            self.flush()

    async def _await_room(self, stream_id: int) -> None:
        self.flush()  # headers may wait for the first of the body
        try:
            async with asyncio.timeout(self.stall_seconds):
                while self.is_open(stream_id) and self.room(stream_id) <= 0:
                    await self.changed()
        except TimeoutError:
            self.reset(stream_id, ErrorCodes.FLOW_CONTROL_ERROR)
            raise StreamClosedError(f"the peer took nothing for {self.stall_seconds:g} seconds") from None
        if not self.is_open(stream_id):
            raise StreamClosedError("the peer closed the stream before it ended")

    def forget_closed_streams(self) -> None:
        """Let the library drop what it holds of streams that are over: it would, but only when the next one opens."""
        if not self.closed:
            _ = self.h2.open_inbound_streams

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End a stream from our side; nothing if it is gone already."""
        if not self.closed:
            try:
                self.h2.reset_stream(stream_id, code)
            except H2Error:
                return  # closed already, or the connection is
            self.flush()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Give the peer ``size`` bytes of its window back: they were read."""
        if size and not self.closed:
            self.h2.acknowledge_received_data(size, stream_id)
            self.flush()

    def _stalled(self) -> None:
        self._stall_timer = None
        self.wire.abort()
        self.lost(f"the peer read nothing for {self.stall_seconds:g} seconds")

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
