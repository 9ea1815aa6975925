"""The browser that the tests here have: whom it is taken for, that it sleeps as laptops do, and that pages of it close."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self, cast

import pytest
from tests.support.desk import Desk
from tests.support.devtools import PageError, PlainChromium, Tab
from tests.support.server import Server
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedOK

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
async def desk() -> AsyncIterator[Desk]:
    async with Server(environ={"DOORWARD_TAILSCALED": "off"}) as server:
        await server.user("alice", "--role", "admin")
        yield Desk(server)


async def test_a_cookie_of_the_second_door_is_a_person_there_and_no_script_s(
    desk: Desk, browser: PlainChromium
) -> None:
    page = await desk.open(browser, "/me")
    await page.shows("alice")
    assert await page.run("document.cookie") == ""
    stranger = await browser.tab()
    await stranger.go(f"{desk.server.url}/me")  # by a name that is no door's
    await stranger.holds("location.pathname == '/me' && document.readyState == 'complete'")
    assert "alice" not in await stranger.text()
    assert desk.secret not in desk.server.log.read_text()
    assert (await desk.call("GET", "/users")).status_code == 200


async def test_a_browser_that_sleeps_answers_when_it_wakes(desk: Desk, browser: PlainChromium) -> None:
    page = await desk.open(browser, "/me")
    await page.shows("alice")
    browser.sleep()
    try:
        with pytest.raises(TimeoutError):
            await page.holds("true", within=0.5)
    finally:
        browser.wake()
    await page.shows("alice")


class _Closing:
    """A page's connection that closes while something is sent; whoever reads from it hears of that first."""

    def __init__(self) -> None:
        self.sending = asyncio.Event()
        self.closed = asyncio.Event()

    async def send(self, _text: str) -> None:
        self.sending.set()
        await self.closed.wait()
        raise ConnectionClosedOK(None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        raise StopAsyncIteration


async def test_a_page_that_closes_while_it_is_told_something_says_so_once() -> None:
    connection = _Closing()
    page = Tab(cast("ClientConnection", connection), "it")

    async def close() -> None:
        await connection.sending.wait()
        await page.read()
        connection.closed.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(close())
        with pytest.raises(PageError, match="the page is closed"):
            await page.ask("Page.handleJavaScriptDialog", accept=True)
    # What nobody has taken would come up here, and fail a test that is over.
    await asyncio.sleep(0)
