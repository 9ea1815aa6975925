import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.support.nouns import NOW

from doorward.clock import SystemClock
from doorward.errors import Conflict
from doorward.model import (
    App,
    AppGrant,
    AppSession,
    Brought,
    Consent,
    DeviceRequest,
    PushedRequest,
    RefreshToken,
    User,
)
from doorward.store import Database, apps, users

LATER = NOW + timedelta(hours=1)


@pytest.fixture
async def ann(database: Database) -> int:
    return (await database.run(users.insert, User(id=0, name="ann", created=NOW))).id


@pytest.fixture
async def app(database: Database) -> App:
    draft = App(
        id=0,
        name="grafana",
        client_id="app-1",
        secret_hash=b"hash",
        redirect_uris=("https://a.example/cb",),
        actor="cli",
        created=NOW,
    )
    return await database.run(apps.insert, draft)


def grant(app: App, user_id: int, code: bytes = b"code", **fields: Any) -> AppGrant:
    values: dict[str, Any] = {
        "id": 0,
        "app_id": app.id,
        "user_id": user_id,
        "node_id": None,
        "sid": "sid",
        "code_hash": code,
        "redirect_uri": "https://a.example/cb",
        "challenge": "",
        "nonce": "",
        "scopes": ("openid",),
        "resources": (),
        "auth_time": NOW,
        "acr": "x",
        "amr": ("y",),
        "created": NOW,
        "code_expires": LATER,
        "expires": LATER,
    }
    return AppGrant(**(values | fields))


async def test_apps_are_found_by_name_and_by_client_id(database: Database, app: App) -> None:
    assert await database.read(apps.by_name, "grafana") == app
    assert await database.read(apps.by_client_id, "app-1") == app
    assert await database.read(apps.by_id, app.id) == app
    assert await database.read(apps.load_all) == [app]
    assert "hash" not in repr(app)
    with pytest.raises(Conflict):
        await database.run(apps.insert, App(id=0, name="grafana", client_id="x", actor="", created=NOW))


async def test_of_many_who_redeem_a_code_at_once_one_does(database: Database, app: App, ann: int) -> None:
    made = await database.run(apps.insert_grant, grant(app, ann))
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(database.run(apps.redeem, made.id, NOW)) for _ in range(20)]
    assert sum(one.result() for one in tries) == 1
    late = await database.run(apps.insert_grant, grant(app, ann, b"late", code_expires=NOW))
    assert not await database.run(apps.redeem, late.id, NOW)
    assert [one.id for one in await database.read(apps.live_grants, NOW, ann)] == [made.id]


async def test_a_grant_that_was_not_redeemed_may_have_another_code(
    database: Database, app: App, ann: int
) -> None:
    made = await database.run(apps.insert_grant, grant(app, ann, b"first", code_expires=NOW))
    assert await database.run(apps.give_code, made.id, b"second", LATER)
    found = await database.read(apps.grants_by_code, [b"first", b"second"])
    assert {digest: (one.id, one.code_expires) for digest, one in found.items()} == {
        b"second": (made.id, LATER)
    }
    assert await database.run(apps.redeem, made.id, NOW)
    assert not await database.run(apps.give_code, made.id, b"third", LATER)
    ended = await database.run(apps.insert_grant, grant(app, ann, b"ended"))
    await database.run(apps.end_grants, NOW, grant_id=ended.id)
    assert not await database.run(apps.give_code, ended.id, b"fourth", LATER)


async def test_of_many_who_take_a_refresh_token_at_once_one_does(
    database: Database, app: App, ann: int
) -> None:
    made = await database.run(apps.insert_grant, grant(app, ann))
    draft = RefreshToken(id=0, grant_id=made.id, secret_hash=b"r", created=NOW, expires=LATER)
    token = await database.run(apps.insert_refresh_token, draft)
    assert not await database.read(apps.refresh_token_used, token.id)
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(database.run(apps.take_refresh_tokens, [token.id], NOW)) for _ in range(20)
        ]
    assert sum(len(one.result()) for one in tries) == 1
    assert await database.read(apps.refresh_token_used, token.id)
    known = await database.read(apps.refresh_token, b"r")
    assert known is not None
    assert known.used == NOW


