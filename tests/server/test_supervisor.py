"""A real parent process with real workers, killed in every way."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.processes import gone
from tests.support.waiting import until

from doorward.errors import Unavailable
from doorward.server import supervisor
from doorward.server.sockets import bind_shared
from doorward.server.supervisor import Post, Supervisor, WorkerError

ROOT = Path(__file__).parents[2]

PARENT = """
import asyncio, socket, sys
from doorward import telemetry
from doorward.errors import DoorwardError
from doorward.errors import Unavailable
from doorward.server import supervisor
from doorward.server.sockets import bind_shared
telemetry.configure(json=True)
supervisor.STOP_PATIENCE = 0.3
one = socket.socket()
one.bind(("127.0.0.1", 0))
one.listen()
one.setblocking(False)
print(one.getsockname()[1], flush=True)
ready = lambda: print("ready", flush=True)
posts = [supervisor.Post(said.encode(), {"public": [one]}) for said in sys.argv[1].split(",")]
parent = supervisor.Supervisor("tests.support.tiny_worker:main", posts, on_ready=ready)
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


async def test_a_parent_that_cannot_start_a_worker_tries_until_it_can() -> None:
    async with _parent() as running:
        first = await running.ask()
        number, before = running.process.pid, resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(number, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(first.worker, signal.SIGKILL)
        asked = asyncio.get_running_loop().create_task(running.ask())
        await asyncio.sleep(2.5)  # longer than until a spare is made, and several starts of a worker
        assert not asked.done()
        assert running.process.returncode is None
        resource.prlimit(number, resource.RLIMIT_NOFILE, before)
        async with asyncio.timeout(10):
            assert (await asked).worker != first.worker


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
        if not found or gone(found):
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
        await until(lambda: gone(spare))
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
        await until(lambda: gone(spare) and gone(answer.worker))


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
        await until(lambda: gone(answer.worker) and gone(answer.helper))
        with pytest.raises(ConnectionRefusedError):
            await running.ask()


async def test_sigterm_stops_worker_and_parent() -> None:
    async with _parent() as running:
        answer = await running.ask()
        running.process.terminate()
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
        assert gone(answer.worker)
        assert gone(answer.helper)


async def test_a_worker_that_does_not_listen_is_made_to_stop() -> None:
    async with _parent("deaf") as running:
        answer = await running.ask()
        running.process.terminate()
        async with asyncio.timeout(5):
            assert await running.process.wait() == 0
        assert gone(answer.worker)


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
        [Post(b"hang", {"public": [listener]})],
        on_ready=lambda: pytest.fail("not ready"),
    )
    with pytest.raises(WorkerError, match=r"did not start.*killed by SIGKILL"):
        await parent.run()
    assert parent.pids == [None]


async def test_a_worker_that_served_once_and_dies_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setattr(supervisor, "LIVES", 3)
    parent: Supervisor

    def ready() -> None:
        (place,) = parent._places
        place.post = Post(b"exit", {"public": [listener]})
        (pid,) = parent.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    parent = Supervisor(
        "tests.support.tiny_worker:main", [Post(b"serve", {"public": [listener]})], on_ready=ready
    )
    with pytest.raises(WorkerError, match=r"died 3 times in a row .exit code 3"):
        await parent.run()


# Several posts


@contextlib.contextmanager
def group_of(count: int) -> Iterator[list[socket.socket]]:
    """Listening sockets on one address, one for each post, as ``serve`` makes them."""
    made = bind_shared("127.0.0.1", 0, socket.SOCK_STREAM, count)
    with contextlib.ExitStack() as closing:
        for one in made:
            closing.enter_context(one)
        yield made


