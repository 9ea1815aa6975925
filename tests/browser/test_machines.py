"""The machines page in a real browser, against a real server: what it shows, what it asks for, and what becomes of it while one looks."""

import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Request, Route, expect
from tests.interop.test_people import come_in, first_link, link_of, local
from tests.support.bundle import built
from tests.support.chromium import SLOW, chromium, fits, is_for_everybody
from tests.support.crowd import Machine, crowd
from tests.support.programs import require_client
from tests.support.server import Server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

SHOTS = os.environ.get("DOORWARD_SHOTS", "")  # a folder: what was on the screen, to be looked at
POLICY = {
    "tagOwners": {"tag:prod": [], "tag:db": [], "tag:ci": []},
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
    "ssh": [
        {"action": "accept", "src": ["alice"], "dst": ["tag:prod"], "users": ["deploy"]},
        {"action": "check", "src": ["alice"], "dst": ["tag:prod"], "users": ["root"]},
        {"action": "check", "src": ["alice"], "dst": ["tag:db"], "users": ["postgres"]},
    ],
}
MACHINES = [
    Machine("web-1", tags=("tag:prod",)),
    Machine("web-2", tags=("tag:prod",)),
    Machine("web-10", tags=("tag:prod",), online=False),
    Machine("db-1", tags=("tag:db",)),
    Machine("runner", tags=("tag:ci",)),
    Machine("laptop", user="alice", os="macOS", ssh=False),
    Machine("a-machine-with-a-name-as-long-as-names-of-machines-may-ever-be", user="bob"),
]

PARTS = "document.documentElement, ...document.querySelectorAll('#room, #room > *, dialog')"

expect.set_options(timeout=SLOW)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    require_client()
    built()
    async with Server() as started:
        yield started


