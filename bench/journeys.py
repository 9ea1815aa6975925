"""What a person waits for.

Real programs on loopback: ``doorward serve``, the stock client, OpenSSH. Wall seconds, median and range of the rounds. The
baseline of each row is what the machine needs for the part of it that is not doorward's.
"""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually

from bench.table import Figures, Found, Group, Options, Row
from doorward.engine.processes import stop

DECIDES = ("policy", "fallback", "always")  # of the setting ssh.decide

Measure = Callable[[], Awaitable[float]]


async def timed(*command: str) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    code = await process.wait()
    if code:
        raise RuntimeError(f"{command} ended with {code}")
    return time.perf_counter() - began


async def rounds(count: int, measure: Measure) -> list[float]:
    """The same thing several times."""
    return [await measure() for _ in range(count)]


async def bench_serve(count: int) -> Found:
    """From the command to ``ready``, in a new data directory and in one that was used."""
    python = await _imports(count)
    fresh, again = [], []
    for _ in range(count):
        server = Server()
        try:
            fresh.append(await server.start())
            await server.stop()
            again.append(await server.start())
        finally:
            await server.__aexit__(None, None, None)
    return {"serve-new": Figures(fresh, python), "serve": Figures(again, python)}


async def _imports(count: int) -> list[float]:
    return await rounds(count, lambda: timed(sys.executable, "-c", "import sqlalchemy, uvicorn, h2"))


async def bench_living(count: int) -> Found:
    """What happens on a tailnet that is there: two stock clients, and others that come."""
    async with Server() as server, machines(server, "laptop", "server") as (laptop, target):
        await server.own_node()
        return {
            "up": await _up(server, count),
            "ssh": await _ssh(laptop, target, count),
            "cli": await _cli(server, count),
            "back": Figures(
                [await _killed(server, _kill_worker) for _ in range(count)], await _imports(count)
            ),
            "back-all": Figures(
                [await _killed(server, _kill_everything) for _ in range(count)], await _imports(count)
            ),
        }


async def _up(server: Server, count: int) -> Figures:
    """``tailscale up`` with a key, on a client that was never logged in."""
    found = Figures()
    key = await server.key("--user", await server.user("bob"), "--reusable")
    for number in range(count):
        async with StockClient(f"node{number}") as client:
            found.baseline.append(await timed(str(client.client.tailscale), "version"))
            began = time.perf_counter()
            await client.up(server.url, key)
            found.samples.append(time.perf_counter() - began)
            await client.cli("logout")
    return found


async def _ssh(laptop: StockClient, target: StockClient, count: int) -> Figures:
    """``ssh HOST true`` through the tailnet."""
    await target.cli("set", "--ssh")
    command = laptop.ssh_command("root@server", "true")
    await eventually(lambda: works(command), within=15)
    values = await rounds(count, lambda: timed(*command))
    return Figures(values, await rounds(count, lambda: timed("ssh", "-V")))


async def bench_deciding(count: int) -> Found:
    """What deciding about an ssh costs the person: three servers, one for each ``ssh.decide``, asked in turn."""
    async with contextlib.AsyncExitStack() as stack:
        commands: dict[str, list[str]] = {}
        for decide in DECIDES:
            server = await stack.enter_async_context(Server(environ={"DOORWARD_SSH_DECIDE": decide}))
            laptop, target = await stack.enter_async_context(machines(server, "laptop", "server"))
            await target.cli("set", "--ssh")
            command = laptop.ssh_command("root@server", "true")
            await eventually(functools.partial(works, command), within=15)
            # Holds are the node's a moment after it has said that it runs the server.
            if decide != "policy":
                await eventually(functools.partial(_is_decided, server, command), within=15)
            commands[decide] = [*command[:-1], "-tt"]
        taken: dict[str, list[float]] = {decide: [] for decide in DECIDES}
        for number in range(count):
            # Each goes first in its turn.
            for decide in (*DECIDES[number % 3 :], *DECIDES[: number % 3]):
                taken[decide].append(await first_byte(*commands[decide]))
        plain = taken.pop("policy")
        found = {"ssh-policy": Figures(plain, await rounds(count, lambda: timed("ssh", "-V")))}
        for decide, seconds in taken.items():
            found[f"ssh-{decide}"] = Figures(seconds, plain)
            added = [max(0.0, one - other) for one, other in zip(seconds, plain, strict=True)]
            found[f"ssh-{decide}-adds"] = Figures(added, plain)
        return found


