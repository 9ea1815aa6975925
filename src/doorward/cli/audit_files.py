"""Audit logs as files: checked without a server, and written for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from doorward.api import audit_types as types
from doorward.errors import BadInput
from doorward.protocol.auditlog import AuditPublic, Checkpoint, Walk, read_checkpoint, read_event

_LINE_LIMIT = 64 << 20  # bytes; an event has a few hundred
_COLUMNS = (
    "number",
    "time",
    "actor",
    "action",
    "target",
    "source",
    "request",
    "details",
    "before",
    "previous",
    "digest",
)
# What makes a spreadsheet compute a cell instead of showing it. Names and comments in it were written by anybody.
_OBEYED = ("=", "+", "-", "@", "\t", "\r")


def verify_files(
    files: Sequence[Path], *, checkpoints: Path | None, keys: Sequence[str] | None, part: bool
) -> types.AuditVerdict:
    """Look at an export. Raises BadInput, with the place, for a file that cannot be read or holds something else."""
    signed = [] if checkpoints is None else list(_checkpoints(checkpoints))
    walk = Walk(signed, trusted=None if keys is None else [_key(key) for key in keys], part=part)
    for file in files:
        for number, line in _lines(file):
            try:
                walk.step(read_event(line))
            except BadInput as error:
                raise BadInput(
                    error.message,
                    cure="An export is made by `doorward audit export`.",
                    place=f"{file}:{number}",
                ) from None
    found = walk.finish()
    return types.AuditVerdict(
        ok=not found.problems,
        first_bad=found.problems[0].seq if found.problems else None,
        problems=tuple(
            types.AuditProblem(seq=one.seq, fault=one.fault.value, text=one.text) for one in found.problems
        ),
        events=found.events,
        last=found.last,
        digest=found.digest.hex(),
        confirmed=found.confirmed,
        keys=tuple(map(str, found.keys)),
    )


def _checkpoints(file: Path) -> Iterator[Checkpoint]:
    for number, line in _lines(file):
        try:
            yield read_checkpoint(line)
        except BadInput as error:
            cure = "They are in audit-checkpoints.jsonl in the data directory."
            raise BadInput(error.message, cure=cure, place=f"{file}:{number}") from None


def _key(text: str) -> AuditPublic:
    """A key, or what is in a file of this name."""
    if not text.startswith(AuditPublic.prefix):
        (text,) = [line.decode(errors="replace") for _, line in _lines(Path(text))][:1] or [""]
    return AuditPublic.parse(text.strip())


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that say something, each with its number."""
    try:
        with file.open("rb") as opened:
            number = 0
            while line := opened.readline(_LINE_LIMIT):
                number += 1
                if line.strip():
                    yield number, line
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None


def csv_lines(events: Iterable[types.Event]) -> Iterator[str]:
    """The events as CSV (RFC 4180), under their columns' names, made harmless for spreadsheets: they are not for verifying."""
    yield _row(_COLUMNS)
    for event in events:
        origin = event.details.get("origin") or {}
        before = event.details.get("before")
        said = {name: value for name, value in event.details.items() if name not in {"before", "origin"}}
        yield _row(
            (
                str(event.seq),
                event.at.isoformat(),
                event.actor,
                event.action,
                event.target,
                str(origin.get("source", "")),
                str(origin.get("request", "")),
                msgspec.json.encode(said).decode(),
                "" if before is None else msgspec.json.encode(before).decode(),
                event.previous,
                event.digest,
            )
        )


def _row(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(f"'{cell}" if cell.startswith(_OBEYED) else cell for cell in cells)
    return text.getvalue()
