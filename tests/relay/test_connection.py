"""Queues and allowances on their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.relay.connection import Allowance, Counts, Limits, Queue


@given(st.lists(st.binary(max_size=40)), st.integers(1, 5), st.integers(1, 60))
def test_a_queue_keeps_the_newest_that_fit(frames: list[bytes], packets: int, size: int) -> None:
    queue = Queue(packets, size)
    dropped = sum(queue.push(frame) for frame in frames)
    assert dropped + len(queue.frames) == len(frames)
    assert len(queue.frames) <= packets
    assert queue.size == sum(map(len, queue.frames)) <= size
    assert list(queue.frames) == frames[dropped:]
    queue.clear()
    assert (queue.size, len(queue.frames)) == (0, 0)


def test_an_allowance_fills_up_to_its_burst_and_no_further() -> None:
    allowance = Allowance(rate=2.0, burst=3.0, now=10.0)
    assert [allowance.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert allowance.take(10.5)
    assert not allowance.take(10.5)
    assert [allowance.take(99.0) for _ in range(4)] == [True, True, True, False]


def test_a_charge_may_go_below_zero_and_says_for_how_long() -> None:
    allowance = Allowance(rate=10.0, burst=5.0, now=0.0)
    assert allowance.charge(5, 0.0) == 0
    assert allowance.charge(20, 0.0) == pytest.approx(2.0)
    assert allowance.charge(0, 1.0) == pytest.approx(1.0)


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(AssertionError, match="largest packet"):
        Limits(data_bytes=65536)
    with pytest.raises(AssertionError, match="largest frame"):
        Limits(bytes_burst=65536)


def test_counts_name_themselves() -> None:
    counts = Counts(pings=3)
    assert dict(counts.items())["pings"] == 3
