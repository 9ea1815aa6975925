"""Exports, checked without a server and written for spreadsheets."""

import csv
import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from tests.support.auditing import add, add_many
from tests.support.clock import FakeClock

from doorward.api import audit_types as types
from doorward.api.audit import answer
from doorward.audit.destinations import line_of
from doorward.cli.app import run
from doorward.cli.audit_files import csv_lines
from doorward.protocol.auditlog import AuditPrivate
from doorward.store import Connection, Database, audit

KEY, OTHER = AuditPrivate(bytes(range(32))), AuditPrivate(bytes(32))


class Export(NamedTuple):
    """An export of ten events, and what was signed of it."""

    folder: Path
    events: list[types.Event]

    @property
    def file(self) -> Path:
        return self.folder / "audit.jsonl"

    def write(self, events: list[types.Event], name: str = "audit.jsonl") -> Path:
        file = self.folder / name
        file.write_text("".join(f"{line_of(event)}\n" for event in events))
        return file


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def export(tmp_path: Path) -> Export:
    clock = FakeClock()
    async with await Database.open(tmp_path / "doorward.db", clock=clock) as database:
        await database.run(add_many, 9)
        await database.run(_odd)
        events = [answer(event) for event in reversed(await database.read(audit.load))]
    made = Export(tmp_path, events)
    made.write(events)
    (tmp_path / "audit.pub").write_text(f"{KEY.public()}\n")
    lines = [
        KEY.sign(seq, bytes.fromhex(events[seq - 1].digest), clock.now()).line() + "\n" for seq in (4, 10)
    ]
    (tmp_path / "checkpoints.jsonl").write_text("".join(lines))
    return made


def _odd(connection: Connection) -> None:
    add(
        connection,
        9,
        details={"text": "é\u2028\n\x1b", "number": 1.5, "big": 2**63, "z": {"b": 1, "a": None}},
    )


def verify(export: Export, *words: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(["audit", "verify", *(word.replace("@", f"{export.folder}/") for word in words)])
    return Said(code, out.getvalue(), err.getvalue())


ALL = ("@audit.jsonl", "--checkpoints", "@checkpoints.jsonl", "--key", "@audit.pub")


async def test_a_good_export_is_proven_without_a_server(export: Export) -> None:
    said = verify(export, *ALL)
    assert said == (
        0,
        f"The audit log is whole.\n10 events, the last is 10; signed up to 10 by {KEY.public()}.\n",
        "",
    )
    assert verify(export, *ALL[:3], "--key", str(KEY.public())).code == 0
    said = verify(export, *ALL[:3])
    assert (said.code, said.err) == (0, "Whose key that is, nobody has said: give it with --key.\n")
    said = verify(export, "@audit.jsonl", "--json")
    found = msgspec.json.decode(said.out, type=types.AuditVerdict)
    assert (said.code, found.ok, found.confirmed, found.digest) == (0, True, 0, export.events[-1].digest)


async def test_what_was_done_to_it_is_named(export: Export) -> None:
    events = export.events
    forged = msgspec.structs.replace(events[4], actor="user:eve")
    for changed, words in (
        ([*events[:4], forged, *events[5:]], "Event 5 was altered: it does not say what was sealed."),
        ([*events[:4], *events[5:]], "Event 5 is missing."),
        ([*events[:4], events[5], events[4], *events[6:]], "Event 5 stands behind event 6."),
        (
            events[:8],
            "The log ends with event 8, but at 2026-01-02 03:04:05 there were 10: 2 events are missing",
        ),
        ([], "The log ends with event 0, but"),
    ):
        export.write(changed)
        said = verify(export, *ALL)
        assert said.code == 1
        assert words in said.out


async def test_checkpoints_of_somebody_else_do_not_count(export: Export) -> None:
    assert verify(export, *ALL, "--key", str(OTHER.public())).code == 0  # one of two
    said = verify(export, *ALL[:3], "--key", str(OTHER.public()))
    assert said.code == 1
    assert "was signed with another key" in said.out


async def test_a_log_in_several_files_and_a_part_of_it(export: Export) -> None:
    export.write(export.events[:6], "one")
    export.write(export.events[6:], "two")
    assert verify(export, "@one", "@two", *ALL[1:]).code == 0
    assert "Event 7 stands behind" not in verify(export, "@two", "@one").out
    assert verify(export, "@two", "@one").code == 1
    said = verify(export, "@two", *ALL[1:])
    assert "Events 1 to 6 are missing." in said.out
    said = verify(export, "@two", *ALL[1:], "--part")
    assert (said.code, said.out.splitlines()[1][:30]) == (0, "4 events, the last is 10; sign")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("@missing",), "cannot be read: No such file"),
        (("@audit.pub",), "audit.pub:1: this is no event"),
        (("@audit.jsonl", "--checkpoints", "@audit.jsonl"), "audit.jsonl:1: this is no checkpoint"),
        (("@audit.jsonl", "--key", "@audit.jsonl"), "not a key of the form auditkey:"),
        (("@audit.jsonl", "--key", "auditkey:00"), "not a key of the form auditkey:"),
    ],
)
async def test_what_cannot_be_read_is_refused(export: Export, words: tuple[str, ...], expected: str) -> None:
    said = verify(export, *words)
    assert (said.code, said.out) == (1, "")
    assert expected in said.err


def _events() -> Iterator[types.Event]:
    for seq, actor in enumerate(("=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "cli", 'a,"b"\nc'), 1):
        yield types.Event(
            seq=seq,
            at=FakeClock().now(),
            actor=actor,
            action="user.update",
            target="=cmd|' /C calc'!A0",
            details={"a": 1, "before": {"a": 0}, "origin": {"source": "@evil", "request": "r"}},
            previous="0",
            digest="1",
        )


def test_csv_holds_nothing_that_a_spreadsheet_would_compute() -> None:
    header, *rows = csv.reader(io.StringIO("".join(csv_lines(_events())), newline=""))
    assert header[:3] == ["number", "time", "actor"]
    assert [row[2] for row in rows] == ["'=1+1", "'+1", "'-1", "'@x", "'\t=1", "'\r=1", "cli", 'a,"b"\nc']
    assert {row[4] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert rows[0][5:9] == ["'@evil", "r", '{"a":1}', '{"a":0}']
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row)
