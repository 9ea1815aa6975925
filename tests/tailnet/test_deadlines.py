from datetime import UTC, datetime, timedelta

import msgspec
from tests.support.policy import make_node

from doorward.model import Node, Observed
from doorward.tailnet.deadlines import Deadlines, Due

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GRACE = timedelta(minutes=5)


def ephemeral(*, online: bool = False, last_seen: datetime | None = NOW) -> Node:
    seen = Observed(online=online, last_seen=last_seen)
    return msgspec.structs.replace(make_node(1, user=1), ephemeral=True, observed=seen)


def noted(*nodes: Node) -> Deadlines:
    deadlines = Deadlines(GRACE)
    for node in nodes:
        deadlines.add(node)
    return deadlines


def test_an_ephemeral_node_is_due_after_its_grace() -> None:
    node = ephemeral()
    deadlines = noted(node)
    assert deadlines.next() == NOW + GRACE
    assert deadlines.due(NOW + GRACE - timedelta(seconds=1), {1: node}) == []
    assert deadlines.due(NOW + GRACE, {1: node}) == [(1, Due.REMOVE)]
    assert deadlines.due(NOW + GRACE, {1: node}) == []


def test_one_that_never_connected_counts_from_its_creation() -> None:
    node = ephemeral(last_seen=None)
    assert noted(node).next() == node.created + GRACE


def test_one_that_came_back_is_left_alone() -> None:
    deadlines = noted(ephemeral())
    back = ephemeral(online=True, last_seen=None)
    deadlines.add(back)
    assert deadlines.due(NOW + GRACE, {1: back}) == []


def test_one_that_left_again_has_a_new_grace() -> None:
    deadlines = noted(ephemeral())
    again = ephemeral(last_seen=NOW + timedelta(minutes=4))
    deadlines.add(again)
    assert deadlines.due(NOW + GRACE, {1: again}) == []
    assert deadlines.due(NOW + GRACE + timedelta(minutes=4), {1: again}) == [(1, Due.REMOVE)]


def test_a_key_ends_once() -> None:
    node = msgspec.structs.replace(make_node(1, user=1), key_expiry=NOW)
    deadlines = noted(node, node)
    assert deadlines.due(NOW, {1: node}) == [(1, Due.EXPIRED)]


def test_a_deleted_node_is_not_due() -> None:
    assert noted(ephemeral()).due(NOW + GRACE, {}) == []
    assert Deadlines(GRACE).next() is None


def test_an_ended_key_is_not_due_again_through_later_changes() -> None:
    node = msgspec.structs.replace(make_node(1, user=1), key_expiry=NOW)
    deadlines = noted(node)
    deadlines.due(NOW, {1: node})
    deadlines.add(node)
    assert deadlines.next() is None
    later = msgspec.structs.replace(node, key_expiry=NOW + GRACE)
    deadlines.add(later)
    assert deadlines.due(NOW + GRACE, {1: later}) == [(1, Due.EXPIRED)]


def test_a_node_that_could_not_be_removed_is_due_again() -> None:
    deadlines = noted(ephemeral())
    assert deadlines.due(NOW + GRACE, {1: ephemeral()}) == [(1, Due.REMOVE)]
    deadlines.add(ephemeral())
    assert deadlines.due(NOW + GRACE, {1: ephemeral()}) == [(1, Due.REMOVE)]


def test_a_node_that_changes_often_takes_no_more_room() -> None:
    node = msgspec.structs.replace(make_node(1, user=1), key_expiry=NOW)
    deadlines = noted(*(node for _ in range(1000)))
    assert len(deadlines) == 1
