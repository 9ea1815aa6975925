"""The guide to MCP servers, as it stands there: its commands, its servers, and the program that calls them."""

import asyncio
import contextlib
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.support.house import House, MadeApp
from tests.support.server import free_port
from tests.support.venv import interop_python
from tests.support.waiting import eventually

from doorward.engine.processes import stop, tied_to_us

pytestmark = [pytest.mark.interop, pytest.mark.heavy, pytest.mark.timeout(300)]

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "mcp.md"
RESOURCE, DOOR = "https://files.example.com/mcp", "https://door.example.com"
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "write", "arguments": {"text": "x"}},
}
# The device of the tailnet here is one in user space: programs ask the door through its proxy.
BY_THE_PROXY = """
import httpx2 as _httpx2
from doorward.transport.fetch import Answer as _Answer

async def ask(method, address, headers, body):
    async with _httpx2.AsyncClient() as client:
        said = await client.request(method, address, headers=dict(headers), content=body)
        return _Answer(said.status_code, {}, said.content)

async def fetch(address):
    return (await ask("GET", address, {}, None)).body
"""


def example(part: str) -> str:
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (one,) = [each for each in found if part in each]
    return str(one)


def commands() -> list[list[str]]:
    """Every ``doorward apps create`` of the guide."""
    lines = re.findall(r"^doorward apps create (.*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
async def made(house: House) -> dict[str, MadeApp]:
    """Every app of the guide."""
    return {name: await house.app(name, *options) for name, *options in commands()}


def written(folder: Path, house: House, port: int, part: str, **replaced: str) -> Path:
    """An example as a file, for this door and this port."""
    text = example(part).replace(DOOR, house.issuer).replace("port=8000", f"port={port}")
    for before, after in replaced.items():
        assert before in text
        text = text.replace(before, after)
    place = folder / f"{abs(hash(part))}.py"
    place.write_text(BY_THE_PROXY + text, encoding="utf-8")
    return place


@contextlib.asynccontextmanager
async def running(house: House, program: Path, port: int) -> AsyncIterator[None]:
    """A server of the guide."""
    log = program.with_suffix(".log")
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([interop_python(), program]), stdout=said, stderr=said, env=house.environ
        )
    try:

        async def answers() -> bool:
            assert process.returncode is None, log.read_text(encoding="utf-8")[-4000:]
            with contextlib.suppress(httpx2.HTTPError):
                async with httpx2.AsyncClient(trust_env=False) as client:
                    return (await client.get(f"http://127.0.0.1:{port}/mcp")).status_code == 401
            return False

        await eventually(answers, 120)
        yield
    finally:
        await stop(process, 5)


async def run(house: House, program: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *tied_to_us([interop_python(), program]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=house.environ,
    )
    async with asyncio.timeout(120):
        said, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()[-4000:]
    return said.decode().strip()


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
