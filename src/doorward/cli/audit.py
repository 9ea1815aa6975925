"""``doorward audit``."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from doorward.api import audit_types as types
from doorward.cli import output
from doorward.cli.connection import Flag, Target
from doorward.cli.times import moment
from doorward.errors import BadInput, NotFound

app = App(
    name="audit",
    help="""Who did what to whom, and the proof of it.

    Every change and every decision is an event, and each event carries the hash of the one before it: a changed or missing
    one shows. Checkpoints, signed by the server, also show an end that was cut off; keep copies of them elsewhere.
    """,
)

_PAGE = 1000
_PAUSE = 1.0  # seconds between two questions of `tail`
_APART = frozenset({"before", "origin"})  # details that are not said of the event itself


@Parameter(name="*")
@dataclass(frozen=True)
class Wanted:
    """Which events.

    Args:
        user: Only what this person did, or what was done to them.
        node: Only what this node did, or what was done to it: a name, id or address; of a deleted one, its id.
        kind: Only this kind: `node`, `policy`, `ssh` ..., or one action such as `policy.set`.
        actor: Only what this one did: `cli`, `user:NAME`, `token:ID`, `node:ID`, `system`.
        action: Only this action, such as `policy.set`; ending in a dot, all that start so.
        target_of: Only what was done to this: `node:ID`, `user:NAME`, `key:ID`, `policy`.
    """

    user: str | None = None
    node: str | None = None
    kind: str | None = None
    actor: str | None = None
    action: str | None = None
    target_of: Annotated[str | None, Parameter(name="--target")] = None

    def query(self) -> dict[str, object]:
        """As the API is asked. Raises BadInput for a kind beside an action."""
        action = self.action
        if self.kind is not None:
            if action is not None:
                raise BadInput("--kind and --action say the same", cure="Give one of them.")
            action = self.kind if "." in self.kind else f"{self.kind}."
        return {
            "user": self.user,
            "node": self.node,
            "actor": self.actor,
            "action": action,
            "target": self.target_of,
        }


def _told(details: dict[str, Any]) -> str:
    """Details in one line, with what was there before where that is known."""
    before = details.get("before")
    before = before if isinstance(before, dict) else {}
    said = {name: value for name, value in details.items() if name not in _APART}
    parts = [
        f"{name}={_short(value)}"
        if before.get(name, value) == value
        else f"{name}={_short(before[name])}->{_short(value)}"
        for name, value in said.items()
    ]
    parts += [f"{name}={_short(value)}->" for name, value in before.items() if name not in said]
    return " ".join(parts)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or '""'


def _line(event: types.Event) -> str:
    told = _told(event.details)
    return f"{event.at:%Y-%m-%d %H:%M:%S}  {event.seq:>6}  {event.actor}  {event.action}  {event.target}  {told}".rstrip()


@app.command(name="list")
def list_events(
    *,
    wanted: Wanted | None = None,
    since: str | None = None,
    until: str | None = None,
    before: int | None = None,
    limit: int = 50,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """List the latest events, the newest last. Times are UTC.

    Example: `doorward audit list --kind node --user ann --since 7d`

    Args:
        wanted: Which events.
        since: Only the last 30m, 12h, 7d ..., or from a time on: 2026-01-31T12:00.
        until: Only what is older than that, or from before a time.
        before: Only events with a smaller number: the page before one that begins with it.
        limit: At most so many, up to 1000.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    query = {
        **(wanted or Wanted()).query(),
        "since": None if since is None else moment(since).isoformat(),
        "until": None if until is None else moment(until).isoformat(),
        "before": before,
        "limit": limit,
    }
    found = (target or Target()).call("GET", "/audit", list[types.Event], query=query)
    found.reverse()
    if json:
        output.as_json(found)
        return
    output.table(
        ("NUMBER", "TIME", "ACTOR", "ACTION", "TARGET", "DETAILS"),
        (
            (
                str(event.seq),
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                event.actor,
                event.action,
                event.target,
                _told(event.details),
            )
            for event in found
        ),
        empty="No event fits.",
    )
    if len(found) == limit and found[0].seq > 1:
        output.note(f"There may be older ones: --before {found[0].seq}")


@app.command(name="show")
def show_event(number: int, *, json: Flag = False, target: Target | None = None) -> None:
    """Show all of one event: from where it was asked for, in which request, and what was there before.

    Example: `doorward audit show 17`

    Args:
        number: Its number.
        json: Print an object.
        target: Which server.
    """
    query = {"before": number + 1, "limit": 1}
    found = (target or Target()).call("GET", "/audit", list[types.Event], query=query)
    if not found or found[0].seq != number:
        raise NotFound(f"there is no event {number}", cure="`doorward audit list` shows the latest.")
    (event,) = found
    if json:
        output.as_json(event)
        return
    origin = event.details.get("origin") or {}
    said = {name: value for name, value in event.details.items() if name not in _APART}
    output.fields(
        {
            "number": str(event.seq),
            "time": f"{event.at:%Y-%m-%d %H:%M:%S.%f} UTC",
            "actor": event.actor,
            "action": event.action,
            "target": event.target,
            "source": str(origin.get("source", "")) or "doorward itself",
            "request": str(origin.get("request", "")),
            "details": [f"{name} = {_short(value)}" for name, value in said.items()],
            "before": [
                f"{name} = {_short(value)}" for name, value in (event.details.get("before") or {}).items()
            ],
            "digest": event.digest,
        }
    )


