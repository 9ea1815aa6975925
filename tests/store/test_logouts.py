import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.store.test_apps import LATER, grant
from tests.support.nouns import NOW

from doorward.model import App, AppSession, LogoutNotice, User
from doorward.store import Connection, Database, apps, logouts, users

LEASE = timedelta(seconds=60)


def notice(sid: str = "s", **fields: Any) -> LogoutNotice:
    values: dict[str, Any] = {
        "id": 0,
        "app": "grafana",
        "client_id": "app-1",
        "algorithm": "RS256",
        "url": "https://a.example/logout",
        "user_id": 1,
        "sid": sid,
        "created": NOW,
        "due": NOW,
    }
    return LogoutNotice(**(values | fields))


async def waiting(database: Database) -> list[LogoutNotice]:
    return await database.run(logouts.take, NOW + timedelta(days=9), timedelta(0), 100)


async def test_of_many_who_take_a_notice_one_gets_it(database: Database) -> None:
    await database.run(logouts.queue, [notice()])
    assert await database.read(logouts.is_due, NOW)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(database.run(logouts.take, NOW, LEASE, 10)) for _ in range(8)]
    assert sorted(len(task.result()) for task in tasks) == [0] * 7 + [1]
    assert not await database.read(logouts.is_due, NOW)
    assert await database.read(logouts.is_due, NOW + LEASE)  # who took it may be dead


async def test_the_one_that_has_waited_longest_comes_first(database: Database) -> None:
    drafts = [notice(str(one), due=NOW - timedelta(seconds=one)) for one in range(5)]
    await database.run(logouts.queue, drafts)
    found = await database.run(logouts.take, NOW, LEASE, 2)
    assert [one.sid for one in found] == ["4", "3"]
    assert await database.read(logouts.waiting) == 5


async def test_one_that_is_put_off_knows_how_often_it_was_tried(database: Database) -> None:
    await database.run(logouts.queue, [notice()])
    (first,) = await database.run(logouts.take, NOW, LEASE, 1)
    await database.run(logouts.put_off, first.id, LATER)
    assert await database.run(logouts.take, NOW + LEASE, LEASE, 1) == []
    (second,) = await database.run(logouts.take, LATER, LEASE, 1)
    assert (first.tries, second.tries) == (0, 1)
    assert await database.run(logouts.settle, second.id)
    assert not await database.run(logouts.settle, second.id)


async def test_another_end_of_the_same_session_is_not_lost_to_the_first(database: Database) -> None:
    """The app may have been signed in once more while the first notice was on its way."""
    await database.run(logouts.queue, [notice()])
    (first,) = await database.run(logouts.take, NOW, LEASE, 1)
    await database.run(logouts.queue, [notice()])
    assert not await database.run(logouts.settle, first.id)
    assert await database.read(logouts.waiting) == 1


# What is written of itself, with what ends something -----------------------------------------------------------------


@pytest.fixture
async def ann(database: Database) -> int:
    return (await database.run(users.insert, User(id=0, name="ann", created=NOW))).id


async def listening(database: Database, name: str = "grafana", url: str = "https://a.example/logout") -> App:
    draft = App(id=0, name=name, client_id=f"app-{name}", actor="cli", created=NOW, logout_url=url)
    return await database.run(apps.insert, draft)


async def given(database: Database, app: App, user_id: int, code: bytes, **fields: Any) -> int:
    made = await database.run(apps.insert_grant, grant(app, user_id, code, redeemed=NOW, **fields))
    return made.id


async def test_an_app_is_told_once_of_a_session_whatever_was_given_in_it(
    database: Database, ann: int
) -> None:
    app = await listening(database)
    deaf = await listening(database, "deaf", "")
    for number, sid in enumerate(("one", "one", "two")):
        await given(database, app, ann, bytes([number]), sid=sid)
    await given(database, deaf, ann, b"deaf")
    await database.run(apps.insert_grant, grant(app, ann, b"never redeemed", sid="three"))
    assert len(await database.run(apps.end_grants, NOW, user_id=ann)) == 5
    found = await waiting(database)
    assert [(one.client_id, one.user_id, one.sid, one.url) for one in found] == [
        (app.client_id, ann, "one", app.logout_url),
        (app.client_id, ann, "two", app.logout_url),
    ]
    await database.run(apps.end_grants, NOW, user_id=ann)  # nothing is left to end
    assert [one.id for one in await waiting(database)] == [one.id for one in found]


async def test_an_app_is_not_told_of_its_own_doing(database: Database, ann: int) -> None:
    app = await listening(database)
    number = await given(database, app, ann, b"code")
    assert await database.run(apps.end_grants, NOW, grant_id=number, tell=False) == [number]
    assert await waiting(database) == []


async def test_it_is_told_of_its_own_end_and_of_a_persons(database: Database, ann: int) -> None:
    first, second = await listening(database), await listening(database, "wiki")
    await given(database, first, ann, b"1")
    await given(database, second, ann, b"2")
    await database.run(apps.delete, first.id, NOW)
    await database.run(apps.delete_all_of, ann, NOW)
    await database.run(users.delete, ann)
    assert [one.app for one in await waiting(database)] == ["grafana", "wiki"]


async def test_either_the_end_and_the_notice_or_none_of_them(database: Database, ann: int) -> None:
    app = await listening(database)
    number = await given(database, app, ann, b"code")

    def die(connection: Connection) -> None:
        apps.end_grants(connection, NOW, grant_id=number)
        assert logouts.waiting(connection) == 1
        raise KeyError("killed")

    with pytest.raises(KeyError):
        await database.run(die)
    assert await database.read(logouts.waiting) == 0
    kept = await database.read(apps.grant_by_id, number)
    assert kept is not None
    assert kept.ended is None


async def session(database: Database, user_id: int, key: str, sid: str, seen: datetime = NOW) -> None:
    draft = AppSession(id=0, key=key, sid=sid, user_id=user_id, created=seen, seen=seen, acted=seen)
    await database.run(apps.put_session, draft)


async def test_a_session_ends_with_what_was_given_under_its_key_or_its_number(
    database: Database, ann: int
) -> None:
    app = await listening(database)
    key = apps.device_key(7, ann)
    await session(database, ann, key, "now")
    old = await given(database, app, ann, b"1", sid="before", key=key)
    from_before_keys = await given(database, app, ann, b"2", sid="now")
    named = await given(database, app, ann, b"3", sid="named", key="session:5")
    other = await given(database, app, ann, b"4", sid="other", key="session:5")
    ended = await database.run(apps.sign_out, NOW, ann, [key], ["named"])
    assert ended == [old, from_before_keys, named]
    assert await database.read(apps.session, key) is None
    assert await database.run(apps.sign_out, NOW, ann, ["session:5"]) == [other]
    assert apps.browser_of("session:5") == 5
    assert apps.browser_of(key) is None


async def test_whoever_left_is_known_to_have(database: Database, ann: int) -> None:
    await session(database, ann, "node:1:1", "before")
    await database.run(apps.leave, LATER, ann, "node:1:1", "after")
    kept = await database.read(apps.session, "node:1:1")
    assert kept is not None
    assert (kept.sid, kept.signed_out) == ("after", LATER)


async def test_whose_a_number_is_the_app_knows_that_has_it(database: Database, ann: int) -> None:
    app, other = await listening(database), await listening(database, "other")
    await given(database, app, ann, b"1", sid="hers")
    assert await database.read(apps.owner_of_sid, app.id, "hers") == ann
    assert await database.read(apps.owner_of_sid, other.id, "hers") is None
