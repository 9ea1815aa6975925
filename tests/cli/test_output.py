"""How answers look, and that nothing a node says reaches the terminal as a command."""

import io
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.cli import output
from doorward.errors import BadInput


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_in_a_pipe_has_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "WHAT"), [("a" * 120, "b" * 120), ("c", "")], empty="none")
    assert capsys.readouterr().out == f"{'NAME':120}  WHAT\n{'a' * 120}  {'b' * 120}\nc\n"


def test_no_row_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME",), [], empty="There is nobody.")
    assert capsys.readouterr().out == "There is nobody.\n"


def test_a_table_on_a_narrow_terminal_folds_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    output.table(("NAME", "WHAT"), [("node", "x" * 50)], empty="")
    lines = screen.getvalue().splitlines()
    assert sum(text.count("x") for text in lines) == 50
    assert "\x1b[1m" in lines[0]  # the column names are bold


def test_a_table_that_fits_its_terminal_is_the_same_but_for_bold_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "10")
    output.table(("A", "B"), [("xxxx", "yyyy")], empty="")
    assert screen.getvalue() == "\x1b[1mA     B\x1b[0m\nxxxx  yyyy\n"


def test_wide_characters_keep_the_columns_straight(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "X"), [("\u673a\u673a\u673a", "1"), ("e\u0301t\u00e9", "2")], empty="")
    assert capsys.readouterr().out.splitlines() == [
        "NAME    X",
        "\u673a\u673a\u673a  1",
        "e\u0301t\u00e9     2",
    ]


HOSTILE = "a\x1b]0;owned\x07b\n[red]c[/red]\u202ed\x9be"


def test_hostile_names_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = "a\\x1b]0;owned\\x07b\\x0a[red]c[/red]\\x202ed\\x9be"
    output.table(("NAME",), [(HOSTILE,)], empty="")
    output.line(HOSTILE)
    output.fields({"Name": HOSTILE})
    output.note(HOSTILE)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["NAME", shown, shown, f"Name  {shown}"]
    assert captured.err == shown + "\n"


@given(st.text())
def test_cleaned_text_has_no_control_character_left(text: str) -> None:
    assert not [c for c in output.clean(text) if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}]


def test_fields_align_and_may_have_many_values(capsys: pytest.CaptureFixture[str]) -> None:
    output.fields({"Name": "a", "Addresses": ("x", "y"), "None": ()})
    assert capsys.readouterr().out == "Name       a\nAddresses  x\n           y\n"


def test_raw_ends_with_one_line_end(capsys: pytest.CaptureFixture[str]) -> None:
    output.raw("a")
    output.raw("b\n")
    output.raw("")
    assert capsys.readouterr().out == "a\nb\n"


def test_yes_needs_no_terminal() -> None:
    assert output.confirm("Delete?", yes=True)


def test_a_script_must_say_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(BadInput) as caught:
        output.confirm("Delete?", yes=False)
    assert "--yes" in caught.value.cure


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("YES\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_a_person_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, agreed: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert output.confirm("Delete?", yes=False) is agreed
    assert capsys.readouterr().err == "Delete? [y/N] "
