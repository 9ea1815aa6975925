"""Reports and presence: told at once, written lazily, and what follows from them."""

import asyncio
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
import sqlalchemy as sa
from tests.support.joining import admitted, reopened
from tests.support.nouns import node_key
from tests.support.waiting import until
from tests.support.world import CAPVER, World

from doorward.errors import NotFound, Unavailable
from doorward.model import Node, Observed
from doorward.protocol.keys import DiscoPublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.store import Connection
from doorward.tailnet import observe

ROUTES = """{"autoApprovers": {"routes": {"10.0.0.0/8": ["ann"]}, "exitNode": ["ann"]},
             "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}"""
AT_RELAY = Hostinfo(Hostname="laptop", NetInfo=NetInfo(PreferredDERP=900))


@pytest.fixture
async def node(world: World) -> Node:
    await world.registry.create_user("test", "ann")
    return await admitted(world, 1)


async def report(world: World, node: Node, **fields: Any) -> Observed:
    request = MapRequest(Version=fields.pop("Version", CAPVER), NodeKey=node_key(1), **fields)
    await world.registry.observations.report(node.id, request)
    return now(world, node).observed


def now(world: World, node: Node) -> Node:
    return world.registry.snapshot.nodes[node.id]


# Reports


async def test_a_report_is_known_at_once(world: World, node: Node) -> None:
    seen = await report(
        world,
        node,
        Version=141,
        DiscoKey=DiscoPublic(b"\x05" * 32),
        Endpoints=["192.0.2.1:41641", "[fe80::1%eth0]:5", "garbage"],
        Hostinfo=AT_RELAY,
    )
    assert seen == Observed(
        disco_key=DiscoPublic(b"\x05" * 32),
        hostinfo=AT_RELAY,
        endpoints=("192.0.2.1:41641",),
        home_derp=900,
        cap_version=141,
    )


async def test_what_is_not_said_stays(world: World, node: Node) -> None:
    await report(world, node, DiscoKey=DiscoPublic(b"\x05" * 32), Hostinfo=AT_RELAY)
    seen = await report(world, node)
    assert (seen.hostinfo, seen.home_derp, seen.disco_key) == (AT_RELAY, 900, DiscoPublic(b"\x05" * 32))
    seen = await report(world, node, Hostinfo=Hostinfo(Hostname="laptop", OS="linux"))
    assert (seen.hostinfo.NetInfo, seen.hostinfo.OS) == (NetInfo(PreferredDERP=900), "linux")


@pytest.mark.parametrize("region", [0, -1, 2**31, 2**62])
async def test_a_home_relay_never_goes_back_to_none(world: World, node: Node, region: int) -> None:
    await report(world, node, Hostinfo=AT_RELAY)
    lost = Hostinfo(Hostname="laptop", NetInfo=NetInfo(PreferredDERP=region))
    assert (await report(world, node, Hostinfo=lost)).home_derp == 900
    moved = Hostinfo(Hostname="laptop", NetInfo=NetInfo(PreferredDERP=901))
    assert (await report(world, node, Hostinfo=moved)).home_derp == 901


async def test_endpoints_are_those_of_the_last_report(world: World, node: Node) -> None:
    await report(world, node, Endpoints=["192.0.2.1:1"])
    assert (await report(world, node, Endpoints=["192.0.2.1:2"])).endpoints == ("192.0.2.1:2",)
    assert (await report(world, node)).endpoints == ()


async def test_a_report_of_nobody_is_refused(world: World, node: Node) -> None:
    await world.registry.delete_node("test", node.id)
    with pytest.raises(NotFound, match="this node was deleted"):
        await world.registry.observations.report(node.id, MapRequest(Version=CAPVER, NodeKey=node_key(1)))


async def test_the_same_again_is_no_change(world: World, node: Node) -> None:
    await report(world, node, Endpoints=["192.0.2.1:1"], Hostinfo=AT_RELAY)
    before = world.registry.snapshot
    await report(world, node, Endpoints=["192.0.2.1:1"], Hostinfo=AT_RELAY)
    assert world.registry.snapshot is before


