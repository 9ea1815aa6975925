import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support import nouns
from tests.support.nouns import NOW, SOON

from doorward.clock import SystemClock
from doorward.errors import Conflict
from doorward.model import Role
from doorward.store import Database, keys, users

LATER = NOW + timedelta(minutes=1)


async def test_an_auth_key_comes_back_as_it_was_stored(database: Database) -> None:
    owner = await database.run(users.insert, nouns.user())
    draft = nouns.auth_key(
        user_id=owner.id,
        tags=("tag:a",),
        reusable=True,
        ephemeral=True,
        used=NOW,
        revoked=SOON,
        system=True,
    )
    key = await database.run(keys.insert_auth_key, draft)
    other = await database.run(keys.insert_auth_key, nouns.auth_key(2, tags=("tag:b",)))
    assert msgspec.structs.replace(key, id=0) == draft
    assert await database.read(keys.auth_key_by_id, key.id) == key
    wanted = [key.secret_hash, bytes(32)]
    assert await database.read(keys.auth_keys_by_hash, wanted) == {key.secret_hash: key}
    assert await database.read(keys.all_auth_keys) == [key, other]
    with pytest.raises(Conflict) as caught:
        await database.run(keys.insert_auth_key, nouns.auth_key(2))
    assert caught.value.place == "auth_keys.secret_hash"


async def test_a_single_use_key_works_once_and_says_when(database: Database) -> None:
    key = await database.run(keys.insert_auth_key, nouns.auth_key())
    assert await database.run(keys.consume, key.id, NOW)
    assert not await database.run(keys.consume, key.id, LATER)
    used = await database.read(keys.auth_key_by_id, key.id)
    assert used == msgspec.structs.replace(key, used=NOW)


async def test_a_reusable_key_works_again(database: Database) -> None:
    key = await database.run(keys.insert_auth_key, nouns.auth_key(reusable=True))
    assert await database.run(keys.consume, key.id, NOW)
    assert await database.run(keys.consume, key.id, LATER)
    used = await database.read(keys.auth_key_by_id, key.id)
    assert used == msgspec.structs.replace(key, used=LATER)


@pytest.mark.parametrize(
    ("fields", "now"), [({"revoked": NOW}, NOW), ({"expires": LATER}, LATER), ({"used": NOW}, LATER)]
)
async def test_a_key_that_is_over_admits_nobody(database: Database, fields: dict[str, Any], now: Any) -> None:
    key = await database.run(keys.insert_auth_key, nouns.auth_key(**fields))
    assert not await database.run(keys.consume, key.id, now)
    assert await database.read(keys.auth_key_by_id, key.id) == key


async def test_an_unknown_key_admits_nobody(database: Database) -> None:
    assert not await database.run(keys.consume, 4711, NOW)


async def test_a_key_is_revoked_once(database: Database) -> None:
    key = await database.run(keys.insert_auth_key, nouns.auth_key(reusable=True))
    assert await database.run(keys.revoke_auth_key, key.id, NOW)
    assert not await database.run(keys.revoke_auth_key, key.id, LATER)
    assert not await database.run(keys.consume, key.id, NOW)
    found = await database.read(keys.auth_key_by_id, key.id)
    assert found is not None
    assert found.revoked == NOW


async def test_of_many_who_use_one_single_use_key_at_once_one_gets_in(
    database: Database, location: str
) -> None:
    """Within one process, and between two that share the database."""
    drafts = [await database.run(keys.insert_auth_key, nouns.auth_key(number)) for number in range(10)]
    async with await Database.open(location, clock=SystemClock()) as second:
        for key in drafts:
            tries = [door.run(keys.consume, key.id, NOW) for door in (database, second) for _ in range(4)]
            assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]


async def test_an_api_token_comes_back_and_ends_once(database: Database) -> None:
    draft = nouns.api_token(description="ci", role=Role.AUDITOR, expires=SOON)
    token = await database.run(keys.insert_api_token, draft)
    assert await database.read(keys.api_token_by_hash, token.secret_hash) == token
    assert msgspec.structs.replace(token, id=0) == draft
    assert await database.run(keys.revoke_api_token, token.id, NOW)
    assert not await database.run(keys.revoke_api_token, token.id, LATER)
    assert await database.read(keys.all_api_tokens) == [msgspec.structs.replace(token, revoked=NOW)]


async def test_what_ended_before_a_moment_is_forgotten_and_no_more(database: Database) -> None:
    long_ago, before = NOW - timedelta(days=2), NOW - timedelta(days=1)
    later = NOW + timedelta(days=1)
    over: list[dict[str, Any]] = [
        {"expires": long_ago},
        {"expires": later, "revoked": long_ago},
        {"expires": later, "used": long_ago},
    ]
    good: list[dict[str, Any]] = [
        {"expires": later},
        {"expires": NOW},
        {"expires": later, "revoked": NOW},
        {"expires": later, "used": NOW},
        {"expires": later, "used": long_ago, "reusable": True},
    ]
    for number, fields in enumerate([*over, *good], 1):
        await database.run(keys.insert_auth_key, nouns.auth_key(number, tags=("tag:a",), **fields))
    ended = await database.run(keys.insert_api_token, nouns.api_token(1, expires=long_ago))
    lasting = await database.run(keys.insert_api_token, nouns.api_token(2, expires=None))
    assert await database.run(keys.delete_ended, before) == len(over) + 1
    assert [key.id for key in await database.read(keys.all_auth_keys)] == [4, 5, 6, 7, 8]
    assert await database.read(keys.all_api_tokens) == [lasting]
    assert ended != lasting


async def test_a_persons_tokens_end_together(database: Database) -> None:
    drafts: list[dict[str, Any]] = [
        {"user_id": 7},
        {"user_id": 8},
        {},
        {"user_id": 7, "revoked": NOW},
        {"user_id": 7, "expires": NOW},
    ]
    made = [
        await database.run(keys.insert_api_token, nouns.api_token(number, **fields))
        for number, fields in enumerate(drafts)
    ]
    assert await database.run(keys.revoke_api_tokens_of, 7, LATER) == [made[0].id]
    assert await database.run(keys.revoke_api_tokens_of, 7, LATER) == []
    found = await database.read(keys.all_api_tokens)
    assert [token.revoked for token in found] == [LATER, None, None, NOW, None]
