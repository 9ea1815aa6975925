"""Go's bounds and Go's zero time."""

from datetime import UTC, datetime

import msgspec
import pytest

from doorward.protocol.tailcfg.scalars import ZERO_TIME, CapVer, Int, PortNumber, Time, known_time


def test_gos_zero_time_is_no_time() -> None:
    assert msgspec.json.decode(b'"0001-01-01T00:00:00Z"', type=Time) == ZERO_TIME
    assert known_time(ZERO_TIME) is None
    assert known_time(None) is None
    later = datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert known_time(later) == later


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [(Int, -(2**63), 2**63 - 1), (CapVer, 0, 2**31 - 1), (PortNumber, 0, 65535)],
    ids=["Int", "CapVer", "PortNumber"],
)
def test_numbers_are_bounded_as_in_go(kind: type[int], least: int, most: int) -> None:
    assert msgspec.convert(least, kind) == least
    assert msgspec.convert(most, kind) == most
    for beyond in (least - 1, most + 1):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(beyond, kind)
