"""Waiting for a decision, and the record of every attempt."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support.checking import NONROOT, Scene, policy
from tests.support.locking import locked
from tests.support.neighbours import join, pair
from tests.support.postgres import Cluster
from tests.support.waiting import until

from doorward.clock import SystemClock
from doorward.protocol.tailcfg.ssh import SSHAction
from doorward.ssh import Attempts
from doorward.ssh.attempts import MOST_WAITING
from doorward.store import engines
from doorward.tailnet.settings import Decide
from doorward.tailnet.sshrules import Attempt
from doorward.tailnet.writer import Effect

QUICK = 0.05  # seconds that deciding may take


def service(scene: Scene, poll: float = 5.0) -> Attempts:
    return Attempts(scene.world.registry, scene.world.clock, "https://door.test/", poll=poll)


async def events(scene: Scene) -> list[dict[str, Any]]:
    """The attempts on record, oldest first."""
    found = await scene.world.registry.audit(action="ssh.attempt", after=0, limit=1000)
    return [{"actor": event.actor, "at": event.target, **event.details} for event in found]


async def asked(attempts: Attempts, attempt: Attempt) -> tuple[int, str]:
    """The number of the check that the node is sent round with, and what the terminal shows."""
    action = await attempts.answer(attempt, None)
    assert isinstance(action.holdAndDelegate, str)
    assert isinstance(action.message, str)
    return int(action.holdAndDelegate.rpartition("&check=")[2]), action.message


async def test_who_from_where_to_what_as_whom_and_by_which_rule_is_on_record(scene: Scene) -> None:
    attempts = service(scene)
    assert (await attempts.answer(scene.attempt(ssh_user="deploy"), None)).accept
    assert (await attempts.answer(scene.attempt(scene.other), None)).reject
    number, _ = await asked(attempts, scene.attempt())
    assert (await attempts.answer(scene.attempt(scene.runner), None)).reject
    allowed, refused, waits, tagged = await events(scene)
    server = f"node:{scene.server.stable_id}"
    common = {"at": server, "target": "server", "source": "laptop", "address": str(scene.laptop.ipv4)}
    assert allowed == common | {
        "actor": "user:ann",
        "verdict": "allowed",
        "ssh_user": "deploy",
        "account": "deploy",
        "rule": "ssh[1]",
    }
    assert (refused["actor"], refused["verdict"], refused["rule"], refused["account"]) == (
        "user:bob",
        "refused",
        "",
        "",
    )
    assert refused["why"].startswith("tailnet policy does not permit")
    assert waits == common | {
        "actor": "user:ann",
        "verdict": "asked",
        "ssh_user": "root",
        "account": "root",
        "rule": "ssh[0]",
        "check": number,
    }
    assert (tagged["actor"], tagged["ssh_user"]) == (f"node:{scene.runner.stable_id}", "root")


async def test_those_that_wait_for_the_same_go_on_together(scene: Scene) -> None:
    attempts = service(scene)
    first, second = await asyncio.gather(*(asked(attempts, scene.attempt()) for _ in range(2)))
    assert first == second
    number, text = first
    (check,) = scene.world.registry.checks.waiting()
    assert f"https://door.test/check/{check.link}\r\n" in text
    assert check.code in text
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(attempts.answer(scene.attempt(), number)) for _ in range(3)]
        await until(lambda: len(attempts._waiting) == 3)
        await scene.world.registry.checks.decide("cli", number, approve=True)
    assert [task.result().accept for task in waits] == [True] * 3
    assert [event["verdict"] for event in await events(scene)] == ["asked"] * 2 + ["allowed"] * 3
    assert not attempts._waiting
    assert not attempts._at_target


async def test_the_page_opens_at_the_source_once_for_all_that_wait_for_the_same(scene: Scene) -> None:
    attempts = service(scene)
    changes = scene.world.registry.writer.changes
    streams = [changes.subscribe(node.id) for node in (scene.laptop, scene.other, scene.server)]
    await asyncio.gather(*(asked(attempts, scene.attempt()) for _ in range(3)))
    (check,) = scene.world.registry.checks.waiting()
    (message,), *others = [stream.take_messages() for stream in streams]
    assert msgspec.json.decode(message) == {
        "KeepAlive": True,
        "PopBrowserURL": f"https://door.test/check/{check.link}",
    }
    assert others == [[], []]
    await scene.world.registry.checks.decide("cli", check.id, approve=False)
    await asked(attempts, scene.attempt())
    (again,) = streams[0].take_messages()
    assert again != message


async def test_a_change_of_the_policy_is_answered_at_once(scene: Scene) -> None:
    attempts = service(scene)
    number, _ = await asked(attempts, scene.attempt())
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(attempts.answer(scene.attempt(), number))
        await until(lambda: bool(attempts._waiting))
        await scene.world.registry.set_policy("test", policy(NONROOT))
    assert waits.result().reject
    # What others do wakes nobody.
    await scene.world.registry.set_policy("test", policy())


async def test_a_node_is_sent_round_again_without_a_word_and_refused_when_time_is_over(scene: Scene) -> None:
    attempts = service(scene, poll=0.02)
    number, _ = await asked(attempts, scene.attempt())
    again = await attempts.answer(scene.attempt(), number)
    assert again.message is msgspec.UNSET
    assert str(again.holdAndDelegate).endswith(f"&check={number}")
    scene.world.clock.advance(timedelta(minutes=10))
    over = await attempts.answer(scene.attempt(), number)
    assert (over.reject, "in time" in str(over.message)) == (True, True)
    assert (await events(scene))[-1]["check"] == number


async def test_those_who_went_away_leave_nothing_behind(scene: Scene) -> None:
    attempts = service(scene)
    number, _ = await asked(attempts, scene.attempt())
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(attempts.answer(scene.attempt(), number))
        await until(lambda: bool(attempts._waiting))
        gone.cancel()
    assert not attempts._waiting
    assert not attempts._at_target


async def test_what_one_node_may_ask_has_bounds(scene: Scene) -> None:
    attempts = service(scene)
    number, _ = await asked(attempts, scene.attempt())
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(attempts.answer(scene.attempt(), number)) for _ in range(MOST_WAITING)]
        await until(lambda: len(attempts._waiting) == MOST_WAITING)
        crowded = await attempts.answer(scene.attempt(), number)
        for task in waits:
            task.cancel()
    assert "Too many ssh" in str(crowded.message)
    refused: list[SSHAction] = []
    while not refused:
        answer = await attempts.answer(scene.attempt(scene.other), None)
        if "at once" in str(answer.message):
            refused.append(answer)
    assert refused[0].reject
    assert len(await events(scene)) < 300


async def test_deciding_takes_a_fraction_of_what_a_person_notices(scene: Scene) -> None:
    attempts = service(scene)
    began = time.process_time()
    for _ in range(50):
        assert (await attempts.answer(scene.attempt(ssh_user="deploy"), None)).accept
    assert (time.process_time() - began) / 50 < QUICK


async def test_an_approval_at_one_process_reaches_who_waits_at_another(postgres: Cluster) -> None:
    address = postgres.create_database()
    rule = '{"action": "check", "src": ["ann"], "dst": ["autogroup:self"], "users": ["root"]}'
    async with pair(address) as (one, other):
        await one.create_user("test", "ann")
        await one.set_policy(
            "test", f'{{"grants": [{{"src": ["*"], "dst": ["*"], "ip": ["*"]}}], "ssh": [{rule}]}}'
        )
        source, target = await join(one, 1), await join(one, 2)
        await until(lambda: target.id in other.snapshot.nodes)
        first, second = (Attempts(each, SystemClock(), "https://door.test") for each in (one, other))
        attempt = Attempt(source_id=source.id, target_id=target.id, ssh_user="root", account="root")
        # The source's stream is at the other, which opens the page there; once, though both hear of the check.
        stream = other.writer.changes.subscribe(source.id)
        number, text = await asked(first, attempt)
        await until(lambda: not stream.is_empty())
        (message,) = stream.take_messages()
        assert msgspec.json.decode(message)["PopBrowserURL"] in text
        # The node may have moved: its next request goes to the other, which may not have heard of the check yet.
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(each.answer(attempt, number)) for each in (first, second)]
            await until(lambda: bool(first._waiting and second._waiting))
            await other.checks.decide("cli", number, approve=True)
        assert [task.result().accept for task in waits] == [True, True]
        assert stream.take_messages() == []
    postgres.drop_database(address)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be asked for before the database is opened."""
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.02)  # for which a lock is waited for


