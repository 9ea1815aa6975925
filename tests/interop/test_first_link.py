"""The first administrator's link from a real ``serve``: on a terminal, and where there is none; with several workers."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from tests.support.fetching import fetch
from tests.support.postgres import Cluster
from tests.support.server import Server
from tests.support.waiting import eventually, until
from tests.support.workers import data_folder

from doorward.engine.processes import stop, tied_to_us

pytestmark = pytest.mark.interop

CODE = re.compile(r"/invite/([a-z2-7]{32})\b")


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


class Screen:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self) -> None:
        self._ours, self.end = pty.openpty()
        self.text = ""

    async def read(self) -> None:
        """Take in what comes, until nobody has the other end open."""
        os.close(self.end)
        while True:
            try:
                self.text += (await asyncio.to_thread(os.read, self._ours, 65536)).decode()
            except OSError:  # what Linux says of a terminal that everybody has left
                break
        os.close(self._ours)


@contextlib.asynccontextmanager
async def shown(
    command: list[str], environ: Mapping[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    """A program whose stderr is a terminal, stopped at the end of the block."""
    screen = Screen()
    process = await asyncio.create_subprocess_exec(
        *tied_to_us([sys.executable, "-m", "doorward", *command]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=screen.end,
        env=dict(environ),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(screen.read())
        try:
            yield process, screen
        finally:
            await stop(process, 6)


async def test_a_service_says_where_the_link_is_and_no_more(server: Server) -> None:
    file = server.folder / "first-administrator.txt"
    await until(lambda: str(file) in server.log.read_text())
    local, door = _private(file).splitlines()
    (code,) = CODE.findall(local)
    assert local == f"http://localhost:{server.listens_at[1]}/invite/{code}"
    assert door.endswith(f":{server.door_port}/invite/{code}")
    assert not CODE.search(server.log.read_text())
    # The page opens, twice: looking uses nothing up.
    for _ in range(2):
        page = await fetch(local)
        assert (page.status, "invite" in page.text.lower()) == (200, True)
    # What the page was asked with is in no log either, and another start makes another link.
    await server.stop()
    assert code not in server.log.read_text()
    await server.start()
    await until(lambda: _has_another(file, code))
    assert (await fetch(local)).status == 404
    # By command it is the same: a pipe is told of a file.
    made = (await server.run("users", "invite", "ann")).stdout
    assert not CODE.search(made)
    assert CODE.search(_private(Path(made.strip())))


def _has_another(file: Path, code: str) -> bool:
    """Whether there is another link in it; in between there is no file."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return False
    return bool(CODE.search(text)) and code not in text


def _private(file: Path) -> str:
    """The text of a file that only its owner may read."""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_text()


async def test_a_terminal_is_shown_one_link_by_two_workers(folder: Path, database: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DOORWARD_", "TS_"))}
    environ |= {"DOORWARD_DATABASE_URL": database, "DOORWARD_TAILSCALED": "off"}
    command = ["serve", "--data-dir", str(folder), "--listen", "127.0.0.1:0", "--workers", "2"]
    async with shown(command, environ) as (process, screen):
        assert process.stdout is not None
        async with asyncio.timeout(60):
            ready = (await process.stdout.readline()).decode()
        await until(lambda: bool(CODE.search(screen.text)))
        address = ready.removeprefix("ready ").strip()
        local = address.replace("127.0.0.1", "localhost")
        assert re.search(rf"{local}/invite/[a-z2-7]{{32}}\s", screen.text)
        # A worker that dies is replaced, and says nothing of its own about it.
        os.kill(_first_child(process.pid), signal.SIGKILL)
        await until(lambda: "a worker died" in screen.text)
        await eventually(partial(_answers, f"{address}/key?v=140"))
        await stop(process, 6)
        rest = (await process.stdout.read()).decode()
    assert rest == "", "the ready line stays the only one"
    assert len(set(CODE.findall(screen.text))) == 1
    assert not (folder / "first-administrator.txt").exists()


def _first_child(pid: int) -> int:
    """The first worker, where there is no daemon."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])


async def _answers(address: str) -> bool:
    return (await fetch(address)).status == 200
