"""The snapshot says what the store says, whatever happens in between."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.support.joining import TAGS, admitted, as_stored, in_memory, reopened
from tests.support.waiting import until
from tests.support.world import World

from doorward.errors import Conflict, Unavailable
from doorward.model import Node, PolicyVersion, Role
from doorward.policy import DEFAULT_POLICY
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.store import Connection, nodes, policies, users
from doorward.store import settings as stored
from doorward.store.faults import CommitUnknown
from doorward.tailnet import writer
from doorward.tailnet.netmap import PeerCache, View
from doorward.tailnet.settings import DNS
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.writer import DNS_SETTING, Effect


@pytest.fixture
async def node(world: World) -> Node:
    await world.registry.create_user("test", "ann")
    return await admitted(world, 1)


async def matches_the_store(world: World) -> None:
    again = (await reopened(world)).snapshot
    snapshot = world.registry.snapshot
    assert in_memory(world) == await as_stored(world)
    assert dict(snapshot.users) == dict(again.users)
    assert snapshot.policy_text == again.policy_text
    assert snapshot.settings.dns == again.settings.dns


class Seen:
    """What a watcher was told."""

    def __init__(self, world: World) -> None:
        self.changes: list[tuple[Snapshot, Snapshot, frozenset[int] | None]] = []
        world.registry.writer.watch(lambda *change: self.changes.append(change))


async def test_nothing_is_said_before_it_is_committed(world: World, node: Node) -> None:
    def look(connection: Connection) -> Effect[bool]:
        changed = nodes.update(connection, msgspec.structs.replace(node, name="new"))
        unsaid = world.registry.snapshot.nodes[node.id].name == "laptop"
        return Effect(result=unsaid, nodes=(changed,))

    seen = Seen(world)
    assert await world.registry.writer.apply(look) is True
    assert world.registry.snapshot.nodes[node.id].name == "new"
    ((before, after, touched),) = seen.changes
    assert (before.nodes[node.id].name, after.nodes[node.id].name) == ("laptop", "new")
    assert touched == frozenset((node.id,))


async def test_a_failing_unit_changes_nothing(world: World, node: Node) -> None:
    def fail(connection: Connection) -> Effect[None]:
        nodes.update(connection, msgspec.structs.replace(node, name="new"))
        raise Conflict("no")

    seen = Seen(world)
    before = world.registry.snapshot
    with pytest.raises(Conflict, match="no"):
        await world.registry.writer.apply(fail)
    assert world.registry.snapshot is before
    assert seen.changes == []
    await matches_the_store(world)


async def test_a_caller_who_goes_away_leaves_no_difference(world: World, node: Node) -> None:
    for attempt in range(20):
        async with asyncio.TaskGroup() as group:
            renaming = group.create_task(world.registry.rename_node("test", node.id, f"name-{attempt}"))
            for _ in range(1 + attempt % 4):
                await asyncio.sleep(0)
            renaming.cancel()
        assert renaming.cancelled()
    marker = await world.registry.create_user("test", "marker")  # everything before it is settled by now
    assert marker.name == "marker"
    await matches_the_store(world)


async def test_the_snapshot_follows_in_the_order_of_commits(world: World, node: Node) -> None:
    order: list[str] = []

    def rename(connection: Connection, name: str) -> Effect[None]:
        order.append(name)
        return Effect(
            result=None, nodes=(nodes.update(connection, msgspec.structs.replace(node, name=name)),)
        )

    seen = Seen(world)
    await asyncio.gather(*(world.registry.writer.apply(rename, f"name-{n}") for n in range(200)))
    assert [after.nodes[node.id].name for _, after, _ in seen.changes] == order
    assert all(one[1] is next_[0] for one, next_ in zip(seen.changes, seen.changes[1:], strict=False))
    await matches_the_store(world)


async def test_many_kinds_of_change_at_once(world: World, node: Node) -> None:
    registry = world.registry

    async def busy(number: int) -> None:
        await registry.create_user("test", f"user{number}")
        joined = await admitted(world, 100 + number, machine=100 + number, user=f"user{number}")
        await registry.expire_node("test", joined.id)
        registry.observations.connected(joined.id)
        if number % 3 == 0:
            await registry.delete_node("test", joined.id)
            await registry.delete_user("test", f"user{number}")

    async def rules() -> None:
        for text in (TAGS, DEFAULT_POLICY) * 3:
            await registry.set_policy("test", text)
            await registry.set_dns("test", DNS(search=(f"s{len(text)}.example",)))

    await asyncio.gather(rules(), *(busy(number) for number in range(15)))
    assert len(registry.snapshot.nodes) == 11
    await matches_the_store(world)


async def test_dns_and_relays_changed_at_once_are_both_kept(world: World) -> None:
    relays = DERPMap(Regions={901: DERPRegion(RegionID=901, RegionCode="x", RegionName="X")})
    assert relays != world.registry.snapshot.settings.derp_map
    async with asyncio.TaskGroup() as group:
        group.create_task(world.registry.set_dns("test", DNS(magic_dns=False)))
        await asyncio.sleep(0)
        group.create_task(world.registry.set_derp_map(relays))
    assert world.registry.snapshot.settings.derp_map == relays
    assert not world.registry.snapshot.settings.dns.magic_dns


async def test_memory_knows_better_what_was_observed(world: World, node: Node) -> None:
    await world.report(node, "192.0.2.1:1")
    await world.registry.rename_node("test", node.id, "new")
    now = world.registry.snapshot.nodes[node.id]
    assert (now.name, now.observed.online, now.observed.endpoints) == ("new", True, ("192.0.2.1:1",))


async def test_a_removed_node_is_forgotten_everywhere(world: World, node: Node) -> None:
    made = world.registry.writer
    stream = made.changes.subscribe(node.id)
    first = made.cache.get(made.snapshot, node, View())
    await world.registry.delete_node("test", node.id)
    assert stream.ended
    assert len(made.changes) == 0
    assert made.cache.get(made.snapshot, node, View()) is not first
    assert isinstance(made.cache, PeerCache)


# A commit of which only the database knows


class Breaking:
    """A database whose connection breaks during the next commit: the commit happened all the same, or it did not."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, *, committed: bool) -> None:
        self._database = world.registry.writer.database
        self._run = self._database.run
        self._committed = committed
        self.breaks = 1
        self.gone = 0  # how often the database cannot be asked afterwards
        self.asked = 0
        monkeypatch.setattr(self._database, "run", self.run)

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if function is writer.load:
            self.asked += 1
            if self.gone:
                self.gone -= 1
                raise Unavailable("the database server cannot be reached")
        elif self.breaks:
            self.breaks -= 1
            if self._committed:
                await self._run(function, *args, **kwargs)
            raise CommitUnknown("the connection broke")
        return await self._run(function, *args, **kwargs)


