"""Times as people read and write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.cli import times
from doorward.cli.times import before_now, exact, parse_duration, relative
from doorward.errors import BadInput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "now", lambda: NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("7d", 604800), ("2w", 1209600), ("0s", 0)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1y", "-1h", "1.5h", "1h 30m", "1H", "1h\n", "\u0661h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BadInput, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (-119, "119 s ago"),
        (-120, "2 min ago"),
        (-7199, "119 min ago"),
        (-7200, "2 h ago"),
        (-2 * 86400 + 1, "47 h ago"),
        (-2 * 86400, "2 d ago"),
        (30, "in 30 s"),
        (400 * 86400, "in 400 d"),
    ],
)
def test_relative(seconds: int, text: str) -> None:
    assert relative(NOW + timedelta(seconds=seconds)) == text


def test_no_time_at_all() -> None:
    assert relative(None) == exact(None) == "never"
    assert relative(None, never="-") == "-"


@pytest.mark.parametrize("text", ["5300w", "999999999w", "999999999w999999999w"])
def test_no_duration_is_longer_than_a_century(text: str) -> None:
    with pytest.raises(BadInput, match="century"):
        before_now(text)


def test_before_now() -> None:
    assert before_now("1h30m") == NOW - timedelta(minutes=90)


def test_exact() -> None:
    assert exact(NOW - timedelta(hours=3)) == "2026-01-02 00:04:05 UTC (3 h ago)"


@given(st.datetimes(timezones=st.just(UTC)))
def test_any_time_can_be_shown(when: datetime) -> None:
    relative(when)


def test_now_is_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert times.now().tzinfo is UTC
