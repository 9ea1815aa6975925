"""The open database: units of work go in, committed results come out.

A unit of work is a plain function that takes a connection first::

    node = await database.run(nodes.insert, draft)  # in a write transaction
    everything = await database.read(nodes.load_all)  # from one moment, without waiting for writers

One thread writes. It takes the units that are waiting, runs each in a savepoint of its own, commits them all with one
fsync, and only then gives anybody a result::

    queue  u1 u2 u3 ...   ->  BEGIN  [u1] [u2] [u3]  COMMIT  ->  results of u1, u2, u3 in that order
                                        └ raised: only u2 is undone

So while one commit waits for the disk the next batch gathers, and the cost of the disk is shared by all who wait for
it. A unit sees what the units before it did, even in its own batch, and writers of other processes take turns with
this one; what it checks is therefore still true when it is committed. Whether a commit fails or the transaction is
lost half way, every unit of the batch fails and nothing of it stays, also those that had raised an error of their own:
that error may have been due to a unit that no longer happened.
"""

import asyncio
import copy
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from doorward.clock import Clock
from doorward.errors import DoorwardError, TooMany, Unavailable
from doorward.store import feed, settings
from doorward.store import schema as schemas
from doorward.store.engines import Engines, connect, is_broken, reading, writing
from doorward.store.faults import CommitFailed, CommitUnknown, translate
from doorward.store.gathering import Gathering
from doorward.telemetry import ORIGIN, counter, gauge, histogram, log

BATCH_UNITS = 64  # a batch is over after this many units,
BATCH_SECONDS = 0.005  # or after this much work: about what a commit costs, so nobody waits much for another
QUEUE_UNITS = 10_000  # further units are refused: at 64 in 10 ms these wait more than a second already
READERS = 4
STUCK = (
    10.0  # seconds of one batch after which nobody else is let wait: a server that was frozen tells nobody
)
PROBE = "store.probe"  # the setting that ``probe`` writes

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
K = TypeVar("K", bound=Hashable)

_log = log("store")
_commit_seconds = histogram("store_commit_seconds", "Time from the start of a batch to the end of its commit")
_batch_units = histogram("store_batch_units", "Units of work that shared one commit")
_failures = counter(
    "store_failures_total", "Batches and reads that failed because of the database, by act", "act"
)
_in_trouble = gauge("store_in_trouble", "1 while the database cannot be written or reached")


class _Outcome(NamedTuple):
    value: Any
    error: BaseException | None


