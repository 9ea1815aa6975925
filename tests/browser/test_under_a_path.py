"""The door under a path, behind nginx, in a real browser: people make a passkey there, the console finds all that it is made
of, and a terminal gets through."""

import contextlib
import getpass
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Request, expect
from tests.interop.test_people import come_in, first_link
from tests.support.bundle import built
from tests.support.chromium import SLOW, chromium
from tests.support.clients import StockClient
from tests.support.proxies import Behind, standing, to_be_behind
from tests.support.waiting import eventually

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

expect.set_options(timeout=SLOW)

# What a screen shows can be read then.
_READER = """try { localStorage.setItem("doorward.terminal.prefs", '{"reader": true}'); } catch {}"""
_POLICY = """{
    "grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}],
    "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["ME"]}],
}"""


async def test_a_person_comes_in_looks_and_leaves_under_a_path(tmp_path: Path) -> None:
    built()
    async with to_be_behind(path="/tailnet", host="localhost") as proxied, standing("nginx", proxied):
        link = await first_link(proxied.server)
        assert link.startswith(f"{proxied.door}/invite/")
        certificate = (proxied.folder / "door.pem").read_bytes()
        async with chromium(proxied.server, tmp_path, trusting=certificate) as page:
            outside: list[str] = []
            wrong: list[str] = []

            def note(request: Request) -> None:
                parts = urlsplit(request.url)
                if parts.scheme != "data" and not request.url.startswith(f"{proxied.door}/"):
                    outside.append(request.url)

            page.on("request", note)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on(
                "console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None
            )
            await come_in(page, link, "alice")
            cookies = [one for one in await page.context.cookies() if "doorward" in one["name"]]
            assert {(one["name"], one["path"]) for one in cookies} == {("__Secure-doorward", "/tailnet")}
            # Without the slash, and by the redirects of both.
            await page.goto(proxied.door)
            await page.wait_for_url(f"{proxied.door}/machines")
            await expect(page.locator("main")).to_contain_text(f"--login-server {proxied.url}")
            await expect(page.get_by_role("contentinfo")).to_contain_text("Live")  # its events get through
            async with _machine(proxied):
                await page.add_init_script(_READER)
                await page.goto(f"{proxied.door}/terminal/server/{getpass.getuser()}")
                screen = page.locator(".xterm-accessibility-tree")
                await expect(screen).to_contain_text(re.compile(r"[$#%>]"), timeout=2 * SLOW)
                await expect(page.locator(".xterm-helper-textarea")).to_be_focused()
                await page.keyboard.type("echo by-the''-proxy\n")
                await expect(screen).to_contain_text("by-the-proxy")
            await page.goto(f"{proxied.door}/me")
            await page.click("text=Sign out here")
            await page.wait_for_url(f"{proxied.door}/signin")
            await page.goto(f"{proxied.door}/machines?q=x")
            assert page.url.startswith(f"{proxied.door}/signin?next=")
            await page.click("button.enter:enabled")
            await page.wait_for_url(lambda url: url == f"{proxied.door}/machines?q=x")
            assert wrong == []
            # The door without its slash, and the relay of the terminal: a WebSocket is no request of this kind.
            assert [url for url in outside if url.rstrip("/") != proxied.door] == []


@contextlib.asynccontextmanager
async def _machine(proxied: Behind) -> AsyncIterator[StockClient]:
    """A machine of alice's with SSH on, which has joined by the proxy."""
    server = proxied.server
    await server.set_policy(_POLICY.replace("ME", getpass.getuser()))
    async with StockClient("server", environ={"SSL_CERT_FILE": str(proxied.authority)}) as machine:
        await machine.up(proxied.url, await server.key("--user", "alice"), ssh=True)

        async def serves() -> bool:
            return any(
                one["name"] == "server" and one["online"] for one in await server.json("nodes", "list")
            )

        await eventually(serves, within=30)
        yield machine
