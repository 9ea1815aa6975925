"""Ending access and giving it back: what it does, what it refuses, what the audit log says of it."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.joining import admitted, as_stored, auth_key, in_memory, register, reopened
from tests.support.world import World

from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, NotPermitted
from doorward.model import Node
from doorward.tailnet import netmap
from doorward.tailnet.settings import Joining


@pytest.fixture
async def three(world: World) -> list[Node]:
    """Three nodes of ann's, all of which see each other."""
    await world.registry.create_user("cli", "ann")
    return [await admitted(world, number, machine=number) for number in (1, 2, 3)]


def peers(world: World, node: Node) -> set[int]:
    snapshot = world.registry.snapshot
    return set(netmap.peer_ids(snapshot, snapshot.nodes[node.id]))


async def events(world: World, count: int) -> list[tuple[str, str, dict[str, Any]]]:
    """The last ones, oldest first."""
    found = await world.registry.audit(limit=count)
    return [(event.action, event.target, event.details) for event in reversed(found)]


async def test_a_suspended_node_is_nobodys_peer_until_it_is_restored(world: World, three: list[Node]) -> None:
    one, other, third = three
    access = world.registry.access
    shut = await access.suspend_node("cli", one.id, suspended=True)
    assert shut.suspended
    assert [peers(world, node) for node in three] == [set(), {third.id}, {other.id}]
    snapshot = world.registry.snapshot
    assert snapshot.suspended(snapshot.nodes[one.id])
    assert snapshot.who_is_suspended(shut) == "the device laptop is suspended"
    before = snapshot
    assert await access.suspend_node("cli", one.id, suspended=True) == shut
    assert world.registry.snapshot.nodes == before.nodes
    assert (await reopened(world)).snapshot.policy.roster.blocked == {one.id}
    await access.suspend_node("cli", one.id, suspended=False)
    assert peers(world, one) == {other.id, third.id}
    target = f"node:{one.stable_id}"
    assert await events(world, 2) == [
        ("node.suspend", target, {"name": "laptop", "suspended": True, "before": {"suspended": False}}),
        ("node.restore", target, {"name": "laptop", "suspended": False, "before": {"suspended": True}}),
    ]
    assert in_memory(world) == await as_stored(world)


async def test_nobody_joins_from_the_machine_of_a_suspended_node(world: World, three: list[Node]) -> None:
    await world.registry.create_user("cli", "bob")
    await world.registry.access.suspend_node("cli", three[0].id, suspended=True)
    for user in ("ann", "bob"):
        with pytest.raises(NotPermitted, match="the device laptop is suspended"):
            await register(world, 9, auth=await auth_key(world, user))
    asked = await register(world, 9)
    with pytest.raises(NotPermitted, match="the device laptop is suspended"):
        await world.registry.approve("cli", asked.link_code, user="bob")
    with pytest.raises(NotPermitted, match="the device laptop is suspended"):
        await register(world, 1)
    await world.registry.access.suspend_node("cli", three[0].id, suspended=False)
    assert (await world.registry.approve("cli", asked.link_code, user="bob")).name == "laptop-3"


