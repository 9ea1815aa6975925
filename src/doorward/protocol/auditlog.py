"""The audit log as something that can be proven: how events are sealed, what a checkpoint signs, and finding what was touched.

``digest`` of an event is SHA-256 over, in this order:

- the 22 bytes ``doorward audit event 1`` (the form's name, so that a later form can never be taken for this one),
- ``previous``: the 32 bytes of the digest before, zeros for the first event,
- ``seq`` and ``at`` (microseconds since 1970, UTC), each as 8 bytes, signed, big-endian,
- actor, action, target and details, each as its length in bytes (8 bytes, big-endian) and its UTF-8 bytes.

The lengths make the encoding unambiguous. Details are hashed as the very JSON text that is stored; that text is JSON with its
names in order and no space between, so that an export which was read and written again still proves the same.

The chain alone does not help against somebody who seals everything anew, or who cuts off the end. A *checkpoint* does: an
Ed25519 signature (RFC 8032) over the 27 bytes ``doorward audit checkpoint 1``, ``seq`` and ``at`` as above and the 32 bytes of
the digest of that event. Whoever keeps checkpoints elsewhere, and the key that they are signed with, can tell later whether
the log still holds what it held then, and all of it.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from doorward.errors import BadInput
from doorward.protocol.keys import KEY_SIZE, PublicKey

FORM = b"doorward audit event 1"
FIRST = bytes(32)  # what the first event has in place of a digest before it
_CHECKPOINT_FORM = b"doorward audit checkpoint 1"
_PRIVATE_PREFIX = "auditprivkey:"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REMEMBERED = (
    10_000  # digests by which an event that was delivered twice is known: more than one delivery holds
)
_MOST_PROBLEMS = 1000  # that are told one by one; a log that was sealed anew could have millions


def digest_of(
    *, previous: bytes, seq: int, at: datetime, actor: str, action: str, target: str, details: str
) -> bytes:
    """The digest of an event whose details are this JSON text; see the top of this module."""
    seal = hashlib.sha256(FORM)
    seal.update(previous)
    seal.update(seq.to_bytes(8, signed=True))
    seal.update(_microseconds(at))
    for text in (actor, action, target, details):
        raw = text.encode()
        seal.update(len(raw).to_bytes(8))
        seal.update(raw)
    return seal.digest()


def _microseconds(at: datetime) -> bytes:
    return ((at - _EPOCH) // timedelta(microseconds=1)).to_bytes(8, signed=True)


class AuditPublic(PublicKey):
    """The key that checkpoints are checked with."""

    __slots__ = ()
    prefix = "auditkey:"


class AuditPrivate:
    """The key that checkpoints are signed with. Hides itself from ``repr`` and ``str``."""

    __slots__ = ("_key", "_raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise BadInput(f"a key has {KEY_SIZE} bytes, not {len(raw)}")
        self._raw = raw
        self._key = Ed25519PrivateKey.from_private_bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``serialize`` wrote; raises BadInput, never repeating the text."""
        digits = text.removeprefix(_PRIVATE_PREFIX)
        if not text.startswith(_PRIVATE_PREFIX) or len(digits) != 2 * KEY_SIZE:
            raise BadInput(f"not a key of the form {_PRIVATE_PREFIX}<{2 * KEY_SIZE} hex digits>")
        try:
            return cls(bytes.fromhex(digits))
        except ValueError:
            raise BadInput("the key for audit checkpoints holds other characters than hex digits") from None

    def serialize(self) -> str:
        """The form for its file. Secret."""
        return _PRIVATE_PREFIX + self._raw.hex()

    def public(self) -> AuditPublic:
        """What others check with."""
        return AuditPublic(self._key.public_key().public_bytes_raw())

    def sign(self, seq: int, digest: bytes, at: datetime) -> "Checkpoint":
        """A checkpoint that says: at this time, this was the last event."""
        signature = self._key.sign(_signed(seq, digest, at))
        return Checkpoint(seq=seq, digest=digest, at=at, key=self.public(), signature=signature)

    def __repr__(self) -> str:
        return f"AuditPrivate(of {self.public()!r})"


def _signed(seq: int, digest: bytes, at: datetime) -> bytes:
    return _CHECKPOINT_FORM + seq.to_bytes(8, signed=True) + _microseconds(at) + digest


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the log was at a moment: so many events, of which the last has this digest."""

    seq: int
    digest: bytes
    at: datetime
    key: AuditPublic
    signature: bytes

    def holds(self) -> bool:
        """Whether its key has signed it. Whose key that is, is another question."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key.raw).verify(
                self.signature, _signed(self.seq, self.digest, self.at)
            )
        except (InvalidSignature, ValueError):
            return False
        return True

    def line(self) -> str:
        """One line of JSON, as it is kept in files."""
        return msgspec.json.encode(
            {
                "checkpoint": self.seq,
                "digest": self.digest.hex(),
                "at": self.at,
                "key": str(self.key),
                "signature": self.signature.hex(),
            }
        ).decode()


_Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
_Signature = Annotated[str, Meta(pattern="^[0-9a-f]{128}$", max_length=128)]
_Zoned = Annotated[datetime, Meta(tz=True)]


class _CheckpointLine(msgspec.Struct, frozen=True):
    checkpoint: _Number
    digest: _Digest
    at: _Zoned
    key: str
    signature: _Signature


class _EventLine(msgspec.Struct, frozen=True):
    seq: _Number
    at: _Zoned
    actor: str
    action: str
    target: str
    details: dict[str, Any]
    previous: _Digest
    digest: _Digest


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its details as the JSON text that was hashed."""

    seq: int
    at: datetime
    actor: str
    action: str
    target: str
    details: str
    previous: bytes
    digest: bytes

    def sealed_as_it_is(self) -> bool:
        """Whether its content is what its digest was made of."""
        return self.digest == digest_of(
            previous=self.previous,
            seq=self.seq,
            at=self.at,
            actor=self.actor,
            action=self.action,
            target=self.target,
            details=self.details,
        )


def read_event(line: str | bytes) -> Sealed:
    """An event of an export, one line of JSON. Raises BadInput for anything else."""
    try:
        found = msgspec.json.decode(line, type=_EventLine)
        return Sealed(
            seq=found.seq,
            at=found.at,
            actor=found.actor,
            action=found.action,
            target=found.target,
            details=canonical(found.details),
            previous=bytes.fromhex(found.previous),
            digest=bytes.fromhex(found.digest),
        )
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadInput(f"this is no event of an audit log: {error}") from None


def read_checkpoint(line: str | bytes) -> Checkpoint:
    """A checkpoint, one line of JSON. Raises BadInput for anything else; whether it holds is not asked here."""
    try:
        found = msgspec.json.decode(line, type=_CheckpointLine)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadInput(f"this is no checkpoint of an audit log: {error}") from None
    return Checkpoint(
        seq=found.checkpoint,
        digest=bytes.fromhex(found.digest),
        at=found.at,
        key=AuditPublic.parse(found.key),
        signature=bytes.fromhex(found.signature),
    )


def canonical(details: Any) -> str:
    """Details as they are stored and hashed: names in order, no space between."""
    return msgspec.json.encode(details, order="deterministic").decode()


class Fault(StrEnum):
    """What is wrong at a place."""

    ALTERED = "altered"  # the event does not say what was sealed
    MISSING = "missing"
    OUT_OF_ORDER = "out-of-order"
    UNLINKED = "unlinked"  # it was sealed behind another event than the one that stands before it
    RESEALED = "resealed"  # it is not the one that a checkpoint signed
    TRUNCATED = "truncated"  # a checkpoint signed events behind the last one
    CHECKPOINT = "checkpoint"  # the checkpoint itself cannot be believed


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the log is not what it was."""

    seq: int  # the event's number; of several that are missing the first
    fault: Fault
    text: str  # for people


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    problems: tuple[Problem, ...]  # by number; a thousand at most
    events: int  # that were looked at
    first: int  # number of the first of them; 0 where there is none
    last: int
    digest: bytes  # of the last
    confirmed: int  # the highest number that a good checkpoint signed and that is as it was then; 0 for none
    keys: tuple[AuditPublic, ...]  # that signed the good checkpoints