@pytest.mark.usefixtures("impatient")
async def test_without_a_store_only_that_is_let_in_which_nodes_would_let_in_without_us(scene: Scene) -> None:
    attempts, deploy = service(scene), scene.attempt(ssh_user="deploy")
    number, _ = await asked(attempts, scene.attempt())
    await scene.world.registry.checks.decide("cli", number, approve=True)
    writer = scene.world.registry.writer

    def decided(decide: Decide) -> None:
        settings = msgspec.structs.replace(writer.snapshot.settings, ssh_decide=decide)
        writer.publish(Effect(result=None, settings=settings))

    before = await events(scene)
    decided(Decide.FALLBACK)

    def refused(action: SSHAction) -> bool:
        return bool(action.reject) and "cannot write anything down" in str(action.message)

    with locked(scene.world.folder):
        for _ in range(2):  # as it is noticed, and when it is known
            assert (await attempts.answer(deploy, None)).accept
        assert refused(await attempts.answer(scene.attempt(), number))  # an approved check
        assert refused(await attempts.answer(scene.attempt(scene.laptop, "root"), None))
        stranger = await attempts.answer(scene.attempt(scene.other), None)
        assert "does not permit" in str(stranger.message)
        decided(Decide.ALWAYS)
        assert refused(await attempts.answer(deploy, None))
    assert await events(scene) == before
    assert (await attempts.answer(scene.attempt(), None)).accept
    assert len(await events(scene)) == len(before) + 1
    # That the record has a gap is on record, too.
    registry = scene.world.registry
    await registry.checks.unseen.keep()
    await registry.writer.database.probe()
    await registry.checks.unseen.keep()
    (gap,) = await registry.audit(action="ssh.unseen")
    assert (gap.details["reason"], gap.details["attempts"]) == ("the database took no writes", 6)
