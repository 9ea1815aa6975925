"""The machines that a person sees, kept up to date."""

import asyncio

import pytest
from tests.support.consoles import POLICY, furnish
from tests.support.world import World

from doorward.api import machines as module
from doorward.api.console_types import Machine
from doorward.api.feeds import view_of
from doorward.api.machines import Board, Stream
from doorward.model import Role


def _board(world: World, name: str) -> Board:
    user = world.registry.snapshot.user_by_name(name)
    assert user is not None
    number = user.id
    return Board(
        lambda: view_of(world.registry.snapshot, number), lambda node: node.expired(world.clock.now())
    )


async def _seen(board: Board) -> dict[str, Machine]:
    await board.refresh()
    return {machine.name: machine for machine in board.whole()}


async def test_a_board_follows_what_it_is_told_of(world: World) -> None:
    nodes = await furnish(world)
    board, stream = _board(world, "ann"), Stream()
    assert set(await _seen(board)) == {"laptop", "server"}
    board.streams.add(stream)
    await world.registry.rename_node("test", nodes["server"].id, "prod")
    assert set(await _seen(board)) == {"laptop", "server"}, "nobody has told it"
    board.note([nodes["server"].id], wide=False)
    assert stream.wake.is_set()
    assert set(await _seen(board)) == {"laptop", "prod"}
    assert stream.different == {nodes["server"].id}
    assert b'"changed":[{' in board.told(stream.different)


async def test_a_node_that_is_for_somebody_no_more_is_removed(world: World) -> None:
    nodes = await furnish(world)
    board, stream = _board(world, "ann"), Stream()
    await _seen(board)
    board.streams.add(stream)
    await world.registry.set_tags("test", nodes["server"].id, ["tag:db"])
    board.note([nodes["server"].id], wide=False)
    assert set(await _seen(board)) == {"laptop"}
    assert board.told(stream.different) == b'{"changed":[],"removed":[%d]}' % nodes["server"].id


async def test_what_is_as_it_was_is_told_to_nobody(world: World) -> None:
    await furnish(world)
    board, stream = _board(world, "ann"), Stream()
    await _seen(board)
    board.streams.add(stream)
    board.note(None, wide=False)
    await board.refresh()
    assert not stream.different


async def test_what_a_page_did_not_finish_looking_at_is_told_to_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await furnish(world)
    board, other = _board(world, "ann"), Stream()
    await _seen(board)
    board.streams.add(other)
    renamed = {"laptop": "book", "server": "prod"}
    for before, after in renamed.items():
        await world.registry.rename_node("test", nodes[before].id, after)
        board.note([nodes[before].id], wide=False)
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    looking = asyncio.get_running_loop().create_task(board.refresh())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert set(await _seen(board)) == set(renamed.values())
    assert other.different == {nodes[name].id for name in renamed}


async def test_a_change_of_policy_is_looked_at_as_a_whole(world: World) -> None:
    await furnish(world)
    board = _board(world, "bob")
    assert [way.account for way in (await _seen(board))["desk"].ways] == []
    assert (await _seen(board))["desk"].any_account
    await world.registry.set_policy("test", POLICY.replace('"ann"', '"bob"'))
    board.note(None, wide=False)
    seen = await _seen(board)
    assert set(seen) == {"db", "desk", "server"}, "db is a peer of desk"
    assert {way.account for way in seen["server"].ways} == {"deploy", "root"}


async def test_who_is_suspended_sees_nothing(world: World) -> None:
    await furnish(world)
    board = _board(world, "ann")
    assert await _seen(board)
    await world.registry.suspend_user("test", "ann", suspended=True)
    board.note(None, wide=False)
    assert await _seen(board) == {}
    assert board.counts().machines == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("suspend", "server is suspended."),
        ("posture", "ssh[1] is for devices that meet a posture, and a browser's tab meets none."),
        ("ssh", 'No rule under "ssh" names you or your groups for server.'),
        ("grants", "No rule lets you or your groups reach TCP port 22 of server."),
    ],
)
async def test_what_is_missing_is_named(world: World, change: str, why: str) -> None:
    nodes = await furnish(world)
    await world.registry.set_role("test", "ann", Role.AUDITOR)
    if change == "suspend":
        await world.registry.access.suspend_node("test", nodes["server"].id, suspended=True)
    text = {
        "posture": POLICY.replace('"root", "deploy"]', '"root"], "srcPosture": ["posture:linux"]'),
        "ssh": POLICY.replace('{"action": "check", "src": ["ann"]', '{"action": "check", "src": ["bob"]'),
        "grants": POLICY.replace('["22", "80"]', '["80"]'),
    }.get(change, POLICY)
    await world.registry.set_policy("test", text)
    assert (await _seen(_board(world, "ann")))["server"].why == why
