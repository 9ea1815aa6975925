"""The guide to MCP servers, as it stands there: its commands, its servers, and the program that calls them."""

import re
from pathlib import Path

import httpx2
import pytest
from tests.support.guided import RESOURCE, commands, run, running, written
from tests.support.house import House, MadeApp
from tests.support.server import free_port

pytestmark = [pytest.mark.interop, pytest.mark.heavy, pytest.mark.timeout(300)]

CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "write", "arguments": {"text": "x"}},
}


@pytest.fixture(scope="module")
async def made(house: House) -> dict[str, MadeApp]:
    """Every app of the guide."""
    return {name: await house.app(name, *options) for name, *options in commands()}


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("ToolScopes(", marks=pytest.mark.client("mcp", "pypi:interop")),
        pytest.param("JWTVerifier(", marks=pytest.mark.client("fastmcp", "pypi:interop")),
    ],
)
@pytest.mark.proves("more")
async def test_the_guide_s_server_is_called_by_the_guide_s_program(
    house: House, made: dict[str, MadeApp], tmp_path: Path, part: str
) -> None:
    port = free_port()
    replaced = {}
    if part == "ToolScopes(":
        checks = "Verifier(resource.issuer, resource.address"
        replaced[f"{checks})"] = f"{checks}, fetch=fetch)"
    server = written(tmp_path, house, port, part, **replaced)
    nightly = made["nightly"]
    caller = written(
        tmp_path,
        house,
        port,
        "own_token(",
        **{
            # What ends TLS in front of the server is left out.
            "streamable_http_client(SERVER": f'streamable_http_client("http://127.0.0.1:{port}/mcp"',
            '"app-..."': f'"{nightly.client_id}"',
            '"dwapp-..."': f'"{nightly.secret}", ask=ask',
        },
    )
    async with running(house, server, port), httpx2.AsyncClient(trust_env=False) as client:
        base = f"http://127.0.0.1:{port}"
        refused = await client.post(f"{base}/mcp", json=CALL)
        assert refused.status_code == 401
        (where,) = set(re.findall(r'resource_metadata="([^"]*)"', refused.headers["www-authenticate"]))
        told = (await client.get(where.replace("https://files.example.com", base))).json()
        assert told["resource"] == RESOURCE
        assert [each.rstrip("/") for each in told["authorization_servers"]] == [house.issuer]
        assert await run(house, caller) == nightly.client_id
        if part == "ToolScopes(":
            await takes_more(house, client, f"{base}/mcp")


async def takes_more(house: House, client: httpx2.AsyncClient, address: str) -> None:
    """The tool that takes more says what it takes, and is called with that."""
    options = ["--service", "--resource", RESOURCE, "--scope", "files:read", "--scope", "files:write"]
    app = await house.app("writes", *options)
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    status = {}
    for scopes in ("files:read", "files:read files:write"):
        token = await own_token(house, app, scopes)
        said = await client.post(address, json=CALL, headers=headers | {"authorization": f"Bearer {token}"})
        status[scopes] = said.status_code
        if said.status_code == 403:
            assert 'error="insufficient_scope"' in said.headers["www-authenticate"]
            assert 'scope="files:read files:write"' in said.headers["www-authenticate"]
    assert status["files:read"] == 403
    assert status["files:read files:write"] != 403


async def own_token(house: House, app: MadeApp, scope: str) -> str:
    async with house.visitor() as browser:
        form = {"grant_type": "client_credentials", "resource": RESOURCE, "scope": scope}
        said = await browser._client.post(
            f"{house.issuer}/token", data=form, auth=(app.client_id, app.secret)
        )
    assert said.status_code == 200, said.text
    return str(said.json()["access_token"])