@contextlib.asynccontextmanager
async def supervised(
    *said: str, beside: Callable[[], Awaitable[None]] | None = None, sockets: list[socket.socket]
) -> AsyncIterator[tuple[Supervisor, Running]]:
    """A parent in our own process, until the end of the block."""
    posts = [Post(what.encode(), {"public": [one]}) for what, one in zip(said, sockets, strict=True)]
    ready = asyncio.Event()
    parent = Supervisor("tests.support.tiny_worker:main", posts, on_ready=ready.set, beside=beside)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(parent.run())
        waiting = group.create_task(ready.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        try:
            yield parent, Running(None, sockets[0].getsockname()[1])  # type: ignore[arg-type]
        finally:
            waiting.cancel()
            parent._stop()


async def answering(running: Running, count: int) -> set[int]:
    """Ask until so many workers have answered."""
    found: set[int] = set()
    async with asyncio.timeout(10):
        while len(found) < count:
            found.add((await running.ask()).worker)
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not spread connections")


@linux
async def test_each_post_has_a_worker_and_one_spare_stands_by_for_all() -> None:
    with group_of(3) as sockets:
        async with supervised("serve", "serve", "serve", sockets=sockets) as (parent, running):
            first = await answering(running, 3)
            assert first == set(parent.pids)
            for index in (2, 0):
                await until(lambda: parent._spare is not None, 20)
                assert parent._spare is not None
                spare, dead = parent._spare.process.pid, parent.pids[index]
                assert dead is not None
                os.kill(dead, signal.SIGKILL)
                await until(lambda index=index, spare=spare: parent.pids[index] == spare)  # type: ignore[misc]
                assert await answering(running, 3) == set(parent.pids)


@linux
async def test_two_that_die_at_once_are_both_replaced() -> None:
    with group_of(2) as sockets:
        async with supervised("serve", "serve", sockets=sockets) as (parent, running):
            before = await answering(running, 2)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            after = await answering(running, 2)
            assert not before & after
            assert after == set(parent.pids)


@linux
async def test_who_waits_at_a_dead_one_is_answered_by_its_successor() -> None:
    with group_of(2) as sockets:
        async with supervised("serve", "serve", sockets=sockets) as (parent, running):
            (dead, _) = parent.pids
            assert dead is not None
            os.kill(dead, signal.SIGKILL)
            async with asyncio.timeout(10):
                answers = await asyncio.gather(*(running.ask() for _ in range(40)))
            assert dead not in {answer.worker for answer in answers}


@linux
async def test_one_that_dies_again_and_again_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up by nobody, gets no spare after the first ones, and its share of connections while it waits."""
    monkeypatch.setattr(supervisor, "LIVES", 3)
    monkeypatch.setattr(supervisor, "PARK_FROM", 0.1)
    monkeypatch.setattr(supervisor, "SPARE_AFTER", 0.0)
    with group_of(2) as sockets:
        async with supervised("serve", "serve", sockets=sockets) as (parent, running):
            await answering(running, 2)
            mad, sane = parent._places
            mad.post = Post(b"exit", mad.post.sockets)
            dead, good = parent.pids
            assert dead is not None
            os.kill(dead, signal.SIGKILL)
            # The spare knew it as it was; those that are started now do not.
            while mad.backoff.quick_deaths < 6:
                if mad.serves and (pid := parent.pids[0]) is not None:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
            assert parent.pids[1] == good
            assert sane.backoff.quick_deaths == 0
            # It waits for more than a second now, and nobody waits with it.
            await until(lambda: mad.process is not None and mad.process.returncode is not None)
            async with asyncio.timeout(0.8):
                answers = [await running.ask() for _ in range(40)]
            assert {answer.worker for answer in answers} == {good}
            mad.post = Post(b"serve", mad.post.sockets)
            assert await answering(running, 2) == set(parent.pids)


async def test_a_first_worker_that_cannot_start_ends_the_others_too(listener: socket.socket) -> None:
    posts = [Post(what, {"public": [listener]}) for what in (b"serve", b"exit", b"serve")]
    parent = Supervisor("tests.support.tiny_worker:main", posts, on_ready=lambda: pytest.fail("not ready"))
    with pytest.raises(WorkerError, match=r"did not start .exit code 3"):
        await parent.run()
    assert parent.pids == [None, None, None]


@linux
async def test_ready_is_said_once_for_all_and_signals_reach_all() -> None:
    async with _parent("serve,serve") as running:  # on one socket, as systemd brings it
        workers = {(await running.ask()).worker}
        async with asyncio.timeout(20):
            while len(workers) < 2:
                # Whoever wakes first answers: let one of them sleep.
                (known,) = workers
                os.kill(known, signal.SIGSTOP)
                workers.add((await running.ask()).worker)
                os.kill(known, signal.SIGCONT)
        running.process.send_signal(signal.SIGHUP)
        for pid in workers:
            (other,) = workers - {pid}
            os.kill(other, signal.SIGSTOP)
            async with asyncio.timeout(5):
                while (await running.ask()).reloads == 0:  # noqa: ASYNC110 - the other process tells nobody
                    await asyncio.sleep(0.01)
            os.kill(other, signal.SIGCONT)
        running.process.terminate()
        async with asyncio.timeout(5):
            assert await running.lines() == []
        assert all(gone(pid) for pid in workers)


async def test_what_runs_beside_begins_when_all_serve_and_stops_with_them(listener: socket.socket) -> None:
    events: list[str] = []

    async def beside() -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("stopped")

    async with supervised("serve", beside=beside, sockets=[listener]) as (parent, running):
        await until(lambda: events == ["began"])
        (pid,) = parent.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await running.ask()
        assert events == ["began"], "it outlives a worker"
    assert events == ["began", "stopped"]


async def test_what_runs_beside_and_fails_is_not_hidden(listener: socket.socket) -> None:
    async def beside() -> None:
        raise Unavailable("broken")

    parent = Supervisor(
        "tests.support.tiny_worker:main",
        [Post(b"serve", {"public": [listener]})],
        on_ready=lambda: None,
        beside=beside,
    )
    with pytest.raises(Unavailable, match="broken"):
        await parent.run()
    assert parent.pids == [None]
