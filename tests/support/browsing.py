"""A browser without a screen before the real pages: cookies, forms, and passkeys from an authenticator in software."""

import html
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from tests.support.authenticator import Authenticator
from tests.support.corp import PROVIDER, Corp
from tests.support.world import World

from doorward.api.access import ALLOWED, Permission
from doorward.login.asking import Askings, Proven, Question
from doorward.login.doors import Doors
from doorward.login.entrance import Entrance
from doorward.login.invitations import Invitations
from doorward.login.me import Me
from doorward.login.providers import Providers
from doorward.login.sessions import Sessions
from doorward.model import Node, Role, User

DOOR = "https://door.tailnet.internal:8443"
LOCAL = "http://localhost:8080"


class House:
    """The pages of a tailnet, and people who come to them.

    ``/ask`` begins an asking for the act "knock", whose outcomes are in ``knocked``.
    """

    def __init__(self, world: World, door: str = DOOR) -> None:
        self.door = door
        self.world = world
        self.registry = world.registry
        self.doors = Doors(door, 8080)
        self.sessions = Sessions(self.registry, self.doors)
        self.askings = Askings(self.registry, self.sessions, self.doors, world.clock)
        writer = self.registry.writer
        self.invitations = Invitations(writer.database, world.clock, writer.entropy)
        self.corp = Corp(world.clock)
        self.knocked: list[Proven] = []
        self.asked: User | None = None  # who has to answer at /ask
        self.identity: Node | None = None  # the device that connections come from
        self.askings.acts["knock"] = self._knock
        self.routes: list[BaseRoute] = [
            *Entrance(self.askings, self.invitations, world.clock).routes(),
            *Me(self.askings, world.clock, lambda role: Permission.TOKENS in ALLOWED[role]).routes(),
            *Providers(self.askings, self.corp.upstream, world.clock).routes(),
            Route("/ask", self._ask, methods=["POST"]),
        ]

    async def _ask(self, request: Request) -> Response:
        question = Question("Is it you?", "Somebody knocks.")
        return await self.askings.begin(request, "knock", {"n": 1}, question, user=self.asked)

    async def _knock(self, request: Request, proven: Proven, argument: Any) -> Response:
        assert argument == {"n": 1}
        self.knocked.append(proven)
        return PlainTextResponse("come in")

    async def add_provider(self, **fields: Any) -> None:
        """From now on people may sign in at ``corp``."""
        await self.registry.outside.add("cli", msgspec.structs.replace(PROVIDER, **fields))

    def browser(self, origin: str = "") -> "Browser":
        app = Starlette(routes=self.routes)

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            stable_id = None if self.identity is None else self.identity.stable_id
            await app({**scope, "state": {"identity": stable_id, "listener": "door"}}, receive, send)

        return Browser(served, origin or self.door)

    async def resident(self, name: str, role: Role = Role.MEMBER) -> "Browser":
        """A browser in which a person has just taken an invitation and made a passkey."""
        user = self.registry.snapshot.user_by_name(name) or await self.registry.create_user(
            "cli", name, role=role
        )
        _, code = await self.invitations.invite("cli", user)
        browser = self.browser()
        await browser.take(code)
        return browser


class Browser:
    """One browser. ``page`` is what it shows."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], origin: str) -> None:
        self.origin = origin
        self.authenticator = Authenticator()
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app),
            base_url=origin,
            headers={"sec-fetch-site": "same-origin", "user-agent": "Mozilla/5.0 (Linux) Chrome/1 Safari/1"},
        )
        self.page: httpx2.Response

    async def get(self, path: str) -> httpx2.Response:
        self.page = await self.client.get(path)
        return self.page

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        self.page = await self.client.post(path, data=fields, headers={"content-type": FORM})
        return self.page

    async def follow(self) -> httpx2.Response:
        """Go where a redirect leads."""
        assert self.page.status_code == 303, self.page.text
        return await self.get(self.page.headers["location"])

    def field(self, name: str) -> str:
        found = re.search(rf'name="{name}" value="([^"]*)"', self.page.text)
        assert found, self.page.text
        return html.unescape(found[1])

    def options(self) -> dict[str, Any]:
        """What the page asks a passkey for."""
        found = re.search(r'data-options="([^"]*)"', self.page.text)
        assert found, self.page.text
        options: dict[str, Any] = json.loads(html.unescape(found[1]))
        return options

    async def prove(self, **fields: str) -> httpx2.Response:
        """Press the button for the passkey."""
        given = {"answer": self.authenticator.sign(self.options(), self.origin)}
        return await self.post("/signin/passkey", **({"asking": self.field("asking")} | given | fields))

    async def make(self, **fields: str) -> httpx2.Response:
        """Press the button that makes one."""
        given = {"answer": self.authenticator.make(self.options(), self.origin)}
        return await self.post("/signin/enrol", **({"asking": self.field("asking")} | given | fields))

    async def take(self, code: str, **fields: str) -> httpx2.Response:
        """Take an invitation to its end."""
        await self.post(f"/invite/{code}", **fields)
        return await self.make()

    async def leave(self, house: House, provider: str = "corp") -> dict[str, str]:
        """Go to a provider; what it was asked."""
        await self.post("/signin/provider", asking=self.field("asking"), provider=provider)
        assert self.page.status_code == 200, self.page.text
        url = self.page.headers["refresh"].removeprefix("0; url=")
        asked = dict(parse_qsl(urlsplit(url).query))
        house.corp.nonce = asked["nonce"]
        return asked

    async def come_back(self, asked: dict[str, str], **differently: str) -> httpx2.Response:
        """Come back from it."""
        query = {"code": "the code", "state": asked["state"], "iss": PROVIDER.issuer} | differently
        return await self.get(f"/signin/callback/corp?{urlencode(query)}")

    async def sign_in(self, path: str = "/me") -> httpx2.Response:
        await self.get(f"/signin?next={path}")
        return await self.prove()


FORM = "application/x-www-form-urlencoded"
