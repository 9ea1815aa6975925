"""Invitations to register apps, on both databases."""

import asyncio
from datetime import timedelta

import msgspec
from tests.support.nouns import NOW

from doorward.model import App, AppGrant, AppInvitation, Brought, User
from doorward.store import Database, apps, comers, users

LATER = NOW + timedelta(hours=1)


async def test_an_invitation_is_used_so_often_and_no_more(database: Database) -> None:
    draft = AppInvitation(id=0, secret_hash=b"i", uses=2, actor="cli", created=NOW, expires=LATER)
    made = await database.run(comers.insert_invitation, draft)
    assert await database.read(comers.invitation, b"i", NOW) == made
    assert await database.read(comers.invitation, b"i", LATER) is None
    assert not await database.run(comers.use_invitation, made.id, LATER)
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(database.run(comers.use_invitation, made.id, NOW)) for _ in range(5)]
    assert sorted(one.result() for one in tries) == [False, False, False, True, True]
    assert not await database.read(comers.any_invitation, NOW)
    await database.run(comers.insert_invitation, msgspec.structs.replace(draft, secret_hash=b"j"))
    assert await database.read(comers.any_invitation, NOW)
    assert await database.run(comers.end_invitations, NOW) == 1
    await database.run(comers.delete_over, LATER + timedelta(seconds=1), NOW)
    assert await database.run(comers.end_invitations, NOW) == 0


async def test_what_nobody_uses_is_forgotten(database: Database) -> None:
    ann = (await database.run(users.insert, User(id=0, name="ann", created=NOW))).id
    draft = App(id=0, name="made", client_id="app-1", actor="cli", created=NOW)
    brought = Brought(title="A tool")
    made = await database.run(apps.insert, draft)
    used, unused, approved = [
        await database.run(
            apps.insert,
            msgspec.structs.replace(draft, name=f"{n}~", client_id=f"app-{n}", actor="anybody", brought=one),
        )
        for n, one in enumerate((brought, brought, msgspec.structs.replace(brought, approved=("h",))), 2)
    ]
    grant = AppGrant(
        id=0,
        app_id=used.id,
        user_id=ann,
        node_id=None,
        sid="s",
        code_hash=b"c",
        redirect_uri="r",
        challenge="",
        nonce="",
        scopes=(),
        resources=(),
        auth_time=NOW,
        acr="",
        amr=(),
        created=NOW,
        code_expires=LATER,
        expires=LATER,
    )
    await database.run(apps.insert_grant, grant)
    assert await database.read(comers.registered_by, "anybody") == [used, unused, approved]
    assert await database.run(comers.delete_over, LATER, NOW) == 0
    assert await database.run(comers.delete_over, LATER, LATER) == 1
    assert await database.read(apps.load_all) == [made, used, approved]
