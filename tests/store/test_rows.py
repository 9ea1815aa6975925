import pytest
import sqlalchemy as sa
from tests.support import nouns

from doorward.errors import NotFound
from doorward.model import User
from doorward.store import Database, rows
from doorward.store.tables import users


async def test_rows_are_loaded_by_condition_order_and_limit(database: Database) -> None:
    stored = [await database.run(rows.add, users, nouns.user(n, suspended=n > 1)) for n in range(4)]

    def ask(connection: sa.Connection) -> list[list[User]]:
        return [
            rows.load(connection, users, User),
            rows.load(connection, users, User, users.c.suspended.is_(sa.true())),
            rows.load(connection, users, User, order=(users.c.name.desc(),), limit=1),
        ]

    everyone, suspended, last = await database.read(ask)
    assert (everyone, suspended, last) == (stored, stored[2:], stored[3:])


async def test_only_the_row_that_is_meant_is_changed(database: Database) -> None:
    first, second = [await database.run(rows.add, users, nouns.user(n)) for n in (1, 2)]
    changed = nouns.user(9, id=second.id)
    await database.run(rows.change, users, changed)
    assert await database.read(rows.load, users, User) == [first, changed]
    await database.run(rows.remove, users, first.id)
    assert await database.read(rows.load, users, User) == [changed]
    with pytest.raises(NotFound, match=r"in users"):
        await database.run(rows.change, users, first)


async def test_one_is_one_or_none(database: Database) -> None:
    stored = await database.run(rows.add, users, nouns.user())
    assert await database.read(rows.one, users, User, users.c.id == stored.id) == stored
    assert await database.read(rows.one, users, User, users.c.id == stored.id + 1) is None
