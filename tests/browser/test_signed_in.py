"""The browser that the tests here have: whom it is taken for, and that it sleeps as laptops do."""

from collections.abc import AsyncIterator

import pytest
from tests.support.desk import Desk
from tests.support.devtools import PlainChromium
from tests.support.server import Server

pytestmark = pytest.mark.interop


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
    await stranger.holds("document.readyState == 'complete'")
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
