"""Pages that are told of what changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from tests.support.consoles import furnish, page
from tests.support.means import sign_in
from tests.support.world import World

from doorward.api import feeds as module
from doorward.api.console_types import Machine
from doorward.api.feeds import Feeds, TooManyStreams
from doorward.api.machines import View
from doorward.model import Node, Role, Session
from doorward.store import signin
from doorward.tailnet.snapshot import Snapshot


class Listener:
    """A page that hears events."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream

    async def next(self) -> tuple[str, Any]:
        """The next event; comments are passed over."""
        async with asyncio.timeout(10):
            async for piece in self._stream:
                if piece.startswith(b"event: "):
                    name, _, data = piece.decode().removeprefix("event: ").partition("\ndata: ")
                    assert data.endswith("\n\n")
                    return name, json.loads(data)
        return "end", None

    async def comment(self) -> bytes:
        """The next piece, which is no event."""
        async with asyncio.timeout(10):
            return await anext(self._stream)


@asynccontextmanager
async def listening(
    world: World, name: str = "ann", session: Session | None = None
) -> AsyncIterator[Listener]:
    user = world.registry.snapshot.user_by_name(name)
    assert user is not None
    stream = world.context.feeds.listen(user.id, session)
    try:
        listener = Listener(stream)
        assert await listener.comment() == b": listening\n\n"
        yield listener
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_page_hears_of_its_machines_and_of_no_others(world: World) -> None:
    nodes = await furnish(world)
    async with listening(world) as ann, listening(world, "bob") as bob:
        await world.registry.rename_node("test", nodes["server"].id, "prod")
        name, data = await ann.next()
        assert (name, [one["name"] for one in data["changed"]], data["removed"]) == ("machines", ["prod"], [])
        await world.registry.rename_node("test", nodes["db"].id, "postgres")
        name, data = await bob.next()
        assert (name, [one["name"] for one in data["changed"]]) == ("machines", ["postgres"])


async def test_presence_is_told_and_a_machine_that_is_gone_removed(world: World) -> None:
    nodes = await furnish(world)
    async with listening(world) as ann:
        world.registry.observations._left(nodes["server"].id)
        world.registry.observations.neighbours(frozenset())
        node = world.registry.snapshot.nodes[nodes["server"].id]
        assert not node.observed.online
        _, data = await ann.next()
        assert [one["online"] for one in data["changed"]] == [False]
        await world.registry.delete_node("test", nodes["server"].id)
        assert (await ann.next())[1] == {"changed": [], "removed": [nodes["server"].id]}


async def test_with_a_device_goes_what_only_it_saw(world: World) -> None:
    await furnish(world)
    async with listening(world, "bob") as bob:
        desk = world.registry.snapshot.node_by_name("desk")
        assert desk is not None
        await world.registry.delete_node("test", desk.id)
        _, data = await bob.next()
        removed = set(data["removed"])
        db = world.registry.snapshot.node_by_name("db")
        assert db is not None
        assert removed == {desk.id, db.id}, "db was only seen from desk"


async def test_who_is_suspended_hears_that_it_is_over(world: World) -> None:
    await furnish(world)
    async with listening(world) as ann:
        await world.registry.suspend_user("test", "ann", suspended=True)
        assert await ann.next() == ("session", {"state": "suspended"})
        assert await ann.next() == ("end", None)


async def test_who_is_deleted_hears_that_it_is_over(world: World) -> None:
    await furnish(world)
    async with listening(world) as ann:
        await world.registry.delete_user("test", "ann", with_nodes=True)
        while (told := await ann.next())[0] == "machines":
            pass
        assert told == ("session", {"state": "over"})


async def test_a_session_that_has_ended_is_told_at_the_next_beat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.01)
    await furnish(world)
    user = world.registry.snapshot.user_by_name("ann")
    assert user is not None
    session = await sign_in(world, user)
    async with listening(world, session=session) as ann:
        assert await ann.comment() == b": still here\n\n"
        await world.registry.writer.database.run(
            signin.end_sessions, world.clock.now(), session_id=session.id
        )
        assert await ann.next() == ("session", {"state": "over"})


