import asyncio

from tests.support.nouns import NOW

from doorward.model import SigningKey
from doorward.store import Database, signing_keys


async def test_a_generation_of_keys_is_made_once(database: Database) -> None:
    draft = SigningKey(
        id=0,
        algorithm="ES256",
        generation=1,
        kid="k",
        public={"kty": "EC"},
        sealed=b"s",
        created=NOW,
        starts=NOW,
    )
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(database.run(signing_keys.insert, draft)) for _ in range(5)]
    assert sum(one.result() for one in tries) == 1
    (known,) = await database.read(signing_keys.load_all)
    await database.run(signing_keys.delete, [known.id])
    assert await database.read(signing_keys.load_all) == []
