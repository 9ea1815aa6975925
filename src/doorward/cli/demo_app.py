"""The demo's app: a notice board on the machine ``server`` that knows who opens it, and was never told about tailnets.

::

    browser on laptop ──▶ https://server...:PORT/ ──▶ the door's /authorize ──▶ /cb ──▶ the board, with a name on it

It signs people in with Authlib, as that library's guide has it, and speaks plain OpenID Connect. It trusts doorward's own authority
for the door, has its certificate from there, and asks the door for tokens through the tailnet.
"""

import asyncio
import base64
import contextlib
import hashlib
import html
import importlib.util
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from doorward.clock import SystemClock
from doorward.errors import Unavailable
from doorward.transport.listener import ListenerSpec, serve

NAME = "board"
SCOPES = "openid profile"
_COOKIE = "__Host-board"
_MOST = 100  # visitors that are remembered; it is a demo
# What a browser says of a page that somebody opens (Fetch Metadata): without it nobody is signed in silently.
BROWSER = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the app is, and how it reaches the door.

    Attributes:
        url: its own address, without a slash at the end.
        proxy: of the machine that it runs on: its way into the tailnet.
        authority: the file with the certificate of doorward's own authority.
    """

    url: str
    proxy: str
    authority: Path

    @property
    def callback(self) -> str:
        """Where the door sends people back to."""
        return f"{self.url}/cb"

    def trust(self) -> ssl.SSLContext:
        """TLS that trusts doorward's own authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.authority))

    def client(self) -> dict[str, Any]:
        """How its HTTP client reaches the door."""
        return {"verify": self.trust(), "proxy": self.proxy, "trust_env": False}


def pin(file: Path) -> str:
    """What Chromium calls the key of a certificate, to trust this one alone: SHA-256 of it, in base64."""
    leaf = x509.load_pem_x509_certificate(file.read_bytes())
    public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


def available() -> bool:
    """True where Authlib is, which doorward itself has no use for."""
    return importlib.util.find_spec("authlib") is not None


class Board:
    """The app.

    Args:
        callback: where the door sends people back to.
        issuer: who signs people in.
        client_id: what it is called there.
        secret: how it shows that it is.
        client: for its HTTP client, which talks to the door.
    """

    def __init__(
        self, callback: str, *, issuer: str, client_id: str, secret: str, client: dict[str, Any]
    ) -> None:
        from authlib.integrations.starlette_client import OAuth  # type: ignore[import-untyped]  # noqa: PLC0415 - it may not be here

        self._callback = callback
        self._visitors: dict[str, dict[str, Any]] = {}
        self._door = OAuth().register(
            NAME,
            client_id=client_id,
            client_secret=secret,
            server_metadata_url=f"{issuer}/.well-known/openid-configuration",
            client_kwargs={"scope": SCOPES, "code_challenge_method": "S256"} | client,
        )
        routes = [Route("/", self._show), Route("/cb", self._signed_in)]
        self.asgi = Starlette(routes=routes)

    async def _show(self, request: Request) -> Response:
        session = self._session(request)
        if "person" in session:
            return _page(session["person"])
        # Whoever is not known is sent to the door at once: there is no button to press.
        response: Response = await self._door.authorize_redirect(request, self._callback)
        if request.cookies.get(_COOKIE, "") not in self._visitors:
            self._keep(response, session)
        return response

    async def _signed_in(self, request: Request) -> Response:
        from authlib.integrations.starlette_client import OAuthError  # noqa: PLC0415 - as above

        session = self._session(request)
        try:
            token = await self._door.authorize_access_token(request)
        except OAuthError as error:
            return _refused(f"{error.error}: {error.description}")
        told = await self._door.userinfo(token=token)
        # Another name for the session from now on: whoever knew the one before does not come in with it.
        self._visitors.pop(request.cookies.get(_COOKIE, ""), None)
        session.clear()
        session["person"] = dict(told) | {"acr": token["userinfo"].get("acr", "")}
        response = RedirectResponse("/", 303)
        self._keep(response, session)
        return response

    def _session(self, request: Request) -> dict[str, Any]:
        """Who it is; Authlib keeps there what it has to know when they come back."""
        found = self._visitors.get(request.cookies.get(_COOKIE, ""))
        session: dict[str, Any] = {} if found is None else found
        request.scope["session"] = session
        return session

    def _keep(self, response: Response, session: dict[str, Any]) -> None:
        while len(self._visitors) >= _MOST:
            del self._visitors[next(iter(self._visitors))]
        key = secrets.token_urlsafe()
        self._visitors[key] = session
        # Lax: it has to come along when the door sends somebody back.
        response.set_cookie(_COOKIE, key, secure=True, httponly=True, samesite="lax", path="/")


