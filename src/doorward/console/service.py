"""Who gets which page, and the files that the pages load.

=================================  ==============================================================================
``GET /``                          on to ``/machines``, as is ``/terminal`` without a machine
``GET /machines``                  the tailnet's machines, and each person's way into them
``GET /terminal/MACHINE``          a terminal on it; ``/terminal/MACHINE/ACCOUNT`` as that account
``GET /assets/NAME``               a script, style or font; never changes
=================================  ==============================================================================

Whoever is not known goes to sign in, and comes back with what they asked for; whoever is suspended is told so. A device in the tailnet
is enough to look; a terminal is opened by somebody who has signed in.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from doorward import __version__
from doorward.api import console_types as types
from doorward.api.console import console_of
from doorward.api.context import Browser
from doorward.api.feeds import Feeds
from doorward.api.tabs import origins
from doorward.console.bundle import BundleMissing, Bundles
from doorward.console.pages import SCHEME_COOKIE, Title, page
from doorward.login.asking import Askings, as_page
from doorward.login.doors import Place
from doorward.login.pages import Door, refusal
from doorward.login.prefix import at
from doorward.login.sessions import AccountSuspended, Visitor

MACHINES = "web/src/console/page.tsx"
TERMINAL = "web/src/terminal/page.tsx"
FIRST = 60  # machines that the page has in it: more than a screen of them


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a page starts with."""

    base: str  # the path of the console, ending in a slash
    tailnet: str
    version: str
    # of the machines
    control: str | None = None  # where they join
    you: types.Console | None = None
    machines: tuple[types.Machine, ...] | None = None  # the first
    # of a terminal
    machine: str | None = None
    number: int | None = None  # of the machine, where there is one that the person sees
    account: str | None = None  # None: the person chooses
    secure: str | None = None  # where the console has https, ending in a slash; None where it has not


class Console:
    """The pages.

    Args:
        askings: who is asking, and where people come in.
        feeds: what a person sees.
        bundles: what the pages are made of.
    """

    def __init__(
        self,
        askings: Askings,
        feeds: Feeds,
        bundles: Bundles | None = None,
    ) -> None:
        self._askings = askings
        self._feeds = feeds
        self._registry = askings.registry
        self._bundles = bundles or Bundles()

    def routes(self) -> list[Route]:
        """Where they are."""
        table = (
            ("/", self._first),
            ("/terminal", self._first),
            ("/machines", self._machines),
            ("/terminal/{machine}", self._terminal),
            ("/terminal/{machine}/{account}", self._terminal),
        )
        return [
            *(Route(path, as_page(self._registry, endpoint), methods=["GET"]) for path, endpoint in table),
            Route("/assets/{name}", self._asset, methods=["GET"]),
        ]

    async def _first(self, request: Request) -> Response:
        self._askings.doors.require(request)
        return _go("/machines")

    async def _machines(self, request: Request) -> Response:
        place = self._askings.doors.require(request)
        visitor = await self._askings.sessions.visitor(request)
        user = visitor.user
        if user is None:
            return self._outside(request, visitor)
        board = self._feeds.board(user.id)
        await board.refresh()
        who = Browser(user, place, visitor.signed_in, visitor.node)
        snapshot = self._registry.snapshot
        return self._page(
            request,
            place,
            MACHINES,
            "Machines",
            control=snapshot.settings.url,
            you=console_of(snapshot, who, board),
            machines=board.whole()[:FIRST],
        )

    async def _terminal(self, request: Request) -> Response:
        place = self._askings.doors.require(request)
        visitor = await self._askings.sessions.visitor(request)
        if visitor.user is None or visitor.signed_in is None:
            return self._outside(request, visitor)
        machine = request.path_params["machine"]
        snapshot = self._registry.snapshot
        node = snapshot.node_by_name(machine.lower())
        seen = node is not None and self._feeds.sees(visitor.user.id, node)
        main = self._askings.doors.main
        return self._page(
            request,
            place,
            TERMINAL,
            machine,
            sockets=sorted(origins(snapshot)),
            machine=machine,
            number=node.id if node is not None and seen else None,
            account=request.path_params.get("account"),
            secure=f"{main.base}/" if main.secure else None,
        )

    def _outside(self, request: Request, visitor: Visitor) -> Response:
        """Where who is not signed in goes on. Whoever is suspended is told so here: signing in again would say it only at its end."""
        if visitor.user is not None or not isinstance(visitor.refusal, AccountSuspended):
            return _sign_in(request)
        settings, error = self._registry.snapshot.settings, visitor.refusal
        return refusal(
            error,
            tailnet=settings.display_name or settings.domain,
            door=Door.BARRED,
            why="Until that ends, nothing of the tailnet may be used from here, and signing in again does not help.",
            steps=(error.cure, f"Who is somebody else signs in at `{at('/signin')}`."),
        )

    def _page(
        self,
        request: Request,
        place: Place,
        entry: str,
        title: str,
        *,
        sockets: Iterable[str] = (),
        **start: Any,
    ) -> Response:
        base, settings = at("/"), self._registry.snapshot.settings
        tailnet = settings.display_name or settings.domain
        return page(
            Title(title, tailnet),
            self._bundles.current().needs(entry),
            base=base,
            bootstrap=Start(base=base, tailnet=tailnet, version=__version__, **start),
            sockets=(_socket_origin(place), *sockets),
            scheme=request.cookies.get(SCHEME_COOKIE, ""),
            plain="<h1>This page needs scripts</h1>\n<p>They come from this server alone. "
            "Without them there is the <code>doorward</code> command.</p>",
        )

    async def _asset(self, request: Request) -> Response:
        headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
        accepted = _codings(request.headers.get("accept-encoding", ""))
        try:
            asset = self._bundles.current().asset(request.path_params["name"], accepted)
        except BundleMissing as error:
            return Response(f"{error.sentence()}\n", error.status, headers, "text/plain")
        if asset is None:
            return Response("There is no such file.\n", 404, headers, "text/plain")
        if asset.coding:
            headers["Content-Encoding"] = asset.coding
        # An address with this hash in it can never mean anything else.
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return Response(asset.content, headers=headers, media_type=asset.kind)


def _go(path: str) -> Response:
    return RedirectResponse(path, 303, {"Cache-Control": "no-store"})


def _sign_in(request: Request) -> Response:
    """To sign in, and back to what was asked for with all of its query."""
    query = request.scope.get("query_string", b"").decode("latin-1")
    wanted = quote(str(request.scope["path"])) + (f"?{query}" if query else "")
    return _go(f"/signin?next={quote(wanted, safe='/')}")


def _socket_origin(place: Place) -> str:
    """The door's origin as a WebSocket's: not every browser takes ``'self'`` for that."""
    return "ws" + place.origin.removeprefix("http")


def _codings(header: str) -> frozenset[str]:
    """The codings that an Accept-Encoding header names and does not refuse (RFC 9110 section 12.5.3)."""
    found = set()
    for part in header.split(","):
        name, _, weight = part.partition(";")
        if weight.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
            found.add(name.strip().lower())
    return frozenset(found)
