"""An HTTP/2 server and client joined in memory, with a link that can be held to make a slow reader."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from doorward.transport.h2 import H2Limits, H2Server
from doorward.transport.h2client import H2Client
from doorward.transport.streams import Http2

HIGH_WATER = 64 << 10


class PipeWire:
    """One direction of a link: what ``owner`` writes, ``peer`` receives in a later turn of the loop."""

    def __init__(self) -> None:
        self.owner: Http2 | None = None
        self.peer: Http2 | None = None
        self.other: PipeWire | None = None
        self.waiting = bytearray()
        self.sent = bytearray()  # everything ever written, to look at
        self.held = False  # the peer does not read
        self.closed = False
        self.aborted = False
        self._scheduled = False

    def write(self, data: bytes) -> None:
        if self.closed:
            return
        self.waiting += data
        self.sent += data
        if len(self.waiting) > HIGH_WATER and self.owner is not None and not self.owner.paused:
            self.owner.pause_writing()
        self._schedule()

    def close(self) -> None:
        self.closed = True
        self._schedule()

    def abort(self) -> None:
        self.aborted = True
        self.waiting.clear()
        self.close()

    def pause_reading(self) -> None:
        assert self.other is not None
        self.other.hold()

    def resume_reading(self) -> None:
        assert self.other is not None
        self.other.release()

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self.held and not self.aborted:
            return
        if self.peer is not None and self.waiting:
            data, self.waiting = bytes(self.waiting), bytearray()
            self.peer.receive(data)
        if self.owner is not None and self.owner.paused and not self.closed:
            self.owner.resume_writing()
        if self.closed and self.peer is not None:
            self.peer.lost()


@contextlib.asynccontextmanager
async def http2_pair(
    app: Any,
    *,
    limits: H2Limits = H2Limits(),  # noqa: B008 - frozen
    state: dict[str, Any] | None = None,
) -> AsyncIterator[tuple[H2Client, H2Server]]:
    """A connected pair; both wires are at ``.wire``. Ends both."""
    down, up = PipeWire(), PipeWire()
    down.other, up.other = up, down
    async with asyncio.TaskGroup() as group:
        server = H2Server(down, app, state=state or {}, client=("192.0.2.1", 7), group=group, limits=limits)
        client = H2Client(up, authority="control.test:80")
        down.owner = up.peer = server
        up.owner = down.peer = client
        server.start()
        client.start()
        try:
            yield client, server
        finally:
            client.close()
            server.shutdown()
