"""DERP for browsers: the same bytes in binary WebSocket messages (protocol note derp.md, section 1).

Messages are pieces of one byte stream; neither side aligns them with frames. Who comes in is decided by the node key, which a
page of another origin does not have. Where a relay knows whose pages are to speak to it, others are refused all the same, so that no
page that somebody happens to have open makes connections here in their name, from inside their network. Programs send no Origin.
"""

import asyncio
from collections.abc import Collection
from typing import Any, Final, Protocol

from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from doorward.relay.session import WRITE_HIGH, WRITE_LOW, House, Session
from doorward.telemetry import counter, log
from doorward.transport.lobby import Guest

SUBPROTOCOL: Final = "derp"
LEFT: Final = (
    4000  # how a page closes that is left for good (RFC 6455, section 7.4.2: ours to give a meaning)
)

_POLICY_VIOLATION: Final = 1008
_TRY_AGAIN_LATER: Final = 1013
_MOST_TOLD: Final = 20  # origins that the log names: whoever sends many wants to fill it
_LONGEST_TOLD: Final = 100  # characters of one

_REFUSED = counter("relay_origins_refused_total", "WebSockets refused for the page that opened them.")
_log = log("relay")


class WebSocketHouse(House, Protocol):
    """What is needed of the relay here."""

    def running(self) -> bool:
        """Whether connections can be taken in."""


class _SocketWire:
    """A session's transport over a WebSocket: a write buffer with marks, and a gate for reading."""

    def __init__(self, socket: WebSocket, session: Session) -> None:
        self._socket = socket
        self._session = session
        self._pieces: list[bytes] = []
        self._size = 0
        self._in_flight = 0
        self._paused = False
        self._closing = False
        self._something = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Carry bytes both ways until either side ends it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._session.connection_made(self)
                self._tasks = [group.create_task(self._read()), group.create_task(self._write())]
                if self._closing:
                    self.abort()
        finally:
            self._closing = True
            self._session.connection_lost(None)

    async def _read(self) -> None:
        while True:
            await self._may_read.wait()
            message = await self._socket.receive()
            data = message.get("bytes")
            if message["type"] != "websocket.receive" or data is None:
                self._session.left = message.get("code") == LEFT
                self.abort()  # it left, or sent text, which is no DERP
                return
            self._session.data_received(data)

    async def _write(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            if self._pieces:
                data = b"".join(self._pieces)
                self._pieces.clear()
                self._size, self._in_flight = 0, len(data)
                try:
                    await self._socket.send_bytes(data)
                except (WebSocketDisconnect, RuntimeError):  # RuntimeError: closed under our hands
                    self.abort()
                    return
                self._in_flight = 0
                if self._paused and self._size <= WRITE_LOW:
                    self._paused = False
                    self._session.resume_writing()
            elif self._closing:
                await self._socket.close()
                self.abort()
                return

    # --- What a session asks of a transport

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        self._pieces.append(data)
        self._size += len(data)
        self._something.set()
        if not self._paused and self.get_write_buffer_size() > WRITE_HIGH:
            self._paused = True
            self._session.pause_writing()

    def close(self) -> None:
        self._closing = True
        self._something.set()

    def abort(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def get_write_buffer_size(self) -> int:
        return self._size + self._in_flight

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - asyncio's signature
        return default


async def _refuse(socket: WebSocket, text: str) -> None:
    """403, before it was accepted; with the reason, for whoever looks for a proxy that took something away."""
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(PlainTextResponse(text, 403))
    else:
        await socket.close(_POLICY_VIOLATION)


def websocket_route(house: WebSocketHouse, origins: Collection[str] | None = None) -> BaseRoute:
    """The route ``/derp`` for WebSockets that offer the subprotocol ``derp``.

    Args:
        house: the relay.
        origins: whose pages may connect (RFC 6455 section 10.2), as browsers write them; None for any page's.
    """
    told: set[str] = set()

    def welcome(socket: WebSocket) -> bool:
        named = socket.headers.getlist("origin")
        if origins is None or not named or (len(named) == 1 and named[0] in origins):
            return True
        _REFUSED.inc()
        origin = ", ".join(named)[:_LONGEST_TOLD]
        if origin not in told and len(told) < _MOST_TOLD:
            told.add(origin)
            _log.warning(
                "a page of another origin wanted to speak to the relay",
                origin=origin,
                cure="If it is a console of yours, add its origin to console.origins.",
            )
        return False

    async def serve(socket: WebSocket) -> None:
        if not welcome(socket):
            await _refuse(socket, "Pages of this origin are not among the door's, nor in console.origins.\n")
            return
        if SUBPROTOCOL not in socket.scope.get("subprotocols", []):
            await _refuse(socket, "Sec-WebSocket-Protocol does not offer derp.\n")
            return
        await socket.accept(subprotocol=SUBPROTOCOL)
        if not house.running():
            await socket.close(_TRY_AGAIN_LATER)
            return
        state = socket.scope.get("state") or {}
        host, port = (
            state.get("client") or socket.client or ("", 0)
        )  # as a trusted proxy says it, else the peer
        guest = state.get("guest") or Guest()
        session = Session(
            house,
            source=host,
            port=port,
            settle=guest.settle,
        )
        await _SocketWire(socket, session).run()

    return WebSocketRoute("/derp", serve)
