"""All of the API as routes, and the one place where it is decided who is asking."""

from collections.abc import Collection
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.api import (
    apps,
    audit,
    console,
    console_tabs,
    cuts,
    dns,
    hostkeys,
    joining,
    keys,
    nodes,
    people,
    policy,
    providers,
    reach,
    ssh,
    status,
    tokens,
    users,
)
from doorward.api.access import (
    ADMIN_LISTENER,
    ADMINISTRATOR,
    ASKED_EACH_TIME,
    OWN,
    FreshProofNeeded,
    Permission,
    Principal,
    bounded,
)
from doorward.api.context import ApiContext, Browser, Call
from doorward.api.openapi import describe
from doorward.asgi import SAFE_METHODS, Operation, RateLimit, operation, routes
from doorward.errors import NotPermitted, Unauthenticated
from doorward.login.doors import Place, place_of
from doorward.login.prefix import at
from doorward.login.sessions import AccountSuspended
from doorward.model import User
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
    return Response(_document(at(PREFIX)), media_type="application/json")


OPERATIONS: tuple[Operation, ...] = (
    *status.OPERATIONS,
    *users.OPERATIONS,
    *people.OPERATIONS,
    *providers.OPERATIONS,
    *keys.OPERATIONS,
    *nodes.OPERATIONS,
    *hostkeys.OPERATIONS,
    *cuts.OPERATIONS,
    *joining.OPERATIONS,
    *policy.OPERATIONS,
    *reach.OPERATIONS,
    *dns.OPERATIONS,
    *ssh.OPERATIONS,
    *tokens.OPERATIONS,
    *apps.OPERATIONS,
    *audit.OPERATIONS,
    *console.OPERATIONS,
    *console_tabs.OPERATIONS,
    get_openapi,
)


@cache
def _document(prefix: str) -> bytes:
    """The description, made when somebody first asks for it under this prefix."""
    return describe(OPERATIONS, prefix=prefix)


