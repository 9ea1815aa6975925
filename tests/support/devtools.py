"""Debian's Chromium, plainly started, and as much of its devtools protocol as it takes to open pages, type and look.

Playwright has every frame of a WebSocket sent to it, which halves what a page that lives on one can do. Nothing is enabled
here that the browser would not do for a person, so what is measured is the page; and the browser's process can be stopped
and continued, as a laptop that sleeps.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
from tests.support.programs import require
from tests.support.waiting import eventually
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from doorward.engine.processes import stop, tied_to_us

LATE = 60  # seconds in which a browser has done something on a busy machine

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--remote-debugging-port=0",
    "--window-size=1280,800",
)


class PageError(Exception):
    """A script threw in the page."""


class RefusedError(PageError):
    """The browser refused a call."""


class Tab:
    """One page."""

    def __init__(self, connection: ClientConnection, target: str) -> None:
        self.target = target
        self._connection = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> None:
        """Take in answers until the page is closed; for a task of its own."""
        try:
            with contextlib.suppress(ConnectionClosed):
                async for text in self._connection:
                    said = json.loads(text)
                    waiting = self._waiting.pop(said.get("id", 0), None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(said)
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result({})  # no error: whoever asked may have gone, and nobody would take it

    async def ask(self, method: str, within: float = LATE, /, **parameters: Any) -> dict[str, Any]:
        """One call of the devtools protocol. Raises PageError where it is refused, and TimeoutError where nobody answers."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within):
                await self._connection.send(
                    json.dumps({"id": number, "method": method, "params": parameters})
                )
                said = await self._waiting[number]
        except ConnectionClosed as error:
            raise PageError("the page is closed") from error
        finally:
            self._waiting.pop(number, None)
        if not said:
            raise PageError("the page is closed")
        if "error" in said:
            raise RefusedError(f"{method}: {said['error']}")
        result: dict[str, Any] = said["result"]
        return result

    async def run(self, script: str, within: float = LATE) -> Any:
        """What an expression is in the page; a promise is waited for. Raises PageError with what it threw."""
        result = await self.ask(
            "Runtime.evaluate",
            within,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    async def go(self, url: str) -> None:
        """Open an address; returns when the page begins. Raises PageError where there is none."""
        result = await self.ask("Page.navigate", url=url)
        if result.get("errorText"):
            raise PageError(f"{url.partition('?')[0]}: {result['errorText']}")

    async def holds(self, script: str, within: float = LATE) -> Any:
        """Wait in the page until an expression is true there; what it then is. Raises TimeoutError, with the page's text."""
        found: list[Any] = []

        async def is_true() -> bool:
            with contextlib.suppress(PageError):  # the page may be on its way to another
                found[:] = [await self.run(script)]
            return bool(found and found[0])

        try:
            await eventually(is_true, within)
        except TimeoutError:
            page = "nothing"
            with contextlib.suppress(TimeoutError, PageError):
                async with asyncio.timeout(2):
                    page = await self.text()
            raise TimeoutError(f"never true: {script}\nthe page says: {page}") from None
        return found[0]

    async def text(self) -> str:
        """What the page says, as a person reads it."""
        return str(await self.run("document.body?.innerText ?? ''"))

    async def shows(self, text: str, within: float = LATE) -> None:
        """Wait until the page says something."""
        await self.holds(f"document.body.innerText.includes({json.dumps(text)})", within)

    async def picture(self, file: Path) -> None:
        """What is on the screen, as PNG."""
        shot = await self.ask("Page.captureScreenshot")
        file.write_bytes(base64.b64decode(shot["data"]))  # noqa: ASYNC240 - a small file, in a test

    async def close(self) -> None:
        """Close it, as a person does, who says yes where the page asks whether that is meant."""
        with contextlib.suppress(PageError, TimeoutError):
            await self.ask("Page.enable", 5)
            await self.ask("Page.close", 5)
            while True:  # until the page is no more, which ends it by an error
                with contextlib.suppress(RefusedError):
                    await self.ask("Page.handleJavaScriptDialog", 5, accept=True)
                await asyncio.sleep(0.05)


class PlainChromium:
    """A browser that runs."""

    def __init__(self, pid: int, address: str, group: asyncio.TaskGroup) -> None:
        self.pid = pid
        self._address = address
        self._group = group
        self._stack = contextlib.AsyncExitStack()
        self._stopped: set[int] = set()

    async def tab(self) -> Tab:
        """A new page, in front."""
        async with httpx2.AsyncClient(trust_env=False, timeout=LATE) as client:
            made = (await client.put(f"{self._address}/json/new?about:blank")).json()
        connection = await self._stack.enter_async_context(
            connect(made["webSocketDebuggerUrl"], max_size=None, ping_interval=None, proxy=None)
        )
        tab = Tab(connection, made["id"])
        self._group.create_task(tab.read())
        return tab

    async def cookie(self, tab: Tab, url: str, name: str, value: str) -> None:
        """Give it a cookie of the page at an address, as a sign-in there would have."""
        secure = url.startswith("https:")
        await tab.ask("Network.setCookie", url=url, name=name, value=value, httpOnly=True, secure=secure)

    def sleep(self) -> None:
        """Stop all of it where it is, as the lid of a laptop does."""
        # Until nobody is left who could have started another meanwhile.
        while fresh := set(self._all()) - self._stopped:
            self._stopped |= fresh
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def memory(self) -> int:
        """Bytes that all of it takes; what its processes share counts once."""
        found = 0
        for pid in self._all():
            with contextlib.suppress(OSError):
                rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
                found += sum(int(row.split()[1]) * 1024 for row in rows if row.startswith("Pss:"))
        return found

    def _all(self) -> list[int]:
        """Its processes."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found.extend(map(int, task.read_text(encoding="ascii").split()))
        return found

    async def close(self) -> None:
        """Let go of its pages."""
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def plain_chromium(folder: Path, options: Sequence[str] = ()) -> AsyncIterator[PlainChromium]:
    """Start it with a profile of its own in ``folder``, and end it with the block."""
    said = folder / "DevToolsActivePort"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([str(require("chromium")), *_OPTIONS, f"--user-data-dir={folder}", *options]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:

        async def is_up() -> bool:
            assert process.returncode is None, f"Chromium ended:\n{(folder / 'log').read_text()[-2000:]}"
            return said.exists() and "\n" in said.read_text(encoding="ascii")

        await eventually(is_up, LATE)
        port = said.read_text(encoding="ascii").split("\n")[0]
        async with asyncio.TaskGroup() as group:
            browser = PlainChromium(process.pid, f"http://127.0.0.1:{port}", group)
            try:
                yield browser
            finally:
                browser.wake()
                await browser.close()
    finally:
        await stop(process, 5)
