"""Host keys of machines that publish none."""

import base64

import pytest
from tests.support.consoles import furnish
from tests.support.world import World

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Node, User
from doorward.tailnet import hostkeys
from doorward.tailnet.hostkeys import KeyChanged, Known


def _key(number: int) -> str:
    raw = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(raw).decode()}"


async def _people(world: World) -> tuple[dict[str, Node], User, User]:
    nodes = await furnish(world)
    users = world.registry.snapshot.users
    return nodes, users[1], users[2]


async def _known(world: World, node: Node, user: User) -> Known:
    return await hostkeys.known(world.registry.writer.database, node, user.id)


async def test_what_a_machine_publishes_counts_alone(world: World) -> None:
    nodes, ann, _ = await _people(world)
    assert (await _known(world, nodes["server"], ann)).source == "node"
    with pytest.raises(Conflict, match="publishes its host keys"):
        await hostkeys.accept(world.registry.writer, "user:ann", ann, nodes["server"], _key(1), None)


async def test_an_answer_is_one_persons_and_another_key_is_refused(world: World) -> None:
    nodes, ann, bob = await _people(world)
    writer, laptop = world.registry.writer, nodes["laptop"]
    assert await _known(world, laptop, ann) == Known((), "none")
    await hostkeys.accept(writer, "user:ann", ann, laptop, f"{_key(1)} comment", None)
    await hostkeys.accept(writer, "user:ann", ann, laptop, _key(1), None)
    assert await _known(world, laptop, ann) == Known((_key(1),), "you")
    assert await _known(world, laptop, bob) == Known((), "none")
    for replaces in (None, _key(3)):
        with pytest.raises(KeyChanged):
            await hostkeys.accept(writer, "user:ann", ann, laptop, _key(2), replaces)
    await hostkeys.accept(writer, "user:ann", ann, laptop, _key(2), _key(1))
    assert await _known(world, laptop, ann) == Known((_key(2),), "you")
    events = await world.registry.audit(action="hostkey.accept")
    assert [(event.actor, event.details["before"]["keys"]) for event in events] == [
        ("user:ann", [_key(1)]),
        ("user:ann", []),
    ]
    with pytest.raises(BadInput):
        await hostkeys.accept(writer, "user:ann", ann, laptop, "ssh-ed25519 AAAA", None)


async def test_pins_are_for_everybody_and_end_the_asking(world: World) -> None:
    nodes, ann, bob = await _people(world)
    writer, laptop = world.registry.writer, nodes["laptop"]
    await hostkeys.accept(writer, "user:ann", ann, laptop, _key(1), None)
    found = await hostkeys.pin(writer, "cli", laptop, [_key(2), _key(2), _key(3)])
    assert [one.key for one in found] == [_key(2), _key(3)]
    for person in (ann, bob):
        assert await _known(world, laptop, person) == Known((_key(2), _key(3)), "pinned")
        with pytest.raises(Conflict, match="pinned"):
            await hostkeys.accept(writer, "x", person, laptop, _key(1), None)
    assert [one.key for one in await hostkeys.pin(writer, "cli", laptop, (), [_key(2)])] == [_key(3)]
    with pytest.raises(NotFound):
        await hostkeys.pin(writer, "cli", laptop, (), [_key(9)])
    await hostkeys.pin(writer, "cli", laptop, (), [_key(3)])
    assert await hostkeys.pinned(writer.database, laptop.id) == ()
    assert await _known(world, laptop, ann) == Known((_key(1),), "you")
    assert len(await world.registry.audit(action="hostkey.pin")) == 3
    with pytest.raises(BadInput, match="at most"):
        await hostkeys.pin(writer, "cli", laptop, [_key(number) for number in range(30)])


async def test_with_a_machine_go_its_keys(world: World) -> None:
    nodes, ann, _ = await _people(world)
    writer, laptop = world.registry.writer, nodes["laptop"]
    await hostkeys.accept(writer, "user:ann", ann, laptop, _key(1), None)
    await hostkeys.pin(writer, "cli", laptop, [_key(2)])
    await world.registry.delete_node("cli", laptop.id)
    assert await _known(world, laptop, ann) == Known((), "none")
    for act in (
        hostkeys.pin(writer, "cli", laptop, [_key(2)]),
        hostkeys.accept(writer, "user:ann", ann, laptop, _key(1), None),
    ):
        with pytest.raises(NotFound):
            await act
