"""The tables of releases and capability strings."""

import itertools

from tests.support.wire import REQUESTS

from doorward.protocol.tailcfg import capability
from doorward.protocol.tailcfg.capability import (
    MINIMUM_CAPVER,
    OUR_CAPVER,
    RELEASES,
    capver_of,
    release_of,
)


def test_a_release_is_named_by_its_capability_version() -> None:
    assert release_of(MINIMUM_CAPVER) == "1.80"
    assert release_of(114) == "1.80"
    assert release_of(131) == "1.94"
    assert release_of(10_000) == RELEASES[-1][0]
    assert release_of(105) == ""
    assert capver_of("1.80") == MINIMUM_CAPVER
    assert capver_of("1.102") == OUR_CAPVER
    assert capver_of("0.9") is None


def test_the_table_is_in_order() -> None:
    assert all(old[1] <= new[1] for old, new in itertools.pairwise(RELEASES))


def test_the_recorded_clients_say_what_the_table_says() -> None:
    for request in REQUESTS:
        if "Version" in request.plain:
            release = ".".join(request.client.split(".")[:2])
            assert request.plain["Version"] == capver_of(release)


def test_no_capability_is_named_twice() -> None:
    strings = [value for value in vars(capability).values() if isinstance(value, str) and "/" in value]
    assert len(strings) == len(set(strings)) > 20
