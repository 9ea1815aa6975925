"""Request and response: typed JSON in and out, problem answers, and the guards every web endpoint of ours stands behind.

An endpoint is an *operation*: an async function whose annotations are its contract.

::

    @operation("POST", "/users", needs=Permission.USERS, status=201)
    async def create_user(call: Call, body: NewUser) -> User:
        '''Create a user.'''

``body`` is the JSON request, ``query`` the query parameters, ``if_match`` the entity tag of an If-Match header without its
quotes (None where there is none), any other name a part of the path; each is converted to its annotated type and refused
with the place of the fault otherwise. An answer that has an ``etag`` is sent with it in the ETag header. The first argument is whatever ``enter`` made of the
request: it says who is asking, and raises where they may not. What is returned is encoded as JSON; what is raised
becomes a problem (RFC 9457). ``routes`` turns operations into Starlette routes; the same objects describe themselves
for OpenAPI.

Beside it, for every application of ours: ``NumberRequests``, ``StripIdentityHeaders``, ``SecurityHeaders``,
``refuse_cross_origin`` and ``RateLimit``. No header ever says who somebody is; the bearer token of the API is a secret, not a statement.
"""

import inspect
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints
from urllib.parse import quote, urlsplit

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorward.clock import Clock
from doorward.errors import BadInput, DoorwardError, NotFound, NotPermitted, TooMany, Unauthenticated
from doorward.protocol.proxyheaders import is_identity_header
from doorward.telemetry import ORIGIN, log, originating

# Our own structs are small; the one large thing is a policy text, and an operation may ask for more.
DEFAULT_BODY_LIMIT = 64 * 1024

REQUEST_HEADER = (
    "X-Request-Id"  # of every answer; the log and the audit events that the request made have the same
)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1; we serve no TRACE

T = TypeVar("T")

_ENTITY_TAG = re.compile(r'"([\x21\x23-\x7e]*)"')  # RFC 9110, section 8.8.3, without bytes beyond ASCII

_logger = log("asgi")


class TooLarge(BadInput):
    """A request body is longer than the operation takes."""

    status = 413
    problem = "too-large"


class WrongMethod(BadInput):
    """The path exists, the method does not. ``allowed`` becomes the Allow header (RFC 9110 section 15.5.6)."""

    status = 405
    problem = "wrong-method"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not possible here; possible: {', '.join(allowed)}")
        self.allowed = tuple(allowed)


class WrongMediaType(BadInput):
    """The body is not declared as JSON."""

    status = 415
    problem = "wrong-media-type"


class RateExceeded(TooMany):
    """Too many requests in a short time; ``retry_after`` seconds from now there is room again."""

    problem = "rate-exceeded"

    def __init__(self, retry_after: float) -> None:
        self.retry_after = max(1, int(retry_after + 0.999))
        super().__init__(
            "too many requests in a short time", cure=f"Wait {self.retry_after} s and ask again."
        )


# Answers ----------------------------------------------------------------------------------------------------------


def json_answer(value: Any, status: int = 200) -> Response:
    """``value`` as JSON; None with status 204 is an empty body. Never cached: it may be about who is asking."""
    content = b"" if value is None and status == 204 else msgspec.json.encode(value)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    etag = getattr(value, "etag", None)
    if etag is not None:
        headers["ETag"] = f'"{etag}"'
    return Response(content, status, headers, media_type=None if status == 204 else "application/json")


def problem(error: DoorwardError) -> Response:
    """An error as an RFC 9457 problem, with the headers its status calls for. ``error.detail`` stays here."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="doorward"'  # RFC 6750 section 3
    if isinstance(error, WrongMethod):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, RateExceeded):
        headers["Retry-After"] = str(error.retry_after)
    public = error.public()
    if (origin := ORIGIN.get()) is not None:
        public["request"] = origin.request
    content = msgspec.json.encode(public)
    return Response(content, error.status, headers, media_type="application/problem+json")


def unexpected(error: Exception, where: str) -> DoorwardError:
    """Log an error nobody planned for and give the one to answer with; a reference joins the two."""
    origin = ORIGIN.get()
    reference = secrets.token_hex(4) if origin is None else origin.request
    _logger.error("request failed", where=where, reference=reference, exc_info=error)
    return DoorwardError(
        f"something went wrong here (reference {reference})",
        cure="The server's log has the details under this reference.",
    )


def source_of(scope: Scope) -> str:
    """Where a request comes from, for the log and the audit log: an address, or which Unix socket it came in by."""
    client = scope.get("client")
    if client:
        return str(client[0])
    return f"{(scope.get('state') or {}).get('listener', 'local')} socket"


# Requests ---------------------------------------------------------------------------------------------------------


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, at most ``limit`` bytes; raises TooLarge without reading further."""
    announced = request.headers.get("content-length", "0")
    too_large = TooLarge(f"the request body is longer than {limit} bytes, the most that is taken here")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit):
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _bad_input(error: msgspec.ValidationError, what: str) -> BadInput:
    """What msgspec says is "message - at `$.path`"; the path becomes the error's place."""
    message, _, place = str(error).partition(" - at `")
    return BadInput(f"{what}: {message[:1].lower()}{message[1:]}", place=place.rstrip("`"))