async def test_many_are_found_and_used_up_by_one_statement(database: Database, app: App, ann: int) -> None:
    first, second = [await database.run(apps.insert_grant, grant(app, ann, code)) for code in (b"1", b"2")]
    late = await database.run(apps.insert_grant, grant(app, ann, b"3", code_expires=NOW))
    assert await database.read(apps.by_client_ids, ["app-1", "app-2"]) == {"app-1": app}
    assert await database.read(apps.grants_by_code, [b"1", b"x"]) == {b"1": first}
    assert await database.read(apps.grants_by_id, [second.id, 99]) == {second.id: second}
    ids = [first.id, late.id]
    assert await database.run(apps.redeem_all, ids, NOW) == {first.id}
    assert await database.run(apps.redeem_all, [*ids, second.id], NOW) == {second.id}
    await database.run(apps.end_grants, NOW, grant_id=late.id)
    assert await database.run(apps.redeem_all, [late.id], NOW - timedelta(hours=1)) == set()


async def test_many_are_stored_at_once(database: Database, app: App, ann: int) -> None:
    drafts = [grant(app, ann, code) for code in (b"2", b"1")]
    made = await database.run(apps.insert_grants, drafts)
    assert [one.code_hash for one in made] == [b"2", b"1"]
    assert await database.read(apps.grants_by_id, [one.id for one in made]) == {one.id: one for one in made}
    with pytest.raises(Conflict):
        await database.run(apps.insert_grants, [grant(app, ann, b"3"), grant(app, ann, b"1")])
    with pytest.raises(ValueError, match="id 0"):
        await database.run(apps.insert_grants, made)


async def test_many_refresh_tokens_are_taken_by_one_statement(database: Database, app: App, ann: int) -> None:
    made = await database.run(apps.insert_grant, grant(app, ann))
    drafts = [
        RefreshToken(id=0, grant_id=made.id, secret_hash=text, created=NOW, expires=end)
        for text, end in ((b"1", LATER), (b"2", LATER), (b"late", NOW))
    ]
    await database.run(apps.insert_refresh_tokens, drafts)
    await database.run(apps.insert_refresh_tokens, [])
    found = await database.read(apps.grants_by_refresh_token, [b"1", b"2", b"late", b"x"])
    assert {text: known for text, (_, known, *_rest) in found.items()} == dict.fromkeys(
        (b"1", b"2", b"late"), made
    )
    first, second, late = (found[text][0] for text in (b"1", b"2", b"late"))
    assert await database.run(apps.take_refresh_tokens, [first, late], NOW) == {first}
    assert await database.run(apps.take_refresh_tokens, [first, second, late], NOW) == {second}
    assert [await database.read(apps.refresh_token_used, one) for one in (first, second, late)] == [
        True,
        True,
        False,
    ]


async def test_what_a_person_gave_ends_and_goes_with_them(database: Database, app: App, ann: int) -> None:
    first = await database.run(apps.insert_grant, grant(app, ann))
    second = await database.run(apps.insert_grant, grant(app, ann, b"two"))
    assert await database.run(apps.end_grants, NOW, grant_id=first.id) == [first.id]
    assert await database.run(apps.end_grants, NOW, user_id=ann) == [second.id]
    assert await database.run(apps.end_grants, NOW, user_id=ann) == []
    with pytest.raises(ValueError, match="which grant"):
        await database.run(apps.end_grants, NOW)
    consent = Consent(
        id=0, app_id=app.id, user_id=ann, node_id=None, host="h", scopes=(), resources=(), expires=LATER
    )
    for _ in range(2):
        await database.run(apps.insert_consent, consent)
    assert list(await database.read(apps.consents_of_all, [ann, ann + 1])) == [ann]
    gone = await database.run(apps.delete_all_of, ann, NOW)
    assert gone == {"app_grants": 2, "app_sessions": 0, "consents": 1}
    await database.run(users.delete, ann)


async def test_what_a_persons_program_has_registered_goes_with_them(
    database: Database, app: App, ann: int
) -> None:
    brought = Brought(title="A tool")
    draft = msgspec.structs.replace(
        app, id=0, name="x~1", client_id="app-x", brought=brought, owner_id=ann, resources=()
    )
    theirs = await database.run(apps.insert, draft)
    assert await database.read(apps.by_id, theirs.id) == theirs
    await database.run(apps.insert_grant, grant(theirs, ann, b"three"))
    await database.run(apps.delete_all_of, ann, NOW)
    assert [one.id for one in await database.read(apps.load_all)] == [app.id]