async def test_a_changed_hostname_renames(world: World, node: Node) -> None:
    other = await admitted(world, 2, machine=2, Hostinfo=Hostinfo(Hostname="desk"))
    await report(world, node, Hostinfo=Hostinfo(Hostname="Desk"))
    assert now(world, node).name == "desk-1"
    (event,) = await world.registry.audit(action="node.rename")
    assert event.actor == f"node:{node.stable_id}"
    assert event.details == {"name": "desk-1", "before": {"name": "laptop"}}
    await report(world, node, Hostinfo=Hostinfo(Hostname="DESK.local"))
    assert len(await world.registry.audit(action="node.rename")) == 1
    await world.registry.delete_node("test", other.id)
    await report(world, node, Hostinfo=Hostinfo(Hostname="laptop"))
    await report(world, node, Hostinfo=Hostinfo(Hostname="desk"))
    assert now(world, node).name == "desk"
    assert (await reopened(world)).snapshot.nodes[node.id].name == "desk"


async def test_an_administrators_name_stands(world: World, node: Node) -> None:
    await world.registry.rename_node("test", node.id, "mine")
    await report(world, node, Hostinfo=Hostinfo(Hostname="desk"))
    assert now(world, node).name == "mine"


async def test_advertised_routes_are_approved_where_the_policy_says_so(world: World, node: Node) -> None:
    await world.registry.set_policy("test", ROUTES)
    routes = ["10.1.0.0/16", "192.168.0.0/16", "0.0.0.0/0", "::/0", "10.0.0.1/8"]
    await report(world, node, Hostinfo=Hostinfo(Hostname="laptop", RoutableIPs=routes))
    approved = ["0.0.0.0/0", "10.1.0.0/16", "::/0"]
    assert [str(route) for route in now(world, node).approved_routes] == approved
    (event,) = await world.registry.audit(action="node.routes")
    assert (event.actor, event.details["routes"]) == ("policy:autoApprovers", approved)
    await report(world, node, Hostinfo=Hostinfo(Hostname="laptop"))
    assert [str(route) for route in now(world, node).approved_routes] == approved


# Presence


async def test_a_node_is_online_while_it_has_a_stream(world: World, node: Node) -> None:
    observations = world.registry.observations
    stream = world.registry.writer.changes.subscribe(node.id)
    observations.connected(node.id)
    assert now(world, node).observed.online
    assert now(world, node).observed.last_seen is None
    world.registry.writer.changes.unsubscribe(stream)
    world.clock.advance(60)
    observations.disconnected(node.id, grace=0.01)
    assert now(world, node).observed.online
    await until(lambda: not now(world, node).observed.online)
    assert now(world, node).observed.last_seen == world.clock.now()


async def test_who_is_back_within_the_grace_was_never_away(world: World, node: Node) -> None:
    observations, changes = world.registry.observations, world.registry.writer.changes
    changes.unsubscribe(changes.subscribe(node.id))
    observations.connected(node.id)
    before = world.registry.snapshot
    observations.disconnected(node.id, grace=0.01)
    changes.subscribe(node.id)
    observations.connected(node.id)
    await asyncio.sleep(0.03)
    assert world.registry.snapshot is before


async def test_the_end_of_an_old_stream_says_nothing_of_the_new_one(world: World, node: Node) -> None:
    """The teardown of the old stream may come after the start of the new one, and even after the grace's end."""
    observations, changes = world.registry.observations, world.registry.writer.changes
    changes.subscribe(node.id)
    observations.connected(node.id)
    changes.subscribe(node.id)
    observations.connected(node.id)
    observations.disconnected(node.id, grace=0.0)
    await asyncio.sleep(0.02)
    assert now(world, node).observed.online


async def test_after_our_own_restart_nodes_get_time_to_come_back(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "START_GRACE", 0.02)
    await world.report(node, "192.0.2.1:1")
    await world.registry.observations.flush()
    again = await reopened(world)
    assert again.snapshot.nodes[node.id].observed.online
    again.observations.started()
    assert again.snapshot.nodes[node.id].observed.online
    await until(lambda: not again.snapshot.nodes[node.id].observed.online)


async def test_the_end_of_a_deleted_nodes_stream_is_nothing(world: World, node: Node) -> None:
    await world.registry.delete_node("test", node.id)
    before = world.registry.snapshot
    world.registry.observations.disconnected(node.id, grace=0.0)
    await asyncio.sleep(0.01)
    world.registry.observations.connected(node.id)
    assert world.registry.snapshot is before


# Writing


