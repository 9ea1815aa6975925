"""The issuer before real pages, and an app that signs people in there and believes nothing that it has not checked."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
from tests.support.browsing import DOOR, Browser, House
from tests.support.world import World

from doorward.errors import DoorwardError
from doorward.issuer import Issuer
from doorward.issuer.fetch import Fetch, Rules
from doorward.issuer.tokens import read as read_token
from doorward.issuer.trust import Trust
from doorward.login.apps import Apps, Wanted
from doorward.login.idtoken import Expected, check_id_token, read_keys
from doorward.model import App, AuditEvent, Node
from doorward.store import audit
from doorward.transport.fetch import Answer, Fetcher

BACK = "https://grafana.example.com/login/generic_oauth"
PAGE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
VERIFIER = "a-verifier-of-43-characters-or-more-0123456789"


def challenge(verifier: str = VERIFIER) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class Office(House):
    """A house with an issuer in it."""

    def __init__(self, world: World, door: str = DOOR, numbers: Mapping[int, int] | None = None) -> None:
        super().__init__(world, door)
        self.apps = Apps(self.registry.writer.database, world.clock, self.registry.writer.entropy)
        self.published: dict[str, bytes | DoorwardError] = {}  # by address
        self.fetched: list[tuple[str, Rules]] = []  # addresses, and where they may lead
        self.posted: list[tuple[str, dict[str, str]]] = []  # forms, and where they were sent
        fetch = Fetch(self.registry, world.clock, open_fetcher=lambda rules: _Published(self, rules))
        self.issuer = Issuer(
            self.askings,
            world.clock,
            b"k" * 32,
            fetch=fetch,
            provider_keys=self.corp.upstream.keys,
            numbers=numbers,
        )
        self.routes.extend(self.issuer.routes())

    def rule(self, trust: Trust) -> None:
        """From now on the settings say this about apps that come by themselves."""
        self.issuer._desk.trust = trust

    def publish(self, url: str, **fields: Any) -> "Party":
        """An app that describes itself at an address; None takes a member away."""
        said = {
            "client_id": url,
            "client_name": "A tool",
            "redirect_uris": ["https://tool.example.com/back"],
            "token_endpoint_auth_method": "none",
        } | fields
        said = {name: value for name, value in said.items() if value is not None}
        self.published[url] = json.dumps(said).encode()
        app = App(
            id=0,
            name="",
            client_id=url,
            redirect_uris=tuple(said.get("redirect_uris", [BACK])),
            actor="",
            created=self.world.clock.now(),
        )
        return Party(self, app, "")

    async def app(self, name: str = "grafana", **fields: Any) -> "Party":
        """An app that signs people in."""
        wanted = {"redirect_uris": (BACK,)} | fields
        made, secret = await self.apps.create("cli", Wanted(name, **wanted))
        return Party(self, made, secret)

    async def person(self, name: str = "ann", number: int = 1, **fields: Any) -> Node:
        """Somebody with a device, at which connections come from now on."""
        if self.registry.snapshot.user_by_name(name) is None:
            await self.registry.create_user("cli", name, email=f"{name}@example.com")
        self.identity = await self.world.join(number, f"{name}-{number}", name, **fields)
        return self.identity

    async def told(self) -> list[tuple[str, dict[str, Any]]]:
        """What apps are told of logouts, as far as it is due: at which address, and what the token says, checked."""
        self.posted.clear()
        await self.issuer._backchannel.step()
        ring = await self.issuer._desk.keys.ring()
        assert all(form.keys() == {"logout_token"} for _, form in self.posted)
        return [(url, read_token(ring, form["logout_token"], "logout+jwt")) for url, form in self.posted]

    async def policy(self, text: str) -> None:
        await self.registry.set_policy("cli", text)

    async def audited(self, action: str) -> list[AuditEvent]:
        return [one for one in await self.registry.writer.database.read(audit.load) if one.action == action]


class _Published(Fetcher):
    """The fetcher, with what is published at its other end."""

    def __init__(self, office: Office, rules: Rules) -> None:
        self._office = office
        self._rules = rules

    async def close(self) -> None:
        pass

    async def request(
        self, method: str, url: str, *, limit: int, headers: Any = None, body: bytes | None = None
    ) -> Answer:
        assert 0 < limit <= 1 << 20
        self._office.fetched.append((url, self._rules))
        found = self._office.published[url]
        if isinstance(found, DoorwardError):
            raise found
        if method == "POST":
            assert headers["content-type"] == "application/x-www-form-urlencoded"
            self._office.posted.append((url, dict(parse_qsl((body or b"").decode(), keep_blank_values=True))))
        return Answer(200, {"content-type": "application/json"}, found)


@dataclass
class Party:
    """One app. ``answer`` is what it was last told by way of the browser, ``tokens`` what it has."""

    office: Office
    app: App
    secret: str
    answer: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)

    def browser(self) -> Browser:
        return self.office.browser()

    def url(self, **changes: str | None) -> str:
        """Where it sends a browser; None leaves a parameter out."""
        asked: dict[str, str | None] = {
            "client_id": self.app.client_id,
            "redirect_uri": self.app.redirect_uris[0],
            "response_type": "code",
            "scope": "openid profile email",
            "state": "the state",
            "nonce": "the nonce",
            "code_challenge": challenge(),
            "code_challenge_method": "S256",
        }
        given = {name: value for name, value in (asked | changes).items() if value is not None}
        return f"/authorize?{urlencode(given)}"

    async def send(
        self, browser: Browser | None = None, headers: dict[str, str] | None = None, **changes: str | None
    ) -> httpx2.Response:
        """Send a browser to the door; its page, or the redirect back."""
        browser = browser or self.browser()
        browser.page = await browser.client.get(
            self.url(**changes), headers=PAGE if headers is None else headers
        )
        self.heard(browser.page)
        return browser.page

    def heard(self, page: httpx2.Response) -> None:
        """Note what the app would learn from where this leads."""
        self.answer = {}
        target = page.headers.get("location") or page.headers.get("refresh", "").removeprefix("0; url=")
        if target and not target.startswith("/"):
            self.answer = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))

    async def press(self, browser: Browser, answer: str = "yes") -> httpx2.Response:
        """Press a button of the page that asks."""
        await browser.post("/authorize/answer", asking=browser.field("asking"), answer=answer)
        self.heard(browser.page)
        return browser.page

    async def prove(self, browser: Browser) -> httpx2.Response:
        """Show a passkey to the page that wants one."""
        await browser.prove()
        self.heard(browser.page)
        return browser.page

    async def post(self, path: str, *, how: str = "basic", dpop: str = "", **form: str) -> httpx2.Response:
        """Ask the server itself. ``how``: "basic", "post", "public" or "none". ``dpop``: a proof."""
        headers = {"dpop": dpop} if dpop else {}
        if how == "basic":
            raw = f"{self.app.client_id}:{self.secret}".encode()
            headers["authorization"] = f"Basic {base64.b64encode(raw).decode()}"
        elif how == "post":
            form |= {"client_id": self.app.client_id, "client_secret": self.secret}
        elif how == "public":
            form |= {"client_id": self.app.client_id}
        async with self.program() as client:
            return await client.post(path, data=form, headers=headers)

    def program(self) -> httpx2.AsyncClient:
        """A client without a browser's headers, whose connection says nothing."""
        client = self.browser().client
        client.headers.pop("sec-fetch-site")
        return client

    async def redeem(
        self,
        code: str | None = None,
        *,
        how: str = "",
        dpop: str = "",
        **changes: str,
    ) -> httpx2.Response:
        """Exchange the code; keeps the tokens."""
        form = {
            "grant_type": "authorization_code",
            "code": self.answer["code"] if code is None else code,
            "redirect_uri": self.app.redirect_uris[0],
            "code_verifier": VERIFIER,
        }
        how = how or ("public" if self.app.public else "basic")
        given = {name: value for name, value in (form | changes).items() if value}
        said = await self.post("/token", how=how, dpop=dpop, **given)
        if said.status_code == 200:
            self.tokens = said.json()
        return said

    async def refresh(self, token: str | None = None, *, dpop: str = "", **changes: str) -> httpx2.Response:
        """Exchange the refresh token; keeps the new tokens."""
        text = self.tokens["refresh_token"] if token is None else token
        how = "public" if self.app.public else "basic"
        form = {"grant_type": "refresh_token", "refresh_token": text} | changes
        said = await self.post("/token", how=how, dpop=dpop, **form)
        if said.status_code == 200:
            self.tokens = said.json()
        return said

    async def claims(self, nonce: str = "the nonce") -> dict[str, Any]:
        """What the ID token says, as a relying party checks it."""
        async with self.program() as client:
            keys = read_keys("doorward", (await client.get("/.well-known/jwks.json")).content)
        expected = Expected(
            provider="doorward",
            issuer=self.office.door,
            client_id=self.app.client_id,
            nonce=nonce,
            access_token=self.tokens["access_token"],
        )
        return check_id_token(self.tokens["id_token"], keys, expected, self.office.world.clock.now())

    async def userinfo(self, token: str | None = None) -> httpx2.Response:
        bearer = self.tokens["access_token"] if token is None else token
        async with self.program() as client:
            return await client.get("/userinfo", headers={"authorization": f"Bearer {bearer}"})

    async def end_session(
        self, browser: Browser | None = None, headers: dict[str, str] | None = None, **said: str
    ) -> httpx2.Response:
        """Send a browser to where people sign out; its page, or the redirect back."""
        browser = browser or self.browser()
        path = f"/end_session?{urlencode(said)}"
        browser.page = await browser.client.get(path, headers=PAGE if headers is None else headers)
        return browser.page

    async def sign_in(self, browser: Browser | None = None, **changes: str | None) -> dict[str, Any]:
        """All of it, silently; what the ID token says."""
        page = await self.send(browser, None, **changes)
        assert page.status_code == 303, page.text
        said = await self.redeem()
        assert said.status_code == 200, said.text
        return await self.claims(changes.get("nonce") or "the nonce")


def hidden_fields(page: httpx2.Response) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    return {name: html.unescape(value) for name, value in found}
