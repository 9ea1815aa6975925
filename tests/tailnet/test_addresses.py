from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput, Conflict
from doorward.tailnet.addresses import CHROMEOS, RESOLVER4, Pool, allocate, indexes_in

SMALL = Pool(IPv4Network("100.64.0.0/29"), IPv6Network("fd7a:115c:a1e0::/125"))
WHOLE = Pool()


def none_taken(_v4: IPv4Address, _v6: IPv6Address) -> bool:
    return False


def test_the_first_node_gets_the_first_addresses() -> None:
    assert WHOLE.at(allocate(WHOLE, 0, none_taken)) == (
        IPv4Address("100.64.0.1"),
        IPv6Address("fd7a:115c:a1e0::1"),
    )


@given(st.integers(-(2**70), 2**70))
def test_no_start_leads_to_a_reserved_address(start: int) -> None:
    ipv4, ipv6 = WHOLE.at(allocate(WHOLE, start, none_taken))
    assert ipv4 in WHOLE.ipv4
    assert ipv6 in WHOLE.ipv6
    assert ipv4 not in CHROMEOS
    assert ipv4 not in {RESOLVER4, WHOLE.ipv4.network_address, WHOLE.ipv4.broadcast_address}
    assert ipv6 != IPv6Address("fd7a:115c:a1e0::53")


@given(st.lists(st.integers(0, 100), min_size=6, max_size=6))
def test_a_small_pool_is_given_out_whole_and_never_twice(starts: list[int]) -> None:
    given_out: set[IPv4Address] = set()
    for start in starts:
        ipv4, _ = SMALL.at(allocate(SMALL, start, lambda ipv4, _: ipv4 in given_out))
        assert ipv4 not in given_out
        given_out.add(ipv4)
    with pytest.raises(Conflict, match="every address") as refused:
        allocate(SMALL, 0, lambda ipv4, _: ipv4 in given_out)
    assert "delete nodes" in refused.value.cure


def test_either_family_taken_rules_the_pair_out() -> None:
    assert allocate(SMALL, 1, lambda _, ipv6: ipv6 == IPv6Address("fd7a:115c:a1e0::1")) == 2


@pytest.mark.parametrize(
    "pool",
    [
        Pool(IPv4Network("10.0.0.0/24"), WHOLE.ipv6),
        Pool(WHOLE.ipv4, IPv6Network("fd00::/48")),
    ],
)
def test_a_pool_that_clients_would_not_recognise_is_refused(pool: Pool) -> None:
    WHOLE.check()
    with pytest.raises(BadInput, match="outside"):
        pool.check()


def test_a_part_of_the_pool_is_known_by_its_indexes() -> None:
    pool = Pool(ipv4=IPv4Network("100.64.0.0/16"))
    assert indexes_in(pool, IPv4Network("100.64.1.0/24")) == range(256, 512)
    assert indexes_in(pool, IPv4Network("100.64.0.0/10")) == range(65536)
    assert not indexes_in(pool, IPv4Network("100.65.0.0/24"))
    assert not indexes_in(Pool(ipv4=IPv4Network("100.65.0.0/24")), IPv4Network("100.64.0.0/24"))