@contextlib.asynccontextmanager
async def machines_page(server: Server, folder: Path) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page as the first owner sees it, and the origins that anything was asked of from then on, of other hosts or not."""
    async with chromium(server, folder) as page:
        link = local(server, await first_link(server))
        await come_in(page, link, "alice")
        asked: list[str] = []
        wrong: list[str] = []

        def note(request: Request) -> None:
            parts = urlsplit(request.url)
            if parts.scheme != "data":
                asked.append(f"{parts.scheme}://{parts.netloc}")

        page.on("request", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        await page.emulate_media(reduced_motion="reduce")  # colours on their way from one to another are none
        await page.goto(f"{link.partition('/invite')[0]}/machines")
        yield page, asked
        assert wrong == []


async def look(page: Page, name: str) -> None:
    """In each of the ways that people look at it."""
    await is_for_everybody(page)
    for size, width in (("", 1440), ("-middle", 1000), ("-phone", 390), ("-small", 320)):
        await page.set_viewport_size({"width": width, "height": 844})
        # Neither the page nor what scrolls in it is wider than it is; chips on a phone and a command line are meant to be.
        await fits(page, name, width, within=PARTS)
        if SHOTS:
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                await page.screenshot(path=f"{SHOTS}/{name}-{scheme}{size}.png")
    await page.set_viewport_size({"width": 1280, "height": 800})


async def test_the_list_is_true_while_one_looks_at_it(server: Server, tmp_path: Path) -> None:
    async with machines_page(server, tmp_path) as (page, asked):
        # Nobody is there yet: it says how to come, and changes when the first does.
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Bring the first machine")
        await expect(page.get_by_text("Listening for the first knock")).to_be_visible()
        await expect(page.get_by_text(f"tailscale up --ssh --login-server {server.url}")).to_be_visible()
        await look(page, "machines-empty")
        await server.user("bob")
        await server.set_policy(json.dumps(POLICY))
        async with crowd(server, MACHINES) as people:
            await expect(page.get_by_role("heading", name="Machines")).to_be_visible()
            await expect(page.locator("[data-row]")).to_have_count(len(MACHINES) + 1)  # and doorward's own
            await page.reload()
            in_order = [
                "a-machine-with-a-name-as-long-as-names-of-machines-may-ever-be",
                "db-1",
                "doorward",
                "laptop",
                "runner",
                "web-1",
                "web-2",
                "web-10",
            ]
            await expect(page.locator("[data-row] b")).to_have_text(in_order)
            await expect(page.get_by_text("Live", exact=True)).to_be_visible()
            await look(page, "machines")
            web = page.locator("[data-row]", has_text="web-1").first
            await expect(web).to_contain_text("root")
            await expect(web.get_by_role("link", name="SSH to web-1 as deploy")).to_have_attribute(
                "href", "/terminal/web-1/deploy"
            )
            shut = page.locator("[data-row]", has_text="runner")
            await expect(shut).to_contain_text("no way in")
            assert await shut.get_by_role("link").count() == 0
            # Its lamp goes out, and on again, with nobody touching the page.
            second = page.locator("[data-row]", has_text="web-2")
            await people.go("web-2")
            await expect(second.get_by_role("img", name="offline")).to_be_visible()
            await people.come("web-2")
            await expect(second.get_by_role("img", name="online")).to_be_visible()
            # The policy takes a way, and the page knows.
            await server.set_policy(json.dumps({**POLICY, "ssh": POLICY["ssh"][:2]}))  # type: ignore[index]
            await expect(page.locator("[data-row]", has_text="db-1")).to_contain_text("no way in")
            await keys_lead_everywhere(page)
            # What was heard last is shown as that, and the page comes back by itself.
            await server.stop()
            await expect(page.get_by_text("Connection lost.")).to_be_visible()
            await look(page, "machines-lost")
            await server.start()
            # It has waited longer each time, and half a minute at most.
            await expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=3 * SLOW)
        assert set(asked) == {f"http://localhost:{server.listens_at[1]}"}


async def keys_lead_everywhere(page: Page) -> None:
    """Everything without a pointer."""
    await page.mouse.move(0, 0)
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.type("web")
    await expect(page.locator("[data-row] b")).to_have_text(["web-1", "web-2", "web-10"])
    await expect(page).to_have_url(re.compile(r"/machines\?q=web$"))
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Online").click()
    await page.get_by_role("button", name="Seen").click()
    await expect(page).to_have_url(re.compile(r"/machines\?show=online&sort=seen$"))
    await page.reload()
    await expect(page.get_by_role("button", name="Online")).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="All").first.click()
    await page.get_by_role("button", name="Name").click()
    await page.mouse.move(0, 0)
    await expect(page.locator("[data-row]")).to_have_count(len(MACHINES) + 1)
    await expect(page.locator("[data-row] b").last).to_have_text("web-10")
    await page.keyboard.press("End")
    focused = page.locator("[data-row]:focus")
    await expect(focused).to_contain_text("web-10")
    await page.keyboard.press("k")
    await expect(focused).to_contain_text("web-2")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="web-2")
    await expect(dialog).to_contain_text("ssh[0], line 1")
    await look(page, "machine")
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)
    await expect(focused).to_contain_text("web-2")
    await page.keyboard.press("Shift+S")
    await expect(page.locator("[popover]:popover-open")).to_contain_text("asks for a check")
    await page.keyboard.press("Escape")
    await expect(page.locator("[popover]:popover-open")).to_have_count(0)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("dialog")).to_have_count(0)  # also none that is on its way out
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox")).to_be_focused()
    await page.keyboard.type("web-1 root")
    await expect(page.get_by_role("option").first).to_contain_text("web-1 as root")
    await look(page, "palette")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/terminal/web-1/root")
    await page.go_back()
    # What one chose is there from the first moment, and the next time.
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.keyboard.press("t")
    await page.keyboard.press("t")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-scheme", "dark")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.keyboard.press("t")
    await expect(page.locator("html")).not_to_have_attribute("data-scheme", "dark")


async def test_who_signs_out_elsewhere_is_told_so(server: Server, tmp_path: Path) -> None:
    async with machines_page(server, tmp_path) as (page, _):
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        other = await page.context.new_page()
        await other.goto(page.url)
        await other.get_by_role("button", name="alice").click()
        await other.get_by_role("button", name="Sign out").click()
        await other.wait_for_url("**/signin**")
        await expect(page.get_by_text("You are signed out.")).to_be_visible()
        await page.get_by_role("link", name="Sign in again").click()
        await page.wait_for_url("**/signin?next=**")
        await page.click("button.enter:enabled")
        await page.wait_for_url("**/machines")


async def test_a_member_sees_what_is_for_them(server: Server, tmp_path: Path) -> None:
    await server.user("bob")
    await server.set_policy(json.dumps({**POLICY, "grants": []}))
    machines = [Machine("web-1", tags=("tag:prod",)), Machine("desk", user="bob", ssh=False)]
    async with crowd(server, machines), chromium(server, tmp_path, phone=True) as page:
        await come_in(page, local(server, await link_of(server, "bob")))
        await page.goto(f"http://localhost:{server.listens_at[1]}/")
        await page.wait_for_url("**/machines")
        await expect(page.locator("[data-row]")).to_have_count(1)
        await page.locator("[data-row]", has_text="desk").click()
        await expect(page.get_by_role("dialog", name="desk")).to_contain_text("No rule")
        await look(page, "machine-shut")


async def test_ten_thousand_machines_are_no_more_than_a_screen_of_rows(
    server: Server, tmp_path: Path
) -> None:
    async with chromium(server, tmp_path) as page:
        link = local(server, await first_link(server))
        await come_in(page, link, "alice")

        async def answer(route: Route) -> None:
            machine = {
                "user": "tagged-devices",
                "user_id": None,
                "tags": ["tag:prod"],
                "os": "linux",
                "version": "1.102.4",
                "online": True,
                "last_seen": None,
                "expired": False,
                "yours": False,
                "system": False,
                "ssh": "tailscale",
                "any_account": False,
                "any_check": False,
                "why": "",
                "ways": [{"account": "deploy", "check": False, "rule": None}],
            }
            many = [
                machine | {"id": at, "name": f"web-{at}", "addresses": [f"100.64.{at // 250}.{at % 250}"]}
                for at in range(1, 10_001)
            ]
            await route.fulfill(json={"machines": many})

        await page.route("**/api/v1/console/machines", answer)
        await page.goto(f"{link.partition('/invite')[0]}/machines")
        grid = page.get_by_role("grid", name="Machines")
        await expect(grid).to_have_attribute("aria-rowcount", "10001")
        rows = page.locator("[data-row]")
        assert await rows.count() < 80
        await page.keyboard.press("End")
        focused = page.locator("[data-row]:focus")
        await expect(focused).to_contain_text("web-10000")
        await expect(focused).to_have_attribute("aria-rowindex", "10001")
        assert await rows.count() < 80
        await page.keyboard.press("Home")
        await expect(focused).to_have_attribute("aria-rowindex", "2")
        await page.keyboard.press("/")
        await expect(page.get_by_role("searchbox")).to_be_focused()
        await page.keyboard.type("web-4711")
        await expect(rows).to_have_count(1)
