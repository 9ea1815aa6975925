"""Where the record of ssh has a gap: attempts of which control cannot have heard, said in one audit event each.

==========  ==========================================================================================================
fallback    Nodes decide by themselves once the moment has passed that they were told last. That moment is kept in the store;
            who starts behind it says from when to when attempts may be missing.
policy      Nodes decide, always. It is said when that setting comes into force, and when another takes its place.
always      Nothing is let in without control, so nothing is missed.
any         While the store takes no writes, attempts are answered off the record: from the first to the last of them, and
            how many, is said when it takes writes again.
==========  ==========================================================================================================

Where several processes share the store, each moves the moment on, and the first that starts behind it says so.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from doorward.errors import DoorwardError
from doorward.store import Connection, audit
from doorward.store import settings as stored
from doorward.tailnet.settings import Decide
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.writer import Effect, Writer
from doorward.telemetry import log

ACTION = "ssh.unseen"
SETTING = "ssh.known"
LOOK = 1.0  # seconds between two looks
SPREAD = 10.0  # seconds until every stream has brought the moment to its node, and it is kept
_TOGETHER = timedelta(minutes=1)  # processes that start within it are one start

_log = log("tailnet")


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was last in force."""

    decide: Decide
    since: datetime  # when that was first so
    began: datetime  # when a process last began to serve
    until: datetime | None = None  # under FALLBACK: when nodes decide by themselves, as they were told


class Unseen:
    """Keeps the moment, and says what was missed. ``run`` it beside the rest.

    Args:
        writer: the snapshot and the store.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._begun = False
        self._told: tuple[datetime, float] | None = None  # the moment nodes are told, and since when
        self._kept: datetime | None = None
        self._missed: list[datetime] = []  # the first and the last
        self._count = 0

    async def run(self) -> None:
        """Do what is due every second, until cancelled."""
        while True:
            await self.keep()
            await asyncio.sleep(LOOK)

    def missed(self) -> None:
        """An attempt was answered that could not be written down."""
        now = self._writer.now()
        self._missed = [min(now, *self._missed), now] if self._missed else [now, now]
        self._count += 1

    async def keep(self) -> None:
        """Do what is due. What fails is done at the next call: the store may be in trouble."""
        if self._writer.database.trouble is not None:
            return
        try:
            if not self._begun:
                await self._run(_begin, self._writer.snapshot, self._writer.now())
                self._begun = True
            await self._say_missed()
            await self._keep_moment()
        except DoorwardError as error:
            _log.info("what was missed of ssh is not on record yet", reason=error.message)

    async def _run(self, unit: Callable[..., Effect[None]], *args: object) -> None:
        await self._writer.apply(unit, *args)

    async def _say_missed(self) -> None:
        if self._count:
            (first, last), count = self._missed, self._count
            self._missed, self._count = [], 0
            try:
                await self._run(_say_missed, first, last, count, self._writer.now())
            except DoorwardError:
                self._missed = [min(first, *self._missed), max(last, *self._missed)]
                self._count += count
                raise

    async def _keep_moment(self) -> None:
        """Nodes that were not told yet decide by the moment before: so it counts only once all have been told."""
        snapshot = self._writer.snapshot
        until = snapshot.checks.until
        if snapshot.settings.ssh_decide is not Decide.FALLBACK or until is None or until == self._kept:
            return
        now = self._writer.monotonic()
        if self._told is None or self._told[0] != until:
            self._told = (until, now)
        elif now - self._told[1] >= SPREAD:
            await self._run(_keep_moment, until, snapshot.settings.ssh_fallback)
            self._kept = until


def _begin(connection: Connection, snapshot: Snapshot, now: datetime) -> Effect[None]:
    """Compare what was in force with what is, say what that means, and note what is in force."""
    decide = snapshot.settings.ssh_decide
    known = stored.get(connection, SETTING, Known)
    if known is not None and known.decide is Decide.FALLBACK and known.until is not None:
        together = known.until <= known.began <= now < known.began + _TOGETHER
        if known.until < now and not together and snapshot.document.ssh:
            _say(connection, now, {"decide": "fallback", "from": known.until, "to": now})
            known = msgspec.structs.replace(known, until=now)
    changed = known is None or known.decide is not decide
    if changed and known is not None and known.decide is Decide.POLICY:
        _say(connection, now, {"decide": "policy", "from": known.since, "to": now})
    if changed and decide is Decide.POLICY:
        # From now on, and until another event says that it is over.
        _say(connection, now, {"decide": "policy", "from": now, "to": None})
    until = None
    if decide is Decide.FALLBACK:
        # Until nodes have heard of us they go on as before, so nothing later is promised yet.
        until = now if known is None or known.until is None else known.until
    since = now if changed or known is None else known.since
    stored.put(connection, SETTING, Known(decide=decide, since=since, began=now, until=until))
    return Effect(result=None)


def _keep_moment(connection: Connection, until: datetime, fallback: timedelta) -> Effect[None]:
    known = stored.get(connection, SETTING, Known)
    # Another process may have told its nodes a later one; one that is far ahead is from before the clock was set back.
    if known is not None and (known.until is None or not until <= known.until <= until + fallback):
        stored.put(connection, SETTING, msgspec.structs.replace(known, until=until))
    return Effect(result=None)


def _say_missed(
    connection: Connection, first: datetime, last: datetime, count: int, now: datetime
) -> Effect[None]:
    details = {"reason": "the database took no writes", "attempts": count, "from": first, "to": last}
    _say(connection, now, details)
    return Effect(result=None)


def _say(connection: Connection, now: datetime, details: dict[str, object]) -> None:
    audit.append(connection, "system", ACTION, "ssh", details, now)
