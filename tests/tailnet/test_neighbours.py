"""Two registries on one PostgreSQL: what one changes the other knows, whoever of them is cut off or killed."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from random import Random

import msgspec
import pytest
from tests.support.neighbours import join, knows, opened, pair, process, region, register, running
from tests.support.nouns import machine_key, node_key
from tests.support.postgres import Cluster
from tests.support.waiting import until
from tests.support.world import CAPVER

from doorward.errors import Conflict, DoorwardError, NotPermitted, Unavailable
from doorward.model import Role
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.store import Connection, feed, processes
from doorward.tailnet import neighbours, netmap, observe
from doorward.tailnet.admission import Verdict
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import DNS, Joining

SOON = 0.2  # seconds in which a change is known everywhere
OPEN = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
ROUTES = '{"autoApprovers": {"routes": {"10.0.0.0/8": ["ann"]}}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'


@pytest.fixture
def address(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


async def known(holds: Callable[[], bool]) -> None:
    """Without waiting for a heartbeat. The promise itself is a median's, see below: a busy machine may miss it once."""
    await until(holds, SOON * 5)


async def report(registry: Registry, number: int, *endpoints: str, **said: object) -> None:
    node = registry.snapshot.node_by_key(node_key(number))
    assert node is not None
    hostinfo = Hostinfo(Hostname=f"host{number}", OS="linux", **said)  # type: ignore[arg-type]
    request = MapRequest(
        Version=CAPVER, NodeKey=node_key(number), Endpoints=list(endpoints), Hostinfo=hostinfo
    )
    await registry.observations.report(node.id, request)


def is_called(registry: Registry, node_id: int, name: str) -> bool:
    return registry.snapshot.nodes[node_id].name == name


def is_at(registry: Registry, node_id: int, endpoint: str) -> bool:
    return registry.snapshot.nodes[node_id].observed.endpoints == (endpoint,)


def unwritten(*registries: Registry) -> bool:
    return any(one.writer.unwritten | one.writer.claims for one in registries)


# What is changed


async def test_every_kind_of_change_is_known_at_the_other_at_once(address: str) -> None:
    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        await known(lambda: two.snapshot.user_by_name("ann") is not None)
        node = await join(two, 1)
        await known(lambda: node.id in one.snapshot.nodes)
        await one.rename_node("test", node.id, "renamed")
        await known(lambda: two.snapshot.nodes[node.id].name == "renamed")
        await two.set_policy("test", ROUTES)
        await known(lambda: one.policy_text == ROUTES)
        await report(one, 1, "192.0.2.1:1", RoutableIPs=["10.1.0.0/16"])
        await known(lambda: two.snapshot.nodes[node.id].observed.endpoints == ("192.0.2.1:1",))
        await known(lambda: len(two.snapshot.nodes[node.id].approved_routes) == 1)
        await one.set_dns("test", DNS(search=("example.com",)))
        await known(lambda: two.snapshot.settings.dns.search == ("example.com",))
        await one.suspend_user("test", "ann", suspended=True)
        await known(lambda: two.snapshot.suspended(two.snapshot.nodes[node.id]))
        await two.suspend_user("test", "ann", suspended=False)
        other = await join(two, 2)
        await known(lambda: other.id in one.snapshot.nodes)
        await one.access.suspend_node("test", node.id, suspended=True)
        await known(lambda: two.snapshot.policy.roster.blocked == {node.id})
        await two.access.suspend_node("test", node.id, suspended=False)
        await one.access.cut("test", node.id, other.id)
        await known(lambda: two.snapshot.policy.roster.parted(node.id, other.id))
        await two.access.lift("test", node.id, other.id)
        await known(lambda: not one.snapshot.cuts)
        await one.access.set_joining("test", Joining(approval=True))
        await known(lambda: two.snapshot.settings.joining.approval)
        await two.access.cut("test", node.id, other.id)
        await two.delete_node("test", other.id)
        await known(lambda: other.id not in one.snapshot.nodes and not one.snapshot.cuts)
        await two.delete_node("test", node.id)
        await known(lambda: node.id not in one.snapshot.nodes)
        await two.delete_user("test", "ann")
        await known(lambda: not one.snapshot.users)
        assert knows(one) == knows(two)
        assert await one.verify_audit() is None


