"""A shell in the browser, whole: Chromium, a real server, and a stock node that serves ssh."""

import contextlib
import getpass
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from tests.interop.test_people import link_of, local
from tests.support.bundle import built
from tests.support.chromium import SLOW, chromium, share_passkeys
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]
expect.set_options(timeout=SLOW)

ME = getpass.getuser()
LATE = 40  # seconds in which something has happened on a busy machine
READER = """try { localStorage.setItem("doorward.terminal.prefs", '{"reader": true}'); } catch {}"""


def policy(*rules: str) -> str:
    """alice reaches her own machines, by these rules."""
    grants = '"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]'
    return f'{{{grants}, "ssh": [{", ".join(rules)}]}}'


def rule(action: str, *users: str, more: str = "") -> str:
    """One rule, from alice to her machines."""
    named = ", ".join(f'"{user}"' for user in users)
    return f'{{"action": "{action}", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": [{named}]{more}}}'


@contextlib.asynccontextmanager
async def signed_in(text: str, folder: Path) -> AsyncIterator[tuple[Server, StockClient, Page, str]]:
    """alice with her passkey at a server's second door, and a machine of hers; the door's address is the last."""
    built()
    async with Server() as server, machines(server, "box") as (target,), chromium(server, folder) as page:
        await server.set_policy(text)
        await target.cli("set", "--ssh")
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
        )
        hosts: set[str] = set()
        page.context.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        await page.add_init_script(READER)
        # As tests/interop/test_people.py looks at it: by a link, with a passkey of her own.
        await page.goto(local(server, await link_of(server, "alice")))
        await page.click("button.enter:enabled")
        await page.wait_for_selector("text=Make a passkey,")
        await page.click("button.enter:enabled")
        await page.click("text=I have kept them")
        await page.wait_for_url("**/me")
        door = f"http://localhost:{server.listens_at[1]}"
        yield server, target, page, door
        assert wrong == []
        assert {host for host in hosts if host} == {door.removeprefix("http://")}, "a third party was asked"


async def says(page: Page, words: str) -> None:
    """Wait until the terminal shows these words, though its link may have to come back first."""
    await expect(page.locator(".xterm-accessibility-tree").first).to_contain_text(words, timeout=2 * SLOW)


async def answers(page: Page, word: str) -> None:
    """The shell does what is typed; the word that it prints was not typed so."""
    await expect(page.locator(".pane.current .xterm-helper-textarea")).to_be_focused()
    await page.keyboard.type(f"echo {word[:3]}''{word[3:]}\n")
    await says(page, word)


async def begins(page: Page, word: str) -> None:
    """The same of a shell that has just been opened: login(1) throws away what is typed before it has begun."""

    async def is_there() -> bool:
        with contextlib.suppress(AssertionError):
            await expect(page.locator(".pane.current .xterm-helper-textarea")).to_be_focused()
            await page.keyboard.type(f"echo {word[:3]}''{word[3:]}\n")
            await expect(page.locator(".xterm-accessibility-tree").first).to_contain_text(word, timeout=5_000)
            return True
        return False

    await eventually(is_there, 2 * LATE)


async def is_alone(target: StockClient) -> bool:
    """Nobody but doorward's own node is there for a machine."""
    peers = ((await target.status())["Peer"] or {}).values()
    return all(peer["HostName"] == "doorward" for peer in peers)


async def test_a_shell_stands_a_restarted_relay_ends_opens_again_and_leaves_nothing(tmp_path: Path) -> None:
    text = policy(rule("accept", ME), rule("accept", "nobody-there"))
    async with signed_in(text, tmp_path) as (server, target, page, door):
        await page.goto(f"{door}/machines")
        await page.goto(f"{door}/terminal/box")
        await page.get_by_role("button", name=ME).click()
        await expect(page.locator(".pane-head .cells")).to_be_visible()
        await begins(page, "first-word")
        cells = page.locator(".pane-head .cells")
        before = await cells.text_content() or ""
        await page.set_viewport_size({"width": 1000, "height": 700})
        await expect(cells).not_to_have_text(
            before
        )  # the shell is told of a size before of the keys that come after it
        # The host reads sizes and keys side by side: the one that came first has arrived when a moment is over.
        await page.keyboard.type("clear; sleep 1; stty size; tput colors; echo $TERM\n")
        await says(page, "xterm-256color")
        columns, rows = (await cells.text_content() or "").split("\N{MULTIPLICATION SIGN}")
        await says(page, f"{rows} {columns}")
        await page.keyboard.type("clear; printf '\\xe2\\x82'; sleep 0.1; printf '\\xac torn\\n'\n")
        await says(page, "€ torn")

        os.kill(server.worker_pid(), signal.SIGKILL)
        await answers(page, "after-the-relay")

        # A shell that login(1) has started ends with login's own status.
        await page.keyboard.type("exit\n")
        await expect(page.get_by_text("The shell ended.")).to_be_visible()
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("The shell ended.")).to_be_hidden()
        await expect(page.locator(".xterm-helper-textarea:focus")).to_have_count(1)
        await begins(page, "opened-again")

        await page.keyboard.press("Control+Alt+d")
        await page.get_by_role("combobox").fill("nobody-there")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="box has no account nobody-there")).to_be_visible()
        assert page.url == f"{door}/terminal/box/nobody-there"

        await server.set_policy(policy())
        await expect(page.get_by_text("Open again")).to_be_visible()
        await eventually(lambda: is_alone(target), within=LATE)


async def test_a_check_is_done_in_a_window_and_the_shell_goes_on(tmp_path: Path) -> None:
    text = policy(rule("check", ME, more=', "checkPeriod": "1h"'))
    async with signed_in(text, tmp_path) as (_, target, page, door):
        await page.goto(f"{door}/terminal/box/{ME}")
        code = await page.locator(".code-letters").text_content()
        async with page.expect_popup() as coming:
            await page.get_by_role("link", name="Check now").click()
        window = await coming.value
        await share_passkeys(page, window)
        await expect(window.locator(".match")).to_have_text(code or "no code")
        await window.get_by_role("button", name="Yes, it is me").click()
        await begins(page, "after-the-check")
        # The page that was closed takes its node along.
        await page.goto(f"{door}/me")
        await eventually(lambda: is_alone(target), within=LATE)
