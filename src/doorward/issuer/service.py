"""The issuer's endpoints, put together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import json_answer, problem, unexpected
from doorward.clock import Clock
from doorward.errors import DoorwardError
from doorward.issuer.assertions import Assertions
from doorward.issuer.authorize import Authorize
from doorward.issuer.backchannel import Backchannel
from doorward.issuer.clients import Clients
from doorward.issuer.desk import PREFLIGHT, Desk, ProviderKeys, opened
from doorward.issuer.device import Devices
from doorward.issuer.documents import Documents
from doorward.issuer.dpop import Proofs
from doorward.issuer.elsewhere import Elsewhere
from doorward.issuer.errors import TokenError
from doorward.issuer.fetch import Fetch
from doorward.issuer.inspection import DESCRIBED, Inspection
from doorward.issuer.keys import Keys
from doorward.issuer.logout import PATH as LOGOUT
from doorward.issuer.logout import Logout
from doorward.issuer.metadata import describe
from doorward.issuer.pushed import Pushed
from doorward.issuer.registration import Registration
from doorward.issuer.sweep import Sweep
from doorward.issuer.token import Token
from doorward.issuer.trust import Trust
from doorward.login.asking import Askings, as_page

_KEPT = "public, max-age=3600"

Endpoint = Callable[[Request], Awaitable[Response]]


class Issuer:
    """The service.

    Args:
        askings: who sits before a browser; its acts are added to it.
        clock: the time of everything.
        secret: what only doorward's files hold, the same for all processes; signing keys are sealed with it.
        trust: whose apps may come by themselves.
        fetch: how others are asked; on the open internet alone by default.
        provider_keys: what an outside provider signs with; without it nobody's word is good.
        numbers: by id the people whom apps know by a number of tsidp's, no number twice.
    """

    def __init__(
        self,
        askings: Askings,
        clock: Clock,
        secret: bytes,
        *,
        fetch: Fetch | None = None,
        provider_keys: ProviderKeys | None = None,
        trust: Trust | None = None,
        numbers: Mapping[int, int] | None = None,
    ) -> None:
        writer = askings.registry.writer
        keys = Keys(writer.database, clock, writer.entropy, secret, numbers)
        self._desk = Desk(askings, keys, clock, provider_keys, trust)
        fetch = fetch or Fetch(askings.registry, clock)
        clients = Clients(self._desk, Assertions(self._desk, fetch))
        proofs = Proofs(self._desk, secret)
        self._token = Token(self._desk, clients, proofs)
        self._pushed = Pushed(self._desk, clients, proofs)
        self._documents = Documents(self._desk, fetch)
        self._authorize = Authorize(self._desk, self._documents)
        self._registration = Registration(self._desk)
        self._devices = Devices(self._desk, clients)
        self._elsewhere = Elsewhere(self._desk, self._authorize)
        self._inspection = Inspection(self._desk, clients, proofs)
        self._logout = Logout(self._desk)
        self._sweep = Sweep(self._desk)
        self._backchannel = Backchannel(self._desk, fetch)

    async def run(self) -> None:
        """Take tokens from whoever may have them no longer, and tell apps of what is over, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep.run())
            group.create_task(self._backchannel.run())

    def routes(self) -> list[Route]:
        """Where they are."""
        registry = self._desk.registry
        pages = [
            Route("/authorize", as_page(registry, self._authorize.authorize), methods=["GET", "POST"]),
            Route("/authorize/answer", as_page(registry, self._authorize.answer), methods=["POST"]),
            Route("/authorize/elsewhere", as_page(registry, self._elsewhere.begin), methods=["POST"]),
            Route("/authorize/elsewhere/{asking}", as_page(registry, self._elsewhere.show), methods=["GET"]),
            Route("/device", as_page(registry, self._devices.show), methods=["GET"]),
            Route("/device", as_page(registry, self._devices.typed), methods=["POST"]),
            Route("/device/answer", as_page(registry, self._devices.answer), methods=["POST"]),
            Route(LOGOUT, as_page(registry, self._logout.end), methods=["GET", "POST"]),
            Route(f"{LOGOUT}/answer", as_page(registry, self._logout.answer), methods=["POST"]),
        ]
        programs = (
            ("/token", self._token.token, ["POST"]),
            ("/device_authorization", self._devices.begin, ["POST"]),
            ("/par", self._pushed.push, ["POST"]),
            ("/userinfo", self._inspection.userinfo, ["GET", "POST"]),
            ("/register", self._registration.register, ["POST"]),
            ("/register/{client_id}", self._registration.manage, ["GET", "PUT", "DELETE"]),
            ("/introspect", self._inspection.introspect, ["POST"]),
            ("/revoke", self._inspection.revoke, ["POST"]),
            ("/.well-known/openid-configuration", self._openid, ["GET"]),
            ("/.well-known/oauth-authorization-server", self._oauth, ["GET"]),
            ("/.well-known/jwks.json", self._jwks, ["GET"]),
            (DESCRIBED, self._inspection.described, ["GET"]),
        )
        return [
            *pages,
            *(
                Route(path, _for_programs(endpoint), methods=[*methods, "OPTIONS"])
                for path, endpoint, methods in programs
            ),
        ]

    async def _openid(self, request: Request) -> Response:
        return await self._described(request, openid=True)

    async def _oauth(self, request: Request) -> Response:
        return await self._described(request, openid=False)

    async def _described(self, request: Request, *, openid: bool) -> Response:
        self._desk.require_door(request)
        documents, registration = self._desk.trust.any_documents, await self._registration.offered(request)
        told = json_answer(
            describe(self._desk.issuer, openid=openid, documents=documents, registration=registration)
        )
        # Not the same for everybody: what one is offered another is not.
        return opened(told) if registration else _kept(told)

    async def _jwks(self, request: Request) -> Response:
        self._desk.require_door(request)
        ring = await self._desk.keys.ring()
        return _kept(json_answer({"keys": ring.published}))


def _kept(response: Response) -> Response:
    response.headers["Cache-Control"] = _KEPT
    return opened(response)


def _for_programs(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose errors are JSON, and which any page may ask: nothing that a browser adds by itself counts there."""

    async def guarded(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=PREFLIGHT)
        try:
            return await endpoint(request)
        except TokenError as error:
            return opened(error.answer())
        except DoorwardError as error:
            return opened(problem(error))
        except Exception as error:  # noqa: BLE001 - the last resort: a program gets a reference, the log gets the rest
            return opened(problem(unexpected(error, f"{request.method} {request.url.path}")))

    return guarded
