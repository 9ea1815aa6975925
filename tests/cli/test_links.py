"""One-time links: shown on a terminal, and kept from everything else."""

import io
import json
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from doorward.api.types import Link, MadeInvitation
from doorward.cli.links import hand_over
from doorward.errors import Unavailable

MADE = MadeInvitation(
    user="ann",
    expires=datetime(2026, 1, 5, tzinfo=UTC),
    links=(
        Link(url="https://door.test/invite/secret", where="in the tailnet"),
        Link(url="http://localhost:8080/invite/secret", where="on the server"),
    ),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _streams(
    monkeypatch: pytest.MonkeyPatch, out: io.StringIO, err: io.StringIO
) -> tuple[io.StringIO, io.StringIO]:
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    return out, err


def test_a_terminal_gets_the_link_alone_on_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = _streams(monkeypatch, Terminal(), Terminal())
    hand_over(MADE, tmp_path, json=False)
    assert out.getvalue() == "https://door.test/invite/secret\n"
    first, second = err.getvalue().splitlines()
    assert first.startswith("It works once, until 2026-01-05 00:00:00 UTC (")
    assert first.endswith("), in the tailnet.")
    assert second == "The same, on the server: http://localhost:8080/invite/secret"
    assert list(tmp_path.iterdir()) == []


def test_a_link_does_not_get_into_a_file_by_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = _streams(monkeypatch, Terminal(), io.StringIO())
    hand_over(MADE, tmp_path, json=False)
    assert (out.getvalue(), err.getvalue()) == ("https://door.test/invite/secret\n", "")


def test_json_on_a_terminal_has_the_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = _streams(monkeypatch, Terminal(), Terminal())
    hand_over(MADE, tmp_path, json=True)
    assert [each["url"] for each in json.loads(out.getvalue())["links"]] == [each.url for each in MADE.links]
    assert err.getvalue() == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_elsewhere_only_the_path_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    out, err = _streams(monkeypatch, io.StringIO(), Terminal())
    hand_over(MADE, tmp_path, json=as_json)
    file = tmp_path / "invitation-ann.txt"
    text = out.getvalue()
    assert "secret" not in text + err.getvalue()
    assert (json.loads(text)["file"] if as_json else text.strip()) == str(file)
    assert file.read_text().splitlines() == [each.url for each in MADE.links]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../ann", "a/b", "\x00", "."])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _streams(monkeypatch, io.StringIO(), io.StringIO())
    made = MadeInvitation(user=name, expires=MADE.expires, links=MADE.links)
    hand_over(made, tmp_path, json=False)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("invitation-")
    assert file.is_file()


def test_a_folder_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _streams(monkeypatch, io.StringIO(), io.StringIO())
    with pytest.raises(Unavailable, match="No such file") as refused:
        hand_over(MADE, tmp_path / "no", json=False)
    assert refused.value.place == str(tmp_path / "no" / "invitation-ann.txt")
