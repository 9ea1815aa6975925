import msgspec
from tests.support.policy import make_node, make_user
from tests.tailnet.test_mapsession import SETTINGS

from doorward.policy import parse_policy
from doorward.tailnet.changes import Changes
from doorward.tailnet.snapshot import Snapshot

OWN = '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}'


def two_people() -> Snapshot:
    users = [make_user(1, "ann"), make_user(2, "bob")]
    nodes = [make_node(1, user=1), make_node(2, user=1), make_node(3, user=2)]
    return Snapshot.build(SETTINGS, users, nodes, parse_policy(OWN), OWN)


def renamed(snapshot: Snapshot, node_id: int) -> Snapshot:
    return snapshot.with_nodes([msgspec.structs.replace(snapshot.nodes[node_id], name="new")]).snapshot


def test_only_those_who_see_it_are_woken() -> None:
    before = two_people()
    changes = Changes()
    woken: list[str] = []
    ann, bob = (
        changes.subscribe(1, lambda: woken.append("ann")),
        changes.subscribe(3, lambda: woken.append("bob")),
    )
    changes.publish(before, renamed(before, 2), {2})
    assert woken == ["ann"]
    assert not ann.is_empty()
    assert bob.is_empty()
    assert ann.take() == frozenset({2})
    assert bob.take() == frozenset()
    assert ann.is_empty()


def test_a_full_mailbox_wakes_nobody_again() -> None:
    before = two_people()
    changes = Changes()
    woken: list[str] = []
    ann = changes.subscribe(1, lambda: woken.append("ann"))
    changes.publish(before, renamed(before, 2), {2})
    changes.publish(before, renamed(before, 1), {1})
    changes.publish(before, before, None)
    changes.send(1, b"{}")
    assert woken == ["ann"]
    ann.take()
    ann.take_messages()
    changes.send(1, b"{}")
    assert woken == ["ann", "ann"]


def test_who_saw_it_before_is_told_too() -> None:
    before = two_people()
    changes = Changes()
    ann = changes.subscribe(1)
    after = before.with_nodes([], [2]).snapshot
    changes.publish(before, after, {2})
    assert ann.take() == frozenset({2})


def test_of_several_changes_each_stream_hears_what_it_can_see() -> None:
    """Who is seen by the same is told of together; what anybody hears is as if each change had come by itself."""
    users = [make_user(1, "ann"), make_user(2, "bob")]
    nodes = [make_node(n, user=1 + n % 2, system=n == 7) for n in range(1, 8)]
    before = Snapshot.build(SETTINGS, users, nodes, parse_policy(OWN), OWN)
    arrived = [make_node(n, user=1 + n % 2) for n in (8, 9)]
    moved = msgspec.structs.replace(before.nodes[3], user_id=1)
    after = before.with_nodes([*arrived, moved], [2]).snapshot
    touched = {2, 3, 8, 9}
    heard = []
    for parts in ([touched], [{one} for one in touched]):
        changes = Changes()
        streams = {n: changes.subscribe(n) for n in range(1, 10)}
        for part in parts:
            changes.publish(before, after, part)
        heard.append({n: stream.take() for n, stream in streams.items()})
    assert heard[0] == heard[1]
    assert {n: sorted(ids or ()) for n, ids in heard[0].items()} == {
        1: [3, 9],  # bob's, as 3 was and 5 and 9 are
        2: [2],
        3: [3, 8],
        4: [2, 3, 8],  # ann's, as 2 was and 3, 6 and 8 are
        5: [3, 9],
        6: [2, 3, 8],
        7: sorted(touched),  # doorward's own sees everybody
        8: [3, 8],
        9: [9],
    }


def test_everybody_is_told_of_doorwards_own_node() -> None:
    nodes = [make_node(n, user=1, system=n == 2) for n in (1, 2, 3)]
    before = Snapshot.build(SETTINGS, [make_user(1, "ann")], nodes, parse_policy(OWN), OWN)
    changes = Changes()
    streams = [changes.subscribe(n) for n in (1, 2, 3)]
    changes.publish(before, renamed(before, 2), {2})
    assert [stream.take() for stream in streams] == [frozenset({2})] * 3


def test_a_wide_change_wakes_everybody_and_stands_over_single_nodes() -> None:
    before = two_people()
    changes = Changes()
    ann = changes.subscribe(1)
    changes.publish(before, renamed(before, 2), {2})
    changes.publish(before, before, None)
    assert ann.take() is None
    assert ann.take() == frozenset()


def test_a_newer_stream_ends_the_older_and_its_end_says_nothing() -> None:
    changes = Changes()
    woken: list[str] = []
    old = changes.subscribe(1, lambda: woken.append("old"))
    new = changes.subscribe(1)
    assert old.ended
    assert woken == ["old"]
    assert not new.ended
    assert changes.unsubscribe(old) is False
    assert changes.connected(1)
    assert changes.unsubscribe(new) is True
    assert not changes.connected(1)


def test_a_message_reaches_one_stream() -> None:
    changes = Changes()
    ann, bob = changes.subscribe(1), changes.subscribe(3)
    assert changes.send(1, b"{}") is True
    assert changes.send(9, b"{}") is False
    assert not ann.is_empty()
    assert ann.take_messages() == [b"{}"]
    assert ann.is_empty()
    assert ann.take_messages() == []
    assert bob.take_messages() == []


def test_end_all() -> None:
    changes = Changes()
    streams = [changes.subscribe(1), changes.subscribe(3)]
    changes.end_all()
    assert all(stream.ended for stream in streams)
    assert len(changes) == 0