async def test_observations_are_written_when_flushed(world: World, node: Node) -> None:
    await report(world, node, Endpoints=["192.0.2.1:1"], Hostinfo=AT_RELAY)
    assert (await reopened(world)).snapshot.nodes[node.id].observed.endpoints == ()
    await world.registry.observations.flush()
    assert (await reopened(world)).snapshot.nodes[node.id] == now(world, node)
    assert world.registry.writer.unwritten == set()


async def test_a_failing_database_loses_nothing(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise Unavailable("the disk is full")

    await report(world, node, Endpoints=["192.0.2.1:1"])
    with monkeypatch.context() as patch:
        patch.setattr("doorward.store.nodes.observe", broken)
        await world.registry.observations.flush()
    assert (await reopened(world)).snapshot.nodes[node.id].observed.endpoints == ()
    await report(world, node, Endpoints=["192.0.2.1:2"])
    await world.registry.observations.flush()
    assert (await reopened(world)).snapshot.nodes[node.id].observed.endpoints == ("192.0.2.1:2",)


async def test_a_node_deleted_meanwhile_is_passed_over(world: World, node: Node) -> None:
    await report(world, node, Endpoints=["192.0.2.1:1"])
    await world.registry.delete_node("test", node.id)
    await world.registry.observations.flush()
    assert (await reopened(world)).snapshot.nodes.get(node.id) is None


async def test_the_last_observations_are_written_at_the_end(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "FLUSH_INTERVAL", 0.005)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.registry.observations.run())
        await report(world, node, Endpoints=["192.0.2.1:1"])
        await until(lambda: not world.registry.writer.unwritten)
        monkeypatch.setattr(observe, "FLUSH_INTERVAL", 100.0)
        await asyncio.sleep(0.02)
        await report(world, node, Endpoints=["192.0.2.1:2"])
        world.registry.observations.disconnected(node.id)
        running.cancel()
    assert (await reopened(world)).snapshot.nodes[node.id].observed.endpoints == ("192.0.2.1:2",)


async def test_observations_are_not_audited(world: World, node: Node) -> None:
    before = await world.registry.audit(limit=1000)
    await report(world, node, Endpoints=["192.0.2.1:1"], Hostinfo=AT_RELAY)
    world.registry.observations.connected(node.id)
    await world.registry.observations.flush()
    assert await world.registry.audit(limit=1000) == before


async def test_a_decision_is_never_undone_by_an_observation(world: World, node: Node) -> None:
    """Both change the same node; the row that holds decisions is not written by a flush."""

    def name_of(connection: Connection) -> str:
        return str(connection.execute(sa.text("SELECT name FROM nodes")).scalar())

    async with asyncio.TaskGroup() as group:
        group.create_task(world.registry.rename_node("test", node.id, "mine"))
        group.create_task(report(world, node, Endpoints=["192.0.2.1:1"]))
        group.create_task(world.registry.observations.flush())
    await world.registry.observations.flush()
    assert await world.registry.writer.database.read(name_of) == "mine"
    assert now(world, node).name == "mine"
    assert now(world, node).observed.endpoints == ("192.0.2.1:1",)
    world.clock.advance(timedelta(seconds=1))


# Where it comes from


async def test_where_a_stream_comes_from_is_written_and_stays_when_it_ends(world: World, node: Node) -> None:
    observations, changes = world.registry.observations, world.registry.writer.changes
    stream = changes.subscribe(node.id)
    observations.arrived(node.id, ip_address("192.0.2.7"))
    changes.unsubscribe(stream)
    observations.disconnected(node.id, grace=0.0)
    await until(lambda: not now(world, node).observed.online)
    await observations.flush()
    again = await reopened(world)
    assert again.snapshot.nodes[node.id].observed.came_from == ip_address("192.0.2.7")


async def test_of_two_streams_the_newer_says_where_the_node_is(world: World, node: Node) -> None:
    observations, changes = world.registry.observations, world.registry.writer.changes
    for address in ("192.0.2.7", "2001:db8::7"):
        changes.subscribe(node.id)
        observations.arrived(node.id, ip_address(address))
        assert now(world, node).observed.came_from == ip_address(address)
    before = world.registry.snapshot
    observations.settle([node.id])  # as when a row says otherwise: we stand by the stream that we have
    assert world.registry.snapshot is before


async def test_who_comes_from_nowhere_known_is_nowhere(world: World, node: Node) -> None:
    world.registry.observations.arrived(node.id, ip_address("192.0.2.7"))
    world.registry.observations.arrived(node.id, None)
    assert now(world, node).observed.came_from is None
