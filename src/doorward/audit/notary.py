"""Signs the audit log from time to time, and says whether it still is what was signed.

A checkpoint is made only of what follows, event by event, from the one before it: what somebody has changed since is never
signed over. It goes into the store and, one line each, into a file in the data directory: whoever can change the database
cannot change the copies that were shipped elsewhere.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from doorward.audit.appending import append
from doorward.clock import Clock
from doorward.errors import BadInput, DoorwardError
from doorward.protocol.auditlog import FIRST, AuditPrivate, Checkpoint, Verdict, Walk, read_checkpoint
from doorward.store import Connection, Database, audit, checkpoints
from doorward.telemetry import counter, log

KEY_FILE = "audit.key"  # in the data directory, mode 0600
PUBLIC_FILE = "audit.pub"  # what belongs to it, for whoever checks
CHECKPOINTS_FILE = "audit-checkpoints.jsonl"
LOOK = 15.0  # seconds between two looks whether it is time

_log = log("audit")
_signed = counter("audit_checkpoints_total", "Checkpoints of the audit log that this process signed.")


class Notary:
    """Who signs.

    Attributes:
        trouble: why nothing is signed, for people; empty while all is well.

    Args:
        database: the store.
        key: our own; each data directory has one.
        folder: the data directory.
        clock: the time of checkpoints.
        events: a checkpoint is made after so many new events,
        interval: or, with any new one, when so much time has passed since the last.
    """

    def __init__(
        self,
        database: Database,
        key: AuditPrivate,
        folder: Path,
        clock: Clock,
        *,
        events: int = 1000,
        interval: timedelta = timedelta(minutes=15),
    ) -> None:
        self._database = database
        self._key = key
        self._clock = clock
        self._events = events
        self._interval = interval
        self.file = folder / CHECKPOINTS_FILE
        self.public = key.public()
        self.trouble = ""
        self._unwritten: list[Checkpoint] = []  # those that the file does not have yet
        _publish(folder / PUBLIC_FILE, f"{self.public}\n")

    async def run(self) -> None:
        """Sign when it is time, until cancelled. What fails is tried again."""
        while True:
            try:
                await self._catch_up()
                break
            except DoorwardError as error:
                _log.warning("the file of checkpoints is behind", reason=error.sentence())
            await asyncio.sleep(LOOK)
        while True:
            await self.look()
            await asyncio.sleep(LOOK)

    async def look(self, *, now: bool = False) -> None:
        """Sign if it is time, or ``now`` if there is anything new. Raises nothing: ``trouble`` says what is wrong."""
        try:
            checkpoint = await self._sign(now=now)
        except DoorwardError as error:
            _log.info("the audit log was not signed", reason=error.sentence())
            return
        if checkpoint is not None:
            _signed.inc()
            self._unwritten.append(checkpoint)
        if not self._unwritten:
            return
        lines = [one.line() for one in self._unwritten]
        try:
            await asyncio.to_thread(append, self.file, lambda _: lines)
        except DoorwardError as error:
            _log.warning("a checkpoint is in the store alone", reason=error.sentence())
        else:
            self._unwritten.clear()

    async def _sign(self, *, now: bool) -> Checkpoint | None:
        last, (seq, _) = await self._database.read(_ends)
        behind = 0 if last is None else last.seq
        if seq == behind:
            self.trouble = ""
            return None
        moment = self._clock.now()
        # A clock that was set back must not keep us from it for years.
        due = last is None or abs(moment - last.at) >= self._interval
        if seq > behind and not (now or due or seq - behind >= self._events):
            return None
        verdict = await self._database.read(_walk, last)
        if verdict.problems:
            self._refuse(verdict.problems[0].text)
            return None
        self.trouble = ""
        checkpoint = self._key.sign(verdict.last, verdict.digest, moment)
        return checkpoint if await self._database.run(checkpoints.add, checkpoint) else None

    def _refuse(self, reason: str) -> None:
        if self.trouble != reason:
            _log.error("the audit log is not signed any more", reason=reason)
        self.trouble = reason

    async def _catch_up(self) -> None:
        """Write what the store has of ours and the file lacks: we may have died between the two."""
        ours = await self._database.read(checkpoints.load, key=self.public)

        def missing(last_line: bytes) -> Sequence[str]:
            known = 0
            if last_line:
                with contextlib.suppress(BadInput):
                    known = read_checkpoint(last_line).seq
            return [checkpoint.line() for checkpoint in ours if checkpoint.seq > known]

        await asyncio.to_thread(append, self.file, missing)

    async def verify(self) -> Verdict:
        """Look at the whole log, with the checkpoints of the store and of our file. Raises Unavailable."""
        kept = await asyncio.to_thread(self._kept)
        return await self._database.read(checkpoints.verify, kept)

    def _kept(self) -> list[Checkpoint]:
        found: list[Checkpoint] = []
        with contextlib.suppress(FileNotFoundError):
            for number, line in enumerate(self.file.read_bytes().splitlines(), 1):
                try:
                    found.append(read_checkpoint(line))
                except BadInput:
                    _log.warning("a line is no checkpoint", file=str(self.file), line=number)
        return found


def _ends(connection: Connection) -> tuple[Checkpoint | None, tuple[int, bytes]]:
    return checkpoints.latest(connection), audit.head(connection)


def _walk(connection: Connection, last: Checkpoint | None) -> Verdict:
    """The event that was signed last, and everything behind it."""
    if last is None:
        walk = Walk()
        behind = 0
    else:
        behind, previous = last.seq - 1, FIRST
        seq, digest = audit.head(connection)
        if seq < last.seq:  # its end was cut off
            return Walk([last], after=seq, previous=digest).finish()
        for event in audit.sealed(connection, after=behind, limit=1):
            previous = event.previous
        walk = Walk([last], after=behind, previous=previous)
    for event in audit.sealed(connection, after=behind):
        walk.step(event)
    return walk.finish()


def _publish(path: Path, text: str) -> None:
    """For everybody to read. Written anew only where it says something else."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:  # a full disk: what it says can be asked of us, too
        _log.warning("the public key is not in its file", file=str(path), reason=error.strerror)
