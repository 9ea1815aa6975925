"""The guide to MCP servers as it stands there: its commands, and its programs, run where the large clients are."""

import asyncio
import contextlib
import hashlib
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
from tests.support.house import House
from tests.support.venv import interop_python
from tests.support.waiting import eventually

from doorward.engine.processes import stop, tied_to_us

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "mcp.md"
RESOURCE, DOOR = "https://files.example.com/mcp", "https://door.example.com"
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
    """The guide's program that has this in it."""
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (one,) = [each for each in found if part in each]
    return str(one)


def commands() -> list[list[str]]:
    """Every ``doorward apps create`` of the guide."""
    lines = re.findall(r"^doorward apps create (.*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def written(folder: Path, house: House, port: int, part: str, **replaced: str) -> Path:
    """An example as a file, for this door and this port."""
    text = example(part).replace(DOOR, house.issuer).replace("port=8000", f"port={port}")
    for before, after in replaced.items():
        assert before in text
        text = text.replace(before, after)
    place = folder / f"{hashlib.sha256(part.encode()).hexdigest()[:12]}.py"
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
    """What a program printed, which has to end well."""
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
