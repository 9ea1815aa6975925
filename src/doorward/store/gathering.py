"""Those who want the same at the same moment get it together: one transaction for all of them.

::

    ask ─▶ waiting ─▶ one call for all who wait ─▶ to each its own outcome
             ▲                  │
             └── who comes meanwhile waits ◀──┘

A statement costs hardly more for twenty rows than for one, and a way to the store's thread and back costs the same for either. Who is
alone is served at once; where many ask, more of them are waited for, a moment. Where a call fails because of what one of them wants (a value that no column
can keep), each is tried by itself. Where the store is in trouble all of them fail: trying each would be more of it, and what may
have been committed is not done a second time.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from doorward.errors import TooMany, Unavailable
from doorward.telemetry import ORIGIN

GATHER = 0.002  # seconds that a call waits for more members, where the last one had several
MOST = 64  # members of one call: a few thousandths of a second of the store's time

A = TypeVar("A")
T = TypeVar("T")


class _Place(NamedTuple, Generic[A, T]):
    """One who waits."""

    asked: A
    future: "asyncio.Future[T]"


class Gathering(Generic[A, T]):
    """Gathers those who ask.

    Args:
        carry: does it for some of them, and returns one outcome for each, in their order. What it raises nobody's wish has
            been done of, unless it is Unavailable. It runs for all of them, so on nobody's behalf: ``telemetry.ORIGIN`` is None.
    """

    def __init__(self, carry: Callable[[Sequence[A]], Awaitable[Sequence[T]]]) -> None:
        self._carry = carry
        self._waiting: list[_Place[A, T]] = []
        self._running: asyncio.Future[None] | None = None
        self._crowded = False  # the last call had several members

    async def ask(self, asked: A) -> T:
        """What becomes of this one. Raises what ``carry`` does.

        A caller that goes away before its turn changes nothing; later it is done all the same.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Place(asked, future))
        if self._running is None:
            # Shielded, it is a task of its own: who asked first and goes away does not take the others along.
            self._running = asyncio.shield(self._run())
        return await future

    async def _run(self) -> None:
        """Serve all who wait. Raises nothing: every one of them gets its own outcome."""
        ORIGIN.set(None)
        try:
            while self._waiting:
                if self._crowded:
                    await asyncio.sleep(GATHER)
                here, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                here = [place for place in here if not place.future.done()]
                self._crowded = len(here) > 1
                try:
                    await self._serve(here)
                except BaseException:  # the loop ends: nobody is left waiting
                    for place in (*here, *self._waiting):
                        place.future.cancel()
                    self._waiting = []
                    raise
        finally:
            self._running = None

    async def _serve(self, places: "Sequence[_Place[A, T]]") -> None:
        if not places:
            return
        try:
            outcomes = await self._carry([place.asked for place in places])
        except (Unavailable, TooMany) as error:
            for place in places:
                _fail(place, _own(error))
        except Exception as error:  # noqa: BLE001 - it is raised again, by the one whose it is
            if len(places) == 1:
                _fail(places[0], error)
            else:
                for place in places:
                    await self._serve([place])
        else:
            for place, outcome in zip(places, outcomes, strict=True):
                with suppress(asyncio.InvalidStateError):  # it has gone away
                    place.future.set_result(outcome)


def _own(error: Exception) -> Exception:
    """One for each: raising the same object in several tasks would mix up their tracebacks."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _fail(place: "_Place[A, T]", error: Exception) -> None:
    if not place.future.done():
        place.future.set_exception(error)
