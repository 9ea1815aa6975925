"""MCP: a server and a client by FastMCP, with our issuer between them."""

import json
from collections.abc import AsyncIterator

import pytest
from tests.support.house import House, Program, ProgramError
from tests.support.meeting import Files, agent, call, files, tool
from tests.support.server import free_port

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.client("fastmcp", "pypi:interop"),
]

by_introspection = pytest.mark.parametrize("checks", ["introspection", "keys"])


@pytest.fixture(scope="module")
async def servers(house: House) -> AsyncIterator[dict[str, Files]]:
    """One that asks the issuer about each token, and one that checks signatures by itself."""
    async with (
        files(house, "asks", library="fastmcp") as asks,
        files(house, "checks", library="fastmcp", checks="keys") as checks,
    ):
        yield {"introspection": asks, "keys": checks}


@pytest.fixture(scope="module")
async def client(house: House) -> AsyncIterator[Program]:
    """One client for all: what is opened is a new one each time."""
    async with agent(house, "client") as program:
        yield program


async def open_client(house: House, client: Program, server: Files, name: str) -> str:
    """Open FastMCP's client, which waits on the device itself for where the browser comes to; its client id."""
    port = free_port()
    back = f"http://127.0.0.1:{port}/callback"
    app = await house.app(name, "--public", "--redirect", back, "--resource", server.resource)
    how = {"library": "fastmcp", "redirect": back, "client_id": app.client_id}
    await client.do("open", url=server.resource, **how)
    return app.client_id


@by_introspection
@pytest.mark.proves("click", "pkce")
async def test_its_client_calls_its_server(
    house: House, servers: dict[str, Files], client: Program, checks: str
) -> None:
    server = servers[checks]
    name = await open_client(house, client, server, f"client-{checks}")
    said = json.loads(await call(house, client, "whoami", press="yes", listens=True))
    assert (said["client_id"], said["scope"], said["aud"]) == (name, "files:read", server.resource)


@by_introspection
@pytest.mark.proves("silent", "more")
async def test_the_sdk_calls_its_server_and_asks_for_more(
    house: House, servers: dict[str, Files], client: Program, checks: str
) -> None:
    app = await tool(house, client, servers[checks], f"sdk-{checks}")
    assert json.loads(await call(house, client, "whoami"))["client_id"] == app.client_id
    assert set((await call(house, client, "write")).split()) == {"files:read", "files:write"}


@by_introspection
@pytest.mark.proves("audience")
async def test_its_server_takes_no_token_for_another(
    house: House, servers: dict[str, Files], client: Program, checks: str
) -> None:
    (other,) = (each for name, each in servers.items() if name != checks)
    await tool(house, client, other, f"other-{checks}")
    await call(house, client, "whoami")
    token = (await client.do("tokens"))["access_token"]
    await client.do("open", url=servers[checks].resource, token=token)
    with pytest.raises(ProgramError):
        await call(house, client, "whoami")
    assert f"POST {servers[checks].resource} 401" in await client.do("requests")