async def test_a_change_is_known_at_the_other_in_a_fifth_of_a_second(address: str) -> None:
    async with pair(address) as both:
        await both[0].create_user("test", "ann")
        node = await join(both[0], 1)
        await until(lambda: node.id in both[1].snapshot.nodes)
        took: dict[str, list[float]] = {"state": [], "report": []}
        for step in range(15):
            here, there = both[step % 2], both[1 - step % 2]
            name, told = f"name{step}", f"192.0.2.1:{step + 1}"
            began = time.monotonic()
            await here.rename_node("test", node.id, name)
            await until(partial(is_called, there, node.id, name))
            took["state"].append(time.monotonic() - began)
            began = time.monotonic()
            await report(here, 1, told)
            await until(partial(is_at, there, node.id, told))
            took["report"].append(time.monotonic() - began)
        assert statistics.median(took["state"]) < SOON
        assert statistics.median(took["report"]) < SOON


async def test_a_map_stream_at_the_other_is_woken(address: str) -> None:
    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        first = await join(one, 1)
        await until(lambda: first.id in two.snapshot.nodes)
        stream = two.writer.changes.subscribe(first.id)
        stream.take()
        second = await join(one, 2)
        seen: set[int] = set()

        def is_told() -> bool:
            seen.update(stream.take() or ())
            return second.id in seen

        await known(is_told)


async def test_changes_at_both_at_once_end_in_the_same_truth(address: str) -> None:
    """Whatever happens where, in whatever order: when it is quiet, all know the same, and so does a process that starts."""
    dice = Random(5)
    async with pair(address) as both:
        await both[0].create_user("test", "ann")
        await until(lambda: both[1].snapshot.user_by_name("ann") is not None)

        async def act(step: int) -> None:
            registry = dice.choice(both)
            ids = sorted(registry.snapshot.nodes)
            chosen = dice.choice(ids) if ids else 0
            try:
                match dice.randrange(10) if ids else 0:
                    case 0 | 1:
                        await join(registry, step)
                    case 2:
                        await registry.rename_node("test", chosen, f"name{dice.randrange(5)}")
                    case 3:
                        await registry.set_policy("test", OPEN + "\n" * dice.randrange(5))
                    case 4:
                        await registry.set_role("test", "ann", dice.choice(list(Role)))
                    case 5:
                        await registry.delete_node("test", chosen)
                    case 6:
                        registry.observations.connected(chosen)
                    case 7 | 8:
                        await registry.set_routes("test", chosen, approve=[f"10.{dice.randrange(5)}.0.0/16"])
                    case _:
                        node = registry.snapshot.nodes[chosen]
                        request = MapRequest(
                            Version=CAPVER,
                            NodeKey=node.node_key,
                            Endpoints=[f"192.0.2.{step}:{step}"],
                            Hostinfo=Hostinfo(RoutableIPs=[f"10.{dice.randrange(5)}.0.0/16"]),
                        )
                        await registry.observations.report(chosen, request)
            except DoorwardError:
                return  # a name that is taken, a node that is gone: the other was faster

        for round_ in range(8):
            async with asyncio.TaskGroup() as group:
                for step in range(10):
                    group.create_task(act(1 + round_ * 10 + step))
            await asyncio.sleep(dice.random() * 0.1)
        await until(lambda: not unwritten(*both) and knows(both[0]) == knows(both[1]))
        await asyncio.sleep(0.2)
        assert knows(both[0]) == knows(both[1])
        assert len(await both[0].audit(limit=1000)) > 20  # enough has happened
        async with running(address, "three", 903) as third:
            assert knows(third) == knows(both[0])


# What is decided once


