"""MCP programs of npm: the official conformance tool, the inspector, the bridge for desktop clients."""

import json
import re
from collections.abc import AsyncIterator

import pytest
from tests.support.house import House
from tests.support.meeting import Files, Terminal, files, terminal
from tests.support.server import free_port

pytestmark = [pytest.mark.interop, pytest.mark.heavy, pytest.mark.timeout(300)]

VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")


@pytest.fixture(scope="module")
async def server(house: House) -> AsyncIterator[Files]:
    async with files(house, "files") as started:
        yield started


async def open_link(house: House, program: Terminal, press: str = "yes") -> None:
    """Do what a person does with the link that a program shows: the program waits where it ends."""
    async with house.visitor() as browser:
        arrived = await browser.go(await program.link(), press=press)
    assert arrived.status == 200, arrived.text
    assert (len(arrived.pressed) > 0) == bool(press)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.client("@modelcontextprotocol/conformance", "npm:agents")
@pytest.mark.proves("click", "pkce", "iss", "more")
async def test_the_official_checks_of_an_authorization_server(
    house: House, server: Files, version: str
) -> None:
    back = f"http://127.0.0.1:{(port := free_port())}/callback"
    app = await house.app(
        f"conformance-{version}", "--public", "--redirect", back, "--resource", server.resource
    )
    options = ["--url", house.issuer, "--client-id", app.client_id, "--resource", server.resource]
    options += ["--port", str(port), "--spec-version", version]
    async with terminal(house, "@modelcontextprotocol/conformance", "authorization", *options) as program:
        await open_link(house, program)
        assert await program.ended() == 0, program.said
        assert re.search(r"Total: [23] passed, 0 failed", program.said), program.said
        assert "warning" not in program.said.lower()


@pytest.mark.client("@modelcontextprotocol/inspector", "npm:agents")
@pytest.mark.proves("click", "pkce", "iss")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_calls_a_tool(house: House, server: Files, era: str) -> None:
    back = f"http://127.0.0.1:{free_port()}/oauth/callback"
    app = await house.app(f"inspector-{era}", "--public", "--redirect", back, "--resource", server.resource)
    options = ["--cli", server.resource, "--transport", "http", "--client-id", app.client_id]
    options += ["--callback-url", back, "--protocol-era", era]
    called = ["--method", "tools/call", "--tool-name", "whoami"]
    async with terminal(house, "@modelcontextprotocol/inspector", *options, *called) as program:
        await open_link(house, program)
        assert await program.ended() == 0, program.said
    assert app.client_id in program.said
    assert house.issuer in program.said


@pytest.mark.client("mcp-remote", "npm:agents")
@pytest.mark.proves("click", "pkce")
async def test_the_bridge_for_desktop_clients_calls_a_tool(house: House, server: Files) -> None:
    port = free_port()
    back = f"http://localhost:{port}/oauth/callback"
    app = await house.app("remote", "--public", "--redirect", back, "--resource", server.resource)
    known = json.dumps({"client_id": app.client_id})
    options = [server.resource, str(port), "--allow-http", "--enable-proxy", "--transport", "http-only"]
    async with terminal(house, "mcp-remote", *options, "--static-oauth-client-info", known) as program:
        await open_link(house, program)
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        await program.until("Proxy established|proxy established|running")
        await program.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}))
        await program.until(r'"id":1\b')
        await program.write(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
        asked = {"name": "whoami", "arguments": {}}
        await program.write(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}))
        await program.until(app.client_id + r"[^\n]*" + "files:read")
