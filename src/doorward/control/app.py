"""The service: routes outside and inside Noise, and what they share."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from doorward.control import join
from doorward.control.ask import Questions
from doorward.control.map import Map
from doorward.control.register import Register
from doorward.control.unserved import ssh_action, unserved, update_health, whoami
from doorward.errors import DoorwardError, TooMany
from doorward.protocol.keys import MachinePublic
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.requests import ServerKeys
from doorward.tailnet.registry import Registry
from doorward.telemetry import log

_log = log("control")


class Control:
    """The coordination server.

    Attributes:
        inside: the ASGI app that runs inside Noise; every scope's state has ``machine_key``.
        routes: what the public listener serves besides ``/ts2021`` itself.
        questions: questions to nodes.
    """

    def __init__(
        self, registry: Registry, public_key: MachinePublic, entropy: Callable[[int], bytes]
    ) -> None:
        self._key = encode(ServerKeys(publicKey=public_key))
        self.questions = Questions(registry, entropy)
        self.inside = Starlette(
            routes=[
                Route("/machine/register", Register(registry).__call__, methods=["POST"]),
                Route("/machine/map", Map(registry).__call__, methods=["POST"]),
                Route(
                    "/machine/answer/{code}", self.questions.answer, methods=["POST", "HEAD", "GET", "PUT"]
                ),
                Route("/machine/update-health", update_health, methods=["POST"]),
                Route("/machine/ssh/action/{path:path}", ssh_action, methods=["GET"]),
                Route("/machine/whoami", whoami, methods=["GET"]),
                Route("/machine/{path:path}", unserved, methods=["GET", "POST", "PATCH", "PUT", "DELETE"]),
            ],
            exception_handlers={DoorwardError: _refused, ClientDisconnect: _gone, Exception: _failed},
        )
        self.routes = [
            Route("/key", self.key, methods=["GET"]),
            Route("/join/{code}", join.page(registry), methods=["GET"]),
        ]

    async def key(self, _: Request) -> Response:
        """Our Noise key. Any page may read it: clients in browsers come from other origins."""
        return Response(
            self._key, media_type="application/json", headers={"Access-Control-Allow-Origin": "*"}
        )


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
    _log.error("request failed", path=request.url.path, error=repr(error))
    return PlainTextResponse("something went wrong here; the server's log says what\n", status_code=500)
