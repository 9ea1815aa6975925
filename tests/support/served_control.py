"""The real coordination server of a ``World``, over the real listener, Noise and HTTP/2, on a free loopback port."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from tests.support.nouns import raw
from tests.support.world import CAPVER, World

from doorward.clock import SystemClock
from doorward.control import Control
from doorward.engine.client import ControlClient
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate
from doorward.protocol.mapstream import MapReader
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.protocol.tailcfg.register import RegisterAuth, RegisterRequest, RegisterResponse
from doorward.ssh import Attempts
from doorward.transport.h2client import H2Client, Response
from doorward.transport.listener import ListenerSpec, serve
from doorward.transport.noise import UPGRADE_TOKEN, Ts2021, dial
from doorward.transport.sources import Networks

SERVER_KEY = MachinePrivate(b"\x11" * 32)
ANSWER_LIMIT = 1 << 20


def machine(number: int) -> MachinePrivate:
    return MachinePrivate.from_entropy(raw("machine private", number))


def node(number: int) -> NodePrivate:
    return NodePrivate.from_entropy(raw("node private", number))


class Stream:
    """A map stream as it comes, message by message."""

    def __init__(self, response: Response, *, compressed: bool) -> None:
        self.response = response
        self._reader = MapReader(compressed=compressed)
        self._chunks = response.__aiter__()
        self._messages: list[bytes] = []

    async def next(self, seconds: float = 5.0) -> dict[str, Any]:
        """The next message. Raises StopAsyncIteration at the stream's end."""
        async with asyncio.timeout(seconds):
            while not self._messages:
                self._messages += self._reader.receive(await anext(self._chunks))
        message = msgspec.json.decode(self._messages.pop(0))
        assert isinstance(message, dict)
        return message

    async def ended(self, seconds: float = 5.0) -> list[dict[str, Any]]:
        """Wait for the end; what still came before it."""
        rest: list[dict[str, Any]] = []
        try:
            while True:
                rest.append(await self.next(seconds))
        except StopAsyncIteration:
            assert self._reader.pending() == 0
            return rest

    async def quiet(self, seconds: float = 0.08) -> None:
        """Nothing comes for so long."""
        with contextlib.suppress(TimeoutError):
            raise AssertionError(await self.next(seconds))

    def close(self) -> None:
        self.response.close()


class Link:
    """One machine's Noise connection, and what clients ask over it."""

    def __init__(self, served: "Served", h2: H2Client) -> None:
        self.served = served
        self.h2 = h2

    async def ask(
        self, path: str, body: object = b"", *, method: str = "POST"
    ) -> tuple[int, bytes, Response]:
        """One request: status, body and the rest of its answer."""
        data = body if isinstance(body, bytes) else encode(body)
        response = await self.h2.request(method, path, body=data)
        return response.status, await response.read(ANSWER_LIMIT), response

    async def register(self, key: int, *, auth: str = "", **fields: Any) -> RegisterResponse:
        request = RegisterRequest(
            Version=fields.pop("Version", CAPVER),
            NodeKey=node(key).public(),
            Auth=RegisterAuth(AuthKey=auth) if auth else None,
            Hostinfo=fields.pop("Hostinfo", Hostinfo(Hostname=f"host{key}", OS="linux")),
            **fields,
        )
        status, body, _ = await self.ask("/machine/register", request)
        assert status == 200, body
        return msgspec.json.decode(body, type=RegisterResponse)

    async def join(self, key: int, user: str = "ann") -> int:
        """Let a node in with a fresh auth key; its id."""
        world = self.served.world
        _, auth = await world.registry.create_auth_key("test", user=user)
        answer = await self.register(key, auth=auth)
        assert answer.MachineAuthorized
        known = world.registry.snapshot.node_by_key(node(key).public())
        assert known is not None
        return known.id

    async def report(self, key: int, **fields: Any) -> tuple[int, bytes]:
        """A lite update."""
        request = MapRequest(Version=CAPVER, NodeKey=node(key).public(), OmitPeers=True, **fields)
        status, body, _ = await self.ask("/machine/map", request)
        return status, body

    async def stream(self, key: int, *, compress: str = "", version: int = CAPVER) -> Stream:
        """Open a map stream; raises AssertionError unless it is accepted."""
        request = MapRequest(
            Version=version, NodeKey=node(key).public(), Compress=compress, KeepAlive=True, Stream=True
        )
        response = await self.h2.request("POST", "/machine/map", body=encode(request))
        assert response.status == 200, await response.read(ANSWER_LIMIT)
        return Stream(response, compressed=compress == "zstd")


class Served:
    """See the module."""

    def __init__(self, world: World, url: str, control: Control) -> None:
        self.world = world
        self.url = url
        self.control = control
        self._links: list[Link] = []

    async def link(self, number: int, *, url: str = "") -> Link:
        """A new Noise connection of the machine with this number, perhaps by another way (``detour``)."""
        h2 = await dial(
            url or self.url, machine(number), SERVER_KEY.public(), version=CAPVER, entropy=os.urandom
        )
        made = Link(self, h2)
        self._links.append(made)
        return made

    def client(self, number: int) -> ControlClient:
        """A whole client with machine and node of this number, to be entered as an async context."""
        return ControlClient(
            self.url,
            machine=machine(number),
            node=node(number),
            disco=DiscoPublic(raw("disco", number)),
            clock=self.world.clock,
            entropy=os.urandom,
            hostinfo=Hostinfo(Hostname=f"host{number}", OS="linux"),
        )

    def close(self) -> None:
        for link in self._links:
            link.h2.close()


@contextlib.asynccontextmanager
async def serving_control(
    world: World, *, poll: float = 5.0, proxies: Networks = ()
) -> AsyncIterator[Served]:
    """Serve until the block is left."""
    attempts = Attempts(world.registry, world.clock, "https://door.test", poll=poll)
    control = Control(world.registry, SERVER_KEY.public(), os.urandom, attempts.answer)
    bound = socket.socket(proto=socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    served = Served(world, f"http://127.0.0.1:{bound.getsockname()[1]}", control)
    stop, ready = asyncio.Event(), asyncio.Event()
    async with (
        Ts2021(control.inside, SERVER_KEY, entropy=os.urandom) as ts2021,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(
            serve(
                [ListenerSpec(name="control", sockets=[bound])],
                Starlette(routes=control.routes),
                {UPGRADE_TOKEN: ts2021.takeover},
                clock=SystemClock(),
                stop=stop,
                ready=ready,
                proxies=proxies,
            )
        )
        telling = group.create_task(control.run())
        await ready.wait()
        try:
            yield served
        finally:
            served.close()
            world.registry.writer.changes.end_all()
            telling.cancel()
            stop.set()