async def _is_decided(server: Server, command: list[str]) -> bool:
    before = len(await server.json("audit", "list", "--action", "ssh.attempt"))
    await timed(*command)
    return len(await server.json("audit", "list", "--action", "ssh.attempt")) > before


async def first_byte(*command: str) -> float:
    """Seconds until the shell at the other end shows something."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        said = await process.stdout.read(1)
    taken = time.perf_counter() - began
    await stop(process, 1)
    if not said:
        raise RuntimeError(f"{command} ended without a shell")
    return taken


async def works(command: list[str]) -> bool:
    with contextlib.suppress(RuntimeError):
        await timed(*command)
        return True
    return False


async def _cli(server: Server, count: int) -> Figures:
    """``doorward nodes list``."""
    doorward = str(Path(sys.executable).with_name("doorward"))
    command = (doorward, "nodes", "list", "--data-dir", str(server.folder))
    values = await rounds(count, lambda: timed(*command))
    return Figures(values, await rounds(count, lambda: timed(sys.executable, "-c", "pass")))


async def _killed(server: Server, kill: Callable[[Server], Awaitable[float]]) -> float:
    """How soon the two clients are back, by the server's log."""
    await asyncio.sleep(2)
    before = _streams(server.log)
    began = await kill(server)
    async with asyncio.timeout(40):
        while _streams(server.log) < before + 2:
            await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def _kill_worker(server: Server) -> float:
    began = time.perf_counter()
    os.kill(server.worker_pid(), signal.SIGKILL)
    return began


async def _kill_everything(server: Server) -> float:
    await server.kill()
    began = time.perf_counter()
    await server.start()
    return began


def _streams(log: Path) -> int:
    return log.read_text(errors="replace").count("map stream opened")


def _group(
    name: str,
    bench: Callable[[int], Awaitable[Found]],
    seconds: float,
    *rows: tuple[str, str, str, float | None, float | None],
) -> Group:
    made = (
        Row(id=key, what=what, unit="s", baseline=baseline, must=must, aim=aim)
        for key, what, baseline, must, aim in rows
    )

    async def run(options: Options) -> Found:
        return await bench(options.rounds)

    return Group(name=name, rows=tuple(made), run=lambda options: asyncio.run(run(options)), seconds=seconds)


_SHELL = "from `ssh` to the first byte of the shell, `ssh.decide` = `{}`"
_PLAIN = "the same under `policy`"
_IMPORTS = "import of its libraries"

GROUPS = (
    _group(
        "journeys, serve",
        bench_serve,
        25,
        ("serve-new", "`serve` to `ready`, new data directory", _IMPORTS, 2, 1),
        ("serve", "`serve` to `ready`, used data directory", _IMPORTS, 2, 1),
    ),
    _group(
        "journeys, deciding",
        bench_deciding,
        30,
        ("ssh-policy", _SHELL.format("policy"), "`ssh -V`", None, 0.3),
        ("ssh-fallback", _SHELL.format("fallback"), _PLAIN, None, None),
        ("ssh-fallback-adds", "what deciding adds to that", _PLAIN, 0.05, None),
        ("ssh-always", _SHELL.format("always"), _PLAIN, None, None),
        ("ssh-always-adds", "what deciding adds to that", _PLAIN, 0.05, None),
    ),
    _group(
        "journeys",
        bench_living,
        90,
        ("up", "`tailscale up` with a key", "`tailscale version`", 0.5, 0.15),
        ("back", "two stock clients back after the worker was killed", _IMPORTS, 5, 0.5),
        ("back-all", "the same after everything was killed and started", _IMPORTS, 15, None),
        ("ssh", "`ssh true` between two nodes", "`ssh -V`", None, 0.3),
        ("cli", "`doorward nodes list`", "`python -c pass`", 0.4, 0.2),
    ),
)