@app.command(name="tail")
def tail_events(
    *,
    wanted: Wanted | None = None,
    lines: int = 10,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = True,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Print the latest events, then each new one as it comes, until interrupted.

    Example: `doorward audit tail --lines 0 --kind ssh`

    Args:
        wanted: Which events.
        lines: How many to begin with.
        follow: Wait for new ones.
        json: Print each event as one line of JSON.
        target: Which server.
    """
    target, query = target or Target(), (wanted or Wanted()).query()
    newest = target.call("GET", "/audit", list[types.Event], query={"limit": 1})
    seen = newest[0].seq if newest else 0
    shown: Sequence[types.Event] = ()
    if lines:
        first = {**query, "before": seen + 1, "limit": lines}
        shown = target.call("GET", "/audit", list[types.Event], query=first)[::-1]
    while True:
        for event in shown:
            output.line(msgspec.json.encode(event).decode() if json else _line(event))
        if not follow:
            return
        time.sleep(_PAUSE)
        shown = list(_after(target, seen, query))
        seen = shown[-1].seq if shown else seen


def _after(target: Target, seen: int, query: dict[str, object]) -> Iterator[types.Event]:
    """Every event after this number that is wanted, oldest first, a page at a time."""
    while True:
        asked = {**query, "after": seen, "limit": _PAGE}
        page = target.call("GET", "/audit", list[types.Event], query=asked)
        yield from page
        if len(page) < _PAGE:
            return
        seen = page[-1].seq


@app.command(name="verify")
def verify_events(
    *files: Path,
    checkpoints: Path | None = None,
    key: Annotated[list[str] | None, Parameter(negative=())] = None,
    part: Flag = False,
    json: Flag = False,
    target: Target | None = None,
) -> int:
    """Check the chain of hashes from the first event to the last, and every checkpoint.

    With files it checks an export, or what a sink has written, without any server. It says which event was altered, is missing
    or out of order; checkpoints also show an end that was cut off, and a log that was sealed anew.

    Example: `doorward audit verify`
    Example: `doorward audit verify audit.jsonl --checkpoints audit-checkpoints.jsonl --key audit.pub`

    Exit codes: 0 when it holds, 1 when it does not.

    Args:
        files: An export (JSON lines), in several files one after the other. Without any, the server is asked.
        checkpoints: The file of checkpoints, from the data directory or a copy of it. With files only.
        key: The key that they must be signed with: itself, or the file audit.pub; one of several. With files only.
        part: The files are a part of the log, which need not begin with the first event.
        json: Print an object.
        target: Which server.
    """
    if files:
        from doorward.cli.audit_files import verify_files  # noqa: PLC0415 - slow to load, and no other command needs it

        verdict = verify_files(files, checkpoints=checkpoints, keys=key, part=part)
    elif checkpoints is not None or key is not None or part:
        raise BadInput(
            "--checkpoints, --key and --part are for an export", cure="Name its files, or leave them out."
        )
    else:
        verdict = (target or Target()).call("GET", "/audit/verify", types.AuditVerdict)
    if json:
        output.as_json(verdict)
        return 0 if verdict.ok else 1
    for problem in verdict.problems:
        output.line(f"{problem.text[:1].upper()}{problem.text[1:]}.")
    if verdict.ok:
        output.line("The audit log is whole.")
    else:
        output.line(f"The audit log is not what was written: see event {verdict.first_bad}.")
    count = f"{verdict.events} events, the last is {verdict.last}"
    if verdict.confirmed:
        output.line(f"{count}; signed up to {verdict.confirmed} by {', '.join(verdict.keys)}.")
        if files and key is None:
            output.note("Whose key that is, nobody has said: give it with --key.")
    else:
        output.line(f"{count}. No checkpoint vouches for them: a log that was sealed anew would not show.")
    return 0 if verdict.ok else 1


@app.command(name="export")
def export_events(
    *,
    wanted: Wanted | None = None,
    form: Annotated[Literal["jsonl", "csv"], Parameter(name="--format")] = "jsonl",
    after: int = 0,
    target: Target | None = None,
) -> None:
    """Print every event from the first, one JSON object a line, hashes included; or as CSV for a spreadsheet.

    Example: `doorward audit export > audit.jsonl`

    Args:
        wanted: Which events. A selection cannot be verified.
        form: `jsonl`, which `audit verify` reads, or `csv`.
        after: Only events with a greater number: what an earlier export does not have.
        target: Which server.
    """
    events = _after(target or Target(), after, (wanted or Wanted()).query())
    if form == "csv":
        from doorward.cli.audit_files import csv_lines  # noqa: PLC0415 - no other command needs it

        for row in csv_lines(events):
            output.raw(row)
        return
    for event in events:
        output.line(msgspec.json.encode(event).decode())


@app.command(name="checkpoints")
def list_checkpoints(*, after: int = 0, target: Target | None = None) -> None:
    """Print what the server has signed of the log, one JSON object a line, oldest first.

    Kept elsewhere, they show later whether the log still is what it was, and all of it.

    Example: `doorward audit checkpoints > checkpoints.jsonl`

    Args:
        after: Only those about events with a greater number.
        target: Which server.
    """
    target = target or Target()
    while True:
        query = {"after": after, "limit": _PAGE}
        page = target.call("GET", "/audit/checkpoints", list[types.AuditCheckpoint], query=query)
        for checkpoint in page:
            output.line(msgspec.json.encode(checkpoint).decode())
        if len(page) < _PAGE:
            return
        after = page[-1].checkpoint


@app.command(name="key")
def show_key(*, target: Target | None = None) -> None:
    """Print the public key that the server's checkpoints are signed with. It is in the data directory, too, as audit.pub.

    Example: `doorward audit key > audit.pub`

    Args:
        target: Which server.
    """
    output.line((target or Target()).call("GET", "/audit/key", types.AuditKey).key)
