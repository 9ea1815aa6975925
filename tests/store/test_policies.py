from sqlalchemy import Connection
from tests.support.nouns import NOW

from doorward.model import PolicyEntry, PolicyVersion
from doorward.store import Database, policies


def version(text: str, **fields: object) -> PolicyVersion:
    return PolicyVersion(id=0, text=text, actor="cli", created=NOW, **fields)  # type: ignore[arg-type]


def listed(stored: PolicyVersion) -> PolicyEntry:
    """What the history says of a version."""
    return PolicyEntry(
        id=stored.id,
        actor=stored.actor,
        created=stored.created,
        comment=stored.comment,
        added=stored.added,
        removed=stored.removed,
        size=len(stored.text),
    )


async def test_the_newest_version_is_in_force(database: Database) -> None:
    assert await database.read(policies.current) is None
    stored = [await database.run(policies.insert, version(f"// {number}\n{{}}")) for number in range(5)]
    assert await database.read(policies.current) == stored[-1]
    assert await database.read(policies.by_id, stored[1].id) == stored[1]
    assert await database.read(policies.by_id, 4711) is None
    assert await database.read(policies.before, stored[3].id) == stored[2]
    assert await database.read(policies.before, stored[0].id) is None


async def test_history_goes_back_page_by_page(database: Database) -> None:
    stored = [await database.run(policies.insert, version(str(number))) for number in range(5)]
    newest = await database.read(policies.history, limit=2)
    assert newest == [listed(stored[4]), listed(stored[3])]
    older = await database.read(policies.history, before=newest[-1].id)
    assert older == [listed(stored[2]), listed(stored[1]), listed(stored[0])]


async def test_a_version_keeps_why_and_how_much_it_changed(database: Database) -> None:
    stored = await database.run(policies.insert, version("ä€\n", comment="so", added=1, removed=0))
    assert await database.read(policies.by_id, stored.id) == stored
    (entry,) = await database.read(policies.history)
    assert entry == listed(stored)
    assert (entry.comment, entry.added, entry.removed, entry.size) == ("so", 1, 0, 3)


async def test_what_is_beyond_the_bounds_is_forgotten_oldest_first(database: Database) -> None:
    for number in range(6):
        await database.run(policies.insert, version(str(number) * 10))

    def prune(connection: Connection, versions: int, text: int) -> int:
        return policies.prune(connection, versions=versions, text=text)

    async def kept() -> list[int]:
        return [each.id for each in await database.read(policies.history)]

    assert await database.run(prune, 6, 60) == 0
    assert await database.run(prune, 5, 60) == 1
    assert await kept() == [6, 5, 4, 3, 2]
    assert await database.run(prune, 5, 39) == 2
    assert await kept() == [6, 5, 4]
    assert await database.run(prune, 1, 1) == 1
    assert await kept() == [6, 5]  # the version in force, and one to go back to
