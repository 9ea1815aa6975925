"""What travels about the audit log. Like ``types``: msgspec only, because the command line imports this."""

from datetime import datetime
from typing import Any

from doorward.api.types import Answer, Count, Number, Request


class Event(Answer, frozen=True, kw_only=True):
    """One line of "who did what to whom". Each carries the hash of the one before it."""

    seq: int
    at: datetime
    actor: str
    action: str
    target: str
    details: dict[str, Any]
    previous: str  # SHA-256 of the event before, in hex
    digest: str  # SHA-256 of this one, in hex


class EventFilter(Request, frozen=True, kw_only=True):
    """Which events to list; every condition that is given must hold."""

    user: str | None = None  # a person's name: who did it, or to whom it was done
    node: str | None = None  # a node's name, id or address: the same; of a deleted one, its stable id
    actor: str | None = None
    action: str | None = None  # ending in a dot: every action that starts with it
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None  # itself not included
    before: Number | None = None  # events with a smaller number
    after: Number | None = None  # events with a greater number, oldest first
    limit: Count = 100


class AuditProblem(Answer, frozen=True, kw_only=True):
    """A place where the audit log is not what it was."""

    seq: int  # the event's number; of several that are missing the first
    fault: str  # altered, missing, out-of-order, unlinked, resealed, truncated, checkpoint
    text: str


class AuditVerdict(Answer, frozen=True, kw_only=True):
    """Whether the chain of hashes holds, and agrees with the checkpoints."""

    ok: bool
    first_bad: int | None  # the first event that does not fit
    problems: tuple[AuditProblem, ...]  # by number; a thousand at most
    events: int  # that were looked at
    last: int  # number of the last
    digest: str  # of the last, in hex
    confirmed: int  # the highest number that a checkpoint signed; 0 for none
    keys: tuple[str, ...]  # whose checkpoints these were


class AuditCheckpoint(Answer, frozen=True, kw_only=True):
    """What the audit log was at a moment, signed with Ed25519; as in the file of checkpoints."""

    checkpoint: int  # the number of the last event then
    digest: str  # its SHA-256, in hex
    at: datetime
    key: str
    signature: str  # in hex


class CheckpointFilter(Request, frozen=True, kw_only=True):
    """Which checkpoints to list."""

    after: Number = 0  # those about events with a greater number
    limit: Count = 100


class AuditKey(Answer, frozen=True, kw_only=True):
    """The key that this doorward signs checkpoints with."""

    key: str  # public: what they are checked with
