"""``doorward setup client``: what it prints, and how it shows that it works."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.scripts import run_captured

from doorward.cli import setup
from doorward.engine.programs import ClientPaths, ProgramError
from doorward.engine.setup import Progress

PATHS = ClientPaths(Path("/x/tailscale"), Path("/x/tailscaled"), (1, 102, 4))
STEPS = [
    Progress("fetching", 1, 0, 0.5),
    Progress("fetching", 7, 0, 3.0),
    Progress("building", 9, 1, 4.0),
    Progress("building", 9, 200, 60.0),
]


def working(report: Callable[[Progress], None]) -> ClientPaths:
    for step in STEPS:
        report(step)
    return PATHS


def test_the_programs_are_all_that_is_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "setup_client", working)
    code, out, err = run_captured(["setup", "client"])
    assert (code, out) == (0, ["/x/tailscale", "/x/tailscaled"])
    assert err == [
        "fetching (1 modules, 0 packages, 0 s)",
        "building (9 modules, 1 packages, 4 s)",
        "building (9 modules, 200 packages, 60 s)",
        "The stock client 1.102.4 is here; doorward was made for 1.102.4.",
    ]


def test_on_a_terminal_one_line_changes_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    display = setup._Display()
    working(display)
    display.close()
    assert screen.getvalue().count("\n") == 0
    assert screen.getvalue().endswith("200 packages, 60 s)\r\x1b[K")


def test_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(report: Callable[[Progress], None]) -> ClientPaths:
        report(STEPS[0])
        raise ProgramError("go did not work", cure="Look at it.")

    monkeypatch.setattr(setup, "setup_client", failing)
    code, out, err = run_captured(["setup", "client"])
    assert (code, out) == (1, [])
    assert err[-2:] == ["doorward: go did not work", "  Look at it."]
