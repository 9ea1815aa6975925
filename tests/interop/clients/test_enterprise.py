"""Enterprise-managed authorization: a client of the ``mcp`` SDK brings its provider's word, and nobody is sent anywhere."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.guided import RESOURCE, running, written
from tests.support.house import House, open_house
from tests.support.idtokens import jwk, jwks, seconds_now, signed
from tests.support.programs import require_client
from tests.support.server import Server, free_port
from tests.support.venv import interop_python

from doorward.engine.processes import tied_to_us
from doorward.issuer.grants.id_jag import KIND

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.client("mcp", "pypi:interop"),
]


@pytest.fixture(scope="module")
async def house() -> AsyncIterator[House]:
    require_client()
    environ = {"DOORWARD_LOGIN_LOOPBACK_HTTP": "true"}
    async with Server(environ=environ) as server, open_house(server) as opened:
        yield opened


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """The issuer of another organization, which publishes what it signs with."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        told = jwks(jwk("ES256")) if asked == b"/jwks" else json.dumps(about).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + told)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    places = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "jwks"}
    about = {"issuer": issuer} | {name: f"{issuer}/{path}" for name, path in places.items()}
    async with server:
        yield issuer


@pytest.mark.proves("silent", "audience", "policy", "more")
async def test_the_word_of_a_provider_opens_a_server_and_its_tool_that_takes_more(
    house: House, tmp_path: Path
) -> None:
    port = free_port()
    options = ["--service", "--resource", RESOURCE, "--scope", "files:read", "--scope", "files:write"]
    app = await house.app("partner", *options)
    checks = "Verifier(resource.issuer, resource.address"
    program = written(tmp_path, house, port, "ToolScopes(", **{f"{checks})": f"{checks}, fetch=fetch)"})
    async with provider() as corp, running(house, program, port):
        await house.server.run("providers", "add", "corp", "--issuer", corp, "--client-id", "doorward")
        await house.server.run("users", "link", "alice", "corp", "alice-there")

        def word(number: int, **changes: object) -> str:
            claims = {
                "iss": corp,
                "sub": "alice-there",
                "aud": house.issuer,
                "client_id": app.client_id,
                "resource": RESOURCE,
                "scope": "files:read files:write",
                "jti": f"word-{number}",
                "iat": seconds_now(),
                "exp": seconds_now() + 300,
            }
            return signed(claims | changes, header={"typ": KIND})

        async def calls(*words: str) -> dict[str, Any]:
            """What the client found; raises AssertionError with its last words where it gave up."""
            asked = {
                "address": f"http://127.0.0.1:{port}/mcp",
                "resource": RESOURCE,
                "issuer": house.issuer,
                "client_id": app.client_id,
                "secret": app.secret,
                "words": words,
                "tools": [("whoami", {}), ("write", {"text": "x"})],
            }
            process = await asyncio.create_subprocess_exec(
                *tied_to_us([interop_python(), "-m", "tests.support.agents.vouched"]),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=house.environ,
                cwd=Path(__file__).parents[3],
            )
            async with asyncio.timeout(120):
                out, complained = await process.communicate(json.dumps(asked).encode())
            assert process.returncode == 0, complained.decode()[-6000:]
            found: dict[str, Any] = json.loads(out)
            return found

        with pytest.raises(AssertionError, match="invalid_grant"):  # the policy has to say so
            await calls(word(1))
        entry = {"apps": ["partner"], "assertions": ["corp"]}
        grant = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": [entry]}}
        async with house.policy(grant):
            found = await calls(word(2), word(3))
            subject, written_down = found["answers"]
            assert len(subject) == 24  # as apps know alice, and not as the provider does
            assert written_down == "written: x"
            assert (found["words"], found["scope"]) == (2, "files:read files:write")
            with pytest.raises(AssertionError, match="invalid_grant"):
                await calls(word(2))  # once
            with pytest.raises(AssertionError, match="invalid_grant"):
                await calls(word(4, aud="https://door.elsewhere.example"))
