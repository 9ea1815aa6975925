"""The addresses and names that nodes get as they are let in."""

from ipaddress import IPv4Network, IPv6Network

import msgspec
import pytest
from tests.support.joining import TAGS, admitted, in_memory, register
from tests.support.world import World, counting_entropy

from doorward.errors import Conflict
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet.addresses import Pool
from doorward.tailnet.registry import Registry


@pytest.fixture(autouse=True)
async def people(world: World) -> None:
    await world.registry.create_user("test", "ann")
    await world.registry.create_user("test", "bob")
    await world.registry.set_policy("test", TAGS)


# Addresses and names


async def small(world: World, *, random_addresses: bool = False) -> Registry:
    pool = Pool(IPv4Network("100.64.0.0/29"), IPv6Network("fd7a:115c:a1e0::/64"))
    settings = msgspec.structs.replace(
        world.registry.snapshot.settings, pool=pool, random_addresses=random_addresses
    )
    return await Registry.open(world.registry.writer.database, settings, world.clock, counting_entropy())


@pytest.mark.parametrize("random_addresses", [False, True])
async def test_a_full_pool_is_said_and_a_freed_address_is_used(
    world: World, *, random_addresses: bool
) -> None:
    registry = await small(world, random_addresses=random_addresses)
    _, key = await registry.create_auth_key("test", user="ann", reusable=True)
    for number in range(1, 7):
        await register(world, number, machine=number, auth=key, registry=registry)
    with pytest.raises(Conflict, match=r"every address of 100\.64\.0\.0/29 is in use"):
        await register(world, 7, machine=7, auth=key, registry=registry)
    await registry.delete_node("test", 3)
    outcome = await register(world, 7, machine=7, auth=key, registry=registry)
    assert outcome.node is not None
    assert len({node.ipv4 for node in registry.snapshot.nodes.values()}) == 6


async def test_a_freed_address_rests_before_its_next_use(world: World) -> None:
    first = await admitted(world, 1)
    await world.registry.delete_node("test", first.id)
    second = await admitted(world, 2, machine=2)
    assert second.ipv4 == first.ipv4 + 1
    assert second.id > first.id
    assert second.stable_id != first.stable_id


async def test_random_addresses_do_not_tell_who_came_first(world: World) -> None:
    settings = msgspec.structs.replace(world.registry.snapshot.settings, random_addresses=True)
    registry = await Registry.open(world.registry.writer.database, settings, world.clock, counting_entropy())
    _, key = await registry.create_auth_key("test", user="ann", reusable=True)
    for number in (1, 2, 3):
        await register(world, number, machine=number, auth=key, registry=registry)
    found = [int(node.ipv4) for node in registry.snapshot.nodes.values()]
    assert len(set(found)) == 3
    assert max(found) - min(found) > 1000


@pytest.mark.parametrize(
    ("hostname", "names"),
    [
        ("Jörg's MacBook Pro.local", ["j-rg-s-macbook-pro", "j-rg-s-macbook-pro-1"]),
        ("", ["node", "node-1"]),
        ("a" * 80, ["a" * 63, "a" * 61 + "-1"]),
        ("\x00\x1b[2J", ["2j", "2j-1"]),
        ("x-1", ["x-1", "x-1-1"]),
    ],
)
async def test_names_are_labels_and_differ(world: World, hostname: str, names: list[str]) -> None:
    for number in (1, 2):
        await admitted(world, number, machine=number, Hostinfo=Hostinfo(Hostname=hostname))
    assert [node.name for node in in_memory(world)] == names


async def test_many_long_names_differ(world: World) -> None:
    for number in range(1, 13):
        await admitted(world, number, machine=number, Hostinfo=Hostinfo(Hostname="b" * 70))
    names = {node.name for node in in_memory(world)}
    assert len(names) == 12
    assert max(map(len, names)) == 63


async def test_nobody_can_take_the_doors_name(world: World) -> None:
    settings = msgspec.structs.replace(
        world.registry.snapshot.settings, door_host="door.tailnet.internal", door_ports=(443,)
    )
    registry = await Registry.open(world.registry.writer.database, settings, world.clock, counting_entropy())
    _, key = await registry.create_auth_key("test", user="ann")
    outcome = await register(world, 1, auth=key, registry=registry, Hostinfo=Hostinfo(Hostname="Door"))
    assert outcome.node is not None
    assert outcome.node.name == "door-1"
    with pytest.raises(Conflict, match="what the door is called"):
        await registry.rename_node("cli", outcome.node.id, "DOOR")