async def test_an_auth_key_for_one_node_admits_one_of_those_who_come_to_both(address: str) -> None:
    async with pair(address) as both:
        await both[0].create_user("test", "ann")
        await until(lambda: both[1].snapshot.user_by_name("ann") is not None)
        _, secret = await both[0].create_auth_key("test", user="ann")
        outcomes = await asyncio.gather(
            *(register(both[n % 2], n, auth=secret) for n in range(1, 9)), return_exceptions=True
        )
        assert sum(isinstance(outcome, NotPermitted) for outcome in outcomes) == 7
        await until(lambda: all(len(one.snapshot.nodes) == 1 for one in both))


async def test_addresses_and_names_are_given_once(address: str) -> None:
    async with pair(address) as both:
        await both[0].create_user("test", "ann")
        await until(lambda: both[1].snapshot.user_by_name("ann") is not None)
        _, secret = await both[0].create_auth_key("test", user="ann", reusable=True)
        same = Hostinfo(Hostname="same", OS="linux")
        await asyncio.gather(*(register(both[n % 2], n, auth=secret, Hostinfo=same) for n in range(1, 21)))
        await until(lambda: all(len(one.snapshot.nodes) == 20 for one in both))
        nodes = both[0].snapshot.nodes.values()
        assert len({node.ipv4 for node in nodes}) == len({node.name for node in nodes}) == 20
        assert knows(both[0]) == knows(both[1])


async def test_an_approval_at_one_answers_who_waits_at_the_other(address: str) -> None:
    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        asked = await register(one, 1)
        assert asked.verdict is Verdict.NEEDS_PERSON
        link = f"http://127.0.0.1:8080/join/{asked.link_code}"
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(register(one, 1, Followup=link))
            await until(lambda: one.admission.waiting() == 1)
            await until(lambda: two.snapshot.user_by_name("ann") is not None)
            await two.approve("test", asked.link_code, user="ann")
            async with asyncio.timeout(SOON * 5):
                outcome = await waiting
        assert outcome.verdict is Verdict.ADMITTED
        assert outcome.node == one.snapshot.node_by_key(node_key(1))


async def test_who_was_let_in_at_one_is_known_at_the_other_without_waiting(address: str) -> None:
    """A client that lands elsewhere the next moment must not be taken for a stranger, who would have to sign in."""
    async with running(address, "one", 901) as one, opened(address, process("two", 902)) as two:
        await one.create_user("test", "ann")
        node = await join(one, 1)
        assert two.snapshot.node_by_key(node_key(1)) is None  # it does not run, so nothing told it
        outcome = await register(two, 1)
        assert outcome.verdict is Verdict.ADMITTED
        assert outcome.node is not None
        assert outcome.node.id == node.id


# Who is there


async def test_a_node_is_where_it_connected_last(address: str) -> None:
    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        node = await join(one, 1)
        await until(lambda: node.id in two.snapshot.nodes)
        older = one.writer.changes.subscribe(node.id)
        one.observations.arrived(node.id, ip_address("2001:db8::7"))
        await known(lambda: two.snapshot.nodes[node.id].observed.online)
        assert two.snapshot.nodes[node.id].observed.came_from == ip_address("2001:db8::7")
        newer = two.writer.changes.subscribe(node.id)
        two.observations.arrived(node.id, ip_address("192.0.2.7"))
        await known(lambda: older.ended)
        assert one.snapshot.nodes[node.id].observed.came_from == ip_address("192.0.2.7")
        assert not newer.ended
        assert not one.writer.changes.unsubscribe(older)  # so nobody is told that the node left
        await until(lambda: knows(one) == knows(two))
        assert one.snapshot.nodes[node.id].observed.online


