import pytest
from tests.support import nouns

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Role
from doorward.store import Database, keys, nodes, users


async def test_a_user_comes_back_as_it_was_stored(database: Database) -> None:
    draft = nouns.user(
        name="zoë@example.com",
        display_name="Zoë 🙂",
        email="z@example.com",
        role=Role.AUDITOR,
        suspended=True,
    )
    stored = await database.run(users.insert, draft)
    assert stored.id > 0
    assert await database.read(users.by_id, stored.id) == stored
    assert await database.read(users.by_ids, [stored.id, stored.id + 1]) == {stored.id: stored}
    assert await database.read(users.by_name, "zoë@example.com") == stored
    assert await database.read(users.by_name, "ZOË@example.com") is None
    assert await database.read(users.load_all) == [stored]


async def test_a_user_can_be_changed_and_is_missed_once_gone(database: Database) -> None:
    stored = await database.run(users.insert, nouns.user())
    changed = nouns.user(id=stored.id, name="new@example.com", role=Role.OWNER, suspended=True)
    await database.run(users.update, changed)
    assert await database.read(users.by_id, stored.id) == changed
    await database.run(users.delete, stored.id)
    assert await database.read(users.load_all) == []
    with pytest.raises(NotFound):
        await database.run(users.update, changed)
    with pytest.raises(NotFound):
        await database.run(users.delete, stored.id)


async def test_a_login_name_is_unique(database: Database) -> None:
    await database.run(users.insert, nouns.user(1))
    other = await database.run(users.insert, nouns.user(2))
    with pytest.raises(Conflict) as caught:
        await database.run(users.insert, nouns.user(1))
    assert caught.value.place == "users.name"
    with pytest.raises(Conflict) as caught:
        await database.run(users.update, nouns.user(1, id=other.id))
    assert caught.value.place == "users.name"


async def test_ids_are_never_used_again(database: Database) -> None:
    first = await database.run(users.insert, nouns.user(1))
    second = await database.run(users.insert, nouns.user(2))
    await database.run(users.delete, second.id)
    third = await database.run(users.insert, nouns.user(3))
    assert first.id < second.id < third.id


async def test_a_user_with_nodes_or_keys_stays(database: Database) -> None:
    person = await database.run(users.insert, nouns.user())
    node = await database.run(nodes.insert, nouns.node(1, person.id, tags=("tag:x",)))
    with pytest.raises(Conflict):
        await database.run(users.delete, person.id)
    await database.run(
        nodes.update,
        nouns.node(1, None, id=node.id, stable_id=node.stable_id, tags=("tag:x",)),
    )
    key = await database.run(keys.insert_auth_key, nouns.auth_key(user_id=person.id))
    with pytest.raises(Conflict):
        await database.run(users.delete, person.id)
    assert await database.run(keys.delete_auth_keys_of, person.id) == [key.id]
    await database.run(users.delete, person.id)
    kept = await database.read(nodes.by_id, node.id)
    assert kept is not None
    assert kept.user_id is None


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
async def test_text_that_no_engine_keeps_whole_is_refused(database: Database, name: str) -> None:
    with pytest.raises(BadInput):
        await database.run(users.insert, nouns.user(name=name))


async def test_a_draft_has_no_id(database: Database) -> None:
    with pytest.raises(ValueError, match="id 0"):
        await database.run(users.insert, nouns.user(id=7))
