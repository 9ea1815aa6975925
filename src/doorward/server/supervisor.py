"""The parent of ``serve``: holds the listening sockets, and keeps a worker on them.

A worker that dies is replaced at once, and later after each quick death; connections made meanwhile wait in the sockets'
queues, so no client sees a refusal. Loading a worker's libraries takes most of a second, so a spare one stands by that has
loaded them and has done nothing else: it touches neither sockets nor store until it is told to go. A worker that never
gets as far as serving is not started again: its error has been said. SIGTERM and SIGINT stop the worker and then us, in
under five seconds; a second one is not patient. SIGHUP is handed on. The worker dies with us: the kernel sees to it on
Linux, and the end of a pipe everywhere.

A worker is ``python -m doorward.server.child``, which calls the coroutine it is told of::

    async def main(child: Child) -> None: ...
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from doorward.clock import Clock, SystemClock
from doorward.engine.processes import Backoff, send, stop
from doorward.errors import Unavailable
from doorward.telemetry import log

_log = log("supervisor")

READY = b"ready\n"
# Below the five seconds that are promised, with room for the interpreter's own end.
STOP_PATIENCE = 4.0
# Longer than any migration of a store that a single process serves.
READY_PATIENCE = 300.0
# After a worker serves, until the spare is made ready: its start is not to be slowed down.
SPARE_AFTER = 1.0
# Quick deaths in a row before we give up and let whatever started us decide.
LIVES = 10


class WorkerError(Unavailable):
    """The worker cannot be brought to serve. What it said about it is on stderr."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told, through a file without a name: nothing of it shows in a list of processes."""

    main: str  # "package.module:coroutine"
    payload: bytes  # for it; the supervisor does not look inside
    sockets: dict[str, list[int]]  # inherited descriptors by name
    go: int  # one byte comes when it is to begin; ends without one when it is not needed
    ready: int  # where READY is written once it serves
    parent: int  # our process id
    alive: int  # ends when we do


class _Worker(NamedTuple):
    """A process, and our ends of its pipes."""

    process: asyncio.subprocess.Process
    go: int
    ready: int

    def close(self) -> None:
        os.close(self.go)
        os.close(self.ready)


