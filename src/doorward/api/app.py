"""All of the API as routes, and the one place where it is decided who is asking."""

from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.api import audit, dns, keys, nodes, policy, reach, ssh, status, tokens, users
from doorward.api.access import ADMIN_LISTENER, ADMINISTRATOR, Permission, Principal
from doorward.api.context import ApiContext, Call
from doorward.api.openapi import describe
from doorward.asgi import Operation, RateLimit, operation, routes
from doorward.errors import Unauthenticated
from doorward.transport.sources import address_key

PREFIX = "/api/v1"

# A script that loops without thinking stays below this; one that runs wild does not take the server with it.
REQUESTS_PER_SECOND = 50.0
REQUEST_BURST = 200.0
# Nobody guesses 128 bits; the limit keeps the log and the database out of the reach of those who try.
FAILURES_PER_SECOND = 0.2
FAILURE_BURST = 10.0


@operation("GET", "/openapi.json", needs=Permission.READ)
async def get_openapi(call: Call) -> Response:
    """Describe this API as OpenAPI 3.1."""
    del call
    return Response(_document(), media_type="application/json")


OPERATIONS: tuple[Operation, ...] = (
    *status.OPERATIONS,
    *users.OPERATIONS,
    *keys.OPERATIONS,
    *nodes.OPERATIONS,
    *policy.OPERATIONS,
    *reach.OPERATIONS,
    *dns.OPERATIONS,
    *ssh.OPERATIONS,
    *tokens.OPERATIONS,
    *audit.OPERATIONS,
    get_openapi,
)


@cache
def _document() -> bytes:
    """The description, made when somebody first asks for it."""
    return describe(OPERATIONS, prefix=PREFIX)


class _Gate:
    """Says who is asking, and refuses what they may not do."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._requests = RateLimit(rate=REQUESTS_PER_SECOND, burst=REQUEST_BURST, clock=context.clock)
        self._failures = RateLimit(rate=FAILURES_PER_SECOND, burst=FAILURE_BURST, clock=context.clock)

    async def enter(self, request: Request, needed: Operation) -> Call:
        principal = await self._principal(request)
        principal.require(needed.needs)
        # Whoever asks once more may come to another process than before, which must know what the first has answered.
        await self._context.registry.catch_up()
        return Call(self._context, principal)

    async def _principal(self, request: Request) -> Principal:
        if (request.scope.get("state") or {}).get("listener") == ADMIN_LISTENER:
            return ADMINISTRATOR
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated(
                "no API token came with this request",
                cure="Send Authorization: Bearer TOKEN, with a token made by `doorward tokens create` on the server.",
            )
        asker = address_key(request.scope.get("client"))
        self._failures.check(asker)
        try:
            token = await self._context.registry.check_api_token(secret.strip())
        except Unauthenticated:
            self._failures.take(asker)
            raise
        principal = Principal(f"token:{token.id}", token.role)
        self._requests.take(principal.actor)
        return principal


def create(context: ApiContext) -> list[Route]:
    """The routes of the API, each with its full path under /api/v1.

    A request is the administrator's when ``scope["state"]["listener"]`` is ``"admin"``: only the listener on the
    socket of mode 0600 may set that. Every other needs a bearer token.
    """
    return routes(OPERATIONS, prefix=PREFIX, enter=_Gate(context).enter)