async def test_a_late_report_does_not_undo_that_a_node_went_elsewhere(address: str) -> None:
    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        node = await join(one, 1)
        await until(lambda: node.id in two.snapshot.nodes)
        one.writer.changes.subscribe(node.id)
        one.observations.connected(node.id)
        await until(lambda: not one.writer.claims and two.snapshot.nodes[node.id].observed.online)
        newer = two.writer.changes.subscribe(node.id)
        two.observations.connected(node.id)
        await report(one, 1, "192.0.2.9:9")  # not knowing yet
        await until(lambda: knows(one) == knows(two) and not unwritten(one, two))
        await asyncio.sleep(0.2)
        assert not newer.ended
        seen = one.snapshot.nodes[node.id].observed
        assert seen.endpoints == ("192.0.2.9:9",)
        assert two.writer.process is not None
        assert seen.held_by == two.writer.process.id


async def test_the_nodes_of_a_process_that_ends_get_their_moment_and_are_then_away(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "OFFLINE_GRACE", 0.3)
    monkeypatch.setattr(observe.Observations.disconnected, "__kwdefaults__", {"grace": 0.3})
    async with running(address, "two", 902) as two:
        async with running(address, "one", 901) as one:
            await one.create_user("test", "ann")
            stays, moves = await join(one, 1), await join(one, 2)
            for node in (stays, moves):
                one.observations.connected(node.id)
            await until(lambda: sum(node.observed.online for node in two.snapshot.nodes.values()) == 2)
        stream = two.writer.changes.subscribe(moves.id)
        two.observations.connected(moves.id)
        assert two.snapshot.nodes[stays.id].observed.online  # not at once
        await until(lambda: not two.snapshot.nodes[stays.id].observed.online)
        assert two.snapshot.nodes[stays.id].observed.last_seen is not None
        assert two.snapshot.nodes[moves.id].observed.online
        assert not stream.ended


async def test_a_process_that_says_nothing_is_over_after_its_lease(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "LEASE", 1.0)
    monkeypatch.setattr(neighbours, "RELAY_STAYS", 0.5)
    monkeypatch.setattr(neighbours, "HEARTBEAT", 0.2)
    monkeypatch.setattr(observe.Observations.disconnected, "__kwdefaults__", {"grace": 0.2})
    async with running(address, "two", 902) as two, opened(address, process("one", 901)) as dead:
        await dead.create_user("test", "ann")
        node = await join(dead, 1)
        dead.observations.connected(node.id)
        await dead.observations.flush()
        await until(lambda: node.id in two.snapshot.nodes and two.snapshot.nodes[node.id].observed.online)
        assert set(two.snapshot.settings.derp_map.Regions) == {901, 902}
        await until(lambda: not two.snapshot.nodes[node.id].observed.online)
        # Nobody is sent for ever to a relay that is gone.
        await until(lambda: set(two.snapshot.settings.derp_map.Regions) == {902})


async def test_an_ephemeral_node_is_removed_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.tailnet.keeping.LOOK", 0.05)
    grace = timedelta(seconds=0.3)
    async with (
        running(address, "one", 901, grace=grace) as one,
        running(address, "two", 902, grace=grace) as two,
    ):
        both = (one, two)
        await one.create_user("test", "ann")
        node = await join(one, 1, ephemeral=True)
        await until(lambda: node.id in two.snapshot.nodes)
        await until(lambda: not any(node.id in one.snapshot.nodes for one in both))
        removed = await both[0].audit(action="node.delete")
        assert len(removed) == 1


# What is cut off


async def test_a_lost_listener_loses_nothing(address: str, postgres: Cluster) -> None:
    async with pair(address) as (one, two):
        for number in range(3):
            await one.create_user("test", f"user{number}")
            await until(lambda number=number: len(two.snapshot.users) == number + 1)  # type: ignore[misc]
            killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            assert postgres.execute("postgres", killed)
        await one.create_user("test", "last")
        await until(lambda: knows(one) == knows(two) and len(two.snapshot.users) == 4)


