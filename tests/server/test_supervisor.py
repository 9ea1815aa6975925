"""A real parent process with real workers, killed in every way."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.waiting import until

from doorward.server import supervisor
from doorward.server.supervisor import Supervisor, WorkerError

ROOT = Path(__file__).parents[2]

PARENT = """
import asyncio, socket, sys
from doorward import telemetry
from doorward.errors import DoorwardError
from doorward.server import supervisor
telemetry.configure(json=True)
supervisor.STOP_PATIENCE = 0.3
one = socket.socket()
one.bind(("127.0.0.1", 0))
one.listen()
one.setblocking(False)
print(one.getsockname()[1], flush=True)
ready = lambda: print("ready", flush=True)
parent = supervisor.Supervisor("tests.support.tiny_worker:main", sys.argv[1].encode(), {"public": [one]}, on_ready=ready)
try:
    asyncio.run(parent.run())
except DoorwardError as error:
    sys.exit(error.sentence())
"""


class Answer(NamedTuple):
    worker: int
    helper: int
    reloads: int


class Running:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def ask(self, question: bytes = b"who\n") -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(question)
        line = await reader.readline()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        if not line:
            raise ConnectionResetError
        return Answer(*map(int, line.split()))

    async def lines(self) -> list[bytes]:
        assert self.process.stdout is not None
        return [line async for line in self.process.stdout]


@contextlib.asynccontextmanager
async def _parent(said: str = "serve", *, ready: bool = True) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        said,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        running = Running(process, int(await process.stdout.readline()))
        if ready:
            assert await process.stdout.readline() == b"ready\n"
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_connections_made_while_the_worker_is_dead_wait_and_are_answered() -> None:
    async with _parent() as running:
        first = await running.ask()
        os.kill(first.worker, signal.SIGKILL)
        # At once, by many: none is refused, all are answered by the next worker.
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(running.ask() for _ in range(20)))
        assert {answer.worker for answer in answers} != {first.worker}
        assert first.worker not in {answer.worker for answer in answers}
        assert len({answer.worker for answer in answers}) == 1
        running.process.terminate()
        assert await running.lines() == []  # "ready" was said once


async def test_a_worker_is_back_within_a_second() -> None:
    async with _parent() as running:
        first = await running.ask()
        loop = asyncio.get_running_loop()
        start = loop.time()
        os.kill(first.worker, signal.SIGKILL)
        assert (await running.ask()).worker != first.worker
        # The bare worker; four times what it takes here, so that a busy machine does not fail it.
        assert loop.time() - start < 3


async def _spare(running: Running, worker: int) -> int:
    """The process that stands by, once it has loaded everything and waits."""
    found = 0

    def waits() -> bool:
        nonlocal found
        children = (
            Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        )
        found = next((int(child) for child in children if int(child) != worker), 0)
        if not found or _gone(found):
            return False
        # Blocked, and long past the loading: the reads of files end before they are seen.
        status = Path(f"/proc/{found}/status").read_text()
        return "State:\tS" in status and "Threads:\t2" in status

    await until(waits, 20)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_spare_takes_over_and_another_one_stands_by() -> None:
    async with _parent() as running:
        worker = (await running.ask()).worker
        for _ in range(2):
            spare = await _spare(running, worker)
            os.kill(worker, signal.SIGKILL)
            worker = (await running.ask()).worker
            assert worker == spare


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_spare_that_died_is_not_waited_for() -> None:
    async with _parent() as running:
        worker = (await running.ask()).worker
        spare = await _spare(running, worker)
        os.kill(spare, signal.SIGKILL)
        await until(lambda: _gone(spare))
        os.kill(worker, signal.SIGKILL)
        assert (await running.ask()).worker not in {worker, spare}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_spare_goes_with_the_parent(number: signal.Signals) -> None:
    async with _parent() as running:
        answer = await running.ask()
        spare = await _spare(running, answer.worker)
        running.process.send_signal(number)
        await running.process.wait()
        await until(lambda: _gone(spare) and _gone(answer.worker))


async def test_a_worker_that_ends_by_itself_is_started_again_too() -> None:
    async with _parent() as running:
        first = await running.ask()
        with pytest.raises(ConnectionError):
            await running.ask(b"die\n")
        assert (await running.ask()).worker != first.worker


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker's own children may stay")
async def test_the_death_of_the_parent_ends_the_worker_and_what_it_started() -> None:
    async with _parent() as running:
        answer = await running.ask()
        running.process.kill()
        await running.process.wait()
        await until(lambda: _gone(answer.worker) and _gone(answer.helper))
        with pytest.raises(ConnectionRefusedError):
            await running.ask()


async def test_sigterm_stops_worker_and_parent() -> None:
    async with _parent() as running:
        answer = await running.ask()
        running.process.terminate()
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
        assert _gone(answer.worker)
        assert _gone(answer.helper)


async def test_a_worker_that_does_not_listen_is_made_to_stop() -> None:
    async with _parent("deaf") as running:
        answer = await running.ask()
        running.process.terminate()
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
        assert _gone(answer.worker)


async def test_a_second_signal_is_not_patient() -> None:
    async with _parent("deaf") as running:
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0


async def test_sighup_reaches_the_worker_which_stays() -> None:
    async with _parent() as running:
        first = await running.ask()
        assert first.reloads == 0
        running.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(5):
            while (again := await running.ask()).reloads == 0:  # noqa: ASYNC110 - the other process tells nobody
                await asyncio.sleep(0.01)
        assert again.worker == first.worker


async def test_a_first_worker_that_cannot_start_is_not_tried_again() -> None:
    async with _parent("refuse", ready=False) as running:
        out, err = await running.process.communicate()
        assert running.process.returncode == 1
        assert out == b""
        said = err.decode().splitlines()
        assert said[0] == "doorward: /data/doorward.db: the store is newer than this doorward. Update it."
        assert said[-1] == "doorward did not start (exit code 1). The reason is in the lines above."


async def test_stopping_before_the_worker_serves() -> None:
    async with _parent("hang", ready=False) as running:
        running.process.terminate()
        async with asyncio.timeout(5):
            await running.process.wait()
        assert await running.lines() == []


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.setblocking(False)
        yield one


async def test_a_worker_that_hangs_before_it_serves_is_ended(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setattr(supervisor, "READY_PATIENCE", 0.5)
    parent = Supervisor(
        "tests.support.tiny_worker:main",
        b"hang",
        {"public": [listener]},
        on_ready=lambda: pytest.fail("not ready"),
    )
    with pytest.raises(WorkerError, match=r"did not start.*killed by SIGKILL"):
        await parent.run()
    assert parent.pid is None


async def test_a_worker_that_served_once_and_dies_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setattr(supervisor, "LIVES", 3)
    parent: Supervisor

    def ready() -> None:
        parent._payload = b"exit"
        assert parent.pid is not None
        os.kill(parent.pid, signal.SIGKILL)

    parent = Supervisor("tests.support.tiny_worker:main", b"serve", {"public": [listener]}, on_ready=ready)
    with pytest.raises(WorkerError, match=r"died 3 times in a row .exit code 3"):
        await parent.run()
