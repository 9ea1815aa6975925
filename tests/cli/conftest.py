"""A server for the command line to talk to: the real API over a real socket, and over HTTP."""

import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import uvicorn
from starlette.types import ASGIApp
from tests.support.means import give_passkey, give_recovery_codes, sign_in
from tests.support.nouns import node_key
from tests.support.scripts import play
from tests.support.waiting import until
from tests.support.world import AUDIT_KEY, World, open_world

from doorward.cli import times
from doorward.store import audit, checkpoints
from doorward.tailnet.tabs import judged

Play = Callable[[str], Awaitable[int]]
SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application on a listening socket."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error", access_log=False))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        await until(lambda: server.started)
        try:
            yield
        finally:
            server.should_exit = True


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A tailnet whose server runs; the environment points at its data directory, its HTTP address is ``address``."""
    # In /tmp directly: pytest's folders make paths too long for a socket address.
    with tempfile.TemporaryDirectory(prefix="dw-cli-", dir="/tmp") as name:
        folder = Path(name)
        monkeypatch.setenv("DOORWARD_DATA_DIR", name)
        for variable in ("DOORWARD_SERVER", "DOORWARD_TOKEN", "COLUMNS", "FORCE_COLOR"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.chdir(folder)
        async with open_world(folder) as made:
            monkeypatch.setattr(times, "now", made.clock.now)
            local = socket.socket(socket.AF_UNIX)
            local.bind(str(folder / "doorward.sock"))
            public = socket.create_server(("127.0.0.1", 0))
            async with serving(made.as_admin(), local), serving(made.app, public):
                made.address = f"http://127.0.0.1:{public.getsockname()[1]}"
                yield made


async def open_tab(world: World, name: str, machine: str, *accounts: str) -> None:
    """Have a browser's tab of somebody opened for these accounts of a machine."""
    tabs, snapshot = world.registry.tabs, world.registry.snapshot
    tabs.region = 900
    user = snapshot.user_by_name(name)
    assert user is not None
    session = await sign_in(world, user)
    for account in accounts:
        target = judged(snapshot, user.id, snapshot.find_node(machine), account)
        await tabs.open(f"user:{name}", user, session, node_key(77), target)


@pytest.fixture
def play_script(world: World) -> Play:
    """Runs ``scripts/NAME.txt``, whose ``%`` lines are words to the tailnet."""

    async def tell(words: list[str]) -> None:
        match words:
            case ["join", number, hostname, key, *routes]:
                await world.ask(int(number), hostname, key, RoutableIPs=routes)
            case ["ask", number, hostname]:
                await world.ask(int(number), hostname)
            case ["online", hostname, *endpoints]:
                await world.report(world.registry.snapshot.find_node(hostname), *endpoints)
            case ["later", seconds]:
                world.clock.advance(float(seconds))
            case ["sign"]:
                database = world.registry.writer.database
                seq, digest = await database.read(audit.head)
                await database.run(checkpoints.add, AUDIT_KEY.sign(seq, digest, world.clock.now()))
            case ["own", file]:
                await world.registry.own_policy(world.folder / file)
            case ["find", level, subject, message, cure]:
                world.find(level, subject, message, cure)
            case ["signed-in", name]:
                user = world.registry.snapshot.user_by_name(name)
                assert user is not None
                passkey = await give_passkey(world, user)
                await give_recovery_codes(world, user, "a", "b")
                await sign_in(world, user, method=f"passkey:{passkey.id}")
                await sign_in(world, user, "other", method="recovery")
            case ["tab", name, machine, *accounts]:
                await open_tab(world, name, machine, *accounts)
            case _:
                raise ValueError(words)

    async def run(name: str) -> int:
        return await play(SCRIPTS / f"{name}.txt", tell, {"SERVER": world.address})

    return run
