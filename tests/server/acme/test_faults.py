"""How long an authority is left alone: by whose fault it was, how often, and what it said itself."""

import pytest

from doorward.server.acme.faults import DAY, HOUR, LONGEST, MINUTE, AcmeError, wait_after


def test_what_an_authority_counts_stays_below_its_limits() -> None:
    error = AcmeError("no")
    waits = [wait_after(error, failures, 0.0) for failures in range(1, 40)]
    assert waits[:4] == [15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR]
    assert max(waits) == 12 * HOUR
    # Five failures in an hour lock a name out, with the largest authority.
    moments = [sum(waits[:count]) for count in range(len(waits))]
    assert all(sum(start <= one < start + HOUR for one in moments) < 5 for start in moments)


def test_what_never_got_there_is_tried_sooner() -> None:
    error = AcmeError("away", counts=False)
    assert [wait_after(error, failures, 0.0) for failures in (1, 2, 3, 30)] == [60, 120, 240, HOUR]


@pytest.mark.parametrize(
    ("asked", "waited"), [(0.0, 15 * MINUTE), (10.0, 15 * MINUTE), (5 * HOUR, 5 * HOUR), (90 * DAY, LONGEST)]
)
def test_an_authority_s_word_counts_within_reason(asked: float, waited: float) -> None:
    assert wait_after(AcmeError("no", retry_after=asked), 1, 0.0) == waited


def test_those_who_failed_together_do_not_come_back_together() -> None:
    waits = {wait_after(AcmeError("no"), 1, chance / 10) for chance in range(10)}
    assert len(waits) == 10
    assert max(waits) < 17 * MINUTE
