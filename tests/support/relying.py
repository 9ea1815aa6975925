"""Relying parties that nobody here wrote, each in a small program that speaks lines of JSON (``tests.support.house``)."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.golang import relying_program
from tests.support.house import House, MadeApp, Program
from tests.support.npm import installed, node

WEB = Path(__file__).parent / "web"
BACK = "https://app.example.com/cb"  # where nobody listens: the address that the browser ends at is handed to the program


@contextlib.asynccontextmanager
async def script(house: House, name: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """A program of ``tests/support/web`` in Node.js, beside the packages of the lock there; or the one in Go."""
    if name == "go-oidc":
        async with house.program([await asyncio.to_thread(relying_program)], environ=environ) as program:
            yield program
        return
    packages = await asyncio.to_thread(installed, WEB)
    with tempfile.TemporaryDirectory(prefix="dw-web-") as folder:
        place = Path(folder)
        (place / "node_modules").symlink_to(packages / "node_modules")
        for file in WEB.glob("*.mjs"):
            (place / file.name).write_bytes(file.read_bytes())
        async with house.program([node(), place / f"{name}.mjs"], environ=environ) as program:
            yield program


async def discover(program: Program, app: MadeApp, **more: Any) -> dict[str, Any]:
    """Have the program read what the issuer says of itself, for this app."""
    told = {"issuer": app.issuer, "client_id": app.client_id, "secret": app.secret, "redirect_uri": BACK}
    found: dict[str, Any] = await program.do("discover", **(told | more))
    return found


async def come_back(house: House, program: Program, *, press: str = "", **more: Any) -> str:
    """Have a new browser on the laptop sign in, up to the address at which it comes back to the app."""
    async with house.visitor() as browser:
        arrived = await browser.go(await program.do("start", **more), ends_at=BACK, press=press)
    assert arrived.url.startswith(BACK), arrived.text
    assert (len(arrived.pressed) > 0) == bool(press)
    return arrived.url


async def sign_in(house: House, program: Program, *, press: str = "", **more: Any) -> dict[str, Any]:
    """The whole way; what the program got."""
    url = await come_back(house, program, press=press, **more)
    found: dict[str, Any] = await program.do("finish", url=url)
    return found
