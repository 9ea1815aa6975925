"""The parent of ``serve`` and of ``doorward relay``: holds the listening sockets, and keeps a worker at each of its posts.

::

    parent: every socket ──▶ post 1: a worker        a spare: everything loaded, nothing touched
       │                 ──▶ post 2: a worker    ◀── it is told which post is its own when one falls free
       └─ beside: what is to run while they do

A worker that dies is replaced at once, and later after each quick death; connections made meanwhile wait in its sockets'
queues, so no client sees a refusal. Loading a worker's libraries takes most of a second, so a spare one stands by, for
whichever post falls free first: it touches neither sockets nor store until it is told to go. A worker that never gets as
far as serving is not started again: its error has been said. One post that dies again and again does not end the others:
its own sockets are taken out of the kernel's choice while it waits for longer, and it is tried for ever; only when no
post holds, all is given up.

SIGTERM and SIGINT stop the workers and then us, in under five seconds; a second one is not patient. SIGHUP is handed on to
all. The workers die with us: the kernel sees to it on Linux, and the end of a pipe everywhere.

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
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from doorward.clock import Clock, SystemClock
from doorward.engine.processes import Backoff, send, stop
from doorward.errors import Unavailable
from doorward.server.sockets import BACKLOG
from doorward.telemetry import log

_log = log("supervisor")

READY = b"ready\n"
# Which post a worker takes is said in one byte.
MOST_POSTS = 64
# Below the five seconds that are promised, with room for the interpreter's own end.
STOP_PATIENCE = 4.0
# Longer than any migration of a store that a single process serves.
READY_PATIENCE = 300.0
# After a worker serves, until the spare is made ready: its start is not to be slowed down.
SPARE_AFTER = 1.0
# Until a spare that could not be started is tried again.
SPARE_RETRY = 10.0
# Quick deaths in a row before we give up and let whatever started us decide.
LIVES = 10
# A life of so many seconds counts as a good start.
STEADY = 10.0
# A post that falls free again and again starts its own workers: the spare is for the others.
SPARE_FOR = 3
# Where a post waits for so many seconds and others serve, they get its share of the connections.
PARK_FROM = 1.0


class WorkerError(Unavailable):
    """A worker cannot be brought to serve. What it said about it is on stderr."""


class Post(NamedTuple):
    """What one worker does."""

    payload: bytes  # for it; the supervisor does not look inside
    sockets: Mapping[str, Sequence[socket.socket]]  # bound and listening, by name


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A post, as a worker is told of it."""

    payload: bytes
    sockets: dict[str, list[int]]  # inherited descriptors by name


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told, through a file without a name: nothing of it shows in a list of processes."""

    main: str  # "package.module:coroutine"
    posts: list[Told]
    go: int  # one byte comes when it is to begin, the index of its post; ends without one when it is not needed
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


class _Place:
    """One post: who is there, and how it went so far."""

    def __init__(self, index: int, post: Post, *, alone: bool) -> None:
        self.index = index
        self.post = post
        # One of several may wait for longer: the others serve meanwhile.
        self.backoff = Backoff(first=0.05, longest=5.0 if alone else 30.0, steady=STEADY)
        self.process: asyncio.subprocess.Process | None = None
        self.began = 0.0  # when its worker was told to go
        self.serves = False
        self.served = False  # ever

    def is_lost(self, now: float) -> bool:
        """Whether its workers die again and again, the present one not yet being proof to the contrary."""
        holds = self.serves and now - self.began >= STEADY
        return self.backoff.quick_deaths >= LIVES and not holds


class Supervisor:
    """Keeps a worker at each of its posts.

    Args:
        main: the workers' coroutine, ``package.module:name``.
        posts: what each is told and serves on; at most MOST_POSTS.
        on_ready: called once, when every post's first worker serves.
        beside: run from then on, until we stop; whatever it raises ends us.
        clock: tells how long each worker lived.
    """

    def __init__(
        self,
        main: str,
        posts: Sequence[Post],
        *,
        on_ready: Callable[[], None],
        beside: Callable[[], Awaitable[None]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._main = main
        self._places = [_Place(index, post, alone=len(posts) == 1) for index, post in enumerate(posts)]
        self._on_ready = on_ready
        self._beside = beside
        self._clock = clock or SystemClock()
        self._spare: _Worker | None = None
        self._spare_wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()

    @property
    def pids(self) -> list[int | None]:
        """Each post's process id, None while nobody is there."""
        return [
            place.process.pid if place.process is not None and place.process.returncode is None else None
            for place in self._places
        ]

    async def run(self) -> None:
        """Serve until a signal says stop. Raises WorkerError when the workers cannot be brought to serve."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hand_on, signal.SIGHUP)
        # Its other end is inherited by every worker and never written: it reads as ended when we are gone.
        alive, ours = os.pipe()
        try:
            async with asyncio.TaskGroup() as group:
                keeping = [group.create_task(self._keep(place, alive)) for place in self._places]
                others = [
                    group.create_task(self._keep_spare(alive)),
                    group.create_task(self._run_beside()),
                ]
                await asyncio.wait(keeping)
                for task in others:
                    task.cancel()
        except ExceptionGroup as several:
            error: Exception = several
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            raise error from None
        finally:
            if self._spare is not None:
                await _dismiss(self._spare)
            os.close(alive)
            os.close(ours)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _run_beside(self) -> None:
        if self._beside is None:
            return
        await self._ready.wait()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_awaited(self._beside))
            # With the workers, not after them: both take their time to stop.
            await self._stopping.wait()
            task.cancel()

    async def _keep(self, place: _Place, alive: int) -> None:
        while not self._stopping.is_set():
            place.began = self._clock.monotonic()
            served = False
            try:
                worker = await self._next(place, alive)
            except OSError as error:
                # No descriptors, memory or room in the folder for temporary files: it passes, and others serve.
                how = f"not started: {error.strerror}"
            else:
                place.began = self._clock.monotonic()
                served, code = await self._live(place, worker)
                how = _how(code)
            if not self._stopping.is_set():
                await self._pause(place, served, how)

    async def _next(self, place: _Place, alive: int) -> _Worker:
        """The spare, where there is one that lives and it is not wasted here; else a new worker."""
        if len(self._places) == 1 or place.backoff.quick_deaths < SPARE_FOR:
            spare, self._spare = self._spare, None
            if spare is not None:
                if spare.process.returncode is None:
                    return spare
                spare.close()
        return await self._start(alive)

    async def _start(self, alive: int) -> _Worker:
        """A process that loads what a worker needs, and waits for its byte."""
        go_end, go = os.pipe()
        try:
            ready, ready_end = os.pipe()
        except OSError:
            os.close(go_end)
            os.close(go)
            raise
        posts = [
            Told(
                payload=place.post.payload,
                sockets={name: [one.fileno() for one in group] for name, group in place.post.sockets.items()},
            )
            for place in self._places
        ]
        order = Order(
            main=self._main, posts=posts, go=go_end, ready=ready_end, parent=os.getpid(), alive=alive
        )
        inherited = {number for told in posts for group in told.sockets.values() for number in group}
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

    async def _live(self, place: _Place, worker: _Worker) -> tuple[bool, int]:
        """One worker's life: whether it got to serving, and how it ended."""
        process = place.process = worker.process
        with contextlib.suppress(BrokenPipeError):  # it has died since, which is noticed below
            os.write(worker.go, bytes([place.index]))
        os.close(worker.go)
        served = False
        try:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self._wait_for_ready(place, worker.ready, process))
                stopping = group.create_task(self._wait_for_stop(process))
                code = await process.wait()
                stopping.cancel()
                served = await waiting
        finally:
            place.serves = False
            if process.returncode is None:
                process.kill()
                await process.wait()
        return served, code

    async def _keep_spare(self, alive: int) -> None:
        """Make a spare some time after a worker began to serve: then the one before may have been used up."""
        while True:
            await self._spare_wanted.wait()
            await asyncio.sleep(SPARE_AFTER)
            self._spare_wanted.clear()
            if self._spare is not None and self._spare.process.returncode is not None:
                self._spare.close()
                self._spare = None
            if self._spare is None and self._ready.is_set():
                try:
                    self._spare = await self._start(alive)
                except OSError as error:
                    _log.warning("no spare worker", reason=error.strerror, again_in=SPARE_RETRY)
                    await asyncio.sleep(SPARE_RETRY)
                    self._spare_wanted.set()

    async def _wait_for_ready(
        self, place: _Place, descriptor: int, worker: asyncio.subprocess.Process
    ) -> bool:
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
        if served:
            self._serves(place)
        return served

    def _serves(self, place: _Place) -> None:
        place.serves = place.served = True
        if not self._ready.is_set() and all(each.served for each in self._places):
            self._ready.set()
            self._on_ready()
        self._spare_wanted.set()

    async def _wait_for_stop(self, worker: asyncio.subprocess.Process) -> None:
        await self._stopping.wait()
        await stop(worker, STOP_PATIENCE)

    async def _pause(self, place: _Place, served: bool, how: str) -> None:
        """Wait before the next start, or give up; ``how`` its worker ended, for people."""
        if not place.served:
            raise WorkerError(f"doorward did not start ({how})", cure="The reason is in the lines above.")
        now = self._clock.monotonic()
        lived = now - place.began
        # A worker that served for a moment and died is a quick death too; one that never served, however long it took.
        wait = place.backoff.after(lived if served else 0.0)
        if all(each.is_lost(now) for each in self._places):
            raise WorkerError(
                f"the worker died {LIVES} times in a row ({how})",
                cure="The reason is in the lines above.",
            )
        _log.error(
            "a worker died and is started again",
            worker=place.index + 1,
            how=how,
            lived=round(lived, 1),
            wait=wait,
        )
        with self._parked(place, wait), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._stopping.wait()

    @contextlib.contextmanager
    def _parked(self, place: _Place, wait: float) -> Iterator[None]:
        """While a post stays empty for long, the kernel gives its share of new connections to the others.

        On Linux a listening socket that is shut down leaves its group and keeps its address; to listen brings it back.
        Who waited in its queue is refused, which is better than half a minute of waiting.
        """
        away = [] if wait < PARK_FROM or sys.platform != "linux" else self._own_listeners(place)
        if not any(each.serves for each in self._places):
            away = []
        for one in away:
            one.shutdown(socket.SHUT_RDWR)
        try:
            yield
        finally:
            for one in away:
                one.listen(BACKLOG)

    def _own_listeners(self, place: _Place) -> list[socket.socket]:
        """The TCP sockets that no other post serves on, but with others beside them on the same address."""
        others = {
            one
            for each in self._places
            if each is not place
            for group in each.post.sockets.values()
            for one in group
        }
        addresses = {one.getsockname() for one in others if one.family in _INTERNET}
        return [
            one
            for group in place.post.sockets.values()
            for one in group
            if one.family in _INTERNET
            and one.type == socket.SOCK_STREAM
            and one not in others
            and one.getsockname() in addresses
        ]

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hand_on(signal.SIGKILL)
        self._stopping.set()

    def _hand_on(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.process is not None:
                send(place.process, number)


_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


async def _awaited(made: Callable[[], Awaitable[None]]) -> None:
    await made()


async def _dismiss(worker: _Worker) -> None:
    """End a worker that was never told to go; there is nothing that it could leave undone."""
    worker.close()
    if worker.process.returncode is None:
        worker.process.kill()
    await worker.process.wait()


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