async def test_a_suspended_ephemeral_node_that_logs_out_is_kept(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    node = await admitted(world, 1, Ephemeral=True)
    await world.registry.access.suspend_node("cli", node.id, suspended=True)
    await register(world, 1, Expiry=world.clock.now() - timedelta(days=1))
    assert world.registry.snapshot.nodes[node.id].expired(world.clock.now())


async def test_a_cut_is_between_two_and_survives_a_restart(world: World, three: list[Node]) -> None:
    one, other, third = three
    access = world.registry.access
    cut = await access.cut("cli", other.id, one.id, comment="strange traffic")
    assert (cut.pair, cut.expires, cut.created_by) == ((one.id, other.id), None, "cli")
    assert [peers(world, node) for node in three] == [{third.id}, {third.id}, {one.id, other.id}]
    again = await reopened(world)
    assert again.snapshot.cuts == world.registry.snapshot.cuts
    assert not again.snapshot.policy.can_see(one.id, other.id)
    snapshot = world.registry.snapshot
    assert snapshot.cut_between(snapshot.nodes[other.id], snapshot.nodes[one.id]) == cut
    assert snapshot.cut_between(snapshot.nodes[other.id], snapshot.nodes[third.id]) is None
    longer = await access.cut("token:1", one.id, other.id, lasts=timedelta(hours=1))
    assert (longer.id, longer.expires) == (cut.id, world.clock.now() + timedelta(hours=1))
    assert len(world.registry.snapshot.cuts) == 1
    assert await access.lift("cli", other.id, one.id) == longer
    assert peers(world, one) == {other.id, third.id}
    target, stable = f"node:{one.stable_id}", f"node:{other.stable_id}"
    names, end = ["laptop", "laptop-1"], "2026-01-02T04:04:05+00:00"
    assert await events(world, 3) == [
        ("node.cut", target, {"other": stable, "names": names, "until": None, "comment": "strange traffic"}),
        ("node.cut", target, {"other": stable, "names": names, "until": end, "before": {"until": None}}),
        ("node.uncut", target, {"other": stable, "before": {"until": end}}),
    ]


async def test_a_deleted_nodes_cuts_go_with_it(world: World, three: list[Node]) -> None:
    access = world.registry.access
    for other in three[1:]:
        await access.cut("cli", three[0].id, other.id)
    await access.cut("cli", three[1].id, three[2].id)
    await world.registry.delete_node("cli", three[0].id)
    assert [cut.pair for cut in world.registry.snapshot.cuts.values()] == [(three[1].id, three[2].id)]
    assert (await reopened(world)).snapshot.cuts == world.registry.snapshot.cuts


async def test_over_is_what_has_an_end_and_no_more(world: World, three: list[Node]) -> None:
    access = world.registry.access
    assert access.next_end() is None
    await access.cut("cli", three[0].id, three[1].id)
    await access.cut("cli", three[0].id, three[2].id, lasts=timedelta(minutes=5))
    end = world.clock.now() + timedelta(minutes=5)
    assert access.next_end() == end
    before = world.registry.snapshot
    await access.end_over(end - timedelta(seconds=1))
    assert world.registry.snapshot is before
    await access.end_over(end)
    assert [cut.pair for cut in world.registry.snapshot.cuts.values()] == [(three[0].id, three[1].id)]
    assert access.next_end() is None


async def test_what_is_refused_changes_nothing(world: World, three: list[Node]) -> None:
    await world.registry.create_auth_key("cli", user=None, system=True)
    secret = (await world.registry.create_auth_key("cli", user=None, system=True))[1]
    own = (await register(world, 9, machine=9, auth=secret)).node
    assert own is not None
    access = world.registry.access
    before = world.registry.snapshot
    one, other = three[0].id, three[1].id
    refused: list[tuple[Any, type[DoorwardError], str]] = [
        (access.cut("cli", one, one), BadInput, "cut off from itself"),
        (access.cut("cli", one, other, lasts=timedelta(0)), BadInput, "for some time"),
        (access.cut("cli", one, 99), NotFound, "deleted"),
        (access.cut("cli", one, own.id), Conflict, "doorward's own node"),
        (access.lift("cli", one, other), NotFound, "not kept apart"),
        (access.suspend_node("cli", 99, suspended=True), NotFound, "deleted"),
        (access.suspend_node("cli", own.id, suspended=True), Conflict, "doorward's own node"),
        (access.approve_node("cli", own.id), Conflict, "doorward's own node"),
        (access.set_joining("cli", Joining(key_lifetime=59)), BadInput, "between a minute"),
    ]
    for act, error, match in refused:
        with pytest.raises(error, match=match):
            await act
    assert world.registry.snapshot is before


async def test_who_gets_in_is_kept_and_what_is_so_already_is_no_event(world: World) -> None:
    access = world.registry.access
    wanted = Joining(approval=True, key_lifetime=86400)
    assert await access.set_joining("cli", wanted) == wanted
    assert world.registry.snapshot.settings.joining == wanted
    assert (await reopened(world)).snapshot.settings.joining == wanted
    await access.set_joining("cli", wanted)
    await access.set_joining("cli", Joining(approval=True, key_lifetime=None))
    assert world.registry.snapshot.settings.key_end(world.clock.now()) is None
    assert await events(world, 2) == [
        (
            "joining.set",
            "joining",
            {
                "approval": True,
                "key_lifetime": 86400,
                "before": {"approval": False, "key_lifetime": Joining().key_lifetime},
            },
        ),
        ("joining.set", "joining", {"key_lifetime": None, "before": {"key_lifetime": 86400}}),
    ]
