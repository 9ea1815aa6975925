"""What a person waits for: ``python -m bench.journeys [--rounds N]``.

Real programs on loopback: ``doorward serve``, the stock client, OpenSSH. Wall seconds, median and range of the rounds. The
baseline of each row is what the machine needs for the part of it that is not doorward's.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually

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


def row(name: str, must: str, values: list[float], base_name: str, base: list[float]) -> None:
    """One line of the table."""
    median, floor = statistics.median(values), statistics.median(base)
    print(
        f"| {name} | {median:.2f} ({min(values):.2f}-{max(values):.2f}) | {must} "
        f"| {base_name}: {floor:.2f} | {median / floor:.1f} |",
        flush=True,
    )


async def bench_serve(count: int) -> None:
    """From the command to ``ready``, in a new data directory and in one that was used."""
    python = await rounds(count, lambda: timed(sys.executable, "-c", "import sqlalchemy, uvicorn, h2"))
    fresh, again = [], []
    for _ in range(count):
        server = Server()
        try:
            fresh.append(await server.start())
            await server.stop()
            again.append(await server.start())
        finally:
            await server.__aexit__(None, None, None)
    row("`serve` to `ready`, new data directory", "2 (1)", fresh, "import of its libraries", python)
    row("`serve` to `ready`, used data directory", "2 (1)", again, "import of its libraries", python)


async def bench_up(count: int) -> None:
    """``tailscale up`` with a key, on a client that was never logged in."""
    values: list[float] = []
    floor: list[float] = []
    async with Server() as server:
        key = await server.key("--user", await server.user(), "--reusable")
        for number in range(count):
            async with StockClient(f"node{number}") as client:
                floor.append(await timed(str(client.client.tailscale), "version"))
                began = time.perf_counter()
                await client.up(server.url, key)
                values.append(time.perf_counter() - began)
    row("`tailscale up` with a key", "0.5 (0.15)", values, "`tailscale version`", floor)


def _streams(log: Path) -> int:
    return log.read_text(errors="replace").count("map stream opened")


async def bench_return(count: int) -> None:
    """How soon clients are back, by the server's log: after the worker was killed, and after everything was."""
    worker: list[float] = []
    everything: list[float] = []
    floor: list[float] = []
    async with Server() as server, machines(server, "laptop", "server"):
        await server.own_node()
        for _ in range(count):
            floor.append(await timed(sys.executable, "-c", "import sqlalchemy, uvicorn, h2"))
            await asyncio.sleep(2)
            before = _streams(server.log)
            began = time.perf_counter()
            os.kill(server.worker_pid(), signal.SIGKILL)
            worker.append(await _until_streams(server.log, before + 2, began))
        for _ in range(count):
            await asyncio.sleep(2)
            before = _streams(server.log)
            await server.kill()
            began = time.perf_counter()
            await server.start()
            everything.append(await _until_streams(server.log, before + 2, began))
    row("two clients back after the worker was killed", "5 (0.5)", worker, "import of its libraries", floor)
    row(
        "the same after everything was killed and started", "15", everything, "import of its libraries", floor
    )


async def _until_streams(log: Path, count: int, began: float) -> float:
    async with asyncio.timeout(40):
        while _streams(log) < count:
            await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def bench_ssh(count: int) -> None:
    """``ssh HOST true`` through the tailnet."""
    async with Server() as server, machines(server, "laptop", "server") as (laptop, target):
        await target.cli("set", "--ssh")
        command = laptop.ssh_command("root@server", "true")
        await eventually(lambda: _works(command), within=15)
        values = await rounds(count, lambda: timed(*command))
        floor = await rounds(count, lambda: timed("ssh", "-V"))
    row("`ssh true` between two nodes", "(0.3)", values, "`ssh -V`", floor)


async def _works(command: list[str]) -> bool:
    with contextlib.suppress(RuntimeError):
        await timed(*command)
        return True
    return False


async def bench_cli(count: int) -> None:
    """``doorward nodes list``."""
    async with Server() as server:
        doorward = str(Path(sys.executable).with_name("doorward"))
        command = (doorward, "nodes", "list", "--data-dir", str(server.folder))
        values = await rounds(count, lambda: timed(*command))
        floor = await rounds(count, lambda: timed(sys.executable, "-c", "pass"))
    row("`doorward nodes list`", "0.4 (0.2)", values, "`python -c pass`", floor)


def processor() -> str:
    """What the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.journeys", description="What a person waits for.")
    parser.add_argument("--rounds", type=int, default=5)
    count = parser.parse_args().rounds
    print(
        f"{os.cpu_count()} cores of {processor()}, Python {platform.python_version()}, {platform.system()}\n"
    )
    print("| what | seconds, median (range) | must (aim) | baseline | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for bench in (bench_serve, bench_up, bench_return, bench_ssh, bench_cli):
        await bench(count)


if __name__ == "__main__":
    asyncio.run(main())