@pytest.mark.parametrize("committed", [True, False])
async def test_after_a_doubtful_commit_the_store_is_asked(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    await world.report(node, "192.0.2.1:1")
    seen = Seen(world)
    Breaking(world, monkeypatch, committed=committed)
    with pytest.raises(CommitUnknown):
        await world.registry.rename_node("test", node.id, "new")
    now = world.registry.snapshot.nodes[node.id]
    assert now.name == ("new" if committed else "laptop")
    assert now.observed.endpoints == ("192.0.2.1:1",)
    assert len(seen.changes) == int(committed)
    await matches_the_store(world)


async def test_everything_is_read_again(world: World, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another unit of the lost batch may have done anything."""
    other = await admitted(world, 2, machine=2)
    dns = DNS(records=(DNSRecord(Name="a.example", Value="192.0.2.1"),))

    def upheaval(connection: Connection) -> Effect[None]:
        ann = users.by_name(connection, "ann")
        assert ann is not None
        users.update(connection, msgspec.structs.replace(ann, role=Role.OWNER))
        nodes.delete(connection, other.id)
        nodes.update(connection, msgspec.structs.replace(node, name="new"))
        policies.insert(connection, PolicyVersion(id=0, text=TAGS, actor="x", created=world.clock.now()))
        stored.put(connection, DNS_SETTING, dns)
        return Effect(result=None)

    stream = world.registry.writer.changes.subscribe(other.id)
    Breaking(world, monkeypatch, committed=True)
    with pytest.raises(CommitUnknown):
        await world.registry.writer.apply(upheaval)
    snapshot = world.registry.snapshot
    assert (snapshot.policy_text, snapshot.settings.dns, snapshot.users[1].role) == (TAGS, dns, Role.OWNER)
    assert snapshot.policy.knows_tag("tag:web")
    assert set(snapshot.nodes) == {node.id}
    assert stream.ended
    await matches_the_store(world)


async def test_one_reading_settles_the_doubts_of_a_whole_batch(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking = Breaking(world, monkeypatch, committed=True)
    breaking.breaks = 10
    outcomes = await asyncio.gather(
        *(world.registry.create_user("test", f"user{n}") for n in range(10)), return_exceptions=True
    )
    assert all(isinstance(outcome, CommitUnknown) for outcome in outcomes)
    assert breaking.asked <= 10
    assert len(world.registry.snapshot.users) == 11
    assert node.user_id in world.registry.snapshot.users
    await matches_the_store(world)


async def test_a_database_that_is_gone_is_asked_until_it_answers(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "READ_AGAIN", 0.005)
    breaking = Breaking(world, monkeypatch, committed=True)
    breaking.gone = 4
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.registry.writer.run())
        with pytest.raises(CommitUnknown):
            await world.registry.rename_node("test", node.id, "new")
        await until(lambda: world.registry.snapshot.nodes[node.id].name == "new")
        assert breaking.gone == 0
        running.cancel()
    await matches_the_store(world)
