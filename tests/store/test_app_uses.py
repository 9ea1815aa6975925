from datetime import timedelta
from typing import Any

import pytest
from tests.store.test_apps import LATER, grant
from tests.support.nouns import NOW

from doorward.model import App, User
from doorward.store import Database, app_uses, apps, users
from doorward.store.app_uses import Use

SECOND = timedelta(seconds=1)


@pytest.fixture
async def ann(database: Database) -> int:
    return (await database.run(users.insert, User(id=0, name="ann", created=NOW))).id


@pytest.fixture
async def app(database: Database) -> App:
    draft = App(id=0, name="wiki", client_id="app-1", secret_hash=b"x", actor="cli", created=NOW)
    return await database.run(apps.insert, draft)


async def given(database: Database, app: App, user_id: int, code: bytes, **fields: Any) -> int:
    draft = grant(app, user_id, code, **({"redeemed": NOW} | fields))
    return (await database.run(apps.insert_grant, draft)).id


async def test_one_for_each_session_and_app(database: Database, app: App, ann: int) -> None:
    key = apps.device_key(7, ann)
    await given(database, app, ann, b"1", node_id=7, key=key, sid="one")
    newest = await given(database, app, ann, b"2", node_id=7, key=key, sid="two", created=NOW + SECOND)
    browser = await given(database, app, ann, b"3", key="session:1", sid="three")
    old = await given(database, app, ann, b"4", sid="from before keys")
    await given(database, app, ann, b"5", key="session:2", redeemed=None)
    await given(database, app, ann, b"6", key="session:3", ended=NOW)
    await given(database, app, ann, b"7", key="session:4", expires=NOW)
    assert await database.read(app_uses.load, NOW) == [
        Use(newest, app.id, ann, 7, NOW, NOW + SECOND),
        Use(browser, app.id, ann, None, NOW, NOW),
        Use(old, app.id, ann, None, NOW, NOW),
    ]
    assert len(await database.read(app_uses.load, NOW, app_id=app.id, user_id=ann)) == 3
    assert await database.read(app_uses.load, NOW, app_id=app.id + 1) == []
    assert await database.read(app_uses.load, NOW, user_id=ann + 1) == []
    assert await database.read(app_uses.load, LATER) == []


async def test_the_end_of_one_is_none_of_another(database: Database, app: App, ann: int) -> None:
    first = await given(database, app, ann, b"1", key="session:1")
    second = await given(database, app, ann, b"2", key="session:1")
    other = await given(database, app, ann, b"3", key="session:2")
    old = await given(database, app, ann, b"4", sid="before")
    assert await database.run(app_uses.end, NOW, second) == [first, second]
    assert await database.run(app_uses.end, NOW, second) == []
    assert await database.run(app_uses.end, NOW, 10_000) == []
    assert [one.id for one in await database.read(app_uses.load, NOW)] == [other, old]
    assert await database.run(app_uses.end, NOW, old) == [old]
