"""A filter in parts is the filter, whatever came and went; and a node more is told with a small part of it."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.policy import make_node, make_user
from tests.tailnet.test_mapsession import SETTINGS, viewer_of

from doorward.policy import parse_policy
from doorward.protocol.tailcfg.filter import FilterRule, NetPortRange, PortRange
from doorward.tailnet.chunks import LONG, chunks_of, difference
from doorward.tailnet.netmap import PeerCache
from doorward.tailnet.snapshot import Snapshot

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GROUP = """{"groups": {"group:g": ["ann", "bob"]},
    "grants": [{"src": ["group:g"], "dst": ["group:g"], "ip": ["tcp:22"]},
               {"src": ["ann"], "dst": ["autogroup:self"], "ip": ["*"]},
               {"src": ["bob"], "dst": ["ann"], "ip": ["udp:53"]}]}"""


def rule(sources: list[str], port: int = 22) -> FilterRule:
    return FilterRule(SrcIPs=sources, DstPorts=[NetPortRange(IP="100.64.0.1", Ports=PortRange(port, port))])


def pairs(rules: list[FilterRule]) -> list[tuple[str, bytes]]:
    """Who is let in to what, by each rule."""
    return sorted((source, msgspec.json.encode(one.DstPorts)) for one in rules for source in one.SrcIPs)


def joined(chunks: dict[str, list[FilterRule]]) -> list[FilterRule]:
    """As clients join them."""
    return [one for name in sorted(chunks) for one in chunks[name]]


def addresses(numbers: list[int]) -> list[str]:
    return [f"100.64.{number // 256}.{number % 256}" for number in numbers]


def test_a_short_filter_is_one_part() -> None:
    rules = [rule(addresses(list(range(LONG)))), rule(["*"])]
    assert chunks_of(rules, PeerCache()) == {"base": rules}
    assert chunks_of([], PeerCache()) == {"base": []}


SETS = st.lists(st.integers(0, 2000), unique=True, max_size=4 * LONG).map(sorted).map(addresses)


@given(before=st.lists(SETS, max_size=3), after=st.lists(SETS, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_parts_are_the_whole_and_differences_lead_from_one_to_the_other(
    before: list[list[str]], after: list[list[str]]
) -> None:
    cache = PeerCache()
    old, new = (
        chunks_of([rule(sources, port) for port, sources in enumerate(sets, 1)], cache)
        for sets in (before, after)
    )
    wanted = [rule(sources, port) for port, sources in enumerate(after, 1)]
    assert pairs(joined(dict(new))) == pairs(wanted)
    assert "base" in new
    known = dict(old)
    for name, rules in difference(old, new).items():
        if rules is None:
            del known[name]
        else:
            assert known.get(name) != rules
            known[name] = rules
    assert known == new


@pytest.mark.parametrize("size", [100, 400, 1500])
def test_one_address_more_or_less_is_one_small_part(size: int) -> None:
    cache = PeerCache()
    before = addresses(list(range(size)))
    for after in (addresses(list(range(size + 1))), addresses([n for n in range(size) if n != 7])):
        told = difference(chunks_of([rule(before)], cache), chunks_of([rule(after)], cache))
        assert len(told) == 1
        (rules,) = told.values()
        assert rules is not None
        assert len(rules[0].SrcIPs) <= LONG


def test_clients_of_a_growing_and_shrinking_group_have_the_whole_filter() -> None:
    users = [make_user(1, "ann"), make_user(2, "bob")]
    first = [make_node(1, user=1), make_node(2, user=2)]
    snapshot = Snapshot.build(SETTINGS, users, first, parse_policy(GROUP), GROUP)
    cache = PeerCache()
    viewers = [viewer_of(n, snapshot, cache=cache) for n in (1, 2)]
    sizes: list[int] = []
    for number in (*range(3, 120), *range(-3, -100, -1)):
        if number > 0:
            snapshot, touched = snapshot.with_nodes([make_node(number, user=1 + number % 2)])
        else:
            snapshot, touched = snapshot.with_nodes([], [-number])
        for viewer in viewers:
            viewer.changed = set(touched)
            sizes.append(len(viewer.catch_up(snapshot) or b""))
            viewer.knows_all(snapshot)
            wanted = snapshot.policy.filter_rules(viewer.session.node_id)
            assert pairs(list(viewer.client.netmap().packet_filter)) == pairs(wanted)
        cache.end_moment()
    # Told whole, three rules with two addresses for each of a hundred nodes would be more than twice as much.
    assert sorted(sizes)[len(sizes) // 2] < 5000
