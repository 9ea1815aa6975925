"""MCP servers and clients that nobody here wrote, each in a program of its own (``tests.support.agents``)."""

import asyncio
import contextlib
import json
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.house import House, MadeApp, Program
from tests.support.npm import installed, node
from tests.support.server import free_port
from tests.support.venv import interop_python

from doorward.engine.processes import stop, tied_to_us

ROOT = Path(__file__).parents[2]
AGENTS = Path(__file__).parent / "agents"
SCOPES = ("files:read", "files:write")
BACK = "https://agent.example.com/callback"  # where nobody listens: the address that the browser ends at is handed to the client
LOCAL = "http://127.0.0.1/callback"  # any port of it


@dataclass(frozen=True)
class Files:
    """An MCP server with the tools ``whoami``, and ``write`` that takes another scope."""

    program: Program
    resource: str
    app: MadeApp

    async def versions(self) -> list[str]:
        """Which versions of the protocol it was asked with since the last time that it was asked this."""
        found: list[str] = await self.program.do("seen")
        return found


@contextlib.asynccontextmanager
async def agent(house: House, module: str) -> AsyncIterator[Program]:
    """A program with an MCP library in it."""
    python = await asyncio.to_thread(interop_python)
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    async with house.program([python, "-m", f"tests.support.agents.{module}"], environ=path) as program:
        yield program


@contextlib.asynccontextmanager
async def files(
    house: House,
    name: str,
    *options: str,
    library: str = "mcp",
    checks: str = "introspection",
) -> AsyncIterator[Files]:
    """A server of files: an app that owns its resource and the scopes there. ``options``: of ``doorward apps create``."""
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    scopes = [part for scope in SCOPES for part in ("--scope", scope)]
    app = await house.app(name, "--service", "--resource", resource, *scopes, *options)
    async with agent(house, "server") as program:
        said = {"issuer": house.issuer, "resource": resource, "client_id": app.client_id}
        await program.do(
            "begin",
            port=port,
            library=library,
            checks=checks,
            secret=app.secret,
            **said,
        )
        yield Files(program, resource, app)


async def tool(house: House, client: Program, server: Files, name: str, *options: str, **how: Any) -> MadeApp:
    """Make an app for a client and open it there. ``options``: of ``doorward apps create``."""
    app = await house.app(name, "--redirect", BACK, "--resource", server.resource, *options)
    await client.do(
        "open", url=server.resource, redirect=BACK, client_id=app.client_id, secret=app.secret, **how
    )
    return app


async def call(house: House, client: Program, tool: str, *, press: str = "", **more: Any) -> str:
    """Call a tool, with a browser on the laptop for whatever takes one; what the tool said."""
    event = await client.do("call", tool=tool)
    while "go" in event:
        event = await come_back(house, client, event["go"], press=press, **more)
    return str(event["text"])


async def come_back(
    house: House, client: Program, url: str, *, press: str = "", listens: bool = False
) -> dict[str, Any]:
    """Have a new browser on the laptop sign in; ``listens``: the client waits for it at the address where it ends."""
    async with house.visitor() as browser:
        if listens:
            arrived = await browser.go(url, press=press)
            assert arrived.status == 200, arrived.text
            found: dict[str, Any] = await client.do("back")
        else:
            arrived = await browser.go(url, ends_at=_redirect(url), press=press)
            assert arrived.status == 0, arrived.text
            found = await client.do("back", url=arrived.url)
    assert (len(arrived.pressed) > 0) == bool(press)
    return found


def _redirect(url: str) -> str:
    return parse_qs(urlsplit(url).query)["redirect_uri"][0]


class Terminal:
    """A program that speaks to a person: all that it says, on both of its outputs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said = ""

    async def link(self) -> str:
        """The address that it wants a person to open. Raises AssertionError when it ends before."""
        while True:
            found = re.search(r"https://\S+/authorize\?[^\s\"']+", self.said)
            if found:
                return found[0]
            await self._more()

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until it says something. Raises AssertionError when it ends before."""
        while True:
            found = re.search(pattern, self.said)
            if found:
                return found
            await self._more()

    async def write(self, line: str) -> None:
        """Type a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def ended(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(1 << 16):
            self.said += part.decode(errors="replace")
        return await self._process.wait()

    async def _more(self) -> None:
        assert self._process.stdout is not None
        part = await self._process.stdout.read(1 << 16)
        assert part, f"the program ended:\n{self.said[-4000:]}"
        self.said += part.decode(errors="replace")


@contextlib.asynccontextmanager
async def terminal(house: House, name: str, *arguments: str) -> AsyncIterator[Terminal]:
    """A command of an npm package, started as a person would, with a home folder of its own."""
    packages = await asyncio.to_thread(installed, AGENTS)
    manifest = json.loads((packages / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
    program = packages / "node_modules" / name / next(iter(manifest["bin"].values()))
    with tempfile.TemporaryDirectory(prefix="dw-agent-") as home:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([node(), program, *arguments]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=house.environ | {"HOME": home, "BROWSER": "true", "MCP_AUTO_OPEN_ENABLED": "true"},
        )
        try:
            yield Terminal(process)
        finally:
            await stop(process, 5)
