"""The short form of ``make soak``: a minute of churn, faster than usual. That nothing grows for an hour, only an hour shows."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.soak.measured import Sample, after_warm_up, slope, verdict, verdict_of_a_minute

ROOT = Path(__file__).parents[2]


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_a_minute_of_churn_harms_nobody() -> None:
    """In a process of its own, whose event loop may be as rough to its connections as clients are."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--short"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing grows" in done.stdout


def _samples(growth: float) -> list[Sample]:
    rows = dict.fromkeys(
        ("nodes", "node_observations", "registrations", "changes", "processes", "settings", "users"), 10
    )
    return [
        Sample(minute * 60.0, 80 + growth * minute / 60, 90, 50, 5, 60, 50, 10, 1.0, rows, 1.0)
        for minute in range(60)
    ]


def test_the_slope_is_that_of_what_comes_after_the_warm_up() -> None:
    samples = _samples(30)
    assert slope(samples, "anonymous") == pytest.approx(30)
    cold = [one._replace(anonymous=one.anonymous - 50) for one in samples[:15]]
    assert slope([*cold, *samples[15:]], "anonymous") == pytest.approx(30)
    assert after_warm_up(samples)[0].seconds >= 19 * 60


def test_what_grows_is_named_and_what_does_not_is_not() -> None:
    assert verdict(_samples(5)) == []
    (fault,) = verdict(_samples(30))
    assert fault.startswith("30.0 MiB of memory more in an hour")
    grown = _samples(0)
    grown[-1] = grown[-1]._replace(rows=grown[-1].rows | {"changes": 9000})
    assert verdict(grown) == ["the table changes grew from 10 to 9000 rows"]


def test_a_minute_is_judged_by_bounds() -> None:
    samples = _samples(1800)[:2]
    assert verdict_of_a_minute(samples) == []
    bad = samples[-1]._replace(
        anonymous=200, descriptors=300, streams=3, rows=samples[-1].rows | {"nodes": 99}
    )
    assert len(verdict_of_a_minute([*samples, bad])) == 4
