"""The HTTP/2 client inside ts2021: requests over a connection that somebody dialled (``transport.noise.dial``).

It has no task of its own and few objects, because a load test holds thousands of them in one process.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import h2.events
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, TooManyStreamsError
from h2.settings import SettingCodes

from doorward.errors import LocalProtocolError, RemoteProtocolError, TooMany
from doorward.transport.streams import Http2, StreamClosedError, Wire

_CONFIG = H2Configuration(client_side=True, header_encoding=None)

# The window of a stream: a full map of a few thousand nodes fits without waiting for us to read.
_WINDOW = 1 << 20

Headers = Sequence[tuple[bytes, bytes]]


class H2Client(Http2):
    """A connection that makes requests, several at once. Call ``start`` once, then as ``Http2`` says.

    Args:
        wire: what carries the bytes.
        authority: host and port, as ``:authority`` of every request.
        stall_seconds: how long the server may read nothing of what is being sent.
    """

    __slots__ = ("_authority", "_responses", "why_closed")

    def __init__(self, wire: Wire, *, authority: str, stall_seconds: float = 60.0) -> None:
        super().__init__(wire, _CONFIG, stall_seconds=stall_seconds)
        self._authority = authority.encode()
        self._responses: dict[int, Response] = {}
        self.why_closed = ""

    def start(self) -> None:
        """Send the preface and SETTINGS."""
        self.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = _WINDOW
        self.h2.local_settings[SettingCodes.ENABLE_PUSH] = 0
        self.h2.local_settings.acknowledge()  # they are in the first SETTINGS, so they hold from the start
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(_WINDOW)
        self.flush()

    async def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> "Response":
        """Send a request and wait for the head of its response, for as long as the server takes.

        Header names are in lower case. Raises StreamClosedError when the connection ends or the server resets the
        stream, TooMany when the server allows no further stream now.
        """
        if self.closed:
            raise StreamClosedError(f"the connection is closed: {self.why_closed}")
        stream_id = self.h2.get_next_available_stream_id()
        fields = [
            (b":method", method.encode()),
            (b":authority", self._authority),
            (b":scheme", b"https"),
            (b":path", path.encode()),
            *headers,
        ]
        if body:
            fields.append((b"content-length", str(len(body)).encode()))
        try:
            self.h2.send_headers(stream_id, fields, end_stream=not body)
        except TooManyStreamsError:
            raise TooMany("the server allows no further request on this connection now") from None
        except H2Error as error:
            raise LocalProtocolError(f"not a request that HTTP/2 can carry: {error}") from None
        response = self._responses[stream_id] = Response(self, stream_id)
        self.flush()
        try:
            if body:
                try:
                    await self.send_body(stream_id, body, end=True)
                except StreamClosedError:
                    if not response.answered():
                        raise  # a server may answer and refuse the rest of a body (RFC 9113 section 8.1)
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    def close(self) -> None:
        """Say goodbye and close; requests that run end with StreamClosedError."""
        self.goodbye(why="closed here")

    def lost(self, why: str = "the connection ended") -> None:
        """End every request."""
        if self.closed:
            return
        super().lost(why)
        self.why_closed = why
        for response in list(self._responses.values()):
            response.fail(why)
        self._responses.clear()

    def forget(self, stream_id: int) -> None:
        """A response is over: drop it."""
        self._responses.pop(stream_id, None)

    def handle(self, event: h2.events.Event) -> None:
        """Act on one event of the h2 library."""
        match event:
            case h2.events.ResponseReceived():
                if response := self._responses.get(event.stream_id or 0):
                    response.begin([(bytes(name), bytes(value)) for name, value in event.headers or ()])
            case h2.events.DataReceived():
                size = event.flow_controlled_length or 0
                if response := self._responses.get(event.stream_id or 0):
                    response.feed(event.data or b"", size)
                else:
                    self.acknowledge(event.stream_id or 0, size)
            case h2.events.StreamEnded(stream_id=stream_id):
                if response := self._responses.get(stream_id or 0):
                    response.end()
            case h2.events.StreamReset(stream_id=stream_id):
                self.wake()
                if response := self._responses.get(stream_id or 0):
                    response.fail("the server reset the request")
            case h2.events.ConnectionTerminated():
                self.finish("the server said goodbye")


class Response:
    """A response whose head has come. Iterate for the body's chunks as they arrive; only one reader at a time.

    The server's window is given back as chunks are taken, so who does not read slows the server down.
    """

    __slots__ = (
        "_chunks",
        "_client",
        "_ended",
        "_failure",
        "_unread",
        "_waiter",
        "headers",
        "status",
        "stream_id",
    )

    def __init__(self, client: H2Client, stream_id: int) -> None:
        self.stream_id = stream_id
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._client = client
        self._chunks: list[bytes] = []
        self._unread = 0
        self._ended = False
        self._failure = ""
        self._waiter: asyncio.Future[None] | None = None

    def get(self, name: str) -> str | None:
        """The first header of that name in lower case, as text; None when there is none."""
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body's chunks; raises StreamClosedError when it breaks off."""
        while True:
            if self._chunks:
                chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks.clear()
                unread, self._unread = self._unread, 0
                self._client.acknowledge(self.stream_id, unread)
                yield chunk
            elif self._ended:
                return
            elif self._failure:
                raise StreamClosedError(self._failure)
            else:
                await self._wait()

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises RemoteProtocolError for one of more than ``limit`` bytes."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in self:
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                self.close()
                raise RemoteProtocolError(f"a response of {size} bytes or more, expected at most {limit}")
        return b"".join(chunks)

    def close(self) -> None:
        """Want no more of it: resets the stream if it is still open."""
        if not self._ended and not self._failure:
            self.fail("closed here")
            self._client.reset(self.stream_id, ErrorCodes.CANCEL)

    # For the client alone.

    def answered(self) -> bool:
        """True once the head has come."""
        return self.status != 0

    async def head(self) -> None:
        """Wait for the head."""
        while not self.answered():
            if self._failure:
                raise StreamClosedError(self._failure)
            await self._wait()

    def begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the head; h2 has checked that it has a :status."""
        self.status = int(next(value for name, value in headers if name == b":status"))
        self.headers = [(name, value) for name, value in headers if not name.startswith(b":")]
        self._wake()

    def feed(self, data: bytes, unread: int) -> None:
        """Take a part of the body, which used ``unread`` bytes of the window."""
        self._unread += unread
        if data:
            self._chunks.append(bytes(data))
        self._wake()

    def end(self) -> None:
        """The body is whole."""
        self._ended = True
        self._over()

    def fail(self, why: str) -> None:
        """Nothing more comes, although the body is not whole."""
        if not self._ended:
            self._failure = why
            self._over()

    def _over(self) -> None:
        # Nothing more can come on this stream, so what is unread must not keep the others' window.
        unread, self._unread = self._unread, 0
        self._client.acknowledge(self.stream_id, unread)
        self._client.forget(self.stream_id)
        self._wake()

    async def _wait(self) -> None:
        self._waiter = self._client.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
