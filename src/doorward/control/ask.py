"""Questions to a node: is it there, can it reach a peer, what does it say of itself (control.md, section 22).

A question travels down the node's map stream as a PingRequest with a URL that was never used before; the answer comes back
as a request to that URL, inside Noise, from the same machine.
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from doorward.api.types import Pong
from doorward.errors import NotFound, NotPermitted, Unavailable
from doorward.model import Node
from doorward.protocol.keys import MachinePublic
from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.map import MapResponse, PingRequest, PingResponse
from doorward.tailnet import secrets
from doorward.tailnet.registry import Registry

ANSWER_LIMIT = 1 << 20  # bytes of one answer
PATIENCE = 15.0  # seconds; a ping of a peer takes up to 10


class C2NAnswer(msgspec.Struct, frozen=True):
    """What a node's own small server replied."""

    status: int
    body: bytes


class Questions:
    """The questions that wait for an answer."""

    def __init__(self, registry: Registry, entropy: Callable[[int], bytes]) -> None:
        self._registry = registry
        self._entropy = entropy
        self._open: dict[str, tuple[MachinePublic, asyncio.Future[bytes]]] = {}

    async def ping(self, node: Node, address: str, kind: str = "disco") -> PingResponse:
        """Have a node ping an address of the tailnet; ``kind`` is disco, TSMP, ICMP or peerapi."""
        answer = await self._ask(node, Types=kind, IP=address)
        return decode_request(answer, PingResponse)

    async def c2n(self, node: Node, method: str, path: str, body: bytes = b"") -> C2NAnswer:
        """Send a request to the small server inside a node. Raises Unavailable when no answer comes."""
        head = f"{method} {path} HTTP/1.1\r\nHost: c2n\r\nContent-Length: {len(body)}\r\n\r\n"
        raw = await self._ask(node, Types="c2n", Payload=head.encode() + body)
        top, _, rest = raw.partition(b"\r\n\r\n")
        try:
            return C2NAnswer(int(top.split(b" ", 2)[1]), rest)
        except (IndexError, ValueError):
            raise Unavailable("the node's answer is no HTTP response") from None

    async def reach(self, node: Node, source: Node | None) -> Pong:
        """Find out whether a node is there, by its own word; or whether ``source`` reaches it, and on which path.

        Raises Unavailable, with the reason, where no answer comes.
        """
        if source is None:
            began = asyncio.get_running_loop().time()
            said = secrets.base32(self._entropy(16)).encode()
            answer = await self.c2n(node, "POST", "/echo", said)
            if answer.body != said:
                raise Unavailable(f"{node.name} answered something else than it was asked")
            seconds = asyncio.get_running_loop().time() - began
            return Pong(node=node.name, source="", seconds=seconds, endpoint="", relay="")
        found = await self.ping(source, str(node.ipv4))
        if found.Err:
            raise Unavailable(f"{source.name} does not reach {node.name}: {found.Err}")
        return Pong(
            node=node.name,
            source=source.name,
            seconds=found.LatencySeconds,
            endpoint=found.Endpoint,
            relay=found.DERPRegionCode,
        )

    async def _ask(self, node: Node, **fields: object) -> bytes:
        code = secrets.base32(self._entropy(16))
        url = f"{self._registry.snapshot.settings.url}/machine/answer/{code}"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[code] = (node.machine_key, future)
        message = MapResponse(PingRequest=PingRequest(URL=url, URLIsNoise=True, **fields))  # type: ignore[arg-type]
        try:
            if not self._registry.writer.changes.send(node.id, encode(message)):
                raise self._not_here(node)
            async with asyncio.timeout(PATIENCE):
                return await future
        except TimeoutError:
            raise Unavailable(f"{node.name} did not answer within {PATIENCE:.0f} s") from None
        finally:
            del self._open[code]

    def _not_here(self, node: Node) -> Unavailable:
        """Why a node cannot be asked: it has no stream, or another process has it."""
        neighbours = self._registry.neighbours
        for other in () if neighbours is None else neighbours.others:
            if other.id == node.observed.held_by:
                return Unavailable(
                    f"{node.name} is connected to the doorward at {other.label}", cure="Ask that one."
                )
        return Unavailable(f"{node.name} is not connected", cure="Is it switched on? `doorward nodes list`.")

    async def answer(self, request: Request) -> Response:
        """Where answers arrive. Only the machine that was asked may answer."""
        waiting = self._open.get(request.path_params["code"])
        if waiting is None:
            raise NotFound("nobody waits for this answer")
        asked, future = waiting
        if request.state.machine_key != asked:
            raise NotPermitted("another node was asked")
        body = await request.body()
        if len(body) > ANSWER_LIMIT:
            raise NotPermitted(f"an answer has at most {ANSWER_LIMIT} bytes")
        if not future.done():
            future.set_result(body)
        return Response(status_code=200)
