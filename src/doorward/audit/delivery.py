"""Takes every event to one destination, in order, however long that takes.

A cursor in the store says which event it had last. It moves on only when a batch has arrived: what dies between the two
delivers that batch once more. Where several processes share the store, one of them delivers: it *holds* the destination for
half a minute at a time, by the database's clock, and another takes over when it no longer says so.
"""

import asyncio
from collections.abc import Callable, Sequence

from doorward.api.audit import answer
from doorward.api.audit_types import Event
from doorward.audit.destinations import Deferred, Destination
from doorward.clock import Clock
from doorward.errors import DoorwardError
from doorward.store import Connection, Database, audit, checkpoints
from doorward.telemetry import counter, gauge, log

LOOK = 1.0  # seconds between two looks for what is new
HOLD = 30.0  # seconds for which a process has a destination; one delivery takes less
AGAIN, AGAIN_MAX = (
    1.0,
    60.0,
)  # seconds until a delivery that failed is tried again: doubled each time, up to the second

_log = log("audit")
_delivered = counter("audit_delivered_total", "Events of the audit log that were delivered, by kind.", "kind")
_failed = counter("audit_failed_total", "Deliveries of the audit log that failed, by kind.", "kind")
_behind = gauge("audit_behind", "Events that a destination does not have yet, as its holder knows.", "kind")


class Delivery:
    """One destination, served until cancelled.

    Args:
        database: the store.
        destination: where to.
        clock: the time of its notes.
        process: who we are where several share the store; 0 where we are alone.
    """

    def __init__(
        self, database: Database, destination: Destination, clock: Clock, process: Callable[[], int]
    ) -> None:
        self.destination = destination
        self._database = database
        self._clock = clock
        self._process = process
        self._held: float | None = None  # since when, on the monotonic clock
        self._seq = 0  # the last event that it has; true while held
        self._noted = 0  # the same, as the store knows it
        self._trouble = ""
        self._failures = 0

    async def run(self) -> None:
        """Deliver until cancelled. Nothing that goes wrong ends it."""
        while True:
            wait = await self.step()
            await asyncio.sleep(wait)

    async def step(self) -> float:
        """Do what can be done now; how many seconds to wait until the next step."""
        try:
            if not await self._hold():
                return HOLD / 3
            await self._note()
            events, behind = await self._database.read(_following, self._seq, self.destination.most)
        except DoorwardError as error:
            # The store is in trouble, which has its own way of being told. Nothing is new there meanwhile.
            _log.debug("nothing to deliver from", reason=error.message)
            self._held = None
            return LOOK
        _behind.labels(self.destination.kind).set(behind)
        if not events:
            return LOOK
        try:
            await self.destination.deliver(events)
        except DoorwardError as error:
            return await self._fail(error)
        _delivered.labels(self.destination.kind).inc(len(events))
        _behind.labels(self.destination.kind).set(behind - len(events))
        self._seq = events[-1].seq
        self._failures = 0
        if self._trouble:
            _log.info("the audit log is delivered again", to=self.destination.shown)
            self._trouble = ""
        try:
            await self._note()
        except DoorwardError as error:
            _log.info("what was delivered is not noted yet", reason=error.message)
        return 0.0 if behind > len(events) else LOOK

    async def _hold(self) -> bool:
        """Whether the destination is ours now. Asked of the store as rarely as that is certain."""
        now = self._clock.monotonic()
        process = self._process()
        if self._held is not None and (not process or now - self._held < HOLD / 3):
            return True
        mine = self._held is not None
        self._held = None
        seq = await self._database.run(checkpoints.hold, self.destination.name, process, HOLD)
        if seq is None:
            return False
        self._held = now
        if not mine:
            # Another may have delivered meanwhile. What we delivered, and could not note, is not delivered twice.
            self._seq = max(seq, self._seq)
            self._noted = seq
        return True

    async def _note(self) -> None:
        if self._noted < self._seq:
            name = self.destination.name
            await self._database.run(checkpoints.note_delivered, name, self._seq, self._clock.now())
            self._noted = self._seq

    async def _fail(self, error: DoorwardError) -> float:
        _failed.labels(self.destination.kind).inc()
        self._failures += 1
        if error.message != self._trouble:
            self._trouble = error.message
            _log.warning("the audit log is not delivered", to=self.destination.shown, reason=error.sentence())
            try:
                name = self.destination.name
                await self._database.run(checkpoints.note_trouble, name, error.sentence(), self._clock.now())
            except DoorwardError as trouble:
                _log.debug("the trouble is not noted", reason=trouble.message)
        again = min(AGAIN * 2.0 ** min(self._failures - 1, 10), AGAIN_MAX)
        return max(again, error.seconds) if isinstance(error, Deferred) else again


def _following(connection: Connection, seq: int, limit: int) -> tuple[Sequence[Event], int]:
    """The next events, and how many there are in all."""
    head, _ = audit.head(connection)
    if head <= seq:
        return (), 0
    found = audit.load(connection, after=seq, limit=limit)
    return [answer(event) for event in found], head - seq
