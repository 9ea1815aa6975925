"""A person decides: links, and the requests that are held until then."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from tests.support.joining import TAGS, admitted, in_memory, link, register, reopened
from tests.support.nouns import machine_key, node_key
from tests.support.waiting import until
from tests.support.world import World, counting_entropy

from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, NotPermitted, TooMany
from doorward.model import Node
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet import admission
from doorward.tailnet.admission import Outcome, Verdict
from doorward.tailnet.registry import Registry


@pytest.fixture(autouse=True)
async def people(world: World) -> None:
    await world.registry.create_user("test", "ann")
    await world.registry.create_user("test", "bob")
    await world.registry.set_policy("test", TAGS)


# A person decides


async def test_a_person_approves(world: World) -> None:
    asked = await register(world, 1)
    assert asked.verdict is Verdict.NEEDS_PERSON
    assert asked.node is None
    (waiting,) = await world.registry.list_registrations()
    assert waiting.hostinfo.Hostname == "laptop"
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(register(world, 1, Followup=link(asked)))
        await until(lambda: world.registry.admission.waiting() == 1)
        assert not poll.done()
        node = await world.registry.approve("cli", link(asked), user="bob")
    assert poll.result() == Outcome(Verdict.ADMITTED, node)
    assert node.user_id == 2
    assert await world.registry.list_registrations() == []
    assert world.registry.admission.waiting() == 0
    (event,) = await world.registry.audit(action="node.register")
    assert event.actor == "cli"


async def test_an_approval_before_the_poll_is_found(world: World) -> None:
    asked = await register(world, 1)
    node = await world.registry.approve("cli", asked.link_code, user="ann")
    assert await register(world, 1, Followup=link(asked)) == Outcome(Verdict.ADMITTED, node)


async def test_each_of_several_polls_is_answered(world: World) -> None:
    """A client that lost its connection asks again before we see that the first one is gone."""
    asked = await register(world, 1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(register(world, 1, Followup=link(asked)))
        await until(lambda: world.registry.admission.waiting() == 1)
        second = group.create_task(register(world, 1, Followup=link(asked)))
        await until(lambda: world.registry.admission.waiting() == 2)
        first.cancel()
        await until(lambda: world.registry.admission.waiting() == 1)
        await world.registry.approve("cli", asked.link_code, user="ann")
    assert second.result().verdict is Verdict.ADMITTED


async def test_a_link_outlives_a_restart(world: World) -> None:
    asked = await register(world, 1)
    again = await reopened(world)
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(register(world, 1, Followup=link(asked), registry=again))
        await until(lambda: again.admission.waiting() == 1)
        await again.approve("cli", asked.link_code, user="ann")
    assert poll.result().verdict is Verdict.ADMITTED
    third = await reopened(world)
    assert (await register(world, 1, Followup=link(asked), registry=third)).verdict is Verdict.ADMITTED


async def test_a_spent_link_gives_a_new_one(world: World) -> None:
    asked = await register(world, 1)
    world.clock.advance(timedelta(minutes=15))
    again = await register(world, 1, Followup=link(asked))
    assert again.verdict is Verdict.NEEDS_PERSON
    assert again.link_code != asked.link_code
    with pytest.raises(NotFound, match="no device waits"):
        await world.registry.approve("cli", asked.link_code, user="ann")


async def test_a_poll_ends_with_the_link(world: World) -> None:
    settings = msgspec.structs.replace(
        world.registry.snapshot.settings, registration_lifetime=timedelta(milliseconds=30)
    )
    registry = await Registry.open(world.registry.writer.database, settings, world.clock, counting_entropy())
    asked = await register(world, 1, registry=registry)
    again = await register(world, 1, Followup=link(asked), registry=registry)
    assert again.verdict is Verdict.NEEDS_PERSON
    assert again.link_code != asked.link_code
    assert registry.admission.waiting() == 0


@pytest.mark.parametrize("followup", ["http://127.0.0.1:8080/join/unknown", "x", "/", "\u00e4"])
async def test_an_unknown_followup_gives_a_new_link(world: World, followup: str) -> None:
    assert (await register(world, 1, Followup=followup)).verdict is Verdict.NEEDS_PERSON


async def test_a_link_works_only_for_the_machine_and_key_it_was_made_for(world: World) -> None:
    asked = await register(world, 1)
    for other in (
        await register(world, 1, machine=2, Followup=link(asked)),
        await register(world, 2, Followup=link(asked)),
    ):
        assert other.verdict is Verdict.NEEDS_PERSON
        assert other.link_code != asked.link_code
    node = await world.registry.approve("cli", asked.link_code, user="ann")
    assert (node.machine_key, node.node_key) == (machine_key(1), node_key(1))


async def test_a_second_request_replaces_the_first_link(world: World) -> None:
    first, second = await register(world, 1), await register(world, 1)
    assert len(await world.registry.list_registrations()) == 1
    with pytest.raises(NotFound):
        await world.registry.approve("cli", first.link_code, user="ann")
    await world.registry.approve("cli", second.link_code, user="ann")


async def test_approving_is_done_once_and_by_number_too(world: World) -> None:
    asked = await register(world, 1)
    (waiting,) = await world.registry.list_registrations()
    outcomes = await asyncio.gather(
        world.registry.approve("cli", str(waiting.id), user="ann"),
        world.registry.approve("cli", asked.link_code, user="bob"),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Node) for outcome in outcomes) == 1
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, DoorwardError)]
    assert isinstance(refused, Conflict)
    assert len(in_memory(world)) == 1


async def test_whose_node_it_is_must_be_said_and_be_somebody_who_may(world: World) -> None:
    asked = await register(world, 1)
    with pytest.raises(BadInput, match="whose node"):
        await world.registry.approve("cli", asked.link_code)
    with pytest.raises(NotFound, match="no user 'eve'"):
        await world.registry.approve("cli", asked.link_code, user="eve")
    await world.registry.suspend_user("test", "bob", suspended=True)
    with pytest.raises(NotPermitted, match="bob is suspended"):
        await world.registry.approve("cli", asked.link_code, user="bob")
    with pytest.raises(NotFound, match="no device waits"):
        await world.registry.approve("cli", "nothing", user="ann")
    assert in_memory(world) == []
    await world.registry.approve("cli", asked.link_code, user="ann")


async def test_the_only_user_need_not_be_named(world: World) -> None:
    await world.registry.delete_user("test", "bob")
    asked = await register(world, 1)
    assert (await world.registry.approve("cli", asked.link_code)).user_id == 1


async def test_a_user_deleted_meanwhile_gets_no_node(world: World) -> None:
    asked = await register(world, 1)
    (waiting,) = await world.registry.list_registrations()
    bob = world.registry.snapshot.user_by_name("bob")
    assert bob is not None
    await world.registry.delete_user("test", "bob")
    with pytest.raises(NotFound, match="this user was deleted"):
        await world.registry.admission.approve("cli", waiting.id, bob)
    assert (await world.registry.list_registrations())[0].id == waiting.id
    assert asked.link_code


async def test_tags_by_approval_are_the_users_to_give(world: World) -> None:
    asked = await register(world, 1, Hostinfo=Hostinfo(RequestTags=["tag:web"]))
    with pytest.raises(NotPermitted, match="tag:web is not yours"):
        await world.registry.approve("cli", asked.link_code, user="bob")
    assert (await world.registry.approve("cli", asked.link_code, user="ann")).tags == ("tag:web",)


async def test_an_ended_key_renewed_by_a_person_is_the_same_node(world: World) -> None:
    node = await admitted(world, 1)
    await world.registry.expire_node("test", node.id)
    asked = await register(world, 2, old=1)
    again = await world.registry.approve("cli", asked.link_code, user="ann")
    assert (again.id, again.name, again.addresses) == (node.id, node.name, node.addresses)


async def test_a_poll_never_ends_as_another_node(world: World) -> None:
    """The link is of a node that an administrator deletes right after the approval: there is a new link."""
    asked = await register(world, 1)
    node = await world.registry.approve("cli", asked.link_code, user="ann")
    await world.registry.delete_node("cli", node.id)
    outcome = await asyncio.wait_for(register(world, 1, Followup=link(asked)), 5)
    assert outcome.verdict is Verdict.NEEDS_PERSON


async def test_what_strangers_may_fill_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_WAITING", 2)
    await register(world, 1)
    await register(world, 2)
    with pytest.raises(TooMany, match="wait for approval"):
        await register(world, 3)
    again = await register(world, 2)  # one that waits already takes no further place
    await world.registry.approve("cli", link(again), user="ann")
    world.clock.advance(timedelta(minutes=16))
    assert (await register(world, 3)).verdict is Verdict.NEEDS_PERSON