class _Gate:
    """Says who is asking, and refuses what they may not do."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._doors = [place_of(way.address) for way in context.ways]
        self._requests = RateLimit(rate=REQUESTS_PER_SECOND, burst=REQUEST_BURST, clock=context.clock)
        self._failures = RateLimit(rate=FAILURES_PER_SECOND, burst=FAILURE_BURST, clock=context.clock)

    async def enter(self, request: Request, needed: Operation) -> Call:
        browser: Browser | None = None
        if (request.scope.get("state") or {}).get("listener") == ADMIN_LISTENER:
            principal = ADMINISTRATOR
        elif "authorization" in request.headers:
            principal = await self._of_token(request)
        else:
            browser = await self._of_browser(request)
            principal = _person(browser.user)
        # Whoever asks once more may come to another process than before, which must know what the first has answered.
        await self._context.registry.catch_up()
        if browser is not None:
            principal = self._as_now(browser.user)
        own = _is_own(principal, request, needed)
        if not own:
            principal.require(needed.needs)
        if browser is not None:
            _check_page(request, browser.door, self.crossing(needed))
            # To leave, one need not show who one is.
            leaves = own and needed.needs is Permission.SESSIONS and browser.signed_in is not None
            if needed.needs is not Permission.READ and not leaves:
                self._check_proof(request, needed, browser)
        return Call(self._context, principal, browser, request.headers.get("accept", ""))

    def crossing(self, needed: Operation) -> Collection[str]:
        """Whose pages may ask for it, besides those of the door: what the console needs, where it is at another origin."""
        return self._context.origins if needed.needs is Permission.CONSOLE else ()

    async def _of_token(self, request: Request) -> Principal:
        scheme, _, secret = request.headers["authorization"].partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _stranger()
        asker = address_key(request.scope.get("client"))
        self._failures.check(asker)
        try:
            token = await self._context.registry.check_api_token(secret.strip())
        except Unauthenticated:
            self._failures.take(asker)
            raise
        owner = None if token.user_id is None else self._context.registry.snapshot.users.get(token.user_id)
        role = token.role if owner is None else bounded(token.role, owner.role)
        principal = Principal(f"token:{token.id}", role, lender=owner)
        self._requests.take(principal.actor)
        return principal

    async def _of_browser(self, request: Request) -> Browser:
        visitor = await self._context.visitor(request)
        if visitor.signed_in is not None:
            session = visitor.signed_in.session
            self._requests.take(f"session:{session.id}")
            door = next((one for one in self._doors if one.origin == session.origin), None)
            return Browser(
                visitor.signed_in.user, door or place_of(session.origin), visitor.signed_in, visitor.node
            )
        host = request.headers.get("host", "").lower()
        door = next((one for one in self._doors if _host(one.origin) == host), None)
        if visitor.owner is None or door is None:
            raise visitor.refusal or _stranger()
        self._requests.take(f"device:{visitor.owner.id}")
        return Browser(visitor.owner, door, None, visitor.node)

    def _as_now(self, known: User) -> Principal:
        """The person by what is true at this moment: a role or a suspension counts at once, whoever looked before."""
        user = self._context.registry.snapshot.users.get(known.id)
        if user is None:
            raise _stranger()
        if user.suspended:
            raise AccountSuspended(user.name)
        return _person(user)

    def _check_proof(self, request: Request, needed: Operation, browser: Browser) -> None:
        """Refuse a change by somebody who may have left the browser alone."""
        if request.method in SAFE_METHODS:
            return
        if needed.needs in ASKED_EACH_TIME:
            raise FreshProofNeeded(
                "for this you have to show who you are each time",
                cure=f"Do it on its page at {browser.door.base}, or with the `doorward` command.",
            )
        if browser.signed_in is None:
            raise FreshProofNeeded(
                "this device says whose it is, and not who holds it: to change something you have to sign in",
                cure=f"Sign in at {browser.door.base}/signin, and try again.",
            )
        if needed.needs is Permission.CONSOLE:
            return  # a terminal gives no more than the person's own devices have; the policy asks again where it wants to
        if not browser.signed_in.is_fresh(self._context.clock.now()):
            raise FreshProofNeeded(
                "to change something you have to show again who you are",
                cure=f"Sign in once more at {browser.door.base}/signin, and try again.",
            )


def _host(origin: str) -> str:
    return origin.partition("://")[2]


def _check_page(request: Request, door: Place, also: Collection[str]) -> None:
    """Refuse what no page of the door has asked for.

    A browser sends its cookie along with whatever any page asks for, and a device its place in the tailnet. Only a page of
    the door that the session was made at, or that the device has come to, may use them: which page asks, browsers say in
    headers that no page can change. ``also`` are origins whose pages count as the door's.
    """
    site, origin = request.headers.get("sec-fetch-site", ""), request.headers.get("origin", "")
    writes = request.method not in SAFE_METHODS
    at_door = request.headers.get("host", "").lower() == _host(door.origin)
    if at_door and origin in also:
        return
    ours = (
        at_door
        and origin in {"", door.origin}
        and site in ({"", "same-origin"} if writes else {"", "same-origin", "none"})
    )
    if not ours or (writes and not site and not origin):
        raise NotPermitted(
            "only a page of the door where you come in may do this",
            cure=f"Open {door.base} and do it there.",
        )


def _person(user: User) -> Principal:
    return Principal(f"user:{user.name}", user.role, user)


def _is_own(principal: Principal, request: Request, needed: Operation) -> bool:
    """Whether it is about the person who asks, and so needs no role."""
    if needed.needs is Permission.CONSOLE:
        return principal.person is not None
    if principal.person is None or needed.needs not in OWN or not needed.path.startswith("/users/{name}"):
        return False
    return request.path_params.get("name") == principal.person.name


def _stranger() -> Unauthenticated:
    return Unauthenticated(
        "no API token came with this request",
        cure="Send Authorization: Bearer TOKEN, with a token made by `doorward tokens create` on the server.",
    )


def create(context: ApiContext) -> list[Route]:
    """The routes of the API, each with its full path under /api/v1.

    A request is the administrator's when ``scope["state"]["listener"]`` is ``"admin"``: only the listener on the
    socket of mode 0600 may set that. Every other needs a bearer token, or comes from a browser in which a person has
    signed in, or, to look, by the tailnet from a person's own device.
    """
    gate = _Gate(context)
    return routes(OPERATIONS, prefix=PREFIX, enter=gate.enter, crossing=gate.crossing)
