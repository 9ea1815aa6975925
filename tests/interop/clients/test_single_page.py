"""An app without a server of its own, in Chromium: everything that it asks the issuer goes from page to door (CORS)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Request
from tests.support.chromium import chromium
from tests.support.house import House
from tests.support.npm import installed
from tests.support.relying import WEB
from tests.support.server import free_port

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(180),
    pytest.mark.client("oidc-client-ts", "npm:web"),
]


@contextlib.asynccontextmanager
async def serving(settings: Mapping[str, Any], port: int = 0) -> AsyncIterator[str]:
    """The app's files at an address of the person's own machine."""
    packages = await asyncio.to_thread(installed, WEB)
    library = packages / "node_modules" / "oidc-client-ts" / "dist" / "browser" / "oidc-client-ts.min.js"
    scripts, page = library.read_bytes(), (WEB / "spa.html").read_bytes()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().partition("?")[0]
            kind, body = {
                "/oidc.js": ("text/javascript", scripts),
                "/settings.json": ("application/json", json.dumps(settings).encode()),
            }.get(path, ("text/html", page))
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def make(house: House, name: str, *options: str, **more: Any) -> dict[str, Any]:
    """An app, and what the page has to know."""
    app = await house.app(name, "--redirect", "http://127.0.0.1/cb", "--public", *options)
    return {"authority": app.issuer, "client_id": app.client_id, "loadUserInfo": True, **more}


async def attempt(page: Page, what: str, *given: Any) -> dict[str, Any]:
    """Have the library do something; what came of it, or ``failed``."""
    found = await page.evaluate("([what, given]) => attempt(what, ...given)", [what, list(given)])
    return dict(found or {})


async def open_app(page: Page, address: str) -> None:
    await page.goto(address)
    await page.wait_for_selector("body[data-ready]")


async def sign_in(page: Page) -> None:
    """Have the library go to the door; what waits for the next page sees it."""
    await page.evaluate("void setTimeout(() => manager.signinRedirect())")


@pytest.mark.proves("silent", "click", "deny", "pkce", "refresh", "replay")
async def test_a_page_signs_in_by_itself(house: House, tmp_path: Path) -> None:
    settings = await make(house, "page")
    async with serving(settings) as address, chromium(house.server, tmp_path, through=house.laptop) as page:
        await open_app(page, address)
        await sign_in(page)
        await page.click("button.no")
        await page.wait_for_selector("text=refused: access_denied")
        await open_app(page, address)
        await sign_in(page)
        await page.click("text=Yes, sign in")
        await page.wait_for_selector("text=signed in as alice, by Bearer")
        # The second time nobody is asked.
        await open_app(page, address)
        await sign_in(page)
        await page.wait_for_selector("text=signed in as alice, by Bearer")
        first = await attempt(page, "getUser")
        renewed = await attempt(page, "signinSilent")
        assert renewed["refresh_token"] != first["refresh_token"]
        assert renewed["profile"]["sub"] == first["profile"]["sub"]
        # What was used once is worth nothing, and ends what came of it.
        await page.evaluate("(before) => manager.storeUser(new oidc.User(before))", first)
        assert (await attempt(page, "signinSilent"))["failed"] == "invalid_grant"
        await page.evaluate("(after) => manager.storeUser(new oidc.User(after))", renewed)
        assert (await attempt(page, "signinSilent"))["failed"] == "invalid_grant"


@pytest.mark.proves("refresh", "more")
async def test_a_page_whose_tokens_are_bound_to_a_key(house: House, tmp_path: Path) -> None:
    settings = await make(house, "page-bound", bound=True, loadUserInfo=False)
    async with serving(settings) as address, chromium(house.server, tmp_path, through=house.laptop) as page:
        shown: list[str] = []
        page.on("request", lambda request: shown.append(f"{request.method} {request.url}: {_shown(request)}"))
        await open_app(page, address)
        await sign_in(page)
        await page.click("text=Yes, sign in")
        await page.wait_for_selector("text=, by DPoP")
        assert "failed" not in await attempt(page, "signinSilent")
        # This version shows a bound token to userinfo as a plain one, without a proof; so it is refused there.
        settings["loadUserInfo"] = True
        await open_app(page, address)
        await sign_in(page)
        await page.wait_for_selector("text=refused: invalid_token")
        assert [one for one in shown if "/userinfo" in one] == [
            f"GET {house.issuer}/userinfo: Bearer, no proof"
        ]


def _shown(request: Request) -> str:
    scheme = request.headers.get("authorization", "nothing").partition(" ")[0]
    return f"{scheme}, {'a' if 'dpop' in request.headers else 'no'} proof"


@pytest.mark.proves("more")
async def test_a_page_gives_back_what_it_has(house: House, tmp_path: Path) -> None:
    settings = await make(house, "page-gives-back")
    async with serving(settings) as address, chromium(house.server, tmp_path, through=house.laptop) as page:
        await open_app(page, address)
        await sign_in(page)
        await page.click("text=Only this time")
        await page.wait_for_selector("text=signed in as alice")
        had = await attempt(page, "getUser")
        assert await attempt(page, "revokeTokens") == {}
        await page.evaluate("(had) => manager.storeUser(new oidc.User(had))", had)
        assert (await attempt(page, "signinSilent"))["failed"] == "invalid_grant"


@pytest.mark.proves("logout")
async def test_a_page_signs_its_person_out(house: House, tmp_path: Path) -> None:
    port = free_port()
    out = f"http://127.0.0.1:{port}/out"
    settings = await make(house, "page-leaves", "--signed-out", out)
    async with (
        serving(settings, port) as address,
        chromium(house.server, tmp_path, through=house.laptop) as page,
    ):
        await open_app(page, address)
        await sign_in(page)
        await page.click("text=Yes, sign in")
        await page.wait_for_selector("text=signed in as alice")
        had = await attempt(page, "getUser")
        leaving = {"post_logout_redirect_uri": out, "id_token_hint": had["id_token"]}
        await page.evaluate("(said) => void setTimeout(() => manager.signoutRedirect(said))", leaving)
        await page.wait_for_url(f"{out}**")
        await page.wait_for_selector("body[data-ready]")
        assert await attempt(page, "getUser") == {}
        # It has agreed to this app before, and is asked all the same: they have signed out.
        await sign_in(page)
        await page.click("text=Yes, sign in")
        await page.wait_for_selector("text=signed in as alice")
