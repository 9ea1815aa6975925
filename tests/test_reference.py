"""The reference pages are made from the code; ``make docs`` writes them, and this test fails when they are stale."""

import sys
from pathlib import Path

import pytest

from doorward.cli.app import program
from doorward.config import reference
from doorward.policy import parse_policy

PAGES = Path(__file__).parent.parent / "docs" / "reference"


def commands() -> str:
    """Every command with its arguments, as Markdown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["doorward"])  # cyclopts names the program by it
        return _commands()


def _commands() -> str:
    return program().generate_docs(output_format="markdown", recursive=True, heading_level=1).rstrip() + "\n"


MADE = {"settings.md": reference, "commands.md": commands}


def test_the_reference_pages_are_fresh() -> None:
    for name, make in MADE.items():
        assert (PAGES / name).read_text(encoding="utf-8") == make(), f"{name} is stale: run make docs"


def test_the_policy_of_the_guide_is_one() -> None:
    text = (PAGES.parent / "guide" / "policy.md").read_text(encoding="utf-8")
    example = text.split("```\n", 2)[1]
    document = parse_policy(example)
    assert len(document.rules) == 4
    assert len(document.tests) == 1


if __name__ == "__main__":
    for page, text in MADE.items():
        (PAGES / page).write_text(text(), encoding="utf-8")
    sys.exit(0)
