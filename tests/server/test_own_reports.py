"""Reports: one writer, many readers, and nothing left of an earlier run."""

from pathlib import Path

import pytest

from doorward.errors import Unavailable
from doorward.server import own_reports
from doorward.server.own_reports import FOLDER, Report, Reports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def test_what_is_written_is_read_by_another(folder: Path) -> None:
    report = Report(state="failing", text="no", cure="yes")
    Reports(folder, "daemon").write(Report(state="running"))
    Reports(folder, "daemon").write(report)
    assert Reports(folder, "daemon").read() == report
    assert Reports(folder, "login").read() is None
    assert [file.name for file in (folder / FOLDER).iterdir()] == ["daemon.json"]


def test_an_earlier_run_is_forgotten(folder: Path, tmp_path: Path) -> None:
    Reports(folder, "daemon").write(Report(state="running"))
    Reports(folder, "login").write(Report(state="running"))
    own_reports.forget(folder)
    assert list((folder / FOLDER).iterdir()) == []
    own_reports.forget(tmp_path / "never used")


@pytest.mark.parametrize("content", [b"", b"{", b'{"state": "dancing"}', b"\xff"])
def test_what_cannot_be_read_says_nothing(folder: Path, content: bytes) -> None:
    (folder / FOLDER / "login.json").write_bytes(content)
    assert Reports(folder, "login").read() is None


def test_a_failure_has_a_cure_even_if_its_error_knows_none() -> None:
    assert Report.failure(Unavailable("broken", cure="Mend it."), 10) == Report(
        state="failing", text="broken", cure="Mend it."
    )
    plain = Report.failure(OSError("disk full"), 10)
    assert plain.text == "disk full"
    assert "tried again every 10 s" in plain.cure