async def test_a_database_that_goes_and_comes_back_loses_nothing_and_nobody(
    address: str, postgres: Cluster
) -> None:
    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        node = await join(one, 1)
        stream = one.writer.changes.subscribe(node.id)
        one.observations.connected(node.id)
        await until(lambda: node.id in two.snapshot.nodes and two.snapshot.nodes[node.id].observed.online)
        postgres.stop()
        try:
            await report(one, 1, "192.0.2.1:1")  # known here, and written when it can be
            with pytest.raises(DoorwardError):
                await two.create_user("test", "bob")
        finally:
            postgres.start()
        await until(lambda: two.snapshot.nodes[node.id].observed.endpoints == ("192.0.2.1:1",))
        await two.create_user("test", "carl")
        await until(lambda: one.snapshot.user_by_name("carl") is not None)
        assert two.neighbours is not None
        assert [other.label for other in two.neighbours.others] == ["one"]
        assert not stream.ended
        assert two.snapshot.nodes[node.id].observed.online


async def test_who_is_too_far_behind_reads_everything(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(address, "one", 901) as one, opened(address, process("two", 902)) as two:
        await one.create_user("test", "ann")
        gone, kept = await join(one, 1), await join(one, 2)
        assert two.neighbours is not None
        await two.neighbours.catch_up()
        assert set(two.snapshot.nodes) == {gone.id, kept.id}
        await one.delete_node("test", gone.id)
        await one.set_policy("test", OPEN)
        await one.writer.database.run(feed.prune, 1)
        await two.neighbours.catch_up()
        assert knows(two) == knows(one)
        await one.rename_node("test", kept.id, "again")
        await two.neighbours.catch_up()
        assert two.snapshot.nodes[kept.id].name == "again"


# Who may serve beside whom


async def test_another_control_key_is_refused_with_the_way_out(address: str) -> None:
    async with running(address, "one", 901):
        with pytest.raises(Conflict, match="one serves this database with another control key") as refused:
            async with opened(address, process("two", 902, noise_key=machine_key(9))):
                pass
        assert "noise.key" in refused.value.cure
    async with opened(address, process("two", 902, noise_key=machine_key(9))):
        pass  # the other is gone, and has said so


async def test_a_relay_is_told_of_while_its_process_restarts(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "HEARTBEAT", 0.1)
    async with running(address, "one", 901) as one:
        seen: set[frozenset[int]] = set()
        one.writer.watch(lambda _, after, __: seen.add(frozenset(after.settings.derp_map.Regions)))
        for _ in range(2):
            async with running(address, "two", 902):
                await until(lambda: one.neighbours is not None and len(one.neighbours.others) == 1)
            await until(lambda: one.neighbours is not None and not one.neighbours.others)
            await asyncio.sleep(0.3)
        assert seen == {frozenset({901, 902})}


async def test_a_region_belongs_to_one(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "RELAY_STAYS", 0.2)
    monkeypatch.setattr(neighbours, "HEARTBEAT", 0.2)
    async with running(address, "one", 901) as one:
        with pytest.raises(Conflict, match="region 901") as refused:
            async with opened(address, process("two", 901)):
                pass
        assert "relay.region" in refused.value.cure
        async with running(address, "two", 902) as two:
            await known(
                lambda: one.snapshot.settings.derp_map.Regions == {901: region(901), 902: region(902)}
            )
            assert two.snapshot.settings.derp_map == one.snapshot.settings.derp_map
            other = region(903)
            await two.set_derp_map(two.snapshot.settings.derp_map, other)
            await known(lambda: 903 in one.snapshot.settings.derp_map.Regions)
        await until(lambda: set(one.snapshot.settings.derp_map.Regions) == {901})


async def test_an_installation_that_starts_again_is_the_same_process(address: str) -> None:
    async with opened(address, process("one", 901)) as first:
        await first.create_user("test", "ann")
        node = await join(first, 1)
        first.observations.connected(node.id)
        await first.observations.flush()
        before = first.writer.process
        # It was killed: it has not said that it leaves.
        async with running(address, "one", 901) as again:
            assert before is not None
            assert again.writer.process is not None
            assert again.writer.process.id == before.id
            assert again.snapshot.nodes[node.id].observed.online  # it gets a moment to come back
            assert again.neighbours is not None
            assert again.neighbours.others == ()


# Doorward's own nodes


async def test_each_process_has_its_own_node_and_the_door_leads_to_those_that_are_up(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "HEARTBEAT", 60.0)  # one below is to stay dead

    async def enter(registry: Registry, number: int, machine: int) -> int:
        _, secret = await registry.create_auth_key("system", user=None, system=True)
        outcome = await register(
            registry, number, machine=machine, auth=secret, Hostinfo=Hostinfo(Hostname="doorward")
        )
        assert outcome.node is not None
        registry.observations.connected(outcome.node.id)
        return outcome.node.id

    async with pair(address) as (one, two):
        await one.create_user("test", "ann")
        person = await join(one, 1)
        first = await enter(one, 11, 11)
        second = await enter(two, 12, 12)
        assert first != second
        await until(lambda: one.snapshot.doors == two.snapshot.doors == (first, second))
        for registry in (one, two):
            snapshot = registry.snapshot
            names = {record.Value for record in netmap.dns_config(snapshot).ExtraRecords or ()}
            assert names == {str(a) for n in (first, second) for a in snapshot.nodes[n].addresses}
            assert {first, second} <= netmap.peer_ids(snapshot, snapshot.nodes[person.id])
        # Each admits its own door's port alone, whoever tells its client so.
        ports = {first: 8901, second: 8902}
        await until(lambda: one.snapshot.settings.own_nodes == two.snapshot.settings.own_nodes == ports)
        for registry in (one, two):
            for node_id, port in ports.items():
                (rule,) = netmap.filter_rules(registry.snapshot, registry.snapshot.nodes[node_id])
                assert {(end.Ports.First, end.Ports.Last) for end in rule.DstPorts or ()} == {(port, port)}
        # A client whose state was lost gets its own node again, not the other's.
        assert await enter(two, 13, 13) == second
        assert await enter(one, 14, 14) == first
        two.observations.disconnected(second, grace=0.0)
        await until(lambda: one.snapshot.doors == (first,))
        two.observations.connected(second)
        await until(lambda: one.snapshot.doors == (first, second))
        # At once where the process has said that it ends.
        assert two.writer.process is not None
        await two.writer.database.run(processes.say_ended, two.writer.process)
        await one.create_user("test", "bob")
        await two.create_user("test", "carl")
        await known(lambda: one.snapshot.doors == (first,))


async def test_the_own_node_of_a_lone_process_goes_to_the_first_of_several(address: str) -> None:
    async with opened(address, process("one", 901)) as alone:
        _, secret = await alone.create_auth_key("system", user=None, system=True)
        alone.writer.process = None
        made = await register(alone, 1, auth=secret, Hostinfo=Hostinfo(Hostname="doorward"))
        await alone.writer.database.run(_forget_own)
        assert made.node is not None
    async with running(address, "two", 902) as two:
        _, secret = await two.create_auth_key("system", user=None, system=True)
        taken = await register(two, 2, machine=2, auth=secret, Hostinfo=Hostinfo(Hostname="doorward"))
        assert taken.node is not None
        assert taken.node.id == made.node.id


def _forget_own(connection: Connection) -> None:
    for one in processes.load_all(connection):
        processes.update(connection, msgspec.structs.replace(one, own_node=None, own_key=None))


# The workers of one serve


async def test_workers_of_one_serve_are_one_relay_and_clients_hear_of_it_once(address: str) -> None:
    async with running(address, "x", 901) as first, running(address, "x/2", 901) as second:
        async with running(address, "two", 902) as elsewhere:
            await until(lambda: set(first.snapshot.settings.derp_map.Regions) == {901, 902})
            assert second.neighbours is not None
            await until(lambda: len(second.neighbours.others) == 2)  # type: ignore[union-attr]
            assert [one.worker for one in second.neighbours.siblings] == [1, 2]
            assert elsewhere.neighbours is not None
            assert len(elsewhere.neighbours.siblings) == 1
            assert set(elsewhere.snapshot.settings.derp_map.Regions) == {901, 902}
            with pytest.raises(Conflict, match="region 901, too"):
                async with opened(address, process("three", 901)):
                    pass
        await until(lambda: set(first.snapshot.settings.derp_map.Regions) == {901, 902})  # for its moment


async def test_workers_of_one_serve_have_one_own_node_whichever_of_them_lives(address: str) -> None:
    async with running(address, "x/2", 901) as second:
        async with running(address, "x", 901) as first:
            _, secret = await first.create_auth_key("system", user=None, system=True)
            made = await register(first, 1, auth=secret, Hostinfo=Hostinfo(Hostname="doorward"))
            assert made.node is not None
            own = {made.node.id: 8901}
            await until(lambda: all(each.snapshot.settings.own_nodes == own for each in (first, second)))
        # The one that logged it in is gone, and its node is not: the other goes on with it, by another key.
        await until(lambda: second.snapshot.settings.own_nodes == own)
        _, secret = await second.create_auth_key("system", user=None, system=True)
        again = await register(second, 2, machine=1, auth=secret, Hostinfo=Hostinfo(Hostname="doorward"))
        assert again.node is not None
        assert again.node.id == made.node.id
    async with running(address, "x/3", 901) as third:  # one more than there were: it knows from the start
        assert third.snapshot.settings.own_nodes == own


async def test_an_own_node_that_was_forgotten_is_claimed_again_but_no_other_s(address: str) -> None:
    async with running(address, "one", 901) as one, running(address, "two", 902) as two:
        _, secret = await one.create_auth_key("system", user=None, system=True)
        made = await register(one, 1, auth=secret, Hostinfo=Hostinfo(Hostname="doorward"))
        assert made.node is not None
        await two.claim_own_node(made.node.stable_id)
        await one.create_user("test", "ann")
        person = await join(one, 2)
        await two.claim_own_node(person.stable_id)
        await two.claim_own_node("nNothing")
        await one.create_user("test", "bob")
        await until(lambda: two.snapshot.user_by_name("bob") is not None)
        assert two.neighbours is not None
        assert two.neighbours.own_nodes() == {made.node.id: 8901}
        await one.writer.database.run(_forget_own)
        await one.create_user("test", "carl")
        await until(lambda: one.snapshot.settings.own_nodes == two.snapshot.settings.own_nodes == {})
        await one.claim_own_node(made.node.stable_id)
        for each in (one, two):
            await until(lambda each=each: each.snapshot.settings.own_nodes == {made.node.id: 8901})  # type: ignore[misc]


async def test_many_who_look_for_a_stranger_at_once_are_two_looks(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(address, process("one", 901)) as one:
        looks = 0
        look = neighbours._look

        def counted(*arguments: object, **more: object) -> object:
            nonlocal looks
            looks += 1
            return look(*arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(neighbours, "_look", counted)
        found = await asyncio.gather(*(one.writer.find(node_key(number)) for number in range(50)))
        assert set(found) == {None}
        assert looks == 2


async def test_who_looks_after_a_look_that_failed_looks_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(address, process("one", 901)) as one:
        look = neighbours._look

        def failing(*_: object, **__: object) -> None:
            monkeypatch.setattr(neighbours, "_look", look)
            raise Unavailable("away")

        monkeypatch.setattr(neighbours, "_look", failing)
        found = await asyncio.gather(
            *(one.writer.find(node_key(number)) for number in range(3)), return_exceptions=True
        )
        assert isinstance(found[0], Unavailable)
        assert found[1:] == [None, None]


async def test_who_asked_one_and_then_another_finds_what_the_first_has_done(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(address, "x", 901) as first, opened(address, process("x/2", 901)) as second:
        await first.create_user("test", "ann")
        assert second.snapshot.user_by_name("ann") is None  # it does not run, so nothing told it
        await second.catch_up()
        assert second.snapshot.user_by_name("ann") is not None

        def away(*_: object, **__: object) -> None:
            raise Unavailable("away")

        monkeypatch.setattr(neighbours, "_look", away)
        await second.catch_up()  # what is known can still be shown
