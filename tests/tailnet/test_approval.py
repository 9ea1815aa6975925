"""Routes that the policy approves by itself, when it is the policy that changes."""

from typing import Any

import pytest
from tests.support.joining import admitted, reopened
from tests.support.nouns import node_key
from tests.support.world import CAPVER, World

from doorward.model import Node
from doorward.policy import PolicyError
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.map import MapRequest

OFFERED = ["10.1.0.0/16", "192.168.0.0/16", "0.0.0.0/0", "::/0"]


def policy(routes: str, *, exit_node: str = "") -> str:
    return (
        f'{{"autoApprovers": {{"routes": {{{routes}}}, "exitNode": [{exit_node}]}},'
        ' "tagOwners": {"tag:site": ["ann"]}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
    )


@pytest.fixture
async def router(world: World) -> Node:
    await world.registry.create_user("test", "ann")
    await world.registry.create_user("test", "bob")
    await world.registry.set_policy("test", policy(""))
    node = await admitted(world, 1)
    request = MapRequest(
        Version=CAPVER, NodeKey=node_key(1), Hostinfo=Hostinfo(Hostname="laptop", RoutableIPs=OFFERED)
    )
    await world.registry.observations.report(node.id, request)
    assert approved(world, node) == []
    return node


def approved(world: World, node: Node) -> list[str]:
    return [str(route) for route in world.registry.snapshot.nodes[node.id].approved_routes]


async def events(world: World) -> list[Any]:
    return await world.registry.audit(action="node.routes")


async def test_a_wider_policy_approves_what_is_advertised_already(world: World, router: Node) -> None:
    await world.registry.set_policy("test", policy('"10.0.0.0/8": ["ann"]', exit_node='"ann"'))
    assert approved(world, router) == ["0.0.0.0/0", "10.1.0.0/16", "::/0"]
    (event,) = await events(world)
    assert (event.actor, event.target) == ("policy:autoApprovers", f"node:{router.stable_id}")
    assert event.details == {
        "routes": ["0.0.0.0/0", "10.1.0.0/16", "::/0"],
        "rule": "autoApprovers",
        "approved_routes": ["0.0.0.0/0", "10.1.0.0/16", "::/0"],
        "before": {"approved_routes": []},
    }
    newest = await world.registry.audit(limit=2)
    assert [each.action for each in newest] == ["node.routes", "policy.set"]
    assert await world.registry.verify_audit() is None
    assert (await reopened(world)).snapshot.nodes[router.id].approved_routes == tuple(
        world.registry.snapshot.nodes[router.id].approved_routes
    )


async def test_a_route_of_somebody_else_waits_on(world: World, router: Node) -> None:
    await world.registry.set_policy("test", policy('"10.0.0.0/8": ["bob", "tag:site"]'))
    assert approved(world, router) == []
    await world.registry.set_tags("test", router.id, ["tag:site"])
    assert approved(world, router) == []
    await world.registry.set_policy("test", policy('"10.1.0.0/16": ["tag:site"]'))
    assert approved(world, router) == []  # it was the tag that was new, not the policy
    await world.registry.set_policy("test", policy(""))
    await world.registry.set_policy("test", policy('"10.1.0.0/16": ["tag:site"]'))
    assert approved(world, router) == ["10.1.0.0/16"]


async def test_a_narrower_policy_takes_nothing_back(world: World, router: Node) -> None:
    await world.registry.set_policy("test", policy('"10.0.0.0/8": ["ann"]'))
    await world.registry.set_policy("test", policy(""))
    assert approved(world, router) == ["10.1.0.0/16"]


async def test_what_an_administrator_rejected_stays_so_until_the_policy_says_anew(
    world: World, router: Node
) -> None:
    wide = policy('"10.0.0.0/8": ["ann"]')
    await world.registry.set_policy("test", wide)
    await world.registry.set_routes("test", router.id, reject=["10.1.0.0/16"])
    await world.registry.set_policy("test", wide + "// another comment")
    await world.registry.set_policy("test", policy('"10.0.0.0/8": ["ann"], "192.168.0.0/16": ["ann"]'))
    assert approved(world, router) == ["192.168.0.0/16"]


async def test_a_policy_that_is_refused_approves_nothing(world: World, router: Node) -> None:
    wrong = policy('"10.0.0.0/8": ["ann"]').replace(
        '"grants"', '"tests": [{"src": "ann", "deny": ["ann:22"]}], "grants"'
    )
    with pytest.raises(PolicyError):
        await world.registry.set_policy("test", wrong)
    assert approved(world, router) == []
    assert await events(world) == []


async def test_an_edit_and_a_way_back_approve_too(world: World, router: Node) -> None:
    await world.registry.set_policy("test", policy('"10.0.0.0/8": ["ann"]'))
    wide = (await world.registry.policy_history(1))[0].id
    await world.registry.set_policy("test", policy(""))
    await world.registry.set_routes("test", router.id, reject=["10.1.0.0/16"])
    assert approved(world, router) == []
    await world.registry.rollback_policy("test", wide)
    assert approved(world, router) == ["10.1.0.0/16"]