@contextlib.asynccontextmanager
async def serving(board: Board, listening: socket.socket, context: ssl.SSLContext) -> AsyncIterator[None]:
    """Serve it on a socket that is bound, until the end of the block."""
    stop, ready = asyncio.Event(), asyncio.Event()
    spec = ListenerSpec(name=NAME, sockets=[listening], ssl_context=context)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve([spec], board.asgi, {}, clock=SystemClock(), stop=stop, ready=ready))
        await ready.wait()
        try:
            yield
        finally:
            stop.set()


async def visit(place: Place, proxy: str) -> str:
    """Open the app as a browser on the machine with this proxy would; the name that it then knows.

    Raises Unavailable where it cannot be reached, or anything but a redirect comes first: a page that wants to be answered.
    """
    kept = place.client() | {"proxy": proxy}
    async with httpx2.AsyncClient(headers=BROWSER, follow_redirects=True, **kept) as client:
        try:
            page = await client.get(f"{place.url}/")
        except httpx2.HTTPError as error:
            raise Unavailable(f"the board cannot be opened: {error!r}") from None
    steps = [one.url.path for one in page.history]
    name = page.headers.get("x-board-knows", "")
    if steps != ["/", "/authorize", "/cb"] or not name:
        raise Unavailable(
            f"the board does not know who opens it: it came by {' '.join(steps)} to a page at {page.url.host}"
        )
    return str(name)


def _page(person: dict[str, Any]) -> Response:
    name = str(person.get("name", ""))
    rows = {
        "Your name": name,
        "Known here as": str(person.get("sub", "")),
        "By": str(person.get("acr", "")).rpartition(":")[2],
    }
    listed = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in rows.items()
    )
    silent = str(person.get("acr", "")).endswith(":network")
    how = (
        "Nothing was typed and nothing was clicked. This board asked the door, and the door knew your device by its connection."
        if silent
        else "You showed the door who you are, and this board asked there."
    )
    text = f"<h1>Hello, {html.escape(name)}</h1><p>{how}</p><dl>{listed}</dl>"
    return _html(f"Hello, {name}", text, {"X-Board-Knows": name.encode("ascii", "replace").decode()})


def _refused(why: str) -> Response:
    return _html("Not signed in", f"<h1>Not signed in</h1><p>{html.escape(why)}</p>", {}, status=403)


def _html(title: str, text: str, headers: dict[str, str], *, status: int = 200) -> Response:
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    shown = _TEMPLATE.replace("{title}", html.escape(title)).replace("{text}", text)
    kept = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(shown, status, kept | headers)


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --paper: #faf6ec; --ink: #2c2416; --soft: #6b5d45; --card: #fffdf7; --pin: #a8402c }
@media (prefers-color-scheme: dark) {
:root { --paper: #201b13; --ink: #f0e8d8; --soft: #b9ab91; --card: #2b251b; --pin: #e08a70 } }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
font: 1.0625rem/1.6 system-ui, sans-serif }
main { box-sizing: border-box; width: min(34rem, calc(100% - 2rem)); padding: 2rem; background: var(--card);
border-top: .375rem solid var(--pin); border-radius: .25rem; box-shadow: 0 1px 12px rgb(0 0 0 / 15%) }
h1 { margin: 0 0 .75rem; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1.25rem; margin: 1.5rem 0 0 }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
</style>
</head>
<body><main>{text}</main></body>
</html>
"""
