from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.means import give_identity, give_passkey, give_recovery_codes, sign_in
from tests.support.world import World, open_world

from doorward.errors import NotFound
from doorward.login.means import Held, Means
from doorward.model import AuditEvent, User
from doorward.store import signin
from doorward.tailnet import secrets


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
def means(world: World) -> Means:
    return world.context.means


@pytest.fixture
async def ann(world: World) -> User:
    return await world.registry.create_user("cli", "ann")


@pytest.fixture
async def bob(world: World) -> User:
    return await world.registry.create_user("cli", "bob")


async def events(world: World) -> list[AuditEvent]:
    """What was done to people since they were created, oldest first."""
    found = await world.registry.audit(action="user.")
    return [event for event in reversed(found) if event.action != "user.create"]


async def test_what_everybody_has_is_counted(world: World, means: Means, ann: User, bob: User) -> None:
    assert await means.held() == {}
    for name in ("laptop", "phone"):
        await give_passkey(world, ann, name)
    await give_passkey(world, bob)
    await give_identity(world, bob)
    await give_recovery_codes(world, ann, "a", "b", "c")
    await world.registry.writer.database.run(
        signin.take_recovery_code, secrets.digest("b"), world.clock.now()
    )
    await sign_in(world, ann)
    await sign_in(world, ann, "over", expires=world.clock.now())
    invitation, _ = await world.context.invitations.invite("cli", bob)
    await world.context.invitations.invite("cli", None)  # nobody's yet
    expected = {
        ann.id: Held(passkeys=2, recovery_codes=2, sessions=1),
        bob.id: Held(passkeys=1, identities=1, invited=invitation.expires),
    }
    assert await means.held() == expected
    assert await means.held(bob) == {bob.id: expected[bob.id]}
    world.clock.advance(timedelta(days=3))
    assert (await means.held())[bob.id].invited is None


async def test_a_passkey_goes_with_the_sessions_it_was_shown_for(
    world: World, means: Means, ann: User, bob: User
) -> None:
    lost, kept = await give_passkey(world, ann, "lost"), await give_passkey(world, ann, "kept")
    theirs = await give_passkey(world, bob)
    by_lost = await sign_in(world, ann, "1", method=f"passkey:{lost.id}")
    by_kept = await sign_in(world, ann, "2", method=f"passkey:{kept.id}")
    for number in (theirs.id, 99):
        with pytest.raises(NotFound, match=f"ann has no passkey {number}") as refused:
            await means.delete_passkey("cli", ann, number)
        assert refused.value.cure == "`doorward users passkeys ann` lists those there are."
    assert await means.delete_passkey("user:eve", ann, lost.id) == 1
    assert await means.passkeys(ann) == [kept]
    assert await means.passkeys(bob) == [theirs]
    assert await means.sessions() == [by_kept]
    (event,) = await events(world)
    assert (event.actor, event.action, event.target) == ("user:eve", "user.passkey.delete", "user:ann")
    assert event.details == {"passkey": lost.id, "name": "lost", "sessions": [by_lost.id]}


async def test_people_are_signed_out_in_one_browser_or_all(
    world: World, means: Means, ann: User, bob: User
) -> None:
    one, two, three = [await sign_in(world, ann, name) for name in "123"]
    other = await sign_in(world, bob)
    assert await means.sessions(ann) == [one, two, three]
    assert await means.sign_out("cli", ann, two.id) == 1
    for number in (two.id, other.id, 99):
        with pytest.raises(NotFound, match=f"no open session {number}"):
            await means.sign_out("cli", ann, number)
    assert await means.sign_out("cli", ann) == 2
    assert await means.sign_out("cli", ann) == 0
    assert await means.sessions() == [other]
    assert [event.details for event in await events(world)] == [
        {"sessions": [two.id]},
        {"sessions": [one.id, three.id]},
    ]


async def test_an_invitation_is_withdrawn(world: World, means: Means, ann: User) -> None:
    _, code = await world.context.invitations.invite("cli", ann)
    await means.withdraw_invitation("user:eve", ann)
    assert await world.context.invitations.look(code) is None
    with pytest.raises(NotFound, match="no invitation of ann"):
        await means.withdraw_invitation("user:eve", ann)
    assert [event.action for event in await events(world)] == ["user.invite", "user.invite.withdraw"]
