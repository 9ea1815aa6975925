"""``doorward audit``."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target
from doorward.cli.times import before_now

app = App(
    name="audit",
    help="""Who did what to whom.

    Every change is an event, and each event carries the hash of the one before it: a changed or missing one shows. Who can
    write to the database could still cut off the end; keep an export elsewhere to notice that, too.
    """,
)

_PAGE = 1000
_PAUSE = 1.0  # seconds between two questions of `tail`


def _line(event: types.Event) -> str:
    details = " ".join(f"{name}={_short(value)}" for name, value in event.details.items())
    return f"{event.at:%Y-%m-%d %H:%M:%S}  {event.seq:>6}  {event.actor}  {event.action}  {event.target}  {details}".rstrip()


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or '""'


@app.command(name="list")
def list_events(
    *,
    actor: str | None = None,
    action: str | None = None,
    target_of: Annotated[str | None, Parameter(name="--target")] = None,
    since: str | None = None,
    limit: int = 50,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """List the latest events, the newest last. Times are UTC.

    Example: `doorward audit list --action node. --since 7d`

    Args:
        actor: Only what this one did: `cli`, `user:NAME`, `token:ID`, `node:ID`, `system`.
        action: Only this action, such as `policy.set`; ending in a dot, all that start so.
        target_of: Only what was done to this: `node:ID`, `user:NAME`, `key:ID`, `policy`.
        since: Only the last 30m, 12h, 7d ...
        limit: At most so many, up to 1000.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    query = {
        "actor": actor,
        "action": action,
        "target": target_of,
        "since": None if since is None else before_now(since).isoformat(),
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
                " ".join(f"{name}={_short(value)}" for name, value in event.details.items()),
            )
            for event in found
        ),
        empty="No event fits.",
    )


@app.command(name="tail")
def tail_events(
    *, lines: int = 10, follow: bool = True, json: Flag = False, target: Target | None = None
) -> None:
    """Print the latest events, then each new one as it comes, until interrupted.

    Example: `doorward audit tail --lines 0`

    Args:
        lines: How many to begin with.
        follow: Wait for new ones.
        json: Print each event as one line of JSON.
        target: Which server.
    """
    target = target or Target()
    latest = target.call("GET", "/audit", list[types.Event], query={"limit": max(lines, 1)})
    seen = latest[0].seq if latest else 0
    shown = list(reversed(latest[:lines]))
    while True:
        for event in shown:
            output.line(msgspec.json.encode(event).decode() if json else _line(event))
        if not follow:
            return
        time.sleep(_PAUSE)
        shown = list(_after(target, seen))
        seen = shown[-1].seq if shown else seen


def _after(target: Target, seen: int) -> Iterator[types.Event]:
    """Every event after this number, oldest first, a page at a time."""
    while True:
        page = target.call("GET", "/audit", list[types.Event], query={"after": seen, "limit": _PAGE})
        yield from page
        if len(page) < _PAGE:
            return
        seen = page[-1].seq


@app.command(name="verify")
def verify_events(*, json: Flag = False, target: Target | None = None) -> int:
    """Check the chain of hashes from the first event to the last.

    Example: `doorward audit verify`

    Exit codes: 0 when it holds, 1 when it does not.

    Args:
        json: Print an object.
        target: Which server.
    """
    verdict = (target or Target()).call("GET", "/audit/verify", types.AuditVerdict)
    if json:
        output.as_json(verdict)
    elif verdict.ok:
        output.line("The audit log is whole.")
    else:
        output.line(
            f"The audit log was changed: event {verdict.first_bad} is missing or not what was written."
        )
    return 0 if verdict.ok else 1


@app.command(name="export")
def export_events(*, target: Target | None = None) -> None:
    """Print every event from the first, one JSON object a line, hashes included.

    Example: `doorward audit export > audit.jsonl`

    Args:
        target: Which server.
    """
    for event in _after(target or Target(), 0):
        output.line(msgspec.json.encode(event).decode())
