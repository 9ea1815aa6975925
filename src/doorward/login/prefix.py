"""The door under a path of its name: ``https://intranet.example.com/tailnet``.

::

    /tailnet/me        ──▶ Prefixed ──▶ /me           every page, the API and the issuer, as without a prefix
    /me                ──▶ 404: it is somebody else's  (a redirect for / itself)
    /derp, /ts2021, …  ──▶ unchanged: programs know these paths (``outside``)

The prefix is taken off once, here, so that no route and no page knows of it. What leads back to a page gets it again:
templates and scripts by ``at``, redirects (``Location``) here, and links for elsewhere by ``Place.base``. Only the door has
it: control's own address, doorward's socket and ``http://localhost:PORT`` are served without.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorward.errors import BadInput
from doorward.login.doors import Doors

# What is found by putting its name between the host and the path (RFC 8414 section 3, RFC 9728 section 3).
_WELL_KNOWN = "/.well-known/"
_BETWEEN = ("oauth-authorization-server", "oauth-protected-resource", "openid-configuration")

_prefix: ContextVar[str] = ContextVar("prefix", default="")


def at(path: str) -> str:
    """A path of ours (``/me``) as the browser that asks now has to write it (``/tailnet/me``)."""
    return _prefix.get() + path


class Prefixed:
    """ASGI middleware that takes the door's prefix off.

    Args:
        app: everything, with paths that know of no prefix.
        doors: where the door is. Without a prefix there nothing happens here.
        outside: what alone is served at the door's name outside the prefix.
    """

    def __init__(self, app: ASGIApp, *, doors: Doors, outside: ASGIApp) -> None:
        self._app = app
        self._doors = doors
        self._outside = outside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        prefix = self._doors.main.path
        if not prefix or scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        place = self._doors.named(Headers(scope=scope).get("host", ""))
        path = None if place is self._doors.local and place is not None else _within(scope["path"], prefix)
        if path is None:
            await self._without(scope, receive, send, at_door=place is self._doors.main)
            return
        token = _prefix.set(prefix)
        try:
            inner = {**scope, "path": path, "raw_path": quote(path).encode(), "root_path": prefix}
            await self._app(inner, receive, _leading_back(send, prefix))
        finally:
            _prefix.reset(token)

    async def _without(self, scope: Scope, receive: Receive, send: Send, *, at_door: bool) -> None:
        """A path outside the prefix: at the door's name it is somebody else's, unless programs know it."""
        if not at_door:
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/":
            # Whoever types the name alone inside the tailnet, where all of it is ours, wants the pages.
            await RedirectResponse(f"{self._doors.main.path}/", 307)(scope, receive, send)
        else:
            await self._outside(scope, receive, send)


def check_prefix(prefix: str, routes: Iterable[BaseRoute]) -> None:
    """Raise BadInput for a prefix that begins as one of our own paths does: which of both is meant, nobody could tell."""
    if not prefix:
        return
    first = prefix.split("/")[1]
    for route in routes:
        path = getattr(route, "path", "")
        if path.split("/")[1:2] == [first]:
            raise BadInput(
                f"the door cannot be under /{first}: doorward serves {path} itself",
                cure="Choose another path for `door`, such as /tailnet.",
                place="door",
            )


def not_here(doors: Doors) -> Route:
    """The last of the routes that are served outside the prefix: it says where the pages are."""

    async def endpoint(_: object) -> Response:
        return PlainTextResponse(f"doorward's pages are at {doors.main.base}\n", 404)

    return Route("/{rest:path}", endpoint, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


def _within(path: str, prefix: str) -> str | None:
    """The path behind the prefix; None for one that is elsewhere."""
    if path == prefix:
        return "/"
    if path.startswith(f"{prefix}/"):
        return path[len(prefix) :]
    for name in _BETWEEN:
        head = f"{_WELL_KNOWN}{name}"
        if path == head + prefix or path.startswith(f"{head}{prefix}/"):
            return head + path[len(head) + len(prefix) :]
    return None


def _leading_back(send: Send, prefix: str) -> Send:
    """Redirects to a path of ours get the prefix again. ``//host`` is no path (RFC 3986 section 4.2)."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            to = headers.get("location", "")
            if (
                to.startswith("/")
                and not to.startswith("//")
                and _within(to.partition("?")[0], prefix) is None
            ):
                headers["location"] = prefix + to
        await send(message)

    return sent
