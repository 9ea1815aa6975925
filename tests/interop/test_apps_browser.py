"""A person signs in to a program in a real browser, on a device of the tailnet: asked once, then never again; and traps that fail."""

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.async_api import Page
from tests.interop.test_apps import CHALLENGE
from tests.support.chromium import chromium, is_for_everybody, stays
from tests.support.machines import machines
from tests.support.relay import make_leaf
from tests.support.server import Server
from tests.support.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

LATE = 30  # seconds in which a browser has done something on a busy machine
SHOTS = os.environ.get("DOORWARD_SHOTS", "")  # a folder: what was on the screen, to be looked at


class Program:
    """A relying party on the person's own machine: ``/start`` sends to the door, ``/trap`` shows it in a frame."""

    def __init__(self) -> None:
        self.start = ""  # where it sends people
        self.told: list[dict[str, str]] = []
        self.origin = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            sized = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
            body = (await reader.readexactly(int(sized[0].split(":")[1]))).decode() if sized else ""
            path = urlsplit(target).path
            if path == "/cb":
                said = parse_qs(body if method == "POST" else urlsplit(target).query)
                self.told.append({name: values[0] for name, values in said.items()} | {"method": method})
            more, text = "", "<!doctype html><title>program</title><p>signed in"
            if path == "/start":
                more = f"Location: {self.start}\r\n"
            if path == "/trap":
                text = f'<!doctype html><title>trap</title><iframe src="{self.start}"></iframe>'
            status = "302 Found" if more else "200 OK"
            shown = f"HTTP/1.1 {status}\r\n{more}Content-Type: text/html\r\nContent-Length: {len(text)}\r\n"
            writer.write(f"{shown}Connection: close\r\n\r\n{text}".encode())
            await writer.drain()
        writer.close()

    def sends(self, app: dict[str, Any], **more: str) -> None:
        asked = {
            "client_id": app["client_id"],
            "redirect_uri": f"{self.origin}/cb",
            "response_type": "code",
            "scope": "openid profile",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        self.start = f"{app['issuer']}/authorize?{urlencode(asked | more)}"


async def look(page: Page, name: str) -> None:
    await is_for_everybody(page)
    for scheme in ("light", "dark") if SHOTS else ():
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.screenshot(path=f"{SHOTS}/{name}-{scheme}.png", full_page=True)


@contextlib.asynccontextmanager
async def public_door(server: Server, tmp_path: Path) -> AsyncIterator[dict[str, tuple[int, bytes]]]:
    """The door as it is on the internet, for ``chromium``: what ends TLS there, and hands on to the public listener."""
    leaf, host = make_leaf(), f"door.tailnet.internal:{server.door_port}"
    (tmp_path / "site.pem").write_bytes(leaf.pem + leaf.key_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "site.pem")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(1 << 16):
                writer.write(part)
                await writer.drain()
        writer.close()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            back, forth = await asyncio.open_connection(*server.listens_at)
            await asyncio.gather(pass_on(reader, forth), pass_on(back, writer))

    ended = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    async with ended:
        yield {host: (ended.sockets[0].getsockname()[1], leaf.pem)}


async def test_a_person_is_asked_once_and_never_inside_another_page(server: Server, tmp_path: Path) -> None:
    program = Program()
    async with machines(server, "laptop") as (laptop,), program.serving():
        await server.own_node()
        made = await server.run(
            "apps", "create", "tool", "--redirect", "http://127.0.0.1/cb", "--public", "--json"
        )
        app = json.loads(made.stdout)["app"]
        async with chromium(server, tmp_path, through=laptop) as page:
            program.sends(app)
            await page.goto(f"{program.origin}/start")
            await page.wait_for_selector("text=Sign in to")
            await look(page, "app")
            assert program.told == []
            await page.click("text=Yes, sign in")
            await page.wait_for_url(f"{program.origin}/cb?**")
            assert program.told[-1]["code"].startswith("dwcode-")
            # From now on nothing is clicked, not even where the answer is a form.
            await page.goto(f"{program.origin}/start")
            await page.wait_for_url(f"{program.origin}/cb?**")
            program.sends(app, response_mode="form_post", state="x<>&'\"")
            await page.goto(f"{program.origin}/start")
            await until(lambda: len(program.told) == 3, LATE)
            await page.wait_for_url(f"{program.origin}/cb")  # else the next page would come in between
            assert [one["method"] for one in program.told] == ["GET", "GET", "POST"]
            assert program.told[-1]["state"] == "x<>&'\""
            assert program.told[-1]["iss"] == app["issuer"]
            # A page that shows the door in a frame of its own gets nothing, though it would be silent.
            program.sends(app, prompt="none")
            await page.goto(f"{program.origin}/trap")
            assert len(page.frames) == 2
            await page.goto(f"{program.origin}/")
            assert len(program.told) == 3
            # No is an answer, too.
            program.sends(app, prompt="consent")
            await page.goto(f"{program.origin}/start")
            await page.click("button.no")
            await page.wait_for_url(f"{program.origin}/cb?**")
            assert program.told[-1]["error"] == "access_denied"
            # Whoever signs out says so on a page, and is asked by the next app, though it has a yes already.
            program.sends(app)
            await page.goto(f"{app['issuer']}/end_session")
            await page.wait_for_selector("text=Sign out of all apps here?")
            await look(page, "logout")
            await page.click("text=Yes, sign out")
            await page.wait_for_selector("text=You are signed out")
            await look(page, "logout-done")
            await page.goto(f"{program.origin}/start")
            await page.wait_for_selector("text=Sign in to")
            await page.click("text=Yes, sign in")
            await page.wait_for_url(f"{program.origin}/cb?**")
            assert program.told[-1]["code"].startswith("dwcode-")


async def test_a_yes_on_the_laptop_signs_in_a_browser_that_nobody_knows(
    server: Server, tmp_path: Path
) -> None:
    program = Program()
    async with (
        machines(server, "laptop") as (laptop,),
        program.serving(),
        public_door(server, tmp_path) as sites,
    ):
        await server.own_node()
        made = await server.run(
            "apps", "create", "tool", "--redirect", "http://127.0.0.1/cb", "--public", "--device", "--json"
        )
        program.sends(json.loads(made.stdout)["app"])
        async with (
            chromium(server, tmp_path / "outside", phone=True, sites=sites) as outside,
            chromium(server, tmp_path / "inside", through=laptop) as inside,
        ):
            await outside.goto(f"{program.origin}/start")
            await outside.wait_for_selector("text=Say yes on another device of mine")
            await look(outside, "outside")
            await outside.click("text=Say yes on another device of mine")
            await outside.wait_for_selector(".match")
            await stays(outside)  # it would look again in the middle of being looked at
            await look(outside, "elsewhere")
            code = await outside.inner_text(".match")
            address = await outside.inner_text(".copy")
            await outside.click("text=Look again")
            await inside.goto(address)
            await look(inside, "device")
            await inside.fill("#user_code", code)
            await inside.click("text=Go on")
            await inside.wait_for_selector("text=Yes, sign in there")
            above, below = [
                await one.bounding_box() for one in await inside.query_selector_all(".ways button")
            ]
            assert above is not None
            assert below is not None
            assert above["y"] + above["height"] < below["y"]  # who means the one does not press the other
            await look(inside, "device-asks")
            assert program.told == []
            await inside.click("text=Yes, sign in there")
            await inside.wait_for_selector("text=The other device is signed in")
            await look(inside, "device-done")
            await outside.wait_for_url(f"{program.origin}/cb?**")
            assert program.told[-1]["code"].startswith("dwcode-")
