"""Browsers' tabs that are nodes: what they get, who sees them, and what ends them."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import structlog
from tests.support import nouns
from tests.support.consoles import HOST_KEY, POLICY, furnish
from tests.support.joining import reopened
from tests.support.means import sign_in
from tests.support.neighbours import join, pair
from tests.support.nouns import machine_key, node_key
from tests.support.policy import admitted
from tests.support.postgres import Cluster
from tests.support.waiting import until
from tests.support.world import CAPVER, World

from doorward.errors import Conflict, NotPermitted, Unavailable
from doorward.model import Node, Observed, Session, TabOver, TabTarget, User
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.protocol.tailcfg.register import RegisterRequest
from doorward.store import Connection, nodes, signin
from doorward.tailnet import netmap, observe
from doorward.tailnet import tabs as module
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.tabs import (
    NoSuchMachine,
    NotAllowed,
    Offline,
    SessionOver,
    TabIsOver,
    TooManyTabs,
    judged,
)

KEY = 77  # of the tab
ADDRESS = "192.0.2.9"


class Sitting:
    """ann before her browser."""

    def __init__(self, world: World, user: User, session: Session, nodes: dict[str, Node]) -> None:
        self.world, self.user, self.session, self.nodes = world, user, session, nodes
        self.registry = world.registry
        self.tabs = world.registry.tabs
        self.tabs.region = 900

    def target(self, name: str = "server", account: str = "root") -> TabTarget:
        return judged(self.registry.snapshot, self.user.id, self.nodes[name], account)

    async def open(self, number: int = KEY, target: TabTarget | None = None) -> Node:
        return await self.tabs.open(
            "user:ann", self.user, self.session, node_key(number), target or self.target()
        )

    def sees(self, name: str) -> set[str]:
        snapshot = self.registry.snapshot
        viewer = snapshot.node_by_name(name)
        assert viewer is not None
        return {snapshot.nodes[one].name for one in netmap.peer_ids(snapshot, viewer)}

    async def over(self, tab: Node) -> TabOver | None:
        await self.tabs.tend()
        ended = await self.tabs.ended(self.user.id, self.session.id, tab.id)
        assert (ended is None) is (tab.id in self.registry.snapshot.nodes)
        return None if ended is None else ended.over


@pytest.fixture
async def ann(world: World) -> Sitting:
    nodes = await furnish(world)
    user = world.registry.snapshot.user_by_name("ann")
    assert user is not None
    return Sitting(world, user, await sign_in(world, user), nodes)


async def test_a_tab_is_a_node_of_its_person_and_seen_by_its_target_alone(ann: Sitting) -> None:
    tab = await ann.open()
    assert tab.name.startswith("ann-tab-")
    assert (tab.user_id, tab.ephemeral, tab.approved, tab.tags) == (ann.user.id, True, True, ())
    assert tab.key_expiry is not None
    assert tab.key_expiry <= ann.session.expires
    assert ann.sees("server") == {tab.name, "laptop"}
    assert ann.sees(tab.name) == {"server"}
    for name in ("laptop", "desk", "db"):
        assert tab.name not in ann.sees(name)
    snapshot = ann.registry.snapshot
    assert [sorted(one) for one in netmap.seers(snapshot, tab)] == [[ann.nodes["server"].id]]
    shown = netmap.peer(snapshot, tab)
    assert (shown.HomeDERP, shown.Hostinfo.OS) == (900, "js")  # type: ignore[union-attr]
    events = await ann.registry.audit(limit=2)
    assert {event.action: event.target for event in events} == {
        "tab.open": f"node:{tab.stable_id}",
        "tab.target": f"node:{ann.nodes['server'].stable_id}",
    }


async def test_its_target_lets_it_in_at_its_ssh_port_and_nowhere_else_at_all(ann: Sitting) -> None:
    open_to_all = POLICY.replace(
        '"grants": [', '"grants": [{"src": ["100.64.0.0/10", "*"], "dst": ["*"], "ip": ["*"]},'
    )
    await ann.registry.set_policy("test", open_to_all)
    before = {name: netmap.filter_rules(ann.registry.snapshot, node) for name, node in ann.nodes.items()}
    tab = await ann.open()
    policy = ann.registry.snapshot.policy
    for name in ("laptop", "desk", "db"):
        assert policy.filter_rules(ann.nodes[name].id) == before[name]
    rules = policy.filter_rules(ann.nodes["server"].id)
    mine = {str(address) for address in tab.addresses}
    (own,) = [rule for rule in rules if not mine.isdisjoint(rule.SrcIPs)]
    assert set(own.SrcIPs) == mine
    assert own.IPProto == [6]
    assert {(one.IP, one.Ports.First, one.Ports.Last) for one in own.DstPorts or ()} == {
        (str(address), 22, 22) for address in ann.nodes["server"].addresses
    }
    server = ann.nodes["server"]
    assert admitted(policy, server.id, tab.ipv4, server.ipv4, 22, 6)
    for port, protocol in ((80, 6), (22, 17), (0, 1)):
        assert not admitted(policy, server.id, tab.ipv4, server.ipv4, port, protocol)
    assert admitted(policy, server.id, tab.ipv4 + 1, server.ipv4, 80, 6), (
        "its neighbours are let in as before"
    )


async def test_only_the_account_that_was_asked_for_is_let_in(ann: Sitting) -> None:
    tab = await ann.open()
    policy, server = ann.registry.snapshot.policy, ann.nodes["server"].id
    match = policy.ssh_match(tab.id, server, "root")
    assert match is not None
    assert (match.account, match.rule.check) == ("root", True)
    refused = policy.ssh_match(tab.id, server, "deploy")
    assert refused is not None
    assert refused.account == ""
    assert policy.ssh_match(tab.id, ann.nodes["laptop"].id, "ann") is None
    wires = [rule for rule in policy.ssh_policy(server).rules if str(tab.ipv4) in str(rule.principals)]
    assert [rule.sshUsers for rule in wires] == [{"root": "root"}]
    await ann.tabs.add("user:ann", ann.user, ann.session, tab.id, ann.target(account="deploy"))
    match = ann.registry.snapshot.policy.ssh_match(tab.id, server, "deploy")
    assert match is not None
    assert match.account == "deploy"


async def test_a_target_is_judged_by_the_policy(ann: Sitting) -> None:
    for name, account, error in (
        ("server", "postgres", NotAllowed),
        ("db", "root", NotAllowed),
        ("desk", "bob", NotAllowed),
    ):
        with pytest.raises(error):
            ann.target(name, account)
    ann.world.registry.observations._left(ann.nodes["server"].id)
    gone = ann.registry.snapshot.nodes[ann.nodes["server"].id]
    assert not gone.observed.online
    with pytest.raises(Offline):
        judged(ann.registry.snapshot, ann.user.id, gone, "root")
    tab = await ann.open(target=ann.target("laptop", "ann"))
    with pytest.raises(NoSuchMachine):
        judged(ann.registry.snapshot, ann.user.id, tab, "root")


async def test_behind_a_router_it_reaches_nothing(ann: Sitting) -> None:
    everything = POLICY.replace(
        '"grants": [',
        '"grants": [{"src": ["ann"], "dst": ["*", "10.0.0.0/8", "autogroup:internet"], "ip": ["*"]},',
    )
    await ann.registry.set_policy("test", everything)
    routes = ["10.0.0.0/8", "0.0.0.0/0", "::/0"]
    server = ann.nodes["server"]
    await ann.registry.set_routes("test", server.id, approve=routes)
    offers = msgspec.structs.replace(server.observed.hostinfo, RoutableIPs=routes)
    request = MapRequest(Version=CAPVER, NodeKey=server.node_key, Hostinfo=offers)
    await ann.registry.observations.report(server.id, request)
    assert ann.registry.snapshot.primary, "it is the router of somebody"
    tab = await ann.open()
    snapshot = ann.registry.snapshot
    mine = {str(address) for address in tab.addresses}
    filters = [snapshot.policy.filter_rules(node.id) for node in ann.nodes.values()]
    opened = [one for rules in filters for one in rules if not mine.isdisjoint(one.SrcIPs)]
    assert {(one.IP, one.Ports.First) for rule in opened for one in rule.DstPorts or ()} == {
        (str(address), 22) for address in server.addresses
    }
    shown = netmap.peer(snapshot, tab)
    assert shown.AllowedIPs is msgspec.UNSET, "its addresses, and no others"
    assert set(shown.Addresses or ()) == {f"{one}/{one.max_prefixlen}" for one in tab.addresses}


async def test_a_machine_that_begins_to_serve_ssh_asks_the_policy_about_who_is_in_already(
    ann: Sitting,
) -> None:
    laptop = ann.nodes["laptop"]
    tabs = [
        await ann.open(number, ann.target("laptop", account))
        for number, account in ((KEY, "root"), (KEY + 1, "ann"))
    ]
    serves = msgspec.structs.replace(laptop.observed.hostinfo, sshHostKeys=[HOST_KEY])
    request = MapRequest(Version=CAPVER, NodeKey=laptop.node_key, Hostinfo=serves)
    await ann.registry.observations.report(laptop.id, request)
    policy = ann.registry.snapshot.policy
    found = [
        policy.ssh_match(tab.id, laptop.id, account)
        for tab, account in zip(tabs, ("root", "ann"), strict=True)
    ]
    assert [match and match.account for match in found] == [None, "ann"]
    principals = [
        rule for rule in policy.ssh_policy(laptop.id).rules if str(tabs[0].ipv4) in str(rule.principals)
    ]
    assert not [rule for rule in principals if rule.action.accept or rule.action.holdAndDelegate]


async def test_a_key_of_another_node_is_nobodys_to_open_a_tab_with(ann: Sitting) -> None:
    for name in ("desk", "laptop"):
        with pytest.raises(Conflict):
            await ann.tabs.open("user:ann", ann.user, ann.session, ann.nodes[name].node_key, ann.target())
    assert not ann.registry.snapshot.tabs


async def test_a_key_that_has_left_is_a_new_node_and_what_it_may_is_asked_anew(ann: Sitting) -> None:
    tab = await ann.open()
    await ann.tabs.leave("user:ann", ann.user.id, ann.session.id, tab.id)
    assert ann.registry.snapshot.node_by_key(tab.node_key) is None
    again = await ann.open(target=ann.target("laptop", "ann"))
    assert (again.node_key, again.id == tab.id) == (tab.node_key, False)
    assert (ann.sees(again.name), again.name in ann.sees("server")) == ({"laptop"}, False)
    ann.tabs.arrived(tab.node_key, ADDRESS)
    assert [node.name for node in ann.registry.snapshot.nodes.values() if node.tab] == [again.name]


async def test_a_machine_without_a_client_that_serves_ssh_is_reached_by_its_port_alone(ann: Sitting) -> None:
    target = ann.target("laptop", "anybody")
    assert not target.ssh
    tab = await ann.open(target=target)
    assert tab.name in ann.sees("laptop")
    assert ann.registry.snapshot.policy.ssh_match(tab.id, ann.nodes["laptop"].id, "anybody") is not None
    assert await ann.over(tab) is None


async def test_by_ts2021_it_never_comes(ann: Sitting) -> None:
    tab = await ann.open()
    request = RegisterRequest(Version=CAPVER, NodeKey=tab.node_key, Hostinfo=Hostinfo(Hostname="x"))
    for key in (machine_key(1), tab.machine_key):
        with pytest.raises(NotPermitted):
            await ann.registry.admission.register(key, request)


async def test_the_same_key_of_the_same_session_is_the_same_node(ann: Sitting) -> None:
    tab = await ann.open()
    again = await ann.open(target=ann.target("laptop", "ann"))
    assert again.id == tab.id
    assert again.tab is not None
    assert [one.account for one in again.tab.targets] == ["root", "ann"]
    other = await sign_in(ann.world, ann.user, "another")
    with pytest.raises(Conflict):
        await ann.tabs.open("user:ann", ann.user, other, tab.node_key, ann.target())
    with pytest.raises(TabIsOver):
        await ann.tabs.add("user:ann", ann.user, other, tab.id, ann.target())
    assert ann.tabs.find(ann.user.id, other.id, tab.id) is None
    assert await ann.tabs.ended(ann.user.id, other.id, tab.id) is None


async def test_there_are_no_more_than_the_settings_say(ann: Sitting) -> None:
    writer = ann.registry.writer
    few = msgspec.structs.replace(writer.snapshot.settings, tabs_of_person=3, tabs_of_session=2)
    writer.snapshot = writer.snapshot.with_settings(few)
    await ann.open(1001)
    await ann.open(1002)
    with pytest.raises(TooManyTabs, match="2 tabs"):
        await ann.open(1003)
    ann.session = await sign_in(ann.world, ann.user, "another")
    await ann.open(1003)
    with pytest.raises(TooManyTabs, match="3 tabs"):
        await ann.open(1004)


async def test_without_a_relay_there_are_none(ann: Sitting) -> None:
    ann.tabs.region = 0
    with pytest.raises(Unavailable, match="no relay"):
        await ann.open()


async def test_a_session_that_is_over_makes_none_and_ends_those_it_has(ann: Sitting) -> None:
    tab = await ann.open()
    assert await ann.over(tab) is None
    await ann.registry.writer.database.run(
        signin.end_sessions, ann.world.clock.now(), session_id=ann.session.id
    )
    with pytest.raises(SessionOver):
        await ann.open(1001)
    with pytest.raises(SessionOver):
        await ann.tabs.add("user:ann", ann.user, ann.session, tab.id, ann.target())
    assert await ann.over(tab) is TabOver.SESSION
    assert ann.sees("server") == {"laptop"}


async def test_a_session_that_runs_out_ends_those_it_has(ann: Sitting) -> None:
    tab = await ann.open()
    ann.world.clock.advance((ann.session.expires - ann.world.clock.now()).total_seconds() - 1)
    assert await ann.over(tab) is None
    ann.world.clock.advance(2)
    with pytest.raises(SessionOver):
        await ann.open(1001)
    assert await ann.over(tab) is TabOver.SESSION


async def test_leaving_ends_it(ann: Sitting) -> None:
    tab = await ann.open()
    other = await sign_in(ann.world, ann.user, "another")
    await ann.tabs.leave("user:ann", ann.user.id, other.id, tab.id)
    assert tab.id in ann.registry.snapshot.nodes
    await ann.tabs.leave("user:ann", ann.user.id, ann.session.id, tab.id)
    assert await ann.over(tab) is TabOver.LEFT
    await ann.tabs.leave("user:ann", ann.user.id, ann.session.id, tab.id)
    (event,) = await ann.registry.audit(action="tab.close")
    assert (event.actor, event.details["reason"]) == ("user:ann", "its page was closed")


@pytest.mark.parametrize("suspend", [True, False])
async def test_a_person_who_is_shut_out_or_gone_has_none(ann: Sitting, suspend: bool) -> None:
    tab = await ann.open()
    if suspend:
        await ann.registry.suspend_user("test", "ann", suspended=True)
        assert ann.sees("server") == set(), "at once, whoever tidies up when"
        assert await ann.over(tab) is TabOver.SESSION
    else:
        with pytest.raises(Conflict, match="1 node: laptop"):
            await ann.registry.delete_user("test", "ann")
        await ann.registry.delete_user("test", "ann", with_nodes=True)
        assert tab.id not in ann.registry.snapshot.nodes


async def test_what_the_policy_takes_back_is_gone_at_once_and_the_rest_stays(ann: Sitting) -> None:
    tab = await ann.open()
    await ann.tabs.add("user:ann", ann.user, ann.session, tab.id, ann.target("laptop", "ann"))
    await ann.registry.set_policy("test", POLICY.replace('"src": ["ann"]', '"src": ["bob"]'))
    assert [tab.name in ann.sees(name) for name in ("server", "laptop")] == [False, True]
    assert await ann.over(tab) is None
    kept = ann.registry.snapshot.nodes[tab.id].tab
    assert kept is not None
    assert [one.node_id for one in kept.targets] == [ann.nodes["laptop"].id]
    (event,) = await ann.registry.audit(action="tab.narrow")
    assert event.details["lost"] == "server as root"
    await ann.registry.delete_node("test", ann.nodes["laptop"].id)
    assert await ann.over(tab) is TabOver.POLICY


async def test_a_cut_and_a_suspended_target_keep_it_out(ann: Sitting) -> None:
    tab = await ann.open()
    await ann.registry.access.suspend_node("test", ann.nodes["server"].id, suspended=True)
    assert ann.sees(tab.name) == set()
    assert await ann.over(tab) is TabOver.POLICY


async def test_presence_is_that_at_the_relay(ann: Sitting) -> None:
    tab = await ann.open()
    ann.tabs.region = 905
    ann.tabs.arrived(node_key(4711), ADDRESS)
    ann.tabs.arrived(tab.node_key, ADDRESS)
    seen = ann.registry.snapshot.nodes[tab.id].observed
    assert (seen.online, seen.home_derp, str(seen.came_from)) == (True, 905, ADDRESS)
    ann.registry.observations.settle([tab.id])
    ann.registry.observations._left(tab.id)
    assert ann.registry.snapshot.nodes[tab.id].observed.online, "it is there"
    ann.tabs.went(tab.node_key, False)
    ann.registry.observations._left(tab.id)
    assert not ann.registry.snapshot.nodes[tab.id].observed.online
    ann.tabs.arrived(tab.node_key, "a socket")
    assert ann.registry.snapshot.nodes[tab.id].observed.online
    assert await ann.over(tab) is None
    ann.tabs.went(tab.node_key, True)
    assert await ann.over(tab) is TabOver.LEFT
    ann.tabs.went(tab.node_key, True)
    assert await ann.over(tab) is TabOver.LEFT


async def test_it_may_be_away_for_its_grace_and_is_given_up_soon_where_it_never_came(ann: Sitting) -> None:
    writer, clock = ann.registry.writer, ann.world.clock
    tab = await ann.open()
    assert (writer.deadlines.due(clock.now() + timedelta(seconds=119), writer.snapshot.nodes)) == []
    ann.tabs.arrived(tab.node_key, ADDRESS)
    ann.tabs.went(tab.node_key, False)
    ann.registry.observations._left(tab.id)
    due = [
        one for one, _ in writer.deadlines.due(clock.now() + timedelta(seconds=899), writer.snapshot.nodes)
    ]
    assert tab.id not in due
    due = [
        one for one, _ in writer.deadlines.due(clock.now() + timedelta(seconds=900), writer.snapshot.nodes)
    ]
    assert tab.id in due
    other = await ann.open(1001)
    due = [
        one for one, _ in writer.deadlines.due(clock.now() + timedelta(seconds=120), writer.snapshot.nodes)
    ]
    assert other.id in due


async def test_what_a_tab_may_is_judged_anew_when_the_policy_or_its_targets_are_others(
    ann: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_of: list[str] = []
    allows = module.allows

    def counted(snapshot: Snapshot, user_id: int, target: TabTarget) -> bool:
        judged_of.append(target.account)
        return allows(snapshot, user_id, target)

    tab, another = await ann.open(), ann.target(account="deploy")
    monkeypatch.setattr(module, "allows", counted)
    for _ in range(3):
        await ann.tabs.tend()
    assert judged_of == ["root"], "many tabs are looked at three times a second"
    await ann.tabs.add("user:ann", ann.user, ann.session, tab.id, another)
    await ann.tabs.tend()
    assert judged_of == ["root", "root", "deploy"]
    await ann.registry.set_policy("test", POLICY.replace('["root", "deploy"]', '["deploy"]'))
    await ann.tabs.tend()
    left = ann.registry.snapshot.nodes[tab.id].tab
    assert left is not None
    assert [one.account for one in left.targets] == ["deploy"]
    assert await ann.over(tab) is None
    await ann.registry.set_policy("test", POLICY.replace('{"action": "check"', '//{"action": "check"'))
    assert await ann.over(tab) is TabOver.POLICY
    await ann.tabs.tend()
    assert not ann.tabs._good, "nothing of it is kept"


async def test_that_it_came_is_written_at_once_and_a_storm_of_them_together(
    ann: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "FLUSH_INTERVAL", 3600.0)
    writes: list[set[int]] = []
    write = observe._write

    def counted(connection: Connection, rows: dict[int, Observed], *more: Any) -> None:
        writes.append(set(rows))
        write(connection, rows, *more)

    monkeypatch.setattr(observe, "_write", counted)
    writer, clock = ann.registry.writer, ann.world.clock
    tabs = [await ann.open(1000 + number) for number in range(8)]
    ids = {tab.id for tab in tabs}
    never = await ann.open(1100)
    ann.registry.observations.connected(ann.nodes["laptop"].id)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ann.registry.observations.run())
        for tab in tabs:
            ann.tabs.arrived(tab.node_key, ADDRESS)
        await until(lambda: not writer.claims & ids)
        assert writes == [ids], "one transaction for all, and for nobody else"
        # What the next process knows of them, whenever this one is killed.
        again = await reopened(ann.world)
        assert {one.id for one in again.snapshot.nodes.values() if one.observed.online} == ids
        again.observations.started()
        again.observations._left(tabs[0].id)
        later = clock.now() + timedelta(minutes=10)
        due = {one for one, _ in again.writer.deadlines.due(later, again.snapshot.nodes)}
        assert never.id in due
        assert not due & ids
        # One that comes back from being away is there as well, for the next process too.
        ann.tabs.went(tabs[0].node_key, False)
        ann.registry.observations._left(tabs[0].id)
        await ann.registry.observations.flush()
        ann.tabs.arrived(tabs[0].node_key, ADDRESS)
        await until(lambda: tabs[0].id not in writer.claims)
        assert writes[-1] == {tabs[0].id}
        running.cancel()


async def test_a_store_that_does_not_take_that_it_came_is_told_later(
    ann: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "FLUSH_INTERVAL", 0.02)
    tab, broken, tried = await ann.open(), True, 0
    store = nodes.observe

    def refusing(*args: Any, **options: Any) -> None:
        nonlocal tried
        tried += 1
        if broken:
            raise Unavailable("the disk is full")
        store(*args, **options)

    monkeypatch.setattr(nodes, "observe", refusing)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ann.registry.observations.run())
        ann.tabs.arrived(tab.node_key, ADDRESS)
        await until(lambda: tried > 2)
        assert ann.registry.snapshot.nodes[tab.id].observed.online
        broken = False
        await until(lambda: tab.id not in ann.registry.writer.claims)
        running.cancel()
    assert (await reopened(ann.world)).snapshot.nodes[tab.id].observed.online


# Several processes --------------------------------------------------------------------------------------------------


async def test_that_tabs_cannot_be_looked_after_is_said_once_each_time(
    ann: Sitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []

    async def tend() -> None:
        looks.append(len(looks) not in range(5, 10))
        if looks[-1]:
            raise Unavailable("the store is away", cure="Wait.")

    monkeypatch.setattr(module, "LOOK", 0.001)
    monkeypatch.setattr(ann.tabs, "tend", tend)
    with structlog.testing.capture_logs() as said:
        running = asyncio.get_running_loop().create_task(ann.tabs.run())
        await until(lambda: len(looks) > 15)
        running.cancel()
    troubles = [line["reason"] for line in said if line["event"] == "tabs could not be looked after"]
    assert troubles == ["the store is away"] * 2


@pytest.fixture
def address(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


async def test_what_one_process_makes_another_has_and_ends(address: str) -> None:
    async with pair(address) as (one, two):
        user = await one.create_user("test", "ann")
        laptop = await join(one, 1)
        one.observations.connected(laptop.id)
        begun = nouns.session(user.id, one.writer.now())
        session = await one.writer.database.run(signin.insert_session, begun)
        one.tabs.region, two.tabs.region = 901, 902
        target = judged(one.snapshot, user.id, one.snapshot.nodes[laptop.id], "ann")
        tab = await one.tabs.open("user:ann", user, session, node_key(KEY), target)
        await until(lambda: tab.id in two.snapshot.tabs)
        # Its relay is the other's, so there it is at home.
        two.tabs.arrived(tab.node_key, ADDRESS)
        await until(lambda: one.snapshot.nodes[tab.id].observed.home_derp == 902)
        await until(lambda: one.snapshot.nodes[tab.id].observed.online)
        two.tabs.went(tab.node_key, True)
        await until(lambda: tab.id not in one.snapshot.nodes)
        ended = await one.tabs.ended(user.id, session.id, tab.id)
        assert ended is not None
        assert ended.over is TabOver.LEFT

        again = await one.tabs.open("user:ann", user, session, node_key(KEY + 1), target)
        await until(lambda: again.id in two.snapshot.tabs)
        await one.writer.database.run(signin.end_sessions, one.writer.now(), session_id=session.id)
        await until(lambda: again.id not in one.snapshot.nodes and again.id not in two.snapshot.nodes)
        (event, _) = await one.audit(action="tab.close")
        assert event.actor == "system"
