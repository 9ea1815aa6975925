"""What is said about nodes: which names and values can be, how they are kept, and when they end."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.world import World, open_world

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Attribute
from doorward.tailnet import attributes
from doorward.tailnet.attributes import MAX_ATTRIBUTES, check_attribute

POLICY = """{"postures": {"posture:ok": ["custom:ok == true"]}, "grants": [
    {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["22"], "srcPosture": ["posture:ok"]}]}"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


async def laptops(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    await world.registry.set_policy("cli", POLICY)
    await world.join(1, "laptop", "ann")
    await world.join(2, "server", "ann")


def let_in(world: World, node_id: int) -> list[str]:
    return [text for rule in world.registry.snapshot.policy.filter_rules(node_id) for text in rule.SrcIPs]


@pytest.mark.parametrize("value", [True, False, 0, -5, 2**53 - 1, "prod", "a.b_c-1"])
async def test_values_that_can_be(world: World, value: str | int | bool) -> None:
    now = world.clock.now()
    given = Attribute(key="custom:a:b_1", value=value)
    assert check_attribute(given, now) is given


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("os", "x"),
        ("node:os", "macos"),
        ("custom:", 1),
        ("custom:a b", 1),
        ("custom:" + "a" * 122, 1),
        ("custom:a", ""),
        ("custom:a", "a b"),
        ("custom:a", "x" * 51),
        ("custom:a", 2**53),
        ("custom:a", 1.5),
    ],
)
async def test_names_and_values_that_cannot_be(world: World, key: str, value: str | float) -> None:
    with pytest.raises(BadInput) as raised:
        check_attribute(Attribute(key=key, value=value), world.clock.now())
    assert raised.value.cure


async def test_what_ends_in_the_past_is_refused(world: World) -> None:
    with pytest.raises(BadInput, match="passed already"):
        check_attribute(Attribute(key="custom:a", value=1, expires=world.clock.now()), world.clock.now())


async def test_access_comes_and_goes_with_an_attribute(world: World) -> None:
    await laptops(world)
    assert let_in(world, 2) == []
    await world.registry.set_attributes("cli", 1, [Attribute(key="custom:OK", value=True)], comment="on call")
    assert let_in(world, 2) == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    await world.registry.set_attributes("cli", 1, [Attribute(key="custom:ok", value=False)])
    assert [one.key for one in world.registry.snapshot.nodes[1].attributes] == [
        "custom:ok"
    ]  # one, whatever its case
    assert let_in(world, 2) == []
    await world.registry.set_attributes("cli", 1, [Attribute(key="custom:ok", value=True)])
    await world.registry.set_attributes("cli", 1, gone=["custom:Ok"])
    assert let_in(world, 2) == []
    events = await world.registry.audit(limit=10)
    told = [event for event in events if event.action == "node.attributes"]
    assert len(told) == 4
    assert any(event.details.get("comment") == "on call" for event in told)


async def test_an_attribute_ends_by_itself(world: World) -> None:
    await laptops(world)
    ends = world.clock.now() + timedelta(hours=8)
    await world.registry.set_attributes("cli", 1, [Attribute(key="custom:ok", value=True, expires=ends)])
    writer = world.registry.writer
    assert writer.deadlines.next() == ends
    await writer.apply(attributes.end_attributes, 1, world.clock.now())
    assert let_in(world, 2) != []  # not yet
    await writer.apply(attributes.end_attributes, 1, ends)
    assert let_in(world, 2) == []
    await writer.apply(attributes.end_attributes, 1, ends)  # another process was first
    assert world.registry.snapshot.nodes[1].attributes == ()
    await writer.apply(attributes.end_attributes, 99, ends)  # gone meanwhile


async def test_there_are_limits(world: World) -> None:
    await laptops(world)
    many = [Attribute(key=f"custom:a{number}", value=1) for number in range(MAX_ATTRIBUTES + 1)]
    with pytest.raises(Conflict, match="at most 100 attributes"):
        await world.registry.set_attributes("cli", 1, many)
    with pytest.raises(NotFound):
        await world.registry.set_attributes("cli", 99, many[:1])
