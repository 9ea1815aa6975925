"""The service: routes outside and inside Noise, and what they share.

The two requests that every node makes, and makes most, are dispatched here without a framework: a map stream is open for
days, and what a framework keeps for each request would be most of what a quiet node costs.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from doorward.control.ask import Questions
from doorward.control.fanout import Fanout, MapStream, Send
from doorward.control.hold import DecideSSH, Hold, malformed
from doorward.control.map import Map
from doorward.control.register import Register
from doorward.control.unserved import unserved, update_health, whoami
from doorward.errors import DoorwardError, TooMany
from doorward.protocol.keys import MachinePublic
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.requests import ServerKeys
from doorward.tailnet.registry import Registry
from doorward.telemetry import log, originating
from doorward.transport.lobby import Guest
from doorward.transport.sources import source_address

_log = log("control")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Endpoint(Protocol):
    """A request without a framework: from the machine key that Noise has proven and the body to an answer or a stream."""

    media_type: bytes

    async def __call__(
        self,
        machine_key: MachinePublic,
        body: bytes,
        came_from: IPv4Address | IPv6Address | None,
        guest: Guest,
    ) -> bytes | MapStream:
        """Answer a request of this connection; a DoorwardError is a refusal."""


class Control:
    """The coordination server.

    Attributes:
        routes: what the public listener serves besides ``/ts2021`` itself.
        questions: questions to nodes.
        fanout: the map streams.

    Args:
        registry: the tailnet.
        public_key: our Noise key.
        entropy: random bytes.
        decide_ssh: what is done about an ssh that a node asks about.
    """

    def __init__(
        self,
        registry: Registry,
        public_key: MachinePublic,
        entropy: Callable[[int], bytes],
        decide_ssh: DecideSSH,
    ) -> None:
        self._key = encode(ServerKeys(publicKey=public_key))
        self.questions = Questions(registry, entropy)
        self.fanout = Fanout(registry)
        self._endpoints: dict[str, Endpoint] = {
            "/machine/register": Register(registry),
            "/machine/map": Map(registry, self.fanout),
        }
        self._others = Starlette(
            routes=[
                Route(
                    "/machine/answer/{code}", self.questions.answer, methods=["POST", "HEAD", "GET", "PUT"]
                ),
                Route("/machine/update-health", update_health, methods=["POST"]),
                Route(
                    "/machine/ssh/action/{source}/to/{target}",
                    Hold(registry, decide_ssh).action,
                    methods=["GET"],
                ),
                Route("/machine/ssh/action/{path:path}", malformed, methods=["GET"]),
                Route("/machine/whoami", whoami, methods=["GET"]),
                Route("/machine/{path:path}", unserved, methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
            ],
            exception_handlers={DoorwardError: _refused, ClientDisconnect: _gone, Exception: _failed},
        )
        self.routes = [Route("/key", self.key, methods=["GET"])]

    async def run(self) -> None:
        """Background work until cancelled: it keeps the map streams up to date."""
        await self.fanout.run()

    async def inside(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI app that runs inside Noise; every scope's state has ``machine_key``."""
        endpoint = self._endpoints.get(scope["path"]) if scope["method"] == "POST" else None
        address = source_address(scope.get("client"))
        source = "unknown" if address is None else str(address)
        if endpoint is None:
            with originating(source):
                await self._others(scope, receive, send)
            return
        guest: Guest = scope["state"].get("guest") or Guest()
        try:
            with originating(source):  # but not while a stream is open: its end is nobody's request
                answer = await endpoint(scope["state"]["machine_key"], await _body(receive), address, guest)
        except ClientDisconnect:
            return
        except DoorwardError as error:
            await _refused(Request(scope), error)(scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", endpoint.media_type)],
            }
        )
        if isinstance(answer, MapStream):
            outlet = scope["extensions"]["doorward.stream"]
            del scope, receive  # a stream is open for days, and its request's headers are of no more use
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            guest.settle()  # whoever follows a node's map is that node
            try:
                await answer.run(outlet, send, address)
            finally:
                guest.unsettle()
            answer = b""
        await send({"type": "http.response.body", "body": answer})

    async def key(self, _: Request) -> Response:
        """Our Noise key. Any page may read it: clients in browsers come from other origins."""
        return Response(
            self._key, media_type="application/json", headers={"Access-Control-Allow-Origin": "*"}
        )


async def _body(receive: Receive) -> bytes:
    """A request's whole body, whose size the HTTP/2 server bounds. Raises ClientDisconnect."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message["body"])
        if not message["more_body"]:
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, DoorwardError)
    if error.detail:
        _log.info("request refused", reason=error.message, detail=error.detail)
    headers = {"Retry-After": "5"} if isinstance(error, TooMany) else None
    return PlainTextResponse(error.sentence() + "\n", status_code=error.status, headers=headers)


def _gone(_: Request, __: Exception) -> Response:
    """The client left in the middle of its request: an answer that nobody reads."""
    return Response(status_code=400)


def _failed(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.scope["path"], error=repr(error))
    return PlainTextResponse("something went wrong here; the server's log says what\n", status_code=500)
