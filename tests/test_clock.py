"""The machine's clocks, as they are."""

import time
from datetime import UTC, datetime, timedelta

from tests.support.clock import FakeClock

from doorward.clock import Clock, SystemClock


def test_the_wall_clock_is_the_machine_s_and_knows_its_zone() -> None:
    before = time.time()  # noqa: TID251 - what it is compared with
    now = SystemClock().now()
    after = time.time()  # noqa: TID251 - same
    assert now.tzinfo is UTC
    assert before - 0.001 <= now.timestamp() <= after + 0.001


def test_the_monotonic_clock_counts_seconds_and_never_goes_back() -> None:
    clock = SystemClock()
    readings = [time.monotonic(), clock.monotonic(), clock.monotonic(), time.monotonic()]
    assert readings == sorted(readings)


def test_the_clock_of_the_tests_keeps_the_same_promises() -> None:
    clock: Clock = FakeClock()
    assert clock.now().tzinfo is UTC
    fake = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    start = fake.monotonic()
    fake.advance(2.5)
    assert (fake.now(), fake.monotonic() - start) == (datetime(2026, 1, 1, 0, 0, 2, 500000, tzinfo=UTC), 2.5)
    fake.jump(timedelta(days=-1))  # a wall clock may
    assert (fake.now().day, fake.monotonic() - start) == (31, 2.5)
