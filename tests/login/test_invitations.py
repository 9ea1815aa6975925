import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tests.support.world import World, counting_entropy, open_world

from doorward.errors import BadInput, Conflict, NotFound
from doorward.login.invitations import FIRST_LIFETIME, LIFETIME, Invitations, link
from doorward.model import Passkey, Role, User
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
def invitations(world: World) -> Invitations:
    return Invitations(world.registry.writer.database, world.clock, counting_entropy())


@pytest.fixture
async def ann(world: World) -> User:
    return await world.registry.create_user("cli", "ann")


async def give_passkey(world: World, user: User) -> None:
    draft = Passkey(
        id=0,
        user_id=user.id,
        credential=user.name.encode(),
        public_key=b"cose",
        count=0,
        name="laptop",
        place="door.example.com",
        created=world.clock.now(),
    )
    await world.registry.writer.database.run(signin.insert_passkey, draft)


def test_a_link_is_made_from_the_door_and_the_code() -> None:
    assert link("https://door.example.com", "abc") == "https://door.example.com/invite/abc"
    assert link("http://localhost:8080/", "abc") == "http://localhost:8080/invite/abc"


async def test_a_link_is_looked_at_often_and_taken_once(
    invitations: Invitations, world: World, ann: User
) -> None:
    made, code = await invitations.invite("cli", ann)
    assert (made.user_id, made.actor, made.expires) == (ann.id, "cli", world.clock.now() + LIFETIME)
    assert made.secret_hash == secrets.digest(code)
    assert len(code) == 32
    for _ in range(3):
        assert await invitations.look(code) == made
    taken = await invitations.take(code)
    assert taken.id == made.id
    assert taken.used == world.clock.now()
    assert await invitations.look(code) is None
    with pytest.raises(NotFound, match="not good") as refused:
        await invitations.take(code)
    assert refused.value.cure


async def test_of_many_who_take_one_gets_it(invitations: Invitations, ann: User) -> None:
    _, code = await invitations.invite("cli", ann)
    outcomes = await asyncio.gather(*(invitations.take(code) for _ in range(8)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Invitation", *["NotFound"] * 7]


async def test_every_step_is_on_record_and_the_code_is_not(
    invitations: Invitations, world: World, ann: User
) -> None:
    made, code = await invitations.invite("user:eve", ann)
    await invitations.take(code)
    (invited,) = await world.registry.audit(action="user.invite")
    (used,) = await world.registry.audit(action="user.invite.use")
    assert (invited.actor, invited.target) == ("user:eve", "user:ann")
    assert invited.details["role"] == "member"
    assert (used.actor, used.target, used.details) == (
        f"invitation:{made.id}",
        "user:ann",
        {"made_by": "user:eve"},
    )
    everything = msgspec.json.encode(await world.registry.audit(limit=100)).decode()
    assert code not in everything
    assert await world.registry.verify_audit() is None


async def test_a_link_is_over_at_its_end(invitations: Invitations, world: World, ann: User) -> None:
    _, code = await invitations.invite("cli", ann, lifetime=timedelta(hours=1))
    world.clock.advance(timedelta(minutes=59, seconds=59))
    assert await invitations.look(code)
    world.clock.advance(1)
    assert await invitations.look(code) is None
    with pytest.raises(NotFound):
        await invitations.take(code)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=59), timedelta(days=31), -LIFETIME])
async def test_lifetimes_have_bounds(invitations: Invitations, ann: User, lifetime: timedelta) -> None:
    with pytest.raises(BadInput, match="30 days"):
        await invitations.invite("cli", ann, lifetime=lifetime)


async def test_a_newer_link_replaces_the_one_before(invitations: Invitations, ann: User) -> None:
    _, old = await invitations.invite("cli", ann)
    _, new = await invitations.invite("cli", ann)
    assert await invitations.look(old) is None
    with pytest.raises(NotFound):
        await invitations.take(old)
    assert (await invitations.take(new)).user_id == ann.id


@pytest.mark.parametrize("code", ["", "x", "a" * 31, "a" * 33, "a" * 32, "é" * 32, "../" * 11, " " * 32])
async def test_no_other_text_is_a_code(invitations: Invitations, ann: User, code: str) -> None:
    await invitations.invite("cli", ann)
    assert await invitations.look(code) is None
    with pytest.raises(NotFound):
        await invitations.take(code)


