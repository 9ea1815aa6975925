"""``python -m doorward`` is the program."""

import runpy
import sys

import pytest

from doorward import __version__


def test_the_module_runs_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["doorward", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("doorward", run_name="__main__")
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__