class Supervisor:
    """Keeps one worker on a set of sockets.

    Args:
        main: the worker's coroutine, ``package.module:name``.
        payload: handed to it as it is.
        sockets: bound and listening, by name.
        on_ready: called once, when the first worker serves.
        clock: tells how long each worker lived.
    """

    def __init__(
        self,
        main: str,
        payload: bytes,
        sockets: Mapping[str, Sequence[socket.socket]],
        *,
        on_ready: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        self._main = main
        self._payload = payload
        self._sockets = sockets
        self._on_ready = on_ready
        self._clock = clock or SystemClock()
        self._backoff = Backoff(first=0.05, longest=5.0, steady=10.0)
        self._worker: asyncio.subprocess.Process | None = None
        self._spare: _Worker | None = None
        self._stopping = asyncio.Event()
        self._was_ready = False

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return self._worker.pid if self._worker and self._worker.returncode is None else None

    async def run(self) -> None:
        """Serve until a signal says stop. Raises WorkerError when a worker cannot be brought to serve."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hand_on, signal.SIGHUP)
        # Its other end is inherited by every worker and never written: it reads as ended when we are gone.
        alive, ours = os.pipe()
        try:
            while not self._stopping.is_set():
                started = self._clock.monotonic()
                served, code = await self._live(await self._next(alive), alive)
                if not self._stopping.is_set():
                    await self._pause(served, code, self._clock.monotonic() - started)
        finally:
            if self._spare is not None:
                await _dismiss(self._spare)
            os.close(alive)
            os.close(ours)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _next(self, alive: int) -> _Worker:
        """The spare, where there is one that lives; else a new worker."""
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.process.returncode is None:
                return spare
            spare.close()
        return await self._start(alive)

    async def _start(self, alive: int) -> _Worker:
        """A process that loads what a worker needs, and waits for its byte."""
        go_end, go = os.pipe()
        ready, ready_end = os.pipe()
        descriptors = {name: [one.fileno() for one in group] for name, group in self._sockets.items()}
        order = Order(
            main=self._main,
            payload=self._payload,
            sockets=descriptors,
            go=go_end,
            ready=ready_end,
            parent=os.getpid(),
            alive=alive,
        )
        inherited = [number for group in descriptors.values() for number in group]
        try:
            # A file without a name: it holds any length, and the worker reads it when it gets there.
            with tempfile.TemporaryFile() as told:
                told.write(msgspec.json.encode(order))
                told.seek(0)
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "doorward.server.child",
                    str(told.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(*inherited, told.fileno(), go_end, ready_end, alive),
                    # A terminal's Ctrl-C goes to us alone, and we tell the worker.
                    start_new_session=True,
                )
        except BaseException:
            os.close(go)
            os.close(ready)
            raise
        finally:
            os.close(go_end)
            os.close(ready_end)
        return _Worker(process, go, ready)

    async def _live(self, worker: _Worker, alive: int) -> tuple[bool, int]:
        """One worker's life: whether it got to serving, and how it ended."""
        process = self._worker = worker.process
        with contextlib.suppress(BrokenPipeError):  # it has died since, which is noticed below
            os.write(worker.go, b"\n")
        os.close(worker.go)
        served = False
        try:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self._wait_for_ready(worker.ready, process))
                beside = [
                    group.create_task(self._wait_for_stop(process)),
                    group.create_task(self._make_spare(waiting, alive)),
                ]
                code = await process.wait()
                for task in beside:
                    task.cancel()
                served = await waiting
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return served, code

    async def _make_spare(self, waiting: asyncio.Task[bool], alive: int) -> None:
        await asyncio.wait([waiting])
        if waiting.result():
            await asyncio.sleep(SPARE_AFTER)
            self._spare = await self._start(alive)

    async def _wait_for_ready(self, descriptor: int, worker: asyncio.subprocess.Process) -> bool:
        """Whether the worker says that it serves, before it ends or its time is over."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            async with asyncio.timeout(READY_PATIENCE):
                served = await reader.readline() == READY
        except TimeoutError:
            _log.error("the worker does not get to serving", pid=worker.pid, seconds=READY_PATIENCE)
            send(worker, signal.SIGKILL)
            return False
        finally:
            transport.close()
        if served and not self._was_ready:
            self._was_ready = True
            self._on_ready()
        return served

    async def _wait_for_stop(self, worker: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        await stop(worker, STOP_PATIENCE)

    async def _pause(self, served: bool, code: int, lived: float) -> None:
        """Wait before the next start, or give up."""
        if not self._was_ready:
            raise WorkerError(
                f"doorward did not start ({_how(code)})", cure="The reason is in the lines above."
            )
        # A worker that served for a moment and died is a quick death too; one that never served, however long it took.
        wait = self._backoff.after(lived if served else 0.0)
        if self._backoff.quick_deaths >= LIVES:
            raise WorkerError(
                f"the worker died {LIVES} times in a row ({_how(code)})",
                cure="The reason is in the lines above.",
            )
        _log.error("the worker died and is started again", how=_how(code), lived=round(lived, 1), wait=wait)
        try:
            async with asyncio.timeout(wait):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _stop(self) -> None:
        if self._stopping.is_set() and self.pid is not None:
            self._hand_on(signal.SIGKILL)
        self._stopping.set()

    def _hand_on(self, number: signal.Signals) -> None:
        if self._worker is not None:
            send(self._worker, number)


async def _dismiss(worker: _Worker) -> None:
    """End a worker that was never told to go; there is nothing that it could leave undone."""
    worker.close()
    if worker.process.returncode is None:
        worker.process.kill()
    await worker.process.wait()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