class _Unit:
    """One function with its arguments, and the future of whoever waits for it."""

    __slots__ = ("_call", "_future", "_origin", "loop")

    def __init__(self, call: Callable[[Connection], Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self._call = call
        self._origin = ORIGIN.get()
        self._future: asyncio.Future[Any] = self.loop.create_future()

    async def wait(self) -> Any:
        return await self._future

    def is_abandoned(self) -> bool:
        """True when nobody waits any more. Read from the writer thread: at worst an abandoned unit runs."""
        return self._future.cancelled()

    def run(self, connection: Connection) -> _Outcome:
        """Run in a savepoint. Raises only when the whole transaction is lost."""
        ORIGIN.set(self._origin)  # of the writer thread: it does what the unit's task wants
        savepoint = connection.begin_nested()
        try:
            value = self._call(connection)
        except BaseException as error:
            if is_broken(connection):
                raise translate(error) from error
            savepoint.rollback()
            return _Outcome(None, _shown(error))
        savepoint.commit()
        return _Outcome(value, None)

    def settle(self, outcome: _Outcome) -> None:
        """Give the result to who waits. Called on the event loop."""
        if self._future.done():
            return
        if outcome.error is None:
            self._future.set_result(outcome.value)
        else:
            self._future.set_exception(outcome.error)


def _shown(error: BaseException) -> BaseException:
    shown = translate(error)
    if isinstance(shown, StopIteration):  # a future cannot carry one: whoever waits would wait for ever
        shown = RuntimeError("a unit of work raised StopIteration")
    if shown is not error:
        shown.__cause__ = error
    return shown


def _own(error: BaseException) -> BaseException:
    """One error for each who waits: raising the same object in several tasks would mix up their tracebacks."""
    if not isinstance(error, DoorwardError):
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


class Database:
    """An open database; made by ``open``, closed by ``close`` or at the end of ``async with``.

    Attributes:
        trouble: why the last attempt to write or read failed, where that was the database's fault: its disk is full, its
            server is gone. None while all is well; ``probe`` finds out whether it is over.
    """

    def __init__(self, engines: Engines, clock: Clock, readers: int) -> None:
        self.where = engines.where  # for people: the file, or the address without its password
        self.kind = engines.writer.dialect.name  # "sqlite" or "postgresql"
        self._engines = engines
        self._clock = clock
        self.trouble: Unavailable | None = None
        self._batch_began: float | None = None  # of the one that runs now
        self._closed = False
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="doorward-read")
        self._finding: Gathering[_Wanted, Any] = Gathering(lambda wanted: self.read(_find_all, wanted))
        self._sharing: dict[Callable[..., Any], Gathering[Any, Any]] = {}
        # A daemon: a program that dies without closing must not hang; a commit cut short never happened.
        self._writer = threading.Thread(target=self._write_all, name="doorward-write", daemon=True)
        self._writer.start()

    @classmethod
    async def open(
        cls,
        location: str | Path,
        *,
        clock: Clock,
        readers: int = READERS,
        schema: schemas.Schema = schemas.CURRENT,
    ) -> Self:
        """Open the SQLite file at a path, or the database at a ``postgresql://`` address; make or migrate its tables.

        Raises BadInput for another kind of address, UnusableDatabase for a database that is damaged, not doorward's
        or newer than this program, and Unavailable where it cannot be reached or made; each with its cure.
        """

        def prepared() -> Engines:
            engines = connect(location, readers=readers)
            try:
                schemas.prepare(engines, schema)
            except BaseException as error:
                engines.dispose()
                raise translate(error) from error
            return engines

        return cls(await asyncio.to_thread(prepared), clock, readers)

    async def run(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function(connection, ...)`` in a write transaction; return what it returned, once it is on the disk.

        The function runs on another thread: it takes and returns values, never live objects of the loop, and neither
        commits nor rolls back. What it raises is raised here, after its own changes were undone. Database errors come
        as Conflict (``place`` names the columns), BadInput, CommitFailed, CommitUnknown or Unavailable; TooMany when
        too many units wait.

        A caller that is cancelled no longer learns whether the unit ran. One that has to know shields the call.
        """
        if self._closed:
            raise Unavailable("the database is closed")
        self._refuse_if_stuck()
        if self._queue.qsize() >= QUEUE_UNITS:
            raise TooMany("too many changes wait for the database", cure="Try again in a moment.")
        unit = _Unit(lambda connection: function(connection, *args, **kwargs))
        self._queue.put(unit)
        result: T = await unit.wait()
        return result

    async def read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``function(connection, ...)`` on a reader thread; it sees one committed moment and can change nothing."""
        if self._closed:
            raise Unavailable("the database is closed")
        self._refuse_if_stuck()
        call = partial(self._read, lambda connection: function(connection, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    async def find(self, finder: Callable[[Connection, Sequence[K]], Mapping[K, T]], key: K) -> T | None:
        """What ``finder`` finds for a key, as with ``read``: what was committed before is seen. None where it finds nothing.

        All who look for something at the same moment share one transaction, and all who use the same finder its statements.
        """
        found: T | None = await self._finding.ask((finder, key))
        return found

    async def share(self, unit: Callable[[Connection, Sequence[A]], Sequence[T]], asked: A) -> T:
        """Run a unit as with ``run``, once for all who ask for it at the same moment; it returns an outcome for each, in order.

        What it raises undoes it for all of them, and then it is run for each by itself: so it returns refusals and raises
        only for what cannot be stored. It runs on nobody's behalf (see ``Gathering``). A unit that is shared is a function of a
        module: for each one what waits for it is kept as long as the database is open.
        """
        known = self._sharing.get(unit)
        if known is None:
            known = self._sharing[unit] = Gathering(lambda group: self.run(unit, group))
        result: T = await known.ask(asked)
        return result

    def _refuse_if_stuck(self) -> None:
        began = self._batch_began
        if began is None or self._clock.monotonic() - began < STUCK:
            return
        stuck = Unavailable(
            "the database does not answer",
            cure="Look whether its server runs and the network to it is up; doorward waits for it.",
        )
        self._note(stuck, "wait")
        raise stuck

    async def probe(self) -> None:
        """Write a little, to find out whether that is possible again; raises as ``run`` does, and else ends ``trouble``.

        A transaction that changes nothing would not do: it succeeds on a disk without a free byte.
        """
        try:
            await self.run(settings.put, PROBE, self._clock.now().isoformat())
        except CommitUnknown:
            return  # the next one tells
        if self.trouble is not None:
            _log.info("the database can be written again")
        self.trouble = None
        _in_trouble.set(0)

    def heard(self) -> AsyncGenerator[None]:
        """See ``feed.heard``. PostgreSQL only."""
        return feed.heard(self._engines.writer.url)

    async def close(self) -> None:
        """Finish the units that wait, then close every connection. Later calls of ``run`` and ``read`` are refused."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._finish)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _finish(self) -> None:
        self._readers.shutdown()
        self._writer.join()
        self._engines.dispose()

    def _read(self, call: Callable[[Connection], T]) -> T:
        try:
            with reading(self._engines.reader) as connection:
                return call(connection)
        except Exception as error:
            shown = _shown(error)
            if shown is error:
                raise
            self._note(shown, "read")
            raise shown from error

    def _note(self, error: BaseException, act: str) -> None:
        """Remember that the database is in trouble, and say so once. Called from any thread."""
        if not isinstance(error, Unavailable):
            return
        _failures.labels(act).inc()
        _in_trouble.set(1)
        if isinstance(error, CommitFailed):
            error = Unavailable(error.why, cure=error.cure, detail=error.detail)
        known, self.trouble = self.trouble, error
        if known is None or known.message != error.message:
            _log.warning("the database is in trouble", error=error.sentence(), detail=error.detail)

    def _write_all(self) -> None:
        """The writer thread: batch after batch, until ``close`` put None behind the last unit."""
        while (first := self._queue.get()) is not None:
            self._write_batch(first)

    def _batch(self, first: _Unit) -> Iterator[_Unit]:
        """The units of one batch: what is waiting, within the two bounds. Nothing is waited for."""
        end = self._clock.monotonic() + BATCH_SECONDS
        yield first
        for _ in range(BATCH_UNITS - 1):
            if self._clock.monotonic() >= end:
                return
            try:
                unit = self._queue.get_nowait()
            except queue.Empty:
                return
            if unit is None:
                self._queue.put(None)  # close() is the last to put anything: it is met again after this batch
                return
            yield unit

    def _waiting(self) -> list[_Unit]:
        units: list[_Unit] = []
        with suppress(queue.Empty):
            while (unit := self._queue.get_nowait()) is not None:
                units.append(unit)
            self._queue.put(None)
        return units

    def _write_batch(self, first: _Unit) -> None:
        self._batch_began = began = self._clock.monotonic()
        taken: list[_Unit] = []
        outcomes: list[_Outcome] = []
        try:
            with writing(self._engines.writer) as connection:
                for unit in self._batch(first):
                    if unit.is_abandoned():
                        continue
                    taken.append(unit)
                    outcomes.append(unit.run(connection))
        except BaseException as error:  # noqa: BLE001 - every unit learns of it, and the writer must live on
            shown = _shown(error)
            self._note(shown, "write")
            _log.debug("a batch of changes was lost", units=len(taken), error=str(shown), detail=repr(error))
            if (
                not taken
            ):  # it did not even begin; whoever waits behind would each wait out the same time limit
                taken = [first, *self._waiting()]
            outcomes = [_Outcome(None, _own(shown)) for _ in taken]
        else:
            _batch_units.observe(len(taken))
            _commit_seconds.observe(self._clock.monotonic() - began)
            for outcome in outcomes:  # a full disk may fail one unit alone
                if outcome.error is not None and isinstance(outcome.error.__cause__, SQLAlchemyError):
                    self._note(outcome.error, "write")
        self._batch_began = None
        _settle(taken, outcomes)


_Wanted = tuple[Callable[[Connection, Sequence[Any]], Mapping[Any, Any]], Any]


def _find_all(connection: Connection, wanted: Sequence[_Wanted]) -> list[Any]:
    """What each one looks for, with each finder asked once."""
    keys: dict[Callable[..., Mapping[Any, Any]], dict[Any, None]] = {}
    for finder, key in wanted:
        keys.setdefault(finder, {})[key] = None
    found = {finder: finder(connection, list(some)) for finder, some in keys.items()}
    return [found[finder].get(key) for finder, key in wanted]


def _settle(units: list[_Unit], outcomes: list[_Outcome]) -> None:
    """Give each unit its outcome on its own event loop, in the order of the batch."""
    for unit, outcome in zip(units, outcomes, strict=True):
        with suppress(RuntimeError):  # its loop is closed: nobody waits
            unit.loop.call_soon_threadsafe(unit.settle, outcome)
