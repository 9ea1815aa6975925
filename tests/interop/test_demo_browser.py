"""The demo's app in a real browser, by the very line that the demo shows: on the laptop it knows who opens it, and nothing asks."""

import contextlib
import os
import re
import shlex
import signal
from pathlib import Path

import pytest
from playwright.async_api import Page, Response, async_playwright, expect
from tests.cli.test_demo import _left, _shown, folder
from tests.support.chromium import SLOW, STARTS, fits, is_for_everybody
from tests.support.openssh import run
from tests.support.programs import require, require_client
from tests.support.waiting import eventually, until

from doorward.cli.demo_console import link_in

pytestmark = pytest.mark.interop

__all__ = ["folder"]  # the fixture

SHOTS = os.environ.get("DOORWARD_SHOTS", "")  # a folder: what was on the screen, to be looked at


async def _look(page: Page, name: str) -> None:
    """In each of the ways that people look at it."""
    await is_for_everybody(page)
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for size, width in (("", 1280), ("-phone", 390)):
            await page.set_viewport_size({"width": width, "height": 800})
            await fits(page, name, width)
            if SHOTS:
                await page.screenshot(path=f"{SHOTS}/{name}-{scheme}{size}.png", full_page=True)


@pytest.mark.timeout(180)
async def test_on_the_laptop_the_app_knows_who_opens_it(folder: Path) -> None:
    require_client()
    require("ssh")
    chromium = require("chromium")
    with _shown(folder) as shown:
        (line,) = (line for line in shown.screen.splitlines() if "--proxy-server=" in line)
        program, *options, url = shlex.split(line)
        assert Path(program).name == "chromium"
        profile = next(one for one in options if one.startswith("--user-data-dir=")).partition("=")[2]
        options = [one for one in options if not one.startswith("--user-data-dir=")]
        async with async_playwright() as playwright:
            context = await playwright.chromium.launch_persistent_context(
                profile, executable_path=str(chromium), args=["--no-sandbox", *options], timeout=STARTS
            )
            try:
                context.set_default_timeout(SLOW)
                page, seen = context.pages[0], list[Response]()
                page.on(
                    "response", lambda one: seen.append(one) if one.request.is_navigation_request() else None
                )
                await page.goto(url)
                # Nobody has pressed anything: the app, the door, the app, and there they are.
                assert re.fullmatch(r"Hello, \S+", await page.inner_text("h1"))
                assert "network" in await page.inner_text("dl")
                steps = [
                    (re.sub(r"^https://(\w+)\..*?(/\w*)(\?.*)?$", r"\1\2", one.url), one.status)
                    for one in seen
                ]
                assert steps == [
                    ("server/", 302),
                    ("door/authorize", 303),
                    ("server/cb", 303),
                    ("server/", 200),
                ]
                await _look(page, "demo-board")
            finally:
                await context.close()
        # What of the browser takes a moment to go is not the demo's.
        await until(lambda: not any("--user-data-dir=" in one for one in _left(folder)))
        (curl,) = (line for line in shown.screen.splitlines() if line.strip().startswith("curl "))
        told = await run(shlex.split(curl), within=30)
        assert "<h1>Hello, " in told.stdout
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(20) == 0
    assert _left(folder) == []


@pytest.mark.timeout(240)
async def test_two_clicks_after_the_demo_has_started_there_is_a_shell(folder: Path) -> None:
    require_client()
    require("ssh")
    chromium = require("chromium")
    with _shown(folder) as shown:
        (line,) = (line for line in shown.screen.splitlines() if "opens the console" in line)
        link = link_in(Path(line.rpartition(" ")[2]))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=str(chromium), args=["--no-sandbox"], timeout=STARTS
            )
            try:
                page = await browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(SLOW)
                # For those who hear the terminal, its text is in the page.
                await page.add_init_script(
                    """try { localStorage.setItem("doorward.terminal.prefs", '{"reader": true}') } catch {}"""
                )
                await page.goto(link)
                await _look(page, "demo-link")
                await page.set_viewport_size({"width": 1280, "height": 800})
                await page.get_by_role("button", name="Open the console").click()
                row = page.get_by_role("row").filter(has_text="server")
                await row.get_by_role("link", name="SSH to server as").click()
                await page.wait_for_url(re.compile(r"/terminal/server/[^/]+$"))
                screen = page.locator(".xterm-accessibility-tree")

                async def answers() -> bool:
                    # What is typed is done there: the shell writes what is nowhere in the line itself.
                    await page.keyboard.type("echo it is $((6*7))\n")
                    with contextlib.suppress(AssertionError):
                        await expect(screen).to_contain_text("it is 42", timeout=2_000)
                        return True
                    return False

                await eventually(answers, SLOW / 1000)
                await page.keyboard.type("exit 7\n")
                await expect(page.get_by_text("The shell ended")).to_be_visible(timeout=SLOW)
            finally:
                await browser.close()