async def test_when_the_process_stops_all_streams_end(world: World) -> None:
    await furnish(world)
    async with listening(world) as ann, listening(world) as other:
        world.context.feeds.end_all()
        assert await ann.next() == ("end", None)
        assert await other.next() == ("end", None)


async def test_pages_of_one_person_are_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await furnish(world)
    monkeypatch.setattr(module, "MOST_STREAMS", 1)
    feeds: Feeds = world.context.feeds
    feeds.require_room(1)
    async with listening(world):
        with pytest.raises(TooManyStreams):
            feeds.require_room(1)
        feeds.require_room(2)
    feeds.require_room(1)


async def test_whose_tabs_a_change_is_about_is_found_out_once_however_many_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await furnish(world)
    looked: list[Snapshot] = []
    whose = module._owners_of_tabs

    def owners(snapshot: Snapshot, touched: frozenset[int]) -> set[int]:
        looked.append(snapshot)
        return whose(snapshot, touched)

    monkeypatch.setattr(module, "_owners_of_tabs", owners)
    await world.registry.rename_node("test", nodes["server"].id, "nobody-looks")
    assert not looked
    async with listening(world) as ann, listening(world, "bob"):
        await world.registry.rename_node("test", nodes["server"].id, "prod")
        await ann.next()
    assert len(looked) == 2, "before and after"


async def test_of_many_that_begin_at_once_no_more_are_told_than_have_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await furnish(world)
    monkeypatch.setattr(module, "MOST_STREAMS", 1)
    late = world.context.feeds.listen(1, None)
    async with listening(world):
        async with asyncio.timeout(10):
            assert [piece async for piece in late] == []
    async with listening(world):
        pass


async def test_whoever_asks_again_costs_only_what_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = await furnish(world)
    looked: list[str] = []
    machine = View.machine

    def counted(view: View, node: Node, *, expired: bool) -> Machine | None:
        looked.append(node.name)
        return machine(view, node, expired=expired)

    monkeypatch.setattr(View, "machine", counted)

    async def asked(client: httpx2.AsyncClient) -> list[str]:
        looked.clear()
        return [one["name"] for one in (await client.get("/console/machines")).json()["machines"]]

    async with page(world) as ann:
        assert await asked(ann) == ["laptop", "server"]
        assert set(looked) == {"laptop", "desk", "server", "db"}
        assert (await asked(ann), looked) == (["laptop", "server"], [])
        await world.registry.rename_node("test", nodes["server"].id, "prod")
        assert (await asked(ann), looked) == (["laptop", "prod"], ["prod"])
        await world.registry.delete_node("test", nodes["server"].id)
        assert (await asked(ann), looked) == (["laptop"], [])
        await world.registry.set_policy("test", '{"grants": []}')
        await world.registry.set_role("test", "ann", Role.AUDITOR)
        assert await asked(ann) == ["db", "desk", "laptop"]
        # What nobody has asked for in a while is not kept up to date any more.
        world.clock.advance(module.KEPT + 1)
        await world.registry.rename_node("test", nodes["db"].id, "base")
        assert not world.context.feeds._boards
        assert await asked(ann) == ["base", "desk", "laptop"]
        assert set(looked) == {"base", "desk", "laptop"}


async def test_what_is_kept_for_who_has_just_asked_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    await furnish(world)
    feeds = world.context.feeds
    async with listening(world):
        for user_id in (101, 102, 103, 101):
            feeds.board(user_id)
        ann = world.registry.snapshot.user_by_name("ann")
        assert ann is not None
        assert set(feeds._boards) == {ann.id, 103, 101}, "a page that listens keeps its own"
        assert feeds._asked.keys() == feeds._boards.keys()
