"""A control server that does what a test tells it, over the real listener, Noise and HTTP/2, on a free loopback port.

It keeps what it was asked. ``answers`` are the replies to registrations in order, the last one again and again; a reply
may be an exception's stand-in: a Refusal (another status), or a function that is awaited. Each map stream gets the
messages of ``stream``'s script and then waits for ``push``.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from doorward.clock import SystemClock
from doorward.protocol.keys import MachinePrivate, MachinePublic
from doorward.protocol.mapstream import writer_for
from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.map import MapRequest, MapResponse
from doorward.protocol.tailcfg.register import RegisterRequest, RegisterResponse
from doorward.transport.listener import ListenerSpec, serve
from doorward.transport.noise import UPGRADE_TOKEN, Ts2021

SERVER_KEY = MachinePrivate(b"\x11" * 32)

Answer = RegisterResponse | Response | Callable[[RegisterRequest], Awaitable[RegisterResponse]]


@dataclass
class Stream:
    """One map stream as the server sees it."""

    request: MapRequest
    queue: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def push(self, message: MapResponse) -> None:
        """Send a message."""
        self.queue.put_nowait(writer_for(self.request.Compress).frame(encode(message)))

    def push_bytes(self, data: bytes) -> None:
        """Send bytes that need not be a message."""
        self.queue.put_nowait(data)

    def end(self) -> None:
        """Close the stream."""
        self.queue.put_nowait(None)


class SmallControl:
    """See the module."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = [RegisterResponse(MachineAuthorized=True)]
        self.registrations: list[RegisterRequest] = []
        self.machines: set[MachinePublic] = set()
        self.reports: list[MapRequest] = []
        self.first: Callable[[MapRequest], list[MapResponse]] = lambda _: []
        self.refuse_map: list[Response] = []  # answers to streams, taken one by one, before any is accepted
        self.streams: list[Stream] = []
        self.posted: list[tuple[str, str, bytes]] = []  # method, path with query, body
        self.outside: list[tuple[str, str, bytes]] = []
        self.key_version = ""
        self.key_answer: Response | None = None  # instead of the key

    async def _register(self, request: Request) -> Response:
        wanted = decode_request(await request.body(), RegisterRequest)
        self.registrations.append(wanted)
        self.machines.add(request.state.machine_key)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Response):
            return answer
        if not isinstance(answer, RegisterResponse):
            answer = await answer(wanted)
        return Response(encode(answer))

    async def _map(self, request: Request) -> Response:
        wanted = decode_request(await request.body(), MapRequest)
        if not wanted.Stream:
            self.reports.append(wanted)
            return Response()
        if self.refuse_map:
            return self.refuse_map.pop(0)
        stream = Stream(wanted)
        for message in self.first(wanted):
            stream.push(message)
        self.streams.append(stream)
        return StreamingResponse(self._frames(stream))

    @staticmethod
    async def _frames(stream: Stream) -> AsyncIterator[bytes]:
        while (data := await stream.queue.get()) is not None:
            yield data

    async def _other(self, request: Request) -> Response:
        where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.posted.append((request.method, where, await request.body()))
        return Response(status_code=204)

    async def _key(self, request: Request) -> Response:
        self.key_version = request.query_params.get("v", "")
        if self.key_answer is not None:
            return self.key_answer
        keys = {"publicKey": str(SERVER_KEY.public()), "legacyPublicKey": str(MachinePublic.zero())}
        return JSONResponse(keys)

    async def _outside(self, request: Request) -> Response:
        self.outside.append((request.method, request.url.path, await request.body()))
        return Response(status_code=204)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["SmallControl"]:
        """Serve until the block is left."""
        methods = ["GET", "POST"]
        inside = Starlette(
            routes=[
                Route("/machine/register", self._register, methods=["POST"]),
                Route("/machine/map", self._map, methods=["POST"]),
                Route("/{rest:path}", self._other, methods=methods),
            ]
        )
        outer = Starlette(
            routes=[Route("/key", self._key), Route("/{rest:path}", self._outside, methods=methods)]
        )
        bound = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio turns off Nagle where it sees this
        bound.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        stop, ready = asyncio.Event(), asyncio.Event()
        async with Ts2021(inside, SERVER_KEY, entropy=os.urandom) as ts2021:
            takeovers: dict[str, Any] = {UPGRADE_TOKEN: ts2021.takeover}
            spec = ListenerSpec(name="control", sockets=[bound])
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    serve([spec], outer, takeovers, clock=SystemClock(), stop=stop, ready=ready)
                )
                await ready.wait()
                try:
                    yield self
                finally:
                    for stream in self.streams:
                        stream.end()
                    stop.set()