async def test_resources_that_are_shared(database: Database, app: App) -> None:
    assert await database.read(apps.shared_resources) == ()
    await database.run(apps.update, msgspec.structs.replace(app, shared=True, resources=("a", "b")))
    assert await database.read(apps.shared_resources) == ("a", "b")


async def test_of_many_who_take_a_pushed_request_at_once_one_does(database: Database, app: App) -> None:
    pairs = (("scope", "openid"), ("resource", "a"), ("resource", "b"))
    draft = PushedRequest(id=0, app_id=app.id, secret_hash=b"p", pairs=pairs, expires=LATER)
    made = await database.run(apps.insert_pushed, draft)
    assert await database.run(apps.take_pushed, app.id + 1, b"p", NOW) is None
    assert await database.run(apps.take_pushed, app.id, b"p", LATER) is None
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(database.run(apps.take_pushed, app.id, b"p", NOW)) for _ in range(20)]
    assert [one.result() for one in tries if one.result() is not None] == [made]
    await database.run(apps.insert_pushed, draft)
    assert await database.run(apps.delete_over, NOW, NOW) == 0
    assert await database.run(apps.delete_over, LATER + timedelta(seconds=1), NOW) == 1
    await database.run(apps.insert_pushed, draft)
    await database.run(apps.delete, app.id, NOW)


async def test_of_many_who_answer_a_device_at_once_one_does(database: Database, app: App) -> None:
    draft = DeviceRequest(
        id=0,
        app_id=app.id,
        device_hash=b"d",
        user_hash=b"u",
        scopes=("openid",),
        resources=(),
        levels=(),
        address="192.0.2.1",
        node_id=None,
        created=NOW,
        expires=LATER,
    )
    made = await database.run(apps.insert_device_request, draft)
    with pytest.raises(Conflict):
        await database.run(apps.insert_device_request, msgspec.structs.replace(draft, device_hash=b"e"))
    assert await database.read(apps.device_request, b"d") == made
    for which in ({"user_hash": b"u"}, {"request_id": made.id}):
        assert await database.read(apps.waiting_device_request, NOW, **which) == made
        assert await database.read(apps.waiting_device_request, LATER, **which) is None
    async with asyncio.TaskGroup() as group:
        tries = [
            group.create_task(
                database.run(apps.answer_device_request, made.id, NOW, None if one % 2 else one)
            )
            for one in range(2, 22)
        ]
    assert sum(one.result() for one in tries) == 1
    assert await database.read(apps.waiting_device_request, NOW, user_hash=b"u") is None
    await database.run(apps.device_polled, made.id, NOW, 10)
    known = await database.read(apps.device_request, b"d")
    assert known is not None
    assert (known.polled, known.interval) == (NOW, 10)
    assert await database.run(apps.delete_over, LATER, NOW) == 0
    await database.run(apps.delete_device_request, made.id)
    assert await database.read(apps.device_request, b"d") is None
    await database.run(apps.insert_device_request, draft)
    assert await database.run(apps.delete_over, LATER, LATER + timedelta(seconds=1)) == 1
    await database.run(apps.insert_device_request, draft)
    await database.run(apps.delete, app.id, NOW)


async def test_of_many_who_show_the_same_at_once_one_is_first(database: Database) -> None:
    async def shown(now: datetime, expires: datetime) -> bool:
        try:
            await database.run(apps.use_once, b"digest", now, expires)
        except Conflict:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(shown(NOW, LATER)) for _ in range(20)]
    assert sum(one.result() for one in tries) == 1
    with pytest.raises(Conflict) as caught:
        await database.run(apps.use_once, b"digest", LATER, LATER)
    assert caught.value.place == "used_ids.digest"
    after = LATER + timedelta(seconds=1)
    assert await shown(after, after)
    assert await database.run(apps.delete_over, after + timedelta(seconds=1), NOW) == 1


async def test_an_app_goes_with_all_that_it_was_given(database: Database, app: App, ann: int) -> None:
    made = await database.run(apps.insert_grant, grant(app, ann))
    draft = RefreshToken(id=0, grant_id=made.id, secret_hash=b"r", created=NOW, expires=LATER)
    await database.run(apps.insert_refresh_token, draft)
    assert await database.run(apps.delete, app.id, NOW) == 1
    assert await database.read(apps.grants_by_code, [b"code"]) == {}
    assert await database.read(apps.refresh_token, b"r") is None


