"""An ssh that waits opens its page in the browser of the person who started it, by itself, and only there."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.interop.test_check import ME, asking, policy, serving, waiting
from tests.support.chromium import pin_of
from tests.support.clients import StockClient
from tests.support.programs import require
from tests.support.server import Server
from tests.support.waiting import eventually

from doorward.engine.processes import stop, tied_to_us

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

LATE = 60  # seconds in which a browser has started on a busy machine


def _browser(server: Server, laptop: StockClient) -> Path:
    """A program that shows a link in Chromium as this person's browser would: through the tailnet, and writes the page down."""
    folder = laptop.folder / "browser"
    folder.mkdir()
    program = folder / "open"
    program.write_text(
        f"""#!/bin/sh
echo "$1" >> {folder}/links
exec {require("chromium")} --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \\
    --user-data-dir={folder}/profile --proxy-server=socks5://localhost:{laptop.socks_port} \\
    --ignore-certificate-errors-spki-list={pin_of(server)} --dump-dom "$1" > {folder}/page 2> {folder}/said
"""
    )
    program.chmod(0o755)
    return program


@contextlib.asynccontextmanager
async def _session(laptop: StockClient, browser: Path, door: str) -> AsyncIterator[None]:
    """The service of the laptop's session."""
    process = await asyncio.create_subprocess_exec(
        *tied_to_us(
            [
                sys.executable,
                "-m",
                "doorward",
                "ssh",
                "browser",
                f"--door={door}",
                f"--socket={laptop.socket}",
            ]
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={
            "BROWSER": str(browser),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(filter(None, sys.path)),
        },
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LATE):
            assert await process.stdout.readline() == f"Listening for pages of {door}.\n".encode()
        yield
    finally:
        await stop(process, 2)


async def test_the_page_opens_in_chromium_once_for_all_tries_and_shows_the_code() -> None:
    async with serving(policy("check", checkPeriod="1h")) as (server, laptop, ssh):
        await server.own_node()
        browser = _browser(server, laptop)
        links, page = browser.with_name("links"), browser.with_name("page")
        # As setup starts it: the door is what control has told the laptop's own daemon.
        status = await laptop.api.status(peers=False)
        (door,) = status.capability("doorward:door")
        assert door == f"https://door.tailnet.internal:{server.door_port}"
        async with _session(laptop, browser, door), asking(ssh) as one:
            code = await one.code()
            link = (await one.hears(r"https://\S+/check/\S+"))[0]
            async with asking(ssh) as other:
                assert await other.code() == code

                async def is_seen() -> bool:
                    return page.exists() and code in page.read_text()

                await eventually(is_seen, LATE)
                assert "server" in page.read_text()
                assert links.read_text() == f"{link}\n"
                (check,) = await waiting(server)
                await server.run("ssh", "checks", "approve", str(check["id"]))
                assert [await one.ends(), await other.ends()] == [(0, "in\n")] * 2
        # The next one within the period asks nobody, so nothing opens.
        assert (await ssh.run(ME, "echo again")).stdout == "again\n"
        assert links.read_text() == f"{link}\n"
