"""A person decides: links, and the requests that are held until then."""

import asyncio
from datetime import timedelta
from ipaddress import ip_address

import msgspec
import pytest
from tests.support.joining import TAGS, admitted, as_stored, auth_key, in_memory, link, register, reopened
from tests.support.nouns import machine_key, node_key
from tests.support.waiting import until
from tests.support.world import CAPVER, World, counting_entropy

from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, NotPermitted, TooMany
from doorward.model import Node
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterRequest
from doorward.tailnet import admission
from doorward.tailnet.admission import Outcome, Verdict
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Joining


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


# A person says no


async def test_a_denied_client_is_told_and_its_link_is_spent(world: World) -> None:
    asked = await register(world, 1)
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(_refused(world, asked))
        await until(lambda: world.registry.admission.waiting() == 1)
        denied = await world.registry.deny("user:ann", link(asked))
    assert "somebody denied it" in poll.result()
    assert denied.denied == world.clock.now()
    assert await world.registry.list_registrations() == []
    assert "somebody denied it" in await _refused(world, asked)  # a client that lost its connection
    for act in (world.registry.approve("cli", asked.link_code, user="ann"), world.registry.deny("cli", "1")):
        with pytest.raises(Conflict, match="denied already"):
            await act
    (event,) = await world.registry.audit(action="node.deny")
    assert (event.actor, event.target) == ("user:ann", "registration:1")
    assert event.details == {"hostname": "laptop", "key": str(node_key(1)), "came_from": ""}
    assert not world.registry.snapshot.nodes
    again = await register(world, 1)
    assert again.link_code != asked.link_code
    await world.registry.approve("cli", again.link_code, user="ann")
    with pytest.raises(Conflict, match="approved already"):
        await world.registry.deny("cli", again.link_code)


async def _refused(world: World, asked: Outcome) -> str:
    with pytest.raises(NotPermitted) as caught:
        await register(world, 1, Followup=link(asked))
    return caught.value.message


async def test_of_several_who_decide_one_does(world: World) -> None:
    asked = await register(world, 1)
    registry = world.registry
    decisions = [registry.deny("a", asked.link_code), registry.approve("b", asked.link_code, user="ann")]
    found = await asyncio.gather(*decisions, *[registry.deny("c", asked.link_code)], return_exceptions=True)
    assert sum(isinstance(one, Conflict) for one in found) == 2


# An administrator has the last word


async def test_a_device_that_a_person_let_in_waits_for_an_administrator(world: World) -> None:
    registry = world.registry
    await admitted(world, 1)
    await registry.access.set_joining("cli", Joining(approval=True))
    asked = await register(world, 2, machine=2)
    node = await registry.approve("user:ann", asked.link_code, user="ann")
    assert not node.approved
    assert registry.snapshot.nodes[1].approved  # who was in stays in
    assert registry.snapshot.policy.peers(1) == frozenset()
    (event,) = await registry.audit(action="node.register", limit=1)
    assert event.details["waits"] is True
    assert in_memory(world) == await as_stored(world)
    approved = await registry.access.approve_node("cli", node.id)
    assert approved.approved
    assert registry.snapshot.policy.peers(1) == {node.id}
    assert await registry.access.approve_node("cli", node.id) == approved
    assert [event.action for event in await registry.audit(limit=1)] == ["node.approve"]
    # Signing in again is nothing new.
    await register(world, 3, machine=2, old=2, auth=await auth_key(world))
    assert registry.snapshot.nodes[node.id].approved
    assert registry.snapshot.nodes[node.id].node_key == node_key(3)


async def test_auth_keys_and_administrators_vouch_for_a_device(world: World) -> None:
    registry = world.registry
    await registry.access.set_joining("cli", Joining(approval=True))
    plain = (await register(world, 1, machine=1, auth=await auth_key(world))).node
    tagged = (await register(world, 2, machine=2, auth=await auth_key(world, None, "tag:web"))).node
    vouched = (await register(world, 3, machine=3, auth=await auth_key(world, preapproved=True))).node
    asked = await register(world, 4, machine=4)
    decided = await registry.approve("cli", asked.link_code, user="ann", by_administrator=True)
    own = (await register(world, 5, machine=5, auth=await auth_key(world, None, system=True))).node
    found = [node is not None and node.approved for node in (plain, tagged, vouched, decided, own)]
    assert found == [False, False, True, True, True]
    # A waiting device that is signed in by somebody who may vouch for it waits no longer.
    again = (await register(world, 6, machine=1, auth=await auth_key(world, preapproved=True))).node
    assert again is not None
    assert (again.id, again.approved) == (1, True)


async def test_where_it_asks_from_is_kept(world: World) -> None:
    request = RegisterRequest(Version=CAPVER, NodeKey=node_key(1))
    await world.registry.admission.register(machine_key(1), request, ip_address("2001:db8::7"))
    (waiting,) = await world.registry.list_registrations()
    assert waiting.came_from == ip_address("2001:db8::7")


async def test_a_shorter_lifetime_counts_for_who_signs_in_from_then_on(world: World) -> None:
    before = await admitted(world, 1)
    await world.registry.access.set_joining("cli", Joining(key_lifetime=3600))
    after = await admitted(world, 2, machine=2)
    now = world.clock.now()
    assert (before.key_expiry, after.key_expiry) == (now + timedelta(days=180), now + timedelta(hours=1))
    assert world.registry.snapshot.nodes[1].key_expiry == before.key_expiry
    await world.registry.access.set_joining("cli", Joining(key_lifetime=None))
    assert (await admitted(world, 3, machine=3)).key_expiry is None
    wished = await admitted(world, 4, machine=4, Expiry=now + timedelta(minutes=5))
    assert wished.key_expiry == now + timedelta(minutes=5)
