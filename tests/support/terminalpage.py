"""The terminal's page in a browser without a server: its real bundle, with answers of the API and a node that a test writes.

What a whole server does with it is seen in tests/interop; here each state of the page can be had at once, as often as a test likes.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from playwright.async_api import BrowserContext, Page, Route, async_playwright
from tests.support.chromium import SLOW, STARTS
from tests.support.programs import require

from doorward.console.bundle import Bundle
from doorward.console.pages import Title, page

ORIGIN = "https://door.test"
ENTRY = "web/src/terminal/page.tsx"
# As a person would have chosen it before: what they choose in a test stays.
_READER = """try { localStorage["doorward.terminal.prefs"] ??= '{"reader": true}'; } catch {}"""
_WORKER = Path(__file__).with_name("terminal_worker.js").read_text(encoding="utf-8")


def machine(number: int, name: str, *ways: tuple[str, bool], **more: Any) -> dict[str, Any]:
    """A machine as the API tells it; each way is an account and whether a check comes first."""
    return {
        "id": number,
        "name": name,
        "user": "alice",
        "tags": [],
        "addresses": [f"100.64.0.{number}", f"fd7a:115c:a1e0::{number}"],
        "os": "linux",
        "version": "1.102.4",
        "online": True,
        "last_seen": None,
        "expired": False,
        "yours": True,
        "system": False,
        "ssh": "tailscale",
        "ways": [
            {"account": account, "check": check, "rule": {"name": f"ssh[{at}]", "line": 10 + at}}
            for at, (account, check) in enumerate(ways)
        ],
        "any_account": False,
        "any_check": False,
        "why": "",
        **more,
    }


MACHINES = [
    machine(1, "web-1", ("deploy", False), ("root", True)),
    machine(2, "web-2", ("deploy", False)),
    machine(3, "db-1", ("postgres", True), tags=["tag:prod"]),
    machine(4, "nas", any_account=True, ssh="other"),
    machine(5, "runner-1", why="No rule names you or your groups for runner-1."),
    machine(6, "pi-1", ("pi", False), online=False),
]


class World:
    """What the page is told, and what it asked for."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.machines = list(MACHINES)
        self.asked: list[str] = []  # everything that the page loaded or called
        self.beacons: list[str] = []
        self.signed_in = True

    async def answer(self, route: Route) -> None:
        """Serve one request as the server would."""
        request = route.request
        at = urlsplit(request.url)
        self.asked.append(request.url)
        if f"{at.scheme}://{at.netloc}" != ORIGIN:
            await route.abort()
            return
        path = at.path
        if path.startswith("/terminal/"):
            await self._page(route, path)
        elif path.startswith("/assets/worker-"):
            await route.fulfill(body=_WORKER, content_type="text/javascript")
        elif path.startswith("/assets/"):
            asset = self.bundle.asset(path.removeprefix("/assets/"), frozenset())
            assert asset is not None, path
            await route.fulfill(body=asset.content, content_type=asset.kind)
        elif path == "/api/v1/console":
            await route.fulfill(json=_console(signed_in=self.signed_in))
        elif path == "/api/v1/console/machines":
            await route.fulfill(json={"machines": self.machines})
        elif path == "/api/v1/console/events":
            await route.fulfill(body=":\n\n", content_type="text/event-stream")
        elif path.endswith("/leave"):
            self.beacons.append(path)
            await route.fulfill(status=204)
        elif path == "/signin":
            await route.fulfill(body="<!doctype html><title>Sign in</title>", content_type="text/html")
        elif path.startswith("/check/"):
            await route.fulfill(
                body="<!doctype html><title>Check</title><h1>Is it you?</h1>", content_type="text/html"
            )
        else:
            await route.fulfill(status=204)

    async def _page(self, route: Route, path: str) -> None:
        name, _, account = path.removeprefix("/terminal/").partition("/")
        start = {
            "base": "/",
            "tailnet": "example.net",
            "version": "1.0",
            "machine": unquote(name),
            "secure": f"{ORIGIN}/",
        }
        if account:
            start["account"] = unquote(account)
        answer = page(
            Title(name, "example.net"),
            self.bundle.needs(ENTRY),
            base="/",
            bootstrap=start,
            sockets=["wss://door.test"],
        )
        headers = {key: value for key, value in answer.headers.items() if key != "content-length"}
        await route.fulfill(body=bytes(answer.body), headers=headers)


def _console(*, signed_in: bool) -> dict[str, Any]:
    user = {"id": 1, "name": "alice", "display_name": "Alice", "role": "owner"}
    counts = {"machines": 6, "online": 5, "ways": 4}
    return {
        "tailnet": "example.net",
        "version": "1.0",
        "user": user,
        "signed_in": signed_in,
        "method": "passkey:1",
        "proven": None,
        "device": "laptop",
        "counts": counts,
    }


@contextlib.asynccontextmanager
async def terminal_page(
    bundle: Bundle, *, dark: bool = False, phone: bool = False
) -> AsyncIterator[tuple[Page, World]]:
    """A browser whose every request the world answers; its first page, which is empty still."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(require("chromium")),
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            timeout=STARTS,
        )
        try:
            context: BrowserContext = await browser.new_context(
                color_scheme="dark" if dark else "light",
                viewport={"width": 390, "height": 844} if phone else {"width": 1440, "height": 900},
                has_touch=phone,
                permissions=["clipboard-read", "clipboard-write"],
            )
            context.set_default_timeout(SLOW)
            world = World(bundle)
            await context.route("**/*", world.answer)
            page = await context.new_page()
            # What a screen shows can be read then, by readers and by tests.
            await page.add_init_script(_READER)
            yield page, world
        finally:
            await browser.close()