def decode_json(body: bytes, kind: type[T], media_type: str) -> T:
    """A request body as ``kind``. Raises WrongMediaType, or BadInput with the place of the fault."""
    if media_type.partition(";")[0].strip().lower() != "application/json":
        raise WrongMediaType(
            "the request body is not declared as JSON", cure="Send the header Content-Type: application/json."
        )
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _bad_input(error, "the request body cannot be used") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the request body is not JSON: {error}") from None


def decode_query(pairs: Iterable[tuple[str, str]], kind: type[T] | None) -> T | None:
    """Query parameters as ``kind``, each at most once. Raises BadInput for anything that ``kind`` does not have."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise BadInput("a query parameter is given twice", place=name)
        given[name] = value
    if kind is None:
        if given:
            raise BadInput("no query parameters are taken here", place=next(iter(given)))
        return None
    try:
        return msgspec.convert(given, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise _bad_input(error, "the query parameters cannot be used") from None


def entity_tag(header: str | None) -> str | None:
    """The tag of an If-Match header (RFC 9110, section 13.1.1); None for no header, and for ``*``: whatever there is.

    Raises BadInput for a weak tag, which never matches, and for several: who changes something has seen one version of it.
    """
    if header is None or header.strip() == "*":
        return None
    match = _ENTITY_TAG.fullmatch(header.strip())
    if match is None:
        raise BadInput(
            "the header If-Match holds something else than one strong entity tag",
            cure='Send back what the ETag header of the answer to GET said, such as "5".',
            place="If-Match",
        )
    return match[1]


def refuse_cross_origin(method: str, headers: Mapping[str, str], *, trusted: Iterable[str] = ()) -> None:
    """Refuse a write that a page of another origin makes with this person's browser (CSRF).

    Browsers say where a request comes from and pages cannot change it: Sec-Fetch-Site, or in older ones Origin.
    A request with neither is not a browser's, so nobody's cookies or network position are misused by it.

    Args:
        method: the request's method; safe ones pass.
        headers: the request's headers, looked up in lower case.
        trusted: origins (``https://name[:port]``) besides the request's own host.

    Raises:
        NotPermitted: for a write from elsewhere.
    """
    if method in SAFE_METHODS:
        return
    origin = headers.get("origin", "")
    if origin and origin in set(trusted):
        return
    site = headers.get("sec-fetch-site", "")
    if site in {"same-origin", "none"}:
        return
    # The scheme is not compared: behind a TLS terminator we do not know ours, and the host is what an attacker lacks.
    try:
        from_host = urlsplit(origin).netloc.lower()
    except ValueError:  # "http://[": no browser sends it, and it is nobody's own
        from_host = ""
    if not site and (not origin or (from_host and from_host == headers.get("host", "").lower())):
        return
    raise NotPermitted(
        "a page of another origin may not change anything here",
        cure="Open doorward's own page and do it there.",
    )


# Operations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One endpoint: what it takes, what it answers, and what it needs. Made by ``operation``."""

    method: str
    path: str  # Starlette's form without converters: /users/{name}
    handler: Callable[..., Awaitable[Any]]
    needs: Any  # for ``enter``: what the asker must be allowed; this module does not look inside
    status: int
    body_limit: int
    body: Any  # the type of the JSON request, None for no body
    query: Any  # the type of the query parameters, None for none
    conditional: bool  # it looks at If-Match
    parts: Mapping[str, Any]  # path parameter to its type
    answer: Any  # the type of the JSON answer, NoneType for none
    summary: str
    description: str
    deviations: tuple[type[DoorwardError], ...] = field(default=())  # what it may answer instead

    @property
    def name(self) -> str:
        """The handler's name: unique in one API, and the operationId in OpenAPI."""
        return str(getattr(self.handler, "__name__", ""))


def operation(
    method: str,
    path: str,
    *,
    needs: Any = None,
    status: int = 200,
    body_limit: int = DEFAULT_BODY_LIMIT,
    raises: Sequence[type[DoorwardError]] = (),
) -> Callable[[Callable[..., Awaitable[Any]]], Operation]:
    """Declare an endpoint from an async function; see the module's text. ``raises`` is documentation for OpenAPI.

    Raises TypeError where path and annotations disagree, at import, so that no request can find it out.
    """
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]

    def declare(handler: Callable[..., Awaitable[Any]]) -> Operation:
        hints = get_type_hints(handler, include_extras=True)
        arguments = list(inspect.signature(handler).parameters)[1:]
        parts = {name: hints[name] for name in arguments if name not in {"body", "query", "if_match"}}
        if sorted(parts) != sorted(names):
            raise TypeError(f"{handler}: the path has {names}, the function takes {sorted(parts)}")
        summary, _, description = inspect.cleandoc(handler.__doc__ or "").partition("\n")
        return Operation(
            method=method,
            path=path,
            handler=handler,
            needs=needs,
            status=status,
            body_limit=body_limit,
            body=hints.get("body"),
            query=hints.get("query"),
            conditional="if_match" in arguments,
            parts=parts,
            answer=hints["return"],
            summary=summary.rstrip("."),
            description=description.strip(),
            deviations=tuple(raises),
        )

    return declare


