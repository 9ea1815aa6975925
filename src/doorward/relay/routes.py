"""What the relay answers over ordinary HTTP (protocol note derp.md, sections 7 and 9)."""

import inspect
import re
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from doorward.errors import BadInput
from doorward.protocol.keys import NodePublic
from doorward.relay.session import Admit

MAX_VERIFY_BODY: Final = 4096

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_UNCACHED: Final = "no-cache, no-store, must-revalidate, no-transform, max-age=0"


class VerifyRequest(msgspec.Struct, frozen=True):
    """What another relay asks: may this key come in?"""

    node_public: str = msgspec.field(name="NodePublic")  # "nodekey:" and 64 hex digits
    source: str = msgspec.field(default="", name="Source")  # the client's address as that relay sees it


async def _upgrade_needed(_: Request) -> Response:
    return PlainTextResponse(
        "This is a DERP relay. It needs a connection upgrade.\n",
        426,
        {"upgrade": "DERP", "connection": "upgrade"},
    )


async def _probe(_: Request) -> Response:
    # Any page may measure how far away we are; there is nothing to read.
    return Response(headers={"access-control-allow-origin": "*"})


async def _generate_204(request: Request) -> Response:
    """How clients tell a captive portal: it would not know what to answer to the challenge."""
    headers = {"cache-control": _UNCACHED}
    challenge = request.headers.get("x-tailscale-challenge", "")
    if _CHALLENGE.fullmatch(challenge):
        headers["x-tailscale-response"] = f"response {challenge}"
    return Response(status_code=204, headers=headers)


async def _robots(_: Request) -> Response:
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


async def _read(request: Request, limit: int) -> bytes | None:
    """The body, or None when it is longer than ``limit`` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limit:
            return None
    return body


def _verify(admit: Admit) -> Route:
    async def verify(request: Request) -> Response:
        try:
            body = await _read(request, MAX_VERIFY_BODY)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            return PlainTextResponse(f"The body is longer than {MAX_VERIFY_BODY} bytes.\n", 413)
        try:
            asked = msgspec.json.decode(body, type=VerifyRequest)
            key = NodePublic.parse(asked.node_public)
        except (ValueError, RecursionError):
            return PlainTextResponse("The body is not the JSON of a verify request.\n", 400)
        except BadInput as error:
            return PlainTextResponse(error.sentence() + "\n", 400)
        answer = admit(key, asked.source)
        allowed = await answer if inspect.isawaitable(answer) else answer
        return JSONResponse({"Allow": bool(allowed)})

    return Route("/verify", verify, methods=["POST"])


def relay_routes(admit: Admit | None) -> list[BaseRoute]:
    """The plain routes. ``admit`` answers for ``/verify``, too, so that other relays admit whom we do; None: no such route."""
    routes: list[BaseRoute] = [
        Route("/derp", _upgrade_needed, methods=["GET"]),
        Route("/derp/probe", _probe, methods=["GET"]),
        Route("/derp/latency-check", _probe, methods=["GET"]),
        Route("/generate_204", _generate_204, methods=["GET"]),
        Route("/robots.txt", _robots, methods=["GET"]),
    ]
    return routes if admit is None else [*routes, _verify(admit)]
