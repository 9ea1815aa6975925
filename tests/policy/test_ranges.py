from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.policy.ranges import INTERNET, TAILNET, Range, of_prefix, of_text, without

_SMALL = st.integers(0, 40)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(_SMALL, _SMALL), max_size=4), st.lists(_SMALL, max_size=6))
def test_without_takes_out_exactly_the_holes(spans: list[tuple[int, int]], holes: list[int]) -> None:
    ranges = [Range(4, min(span), max(span)) for span in spans]
    left = without(ranges, [IPv4Address(hole) for hole in holes])
    members = [number for one in left for number in range(one.first, one.last + 1)]
    expected = [number for one in ranges for number in range(one.first, one.last + 1) if number not in holes]
    assert members == expected


def test_a_hole_of_one_family_leaves_the_other_alone() -> None:
    whole = of_text("fd00::/64")
    assert without([whole], [IPv4Address("10.0.0.1")]) == [whole]
    assert [str(one) for one in without([whole], [IPv6Address("fd00::")])] == [
        "fd00::1-fd00::ffff:ffff:ffff:ffff"
    ]


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "10.0.0.0/8", "10.0.0.1-10.0.0.9", "fd00::/64", "fd00::1", "0.0.0.0/0", "::/0"]
)
def test_writes_what_it_read(text: str) -> None:
    assert str(of_text(text)) == text


def test_a_range_that_is_a_prefix_is_written_as_one() -> None:
    assert str(of_text("10.0.0.0-10.0.0.255")) == "10.0.0.0/24"
    assert of_text("10.0.0.0-10.0.0.255") == of_prefix(ip_network("10.0.0.0/24"))
    assert str(of_text("10.0.0.128-10.0.1.127")) == "10.0.0.128-10.0.1.127"  # a power of two, but not aligned


@pytest.mark.parametrize("text", ["", "x", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::", "10.0.0.1/8"])
def test_refuses_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        of_text(text)


def test_the_internet_and_the_tailnet_do_not_meet() -> None:
    for world in map(of_text, INTERNET):
        for ours in TAILNET:
            assert world.version != ours.version or world.last < ours.first or ours.last < world.first