async def test_a_person_takes_back_what_one_app_has_and_nothing_else(
    database: Database, app: App, ann: int
) -> None:
    other = await database.run(
        apps.insert, msgspec.structs.replace(app, id=0, name="other", client_id="app-other")
    )
    first = await database.run(apps.insert_grant, grant(app, ann, redeemed=NOW))
    second = await database.run(apps.insert_grant, grant(other, ann, b"another", redeemed=NOW))
    yes: dict[str, Any] = {
        "user_id": ann,
        "node_id": None,
        "host": "a.example",
        "scopes": (),
        "resources": (),
    }
    for each in (app, other):
        await database.run(apps.insert_consent, Consent(id=0, app_id=each.id, expires=LATER, **yes))
    assert await database.run(apps.end_grants, NOW, user_id=ann, app_id=app.id) == [first.id]
    assert await database.run(apps.delete_consents, ann + 1, app_id=app.id) == 0
    assert await database.run(apps.delete_consents, ann, app_id=app.id) == 1
    (left,) = await database.read(apps.consents_by, ann, NOW)
    assert left.app_id == other.id
    assert await database.read(apps.consents_by, ann, LATER) == []
    assert [one.id for one in await database.read(apps.live_grants, NOW, ann)] == [second.id]
    assert await database.read(apps.live_grants, NOW, ann + 1) == []
    assert [one.id for one in await database.read(apps.live_grants_after, NOW, 0, 10)] == [second.id]
    assert await database.read(apps.live_grants_after, NOW, second.id, 10) == []
    assert await database.run(apps.delete_consents, ann, consent_id=left.id) == 1
    with pytest.raises(ValueError, match="which yes"):
        await database.run(apps.delete_consents, ann)


async def test_of_a_session_the_newest_grant_that_stands_is_found(
    database: Database, app: App, ann: int
) -> None:
    made = [await database.run(apps.insert_grant, grant(app, ann, code)) for code in (b"1", b"2", b"3")]
    sid = made[0].sid
    assert await database.read(apps.grant_of_session, app.id, sid) is None  # none of them was redeemed
    for each in made[:2]:
        assert await database.run(apps.redeem, each.id, NOW)
    found = await database.read(apps.grant_of_session, app.id, sid)
    assert found is not None
    assert found.id == made[1].id
    assert await database.read(apps.grant_of_session, app.id, "another") is None
    assert await database.read(apps.grant_of_session, app.id + 1, sid) is None
    await database.run(partial(apps.end_grants, grant_id=made[1].id), NOW)
    found = await database.read(apps.grant_of_session, app.id, sid)
    assert found is not None
    assert found.id == made[0].id


async def test_a_session_replaces_the_one_of_its_key(database: Database, ann: int) -> None:
    draft = AppSession(id=0, key="node:1:1", sid="a", user_id=ann, created=NOW, seen=NOW, acted=NOW)
    first = await database.run(apps.put_session, draft)
    second = await database.run(apps.put_session, draft)
    assert first.id != second.id
    assert await database.read(apps.session, "node:1:1") == second
    assert await database.read(apps.sessions_by_key, ["node:1:1", "node:2:1"]) == {"node:1:1": second}


async def test_what_is_over_is_forgotten(database: Database, app: App, ann: int) -> None:
    made = await database.run(apps.insert_grant, grant(app, ann))
    draft = RefreshToken(id=0, grant_id=made.id, secret_hash=b"r", created=NOW, expires=LATER)
    await database.run(apps.insert_refresh_token, draft)
    session = AppSession(id=0, key="k", sid="a", user_id=ann, created=NOW, seen=NOW, acted=NOW)
    await database.run(apps.put_session, session)
    assert await database.run(apps.delete_over, NOW, NOW) == 0
    end = LATER + timedelta(seconds=1)
    assert await database.run(apps.delete_over, end, end) == 3


async def test_of_two_processes_that_redeem_the_same_one_does(
    database: Database, location: str, app: App, ann: int
) -> None:
    made = [await database.run(apps.insert_grant, grant(app, ann, bytes([number]))) for number in range(10)]
    async with await Database.open(location, clock=SystemClock()) as other, asyncio.TaskGroup() as group:
        tries = [
            (
                group.create_task(database.run(apps.redeem, one.id, NOW)),
                group.create_task(other.run(apps.redeem, one.id, NOW)),
            )
            for one in made
        ]
    assert [sum(each.result() for each in pair) for pair in tries] == [1] * 10
