from tests.support.nouns import NOW

from doorward.model import PolicyVersion
from doorward.store import Database, policies


def version(text: str) -> PolicyVersion:
    return PolicyVersion(id=0, text=text, actor="cli", created=NOW)


async def test_the_newest_version_is_in_force(database: Database) -> None:
    assert await database.read(policies.current) is None
    stored = [await database.run(policies.insert, version(f"// {number}\n{{}}")) for number in range(5)]
    assert await database.read(policies.current) == stored[-1]
    assert await database.read(policies.by_id, stored[1].id) == stored[1]
    assert await database.read(policies.by_id, 4711) is None


async def test_history_goes_back_page_by_page(database: Database) -> None:
    stored = [await database.run(policies.insert, version(str(number))) for number in range(5)]
    newest = await database.read(policies.history, limit=2)
    assert newest == [stored[4], stored[3]]
    assert await database.read(policies.history, before=newest[-1].id) == [stored[2], stored[1], stored[0]]