async def test_who_is_suspended_or_gone_is_not_invited_and_not_let_in(
    invitations: Invitations, world: World, ann: User
) -> None:
    _, code = await invitations.invite("cli", ann)
    await world.registry.suspend_user("cli", "ann", suspended=True)
    assert await invitations.look(code) is None
    with pytest.raises(NotFound):
        await invitations.take(code)
    with pytest.raises(Conflict, match="ann is suspended"):
        await invitations.invite("cli", ann)
    await world.registry.suspend_user("cli", "ann", suspended=False)
    assert await invitations.look(code) is None, "what was made before is not good again"
    await world.registry.delete_user("cli", "ann")
    with pytest.raises(NotFound, match="deleted"):
        await invitations.invite("cli", ann)
    assert await invitations.look(code) is None


async def test_a_link_gives_no_more_than_was_there_to_give(
    invitations: Invitations, world: World, ann: User
) -> None:
    _, code = await invitations.invite("token:1", ann)
    await world.registry.set_role("cli", "ann", Role.OWNER)
    assert await invitations.look(code) is None
    with pytest.raises(NotFound):
        await invitations.take(code)
    with pytest.raises(Conflict, match="has become owner"):
        await invitations.invite("token:1", ann)  # judged as a member


async def test_the_first_owner_is_invited_while_nobody_can_administer(
    invitations: Invitations, world: World
) -> None:
    first = await invitations.invite_first("system")
    assert first is not None
    made, code = first
    assert (made.user_id, made.expires) == (None, world.clock.now() + FIRST_LIFETIME)
    (event,) = await world.registry.audit(action="user.invite")
    assert (event.actor, event.target, event.details["role"]) == ("system", "owner", "owner")
    again = await invitations.invite_first("system")
    assert again is not None
    assert await invitations.look(code) is None, "a start makes the link of the start before worth nothing"
    assert await invitations.look(again[1])


async def test_the_link_of_the_first_owner_dies_when_somebody_else_comes_in(
    invitations: Invitations, world: World
) -> None:
    _, code = await invitations.invite("cli", None)
    eve = await world.registry.create_user("cli", "eve", role=Role.ADMIN)
    assert await invitations.look(code), "somebody who cannot sign in is nobody yet"
    await give_passkey(world, eve)
    assert await invitations.look(code) is None
    with pytest.raises(NotFound):
        await invitations.take(code)
    assert await invitations.invite_first("system") is None
    with pytest.raises(Conflict, match="administer") as refused:
        await invitations.invite("cli", None)
    assert "--role owner" in refused.value.cure
    await world.registry.suspend_user("cli", "eve", suspended=True)
    assert await invitations.invite_first("system"), "who is suspended administers nothing"


async def test_members_who_sign_in_do_not_administer(
    invitations: Invitations, world: World, ann: User
) -> None:
    await give_passkey(world, ann)
    assert await invitations.invite_first("system")


async def test_an_owner_who_is_there_already_gets_the_first_link(
    invitations: Invitations, world: World
) -> None:
    owner = await world.registry.create_user("cli", "olga", role=Role.OWNER)
    made = await invitations.invite_first("system")
    assert made is not None
    assert made[0].user_id == owner.id
    await world.registry.create_user("cli", "otto", role=Role.OWNER)
    made = await invitations.invite_first("system")
    assert made is not None
    assert made[0].user_id is None, "which of two is not ours to say"


async def test_the_first_link_is_made_once_a_start(invitations: Invitations, world: World) -> None:
    started = world.clock.now()
    first = await invitations.invite_first("system", unless_since=started)
    assert first is not None
    world.clock.advance(10)
    assert await invitations.invite_first("system", unless_since=started) is None
    assert await invitations.look(first[1]) == first[0]
    assert await invitations.invite_first("system", unless_since=world.clock.now()), "another start"
    assert await invitations.look(first[1]) is None
    await invitations.invite("cli", None)
    assert await invitations.invite_first("system", unless_since=started), (
        "what others made is not known here"
    )
    world.clock.advance(FIRST_LIFETIME)
    assert await invitations.invite_first("system", unless_since=started), "it is over"
    assert not await invitations.somebody_administers()
