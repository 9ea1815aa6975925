"""Tabs that are over, and host keys."""

from datetime import timedelta

import pytest
from tests.support.nouns import NOW, node, tab, user

from doorward.model import HostKey, TabEnd, TabOver
from doorward.store import Database, nodes, tabs, users


def _end(number: int, **fields: object) -> TabEnd:
    values = {
        "id": number,
        "user_id": 1,
        "session_id": 2,
        "over": TabOver.LEFT,
        "reason": "its page was closed",
        "at": NOW,
    }
    return TabEnd(**(values | fields))  # type: ignore[arg-type]


def _key(node_id: int, user_id: int | None, key: str) -> HostKey:
    return HostKey(id=0, node_id=node_id, user_id=user_id, key=key, actor="cli", created=NOW)


async def test_an_end_is_said_once_and_forgotten_in_time(database: Database) -> None:
    await database.run(tabs.end, _end(4))
    await database.run(tabs.end, _end(4, over=TabOver.LOST))
    await database.run(tabs.end, _end(7, at=NOW + timedelta(hours=1)))
    assert await database.read(tabs.by_id, 4) == _end(4)
    assert await database.read(tabs.by_id, 5) is None
    assert [one.id for one in await database.read(tabs.by_ids, [7, 4, 9])] == [4, 7]
    assert await database.read(tabs.by_ids, []) == []
    assert await database.run(tabs.forget_ends, NOW + timedelta(seconds=1)) == 1
    assert await database.read(tabs.by_id, 4) is None


async def test_keys_are_pinned_for_all_and_said_yes_to_by_one(database: Database) -> None:
    pinned = await database.run(tabs.add_key, _key(1, None, "a"))
    mine = await database.run(tabs.add_key, _key(1, 5, "b"))
    await database.run(tabs.add_key, _key(1, 6, "c"))
    await database.run(tabs.add_key, _key(2, 5, "d"))
    assert await database.read(tabs.keys_of, 1) == [pinned]
    assert await database.read(tabs.keys_of, 1, 5) == [pinned, mine]
    await database.run(tabs.delete_keys, [mine.id])
    assert await database.read(tabs.keys_of, 1, 5) == [pinned]
    assert await database.run(lambda connection: tabs.delete_keys_of(connection, user_id=6)) == 1
    assert await database.run(lambda connection: tabs.delete_keys_of(connection, node_id=1)) == 1
    assert await database.read(tabs.keys_of, 1, 6) == []
    with pytest.raises(ValueError, match="of a node, or of a person"):
        await database.run(tabs.delete_keys_of)


async def test_the_tabs_of_a_person_are_found(database: Database) -> None:
    ann = await database.run(users.insert, user(1))
    bob = await database.run(users.insert, user(2))
    await database.run(nodes.insert, node(1, ann.id))
    mine = await database.run(nodes.insert, node(2, ann.id, tab=tab(3, 1)))
    await database.run(nodes.insert, node(3, bob.id, tab=tab(4, 1)))
    assert await database.read(nodes.tabs_of, ann.id) == [mine]
    assert await database.read(nodes.by_id, mine.id) == mine
