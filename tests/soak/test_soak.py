"""The short form of ``make soak``: a minute of churn, faster than usual. That nothing grows for an hour, only an hour shows."""

import pytest
from tests.soak.measured import Sample, after_warm_up, slope, verdict
from tests.soak.soak import soak


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.interop
@pytest.mark.timeout(240)
async def test_a_minute_of_churn_harms_nobody() -> None:
    found = await soak(seconds=60, nodes=50, every=5, seed=3, pace=0.7)
    print(found.report())  # noqa: T201 - pytest shows it with a failure
    first, last = found.samples[0], found.samples[-1]
    # Caches and the allocator are still finding their size: a bound for what a minute may take, not a slope.
    assert last.anonymous - first.anonymous < 60
    assert last.descriptors - first.descriptors < 80
    assert last.streams >= 35
    assert last.rows["nodes"] <= 80
    assert [fault for fault in found.faults if "worker" in fault or "log" in fault or "table" in fault] == []


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