class Walk:
    """Looks at events one after the other, as they stand. Give all of them to ``step``, then ask ``finish``.

    Args:
        checkpoints: what was signed, in any order.
        trusted: whose checkpoints count; None: anybody's, and ``Verdict.keys`` says whose they were.
        part: the events are a part of the log, which need not begin with the first.
        after: the events begin behind this number, whose digest is ``previous``.
        previous: see ``after``.
    """

    def __init__(
        self,
        checkpoints: Iterable[Checkpoint] = (),
        *,
        trusted: Iterable[AuditPublic] | None = None,
        part: bool = False,
        after: int = 0,
        previous: bytes = FIRST,
    ) -> None:
        self._problems: list[Problem] = []
        self._signed: dict[int, list[Checkpoint]] = {}
        self._keys: dict[AuditPublic, None] = {}
        self._part = part
        self._expected = after + 1
        self._previous = previous
        self._gaps: list[tuple[int, int]] = []
        self._late: set[int] = set()
        self._awaited: dict[int, bytes] = {}  # number of a missing event to the digest that it must have
        self._recent: dict[int, bytes] = {}
        self._events = self._first = self._confirmed = 0
        believed = None if trusted is None else frozenset(trusted)
        for checkpoint in checkpoints:
            self._take(checkpoint, believed)

    def _take(self, checkpoint: Checkpoint, believed: frozenset[AuditPublic] | None) -> None:
        said = f"the checkpoint of {checkpoint.at:%Y-%m-%d %H:%M:%S} about event {checkpoint.seq}"
        if believed is not None and checkpoint.key not in believed:
            self._fault(
                checkpoint.seq, Fault.CHECKPOINT, f"{said} was signed with another key, {checkpoint.key}"
            )
        elif not checkpoint.holds():
            self._fault(
                checkpoint.seq, Fault.CHECKPOINT, f"{said} is not what was signed, or its signature is not"
            )
        else:
            self._signed.setdefault(checkpoint.seq, []).append(checkpoint)
            self._keys[checkpoint.key] = None

    def _fault(self, seq: int, fault: Fault, text: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(Problem(seq=seq, fault=fault, text=text))

    def step(self, event: Sealed) -> None:
        """Look at the next event."""
        seq = event.seq
        if self._part and not self._events:
            self._expected, self._previous = seq, event.previous
        if seq < self._expected and self._recent.get(seq) == event.digest and event.sealed_as_it_is():
            return  # delivered twice, which is no fault: a sink gets each event once at least
        self._events += 1
        self._first = self._first or seq
        if not event.sealed_as_it_is():
            self._fault(seq, Fault.ALTERED, f"event {seq} was altered: it does not say what was sealed")
        elif seq == self._expected and event.previous != self._previous:
            self._fault(
                seq,
                Fault.UNLINKED,
                f"event {seq} was sealed behind another event {seq - 1} than the one that stands there",
            )
        if seq < self._expected:
            self._out_of_order(event)
            return
        if seq > self._expected:
            self._gaps.append((self._expected, seq - 1))
            self._awaited[seq - 1] = event.previous
        self._expected, self._previous = seq + 1, event.digest
        self._recent[seq] = event.digest
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
        self._compare(event)

    def _out_of_order(self, event: Sealed) -> None:
        seq = event.seq
        late = seq not in self._late and any(first <= seq <= last for first, last in self._gaps)
        where = f"event {seq} stands behind event {self._expected - 1}"
        self._fault(seq, Fault.OUT_OF_ORDER, where if late else f"{where}, and there is another {seq}")
        if not late:
            return
        self._late.add(seq)
        if self._awaited.get(seq, event.digest) != event.digest:
            self._fault(
                seq, Fault.UNLINKED, f"event {seq + 1} was sealed behind another event {seq} than this one"
            )
        self._compare(event)

    def _compare(self, event: Sealed) -> None:
        for checkpoint in self._signed.get(event.seq, ()):
            if checkpoint.digest == event.digest:
                self._confirmed = max(self._confirmed, event.seq)
                continue
            since = f"behind event {self._confirmed}" if self._confirmed else "from its beginning"
            self._fault(
                event.seq,
                Fault.RESEALED,
                f"event {event.seq} is not the one that was signed at {checkpoint.at:%Y-%m-%d %H:%M:%S}: "
                f"the log was sealed anew somewhere {since}",
            )

    def finish(self) -> Verdict:
        """What was found. Call it once."""
        for first, last in self._gaps:
            self._missing(first, last)
        end = max(self._signed, default=0)
        if end >= self._expected:
            (checkpoint, *_) = self._signed[end]
            count = end - self._expected + 1
            self._fault(
                self._expected,
                Fault.TRUNCATED,
                f"the log ends with event {self._expected - 1}, but at {checkpoint.at:%Y-%m-%d %H:%M:%S} there were "
                f"{end}: {count} {'event is' if count == 1 else 'events are'} missing at its end",
            )
        return Verdict(
            problems=tuple(sorted(self._problems, key=lambda problem: problem.seq)),
            events=self._events,
            first=self._first,
            last=self._expected - 1 if self._events else 0,
            digest=self._previous,
            confirmed=self._confirmed,
            keys=tuple(self._keys),
        )

    def _missing(self, first: int, last: int) -> None:
        """A gap, less what came late."""
        start = first
        for late in (*sorted(seq for seq in self._late if first <= seq <= last), last + 1):
            if start < late:
                what = f"event {start} is" if start == late - 1 else f"events {start} to {late - 1} are"
                self._fault(start, Fault.MISSING, f"{what} missing")
            start = late + 1
