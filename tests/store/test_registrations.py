import asyncio
from datetime import timedelta

import msgspec
import pytest
from tests.support import nouns
from tests.support.nouns import NOW, SOON

from doorward.errors import Conflict, NotFound
from doorward.store import Database, registrations


async def test_a_registration_comes_back_as_it_was_stored(database: Database) -> None:
    draft = nouns.registration(ephemeral=True)
    stored = await database.run(registrations.insert, draft)
    assert msgspec.structs.replace(stored, id=0) == draft
    assert await database.read(registrations.by_id, stored.id) == stored
    assert await database.read(registrations.by_code_hash, stored.code_hash) == stored
    assert await database.read(registrations.by_node_key, stored.node_key) == [stored]
    assert await database.read(registrations.by_code_hash, bytes(32)) is None
    with pytest.raises(Conflict) as caught:
        await database.run(registrations.insert, nouns.registration(node_key=nouns.node_key(2)))
    assert caught.value.place == "registrations.code_hash"


async def test_one_of_many_approvals_counts(database: Database) -> None:
    stored = await database.run(registrations.insert, nouns.registration())
    approvals = [database.run(registrations.approve, stored.id, node_id, NOW) for node_id in (5, 6, 7)]
    assert sorted(await asyncio.gather(*approvals)) == [False, False, True]
    found = await database.read(registrations.by_id, stored.id)
    assert found is not None
    assert found.node_id in {5, 6, 7}


async def test_one_that_has_expired_waits_no_more(database: Database) -> None:
    first = await database.run(registrations.insert, nouns.registration(1))
    late = await database.run(registrations.insert, nouns.registration(2, expires=SOON + timedelta(hours=1)))
    done = await database.run(registrations.insert, nouns.registration(3, node_id=9))
    assert await database.read(registrations.waiting, NOW) == [first, late]
    assert await database.read(registrations.waiting, SOON) == [late]
    assert not await database.run(registrations.approve, first.id, 5, SOON)
    assert await database.run(registrations.delete_expired, SOON) == 2
    assert await database.read(registrations.by_id, done.id) is None
    await database.run(registrations.delete, late.id)
    with pytest.raises(NotFound):
        await database.run(registrations.delete, late.id)