Enter = Callable[[Request, Operation], Awaitable[Any]]
# Whose pages, besides our own, a browser may let ask for an operation and read the answer.
Crossing = Callable[[Operation], Collection[str]]


def _nobody(_: Operation) -> Collection[str]:
    return ()


class _Resource:
    """The operations of one path, as an ASGI application."""

    def __init__(self, operations: Iterable[Operation], enter: Enter, crossing: Crossing) -> None:
        self._operations = {each.method: each for each in operations}
        self._enter = enter
        self._crossing = {each.method: frozenset(crossing(each)) for each in self._operations.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        known = ORIGIN.get()
        with originating(source_of(scope)) if known is None else nullcontext(known) as origin:
            try:
                response = await self._answer(request)
            except ClientDisconnect:
                return  # nobody is left to answer
            except DoorwardError as error:
                if error.detail or error.status >= 500:
                    _logger.warning(
                        "request refused", path=scope["path"], error=str(error), detail=error.detail
                    )
                response = problem(error)
            except Exception as error:  # noqa: BLE001 - the last resort: a person gets a reference, the log gets the rest
                response = problem(unexpected(error, f"{request.method} {scope['path']}"))
            response.headers[REQUEST_HEADER] = origin.request
            self._let_read(request, response)
            await response(scope, receive, send)

    def _let_read(self, request: Request, response: Response) -> None:
        """Tell the browser that a page of another origin may have this (Fetch section 3.2). One origin, named, and never any."""
        origin = request.headers.get("origin", "")
        if any(self._crossing.values()):
            response.headers["Vary"] = "Origin"
        if any(origin in each for each in self._crossing.values()):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"

    def _leave_to_ask(self, request: Request) -> Response | None:
        """The answer to a browser that asks whether it may ask; None where it may not."""
        wanted = request.headers.get("access-control-request-method", "")
        if request.headers.get("origin", "") not in self._crossing.get(wanted, ()):
            return None
        headers = {
            "Access-Control-Allow-Methods": ", ".join(sorted(self._crossing)),
            "Access-Control-Allow-Headers": "accept, content-type, last-event-id",
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=204, headers=headers)

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS" and (leave := self._leave_to_ask(request)) is not None:
            return leave
        method = "GET" if request.method == "HEAD" else request.method
        found = self._operations.get(method)
        if found is None:
            raise WrongMethod(request.method, sorted(self._operations))
        refuse_cross_origin(request.method, request.headers, trusted=self._crossing[method])
        first = await self._enter(request, found)
        arguments: dict[str, Any] = {}
        for name, kind in found.parts.items():
            try:
                arguments[name] = msgspec.convert(request.path_params[name], type=kind, strict=False)
            except msgspec.ValidationError as error:
                raise _bad_input(error, "a part of the path cannot be used") from None
        query = decode_query(request.query_params.multi_items(), found.query)
        if found.query is not None:
            arguments["query"] = query
        if found.conditional:
            arguments["if_match"] = entity_tag(request.headers.get("if-match"))
        if found.body is not None:
            body = await read_body(request, found.body_limit)
            arguments["body"] = decode_json(body, found.body, request.headers.get("content-type", ""))
        answer = await found.handler(first, **arguments)
        return answer if isinstance(answer, Response) else json_answer(answer, found.status)


class _Missing:
    """Answers whatever no route has."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = NotFound(
            f"there is nothing at {scope['path']}", cure="The document at openapi.json lists every path."
        )
        await problem(error)(scope, receive, send)


def routes(
    operations: Iterable[Operation], *, prefix: str, enter: Enter, crossing: Crossing = _nobody
) -> list[Route]:
    """Starlette routes under ``prefix`` (``/api/v1``), ending in one that answers every other path with a problem.

    Args:
        operations: in the order in which their paths are tried; a path's methods need not stand together.
        prefix: without a final slash.
        enter: called before anything of the request but its head is read; returns the handlers' first argument or
            raises the refusal.
        crossing: the origins whose pages may ask for an operation besides ours (CORS). What may be done is for ``enter``.
    """
    by_path: dict[str, list[Operation]] = {}
    for each in operations:
        by_path.setdefault(each.path, []).append(each)
    found = [
        Route(prefix + path, _Resource(group, enter, crossing), name=path) for path, group in by_path.items()
    ]
    return [*found, Route(prefix + "/{rest:path}", _Missing(), name="missing")]


class ByPath(Router):
    """Starlette's router, which goes through the routes one by one, with a table of the paths that have no parts to find out.

    For each of those the routes that match it are looked up when it is first asked for, in their order, so that the answer is the same.
    Who has a slash too many or too few at the end of a path is led to the right one by the path alone: behind a proxy, and under a
    prefix, nobody here knows the whole address.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        super().__init__(routes, redirect_slashes=False, default=self._other_slash)
        self._plain = {route.path for route in routes if isinstance(route, Route) and "{" not in route.path}
        self._few: dict[str, Router] = {}

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on to the first route that takes it."""
        path: str = scope.get("path", "")
        few = self._few.get(path)
        if few is None and path in self._plain:
            few = self._few[path] = Router([one for one in self.routes if _may_match(one, path)])
        if few is None:
            await super().app(scope, receive, send)
        else:
            await few.app(scope, receive, send)

    async def _other_slash(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        # ``//name`` would be another host (RFC 3986 section 4.2).
        known = scope["type"] == "http" and other and not other.startswith("//")
        if known and any(
            route.matches({**scope, "path": other})[0] is not Match.NONE for route in self.routes
        ):
            query = scope.get("query_string", b"").decode("latin-1")
            to = quote(other) + (f"?{query}" if query else "")
            await RedirectResponse(to, 307)(scope, receive, send)
        else:
            await self.not_found(scope, receive, send)


def _may_match(route: BaseRoute, path: str) -> bool:
    pattern = getattr(route, "path_regex", None)
    return pattern is None or pattern.match(path) is not None


# Middleware and limits --------------------------------------------------------------------------------------------


class StripIdentityHeaders:
    """ASGI middleware: whatever comes from outside, no header of it says who is asking."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        if scope["type"] in {"http", "websocket"}:
            headers = [pair for pair in scope["headers"] if not is_identity_header(pair[0])]
            if len(headers) != len(scope["headers"]):
                scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


# A page loads its own styles and pictures, posts to itself, runs no script and is shown in no frame.
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class SecurityHeaders:
    """ASGI middleware: the headers that every answer to a browser carries. A header already set is kept.

    Args:
        app: what is wrapped.
        content_security_policy: for HTML answers.
    """

    def __init__(self, app: ASGIApp, *, content_security_policy: str = PAGE_POLICY) -> None:
        self._app = app
        self._policy = content_security_policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", self._policy)
                    headers.setdefault("X-Frame-Options", "DENY")
                    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
            await send(message)

        await self._app(scope, receive, guarded)


class NumberRequests:
    """ASGI middleware: every request has a number, which its answer, the log and the audit events it makes all have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with originating(source_of(scope)) as origin:

            async def numbered(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).setdefault(REQUEST_HEADER, origin.request)
                await send(message)

            await self._app(scope, receive, numbered)


class RateLimit:
    """Token buckets, one a key: ``burst`` at once, then ``rate`` a second.

    Args:
        rate: tokens that come back each second.
        burst: the most a bucket holds; a new key starts with it.
        clock: its ``monotonic`` counts.
        keys: how many buckets are kept. Beyond it the one not used for longest is forgotten, which is full again unless
            more than ``keys`` askers are active at once; then memory matters more than their limit.
    """

    def __init__(self, *, rate: float, burst: float, clock: Clock, keys: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._keys = keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key to (tokens, when)

    def _tokens(self, key: str, now: float) -> float:
        tokens, when = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + (now - when) * self._rate)

    def check(self, key: str) -> None:
        """Raise RateExceeded if ``key`` has no token; takes none."""
        tokens = self._tokens(key, self._clock.monotonic())
        if tokens < 1:
            raise RateExceeded((1 - tokens) / self._rate)

    def take(self, key: str) -> None:
        """Take a token of ``key``, or raise RateExceeded, which takes nothing."""
        self.check(key)
        now = self._clock.monotonic()
        self._buckets[key] = (self._tokens(key, now) - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
