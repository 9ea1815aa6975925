"""A short run of every fuzz target, and every input that once failed."""

import pytest
from tests.fuzz.__main__ import CRASHES, load_targets, run

TARGETS = load_targets()


def test_there_are_targets() -> None:
    assert len(TARGETS) >= 5


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_short_run_finds_nothing(name: str) -> None:
    target, seeds = TARGETS[name]
    tried, failed = run(name, target, seeds, 0.5, seed=1)
    assert tried > 20
    assert failed == 0


def test_what_failed_once_holds_now() -> None:
    for file in sorted(CRASHES.glob("*")):
        target, _ = TARGETS[file.name.rsplit("-", 1)[0]]
        target(file.read_bytes())
