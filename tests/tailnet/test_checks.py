"""Checks are written once, known everywhere, and outlive the process."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tests.support.checking import POLICY, Scene
from tests.support.means import sign_in
from tests.support.neighbours import join, pair
from tests.support.nouns import node_key
from tests.support.postgres import Cluster
from tests.support.waiting import until
from tests.support.world import World, open_world

from doorward.errors import Conflict, NotFound, TooMany
from doorward.model import CheckState, TabTarget
from doorward.tailnet.checks import LIFETIME, MOST_OF_SOURCE, actor_of, target_of
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Decide
from doorward.tailnet.sshrules import Attempt


async def furnish(world: World) -> Scene:
    await world.registry.create_user("test", "ann")
    await world.registry.create_user("test", "bob")
    await world.registry.set_policy("test", POLICY)
    return Scene(
        world,
        await world.join(1, "laptop", "ann"),
        await world.join(2, "other", "bob"),
        await world.join(3, "runner", None, "tag:ci"),
        await world.join(4, "server", None, "tag:server"),
    )


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_world(tmp_path) as world:
        yield await furnish(world)


async def test_retries_are_one_check_and_each_of_them_is_on_record(scene: Scene) -> None:
    found = await asyncio.gather(*(scene.ask(scene.attempt()) for _ in range(5)))
    assert len({check.id for check in found}) == 1
    other = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    assert scene.world.registry.checks.waiting() == [found[0], other]
    assert scene.world.registry.checks.by_link(other.link) == other
    assert scene.world.registry.checks.by_link("") is None
    events = await scene.world.registry.audit(action="ssh.attempt")
    assert [event.details["check"] for event in events] == [other.id] + [found[0].id] * 5
    assert found[0].link not in str(events)  # whoever reads the log is not whoever has the link


async def test_the_ssh_of_a_tab_that_is_closed_meanwhile_is_its_persons(scene: Scene) -> None:
    registry = scene.world.registry
    registry.tabs.region = 900
    user = registry.snapshot.user_by_name("ann")
    assert user is not None
    session = await sign_in(scene.world, user)
    target = TabTarget(node_id=scene.server.id, account="root", ssh=True)
    tab = await registry.tabs.open("user:ann", user, session, node_key(77), target)
    await registry.tabs.leave("user:ann", user.id, session.id, tab.id)
    for source in (tab.id, tab.id + 1):
        attempt = msgspec.structs.replace(scene.attempt(), source_id=source)
        await registry.checks.record(attempt, "refused", {"source": str(source)})
    nobodys, anns = await registry.audit(action="ssh.attempt", limit=2)
    assert (anns.actor, anns.details["browser"]) == ("user:ann", True)
    assert (nobodys.actor, "browser" in nobodys.details) == (f"node:{tab.id + 1}", False)


async def test_exactly_one_of_many_decides(scene: Scene) -> None:
    checks = scene.world.registry.checks
    check = await scene.ask(scene.attempt())
    answers = await asyncio.gather(
        *(checks.decide(f"token:{number}", check.id, approve=bool(number % 2)) for number in range(6)),
        return_exceptions=True,
    )
    (won,) = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert all(isinstance(answer, Conflict) for answer in answers if answer is not won)
    (event,) = await scene.world.registry.audit(action="ssh.check.")
    assert (event.actor, event.target) == (won.decided_by, f"check:{check.id}")
    assert scene.world.registry.snapshot.checks.by_id[check.id] == won


async def test_what_is_over_is_not_decided_and_is_forgotten(scene: Scene) -> None:
    checks, clock = scene.world.registry.checks, scene.world.clock
    with pytest.raises(NotFound, match="there is no check 4711"):
        await checks.decide("cli", 4711, approve=True)
    check = await scene.ask(scene.attempt())
    clock.advance(LIFETIME)
    assert checks.waiting() == []
    with pytest.raises(Conflict, match="nobody waits for check"):
        await checks.decide("cli", check.id, approve=True)
    again = await scene.ask(scene.attempt())
    assert again.id != check.id
    assert list(scene.world.registry.snapshot.checks.by_id) == [again.id]


async def test_one_source_cannot_fill_the_list(scene: Scene) -> None:
    snapshot = scene.world.registry.snapshot
    match = snapshot.policy.ssh_match(scene.laptop.id, scene.server.id, "root")
    assert match is not None
    for number in range(MOST_OF_SOURCE):
        attempt = scene.attempt(ssh_user=f"user{number}")
        await scene.world.registry.checks.ask(attempt, match, {})
    with pytest.raises(TooMany, match="20 other ssh"):
        await scene.world.registry.checks.ask(scene.attempt(), match, {})
    await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))


async def test_they_outlive_the_process(scene: Scene) -> None:
    registry = scene.world.registry
    waits = await scene.ask(scene.attempt())
    approved = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    approved = await registry.checks.decide("cli", approved.id, approve=True)
    assert (approved.state, approved.until) == (CheckState.APPROVED, None)
    again = await Registry.open(
        registry.writer.database, registry.snapshot.settings, scene.world.clock, bytes
    )
    assert dict(again.snapshot.checks.by_id) == {waits.id: waits, approved.id: approved}


async def test_names_for_the_log_are_there_for_nodes_that_are_gone(scene: Scene) -> None:
    gone = Attempt(source_id=4711, target_id=4712, ssh_user="root", account="root")
    assert actor_of(scene.world.registry.snapshot, gone) == "node:4711"
    assert target_of(scene.world.registry.snapshot, gone) == "node:4712"


async def test_the_moment_to_fall_back_stays_ahead(scene: Scene) -> None:
    registry, clock = scene.world.registry, scene.world.clock
    registry.checks.look_at_clock(clock.now())
    assert registry.snapshot.checks.until is None  # under "policy" there is none
    settings = msgspec.structs.replace(registry.snapshot.settings, ssh_decide=Decide.FALLBACK)
    falls = await Registry.open(registry.writer.database, settings, clock, bytes)
    ten = settings.ssh_fallback

    def moment() -> timedelta:
        until = falls.snapshot.checks.until
        assert until is not None
        return until - clock.now()

    assert moment() == ten
    clock.advance(ten / 2 - timedelta(seconds=1))
    falls.checks.look_at_clock(clock.now())
    assert moment() == ten / 2 + timedelta(seconds=1)
    clock.advance(1)
    falls.checks.look_at_clock(clock.now())
    assert moment() == ten
    clock.jump(-timedelta(days=1))
    falls.checks.look_at_clock(clock.now())
    assert moment() == ten


async def test_what_is_decided_at_one_process_is_known_at_the_other(postgres: Cluster) -> None:
    address = postgres.create_database()
    async with pair(address) as (one, other):
        await one.create_user("test", "ann")
        await one.set_policy(
            "test",
            '{"grants": [], "ssh": [{"action": "check", "src": ["ann"], "dst": ["autogroup:self"], "users": ["root"]}]}',
        )

        source, target = await join(one, 1), await join(one, 2)
        attempt = Attempt(source_id=source.id, target_id=target.id, ssh_user="root", account="root")
        match = one.snapshot.policy.ssh_match(source.id, target.id, "root")
        assert match is not None
        check = await one.checks.ask(attempt, match, {})
        await until(lambda: other.snapshot.checks.by_id.get(check.id) == check)
        approved = await other.checks.decide("cli", check.id, approve=True)
        await until(lambda: one.snapshot.checks.by_id.get(check.id) == approved)
        assert one.snapshot.node_by_key(node_key(1)) is not None
    postgres.drop_database(address)
