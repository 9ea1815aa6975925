"""A short run of every fuzz target, every input that once failed, and the proof that no parser is left out."""

import functools
import gc
from pathlib import Path

import pytest
from tests.fuzz.engine import (
    CRASHES,
    USUAL,
    Coverage,
    Pool,
    Target,
    TooLarge,
    TooSlow,
    attempt,
    bounded,
    load_targets,
    run,
)
from tests.fuzz.sites import OWN, sites

TARGETS = load_targets()
NAMES = sorted(TARGETS)
OWNED = {name for names in OWN.values() for name in names}


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    report = run(TARGETS[name], 0.5, 1, crashes=tmp_path)
    assert report.tried > 2
    assert report.faults == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_failed_once_holds_now(name: str) -> None:
    target = TARGETS[name]
    try:
        for file in target.crashes():
            attempt(target, file.read_bytes())
    finally:
        target.close()


def test_every_crash_has_its_target() -> None:
    assert {file.parent.name for file in CRASHES.glob("*/*")} <= set(TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_reach_what_a_target_says_it_covers(name: str) -> None:
    target, coverage = TARGETS[name], Coverage()
    for found in gc.get_objects():  # what another test has asked already would be remembered, and not be read
        if isinstance(found, functools._lru_cache_wrapper) and found.__module__.startswith("doorward."):
            found.cache_clear()
    try:
        for seed in target.seeds:
            attempt(target, seed, coverage)
    finally:
        target.close()
    assert sorted(set(target.covers) - coverage.names()) == []


def test_every_parser_is_fed_or_said_to_read_nothing_from_outside() -> None:
    covered = {name for target in TARGETS.values() for name in target.covers}
    found = sites()
    assert len(found) > 100
    assert {name: found[name] for name in sorted(set(found) - covered - OWNED)} == {}, (
        "each must be in COVERS of a target in tests/fuzz/targets, or in OWN of tests/fuzz/sites.py with the reason"
    )
    assert sorted(OWNED - set(found)) == []  # what is gone is taken out of the table
    assert sorted(OWNED & covered) == []


def _target(fuzz: object, **fields: object) -> Target:
    given = {
        "name": "made",
        "covers": (),
        "seeds": (b"seed",),
        "words": (),
        "limit": 64,
        "close": lambda: None,
    }
    return Target(fuzz=fuzz, **(given | fields))  # type: ignore[arg-type]


def test_what_raises_is_found_and_kept_once_for_each_place(tmp_path: Path) -> None:
    def fuzz(data: bytes) -> None:
        if len(data) > 6:
            raise ValueError(data)

    report = run(_target(fuzz), 0.5, 1, crashes=tmp_path)
    (kept,) = report.faults.values()
    assert kept.parent == tmp_path / "made"
    assert len(kept.read_bytes()) > 6
    assert "1 failed" in report.line()


def test_steps_in_the_product_lead_to_what_hides_behind_them(tmp_path: Path) -> None:
    from doorward.cli.times import parse_duration  # noqa: PLC0415 - any parser with branches
    from doorward.errors import BadInput  # noqa: PLC0415

    def fuzz(data: bytes) -> None:
        try:
            seconds = parse_duration(data.decode("latin-1"))
        except BadInput:
            return
        raise ZeroDivisionError(seconds)

    report = run(_target(fuzz, seeds=(b"1",)), 5.0, 1, crashes=tmp_path, most=1)
    assert len(report.faults) == 1


def test_an_input_that_takes_too_long_is_a_fault() -> None:
    def forever() -> None:
        while True:
            pass

    with pytest.raises(TooSlow, match="0 bytes took more than"):
        bounded(forever, 0)


def test_an_input_that_takes_too_much_memory_is_a_fault() -> None:
    held: list[bytearray] = []

    def hoard() -> None:
        held.extend(bytearray(b"x" * (8 << 20)) for _ in range(40))

    with pytest.raises(TooLarge, match="0 bytes took"):
        bounded(hoard, 0)


def test_inputs_reach_the_limit_and_no_further() -> None:
    pool = Pool(_target(None, limit=20_000), 1)
    large = [len(pool.draw_large()) for _ in range(200)]
    assert max(large) > 19_000
    assert max(large) <= 20_000
    assert max(len(pool.draw()) for _ in range(200)) <= USUAL


def test_a_new_parser_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "new.py").write_text(
        "class Reader:\n"
        "    def take(self, data):\n"
        "        return int(data)\n"
        "def read_it(data):\n"
        "    return data\n"
        "def fixed():\n"
        "    return int('7')\n"
    )
    monkeypatch.setattr("tests.fuzz.sites.SOURCES", str(tmp_path))
    assert sites() == {"protocol.new:Reader.take": "int", "protocol.new:read_it": "called read_it"}
