"""The API by what it says of itself: schemathesis makes requests of every kind out of the description, good and bad ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.server import Server
from tests.support.venv import interop_python

from doorward.engine.processes import tied_to_us

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(400),
    pytest.mark.client("schemathesis", "pypi:interop"),
]

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"


@contextlib.asynccontextmanager
async def _as_administrator(server: Server) -> AsyncIterator[str]:
    """An address that leads to the socket of the data directory, where nobody is asked who they are or told to wait."""
    socket = next(server.folder.rglob("doorward.sock"))

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(socket)
        with contextlib.suppress(OSError, ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(carry(reader, back))
                group.create_task(carry(there, writer))

    listener = await asyncio.start_server(join, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


@pytest.mark.proves("more")
async def test_no_request_that_the_description_allows_or_forbids_breaks_the_api(
    server: Server, tmp_path: Path
) -> None:
    await server.user("alice")
    async with _as_administrator(server) as url:
        program = await asyncio.create_subprocess_exec(
            *tied_to_us(
                [
                    *(str(interop_python().with_name("st")), "run", f"{url}/api/v1/openapi.json"),
                    *("--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "20"),
                    *("--max-time", "120", "--request-timeout", "30", "--workers", "1", "--no-color"),
                ]
            ),
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await program.communicate())[0].decode(errors="replace")
    assert program.returncode == 0, said[-8000:]
    assert "Rate limited" not in said  # else little of it was tried
