"""What becomes of an attempt, judged from the tailnet as it is."""

import json
from datetime import timedelta

import msgspec
import pytest
from tests.support.checking import BY_OTHERS, CHECK, NONROOT, Scene, policy

from doorward.model import Check, CheckState, Role
from doorward.ssh.check import (
    CHANGED,
    Allow,
    Ask,
    Refuse,
    Wait,
    admission,
    announced,
    judge,
    may_decide,
    question,
    refusal,
    thanks,
)
from doorward.tailnet.sshrules import Attempt


def verdict(scene: Scene, attempt: Attempt, shown: int | None = None) -> Allow | Refuse | Ask | Wait:
    writer = scene.world.registry.writer
    return judge(writer.snapshot, attempt, writer.now(), shown)


def sentence(scene: Scene, attempt: Attempt, shown: int | None = None) -> str:
    found = verdict(scene, attempt, shown)
    assert isinstance(found, Refuse)
    return found.sentence


async def test_what_a_rule_accepts_is_let_in_with_all_that_the_rule_says(scene: Scene) -> None:
    found = verdict(scene, scene.attempt(ssh_user="deploy"))
    assert isinstance(found, Allow)
    assert (found.match.account, found.match.rule.origin) == ("deploy", "ssh[1]")
    action = admission(found, None)
    assert (action.accept, action.message, action.allowLocalPortForwarding) == (True, "hello", True)
    assert action.holdAndDelegate is msgspec.UNSET


@pytest.mark.parametrize("name", ["0", "00", "+0", "0x0", "\t0", "toor", "1000", "-1", "a b", "a\n"])
async def test_nobody_becomes_root_by_another_name(scene: Scene, name: str) -> None:
    assert "does not permit you to SSH as user" in sentence(scene, scene.attempt(ssh_user=name))


async def test_who_no_rule_lets_in_reads_the_client_s_own_words(scene: Scene) -> None:
    stranger = scene.attempt(scene.other)
    assert sentence(scene, stranger) == "tailnet policy does not permit you to SSH to this node"
    unknown = msgspec.structs.replace(stranger, source_id=4711)
    assert sentence(scene, unknown) == sentence(scene, stranger)
    by_name = scene.attempt(scene.runner, ssh_user="root")
    assert sentence(scene, by_name) == 'tailnet policy does not permit you to SSH as user "root"'
    refused = refusal(Refuse(f"{'x'}\x1b[2J\u202e"))
    assert (refused.reject, refused.message) == (True, "x?[2J?\r\n")


async def test_an_account_that_is_not_the_rule_s_is_never_let_in(scene: Scene) -> None:
    assert sentence(scene, scene.attempt(ssh_user="deploy", account="root")) == CHANGED
    # The last hold of a node maps everybody to nobody: what a newer policy lets in must not become that account.
    assert sentence(scene, scene.attempt(ssh_user="deploy", account="nobody")) == CHANGED


async def test_an_ended_key_and_a_suspended_person_are_kept_out(scene: Scene) -> None:
    registry = scene.world.registry
    check = await scene.ask(scene.attempt())
    await registry.checks.decide("cli", check.id, approve=True)
    assert isinstance(verdict(scene, scene.attempt()), Allow)
    await registry.suspend_user("cli", "ann", suspended=True)
    assert "does not permit" in sentence(scene, scene.attempt(), check.id)
    await registry.suspend_user("cli", "ann", suspended=False)
    await registry.expire_node("cli", scene.laptop.id)
    assert sentence(scene, scene.attempt(), check.id).startswith("The key of laptop has ended.")


async def test_a_check_is_asked_for_then_waits_then_counts_for_its_period(scene: Scene) -> None:
    clock, registry = scene.world.clock, scene.world.registry
    assert isinstance(verdict(scene, scene.attempt()), Ask)
    check = await scene.ask(scene.attempt())
    assert isinstance(verdict(scene, scene.attempt()), Ask)  # a retry has to be shown the code, too
    assert verdict(scene, scene.attempt(), check.id) == Wait(check)
    await registry.checks.decide("cli", check.id, approve=True)
    done = verdict(scene, scene.attempt(), check.id)
    assert isinstance(done, Allow)
    assert admission(done, check.id).message == "# Approved. Nothing more will be asked for 60 min.\r\n"
    clock.advance(timedelta(minutes=59))
    again = verdict(scene, scene.attempt())
    assert isinstance(again, Allow)
    assert admission(again, None).message is msgspec.UNSET
    clock.advance(timedelta(minutes=1))
    assert isinstance(verdict(scene, scene.attempt()), Ask)


async def test_always_counts_for_those_that_wait_and_nobody_else(scene: Scene) -> None:
    attempt = scene.attempt(scene.runner, ssh_user="deploy")
    check = await scene.ask(attempt)
    assert check.approvers == ("ann", "autogroup:admin")
    assert "approved by ann or autogroup:admin within 10 minutes" in question(
        check, "https://x", check.created
    )
    approved = await scene.world.registry.checks.decide("cli", check.id, approve=True)
    assert isinstance(verdict(scene, attempt, check.id), Allow)
    assert thanks(approved) == "# Approved.\r\n"
    assert isinstance(verdict(scene, attempt), Ask)
    scene.world.clock.advance(timedelta(minutes=10))
    assert "in time" in sentence(scene, attempt, check.id)


async def test_denied_and_undecided_end_with_a_sentence(scene: Scene) -> None:
    denied = await scene.ask(scene.attempt())
    await scene.world.registry.checks.decide("cli", denied.id, approve=False)
    assert sentence(scene, scene.attempt(), denied.id) == "This was denied."
    undecided = await scene.ask(scene.attempt())
    assert undecided.id != denied.id
    scene.world.clock.advance(timedelta(minutes=10))
    assert "Nobody approved this in time" in sentence(scene, scene.attempt(), undecided.id)
    assert "Nobody approved this in time" in sentence(scene, scene.attempt(), 4711)


async def test_an_approval_is_for_what_was_approved_and_for_nothing_else(scene: Scene) -> None:
    registry = scene.world.registry
    mine = await scene.ask(scene.attempt())
    await registry.checks.decide("cli", mine.id, approve=True)
    foreign = scene.attempt(scene.runner, ssh_user="deploy")
    assert isinstance(verdict(scene, foreign), Ask)
    assert sentence(scene, foreign, mine.id) == CHANGED
    # Another rule of the same effect has not been approved; the same rule elsewhere in the file has.
    await registry.set_policy("test", policy(NONROOT, BY_OTHERS, CHECK))
    assert isinstance(verdict(scene, scene.attempt()), Allow)
    await registry.set_policy("test", policy(CHECK | {"checkPeriod": "2h"}))
    assert isinstance(verdict(scene, scene.attempt()), Ask)
    assert sentence(scene, scene.attempt(), mine.id) == CHANGED
    await registry.set_policy("test", policy(CHECK | {"action": "accept", "checkPeriod": None}))
    assert isinstance(verdict(scene, scene.attempt(), mine.id), Allow)


async def test_a_device_that_changed_hands_is_another(scene: Scene) -> None:
    registry = scene.world.registry
    check = await scene.ask(scene.attempt())
    await registry.checks.decide("cli", check.id, approve=True)
    await registry.set_policy(
        "test", policy(CHECK | {"src": ["ann", "tag:ci"], "doorward:approvers": ["ann"]})
    )
    await registry.set_tags("test", scene.laptop.id, ["tag:ci"])
    assert isinstance(verdict(scene, scene.attempt()), Ask)
    assert check.state is CheckState.WAITING


async def test_a_page_is_opened_once_and_where_its_person_is(scene: Scene) -> None:
    writer = scene.world.registry.writer

    async def new(attempt: Attempt) -> list[Check]:
        before = writer.snapshot
        await scene.ask(attempt)
        return announced(before, writer.snapshot, writer.now())

    (check,) = await new(scene.attempt())
    assert check.source_id == scene.laptop.id
    assert await new(scene.attempt()) == []  # a retry
    assert await new(scene.attempt(scene.runner, ssh_user="deploy")) == []  # others approve it
    before = writer.snapshot
    await scene.world.registry.checks.decide("cli", check.id, approve=True)
    assert announced(before, writer.snapshot, writer.now()) == []
    # Nor one that another process tells of too late, or for a device that has changed hands meanwhile.
    nothing = before.with_checks(type(before.checks)())
    assert announced(nothing, before, writer.now()) == [check]
    assert announced(nothing, before, check.expires) == []
    for changes in ({"tags": ("tag:ci",)}, {"user_id": scene.other.user_id}):
        after, _ = before.with_nodes([msgspec.structs.replace(scene.laptop, **changes)])
        assert announced(nothing, after, writer.now()) == []
    gone, _ = before.with_nodes([], [scene.laptop.id])
    assert announced(nothing, gone, writer.now()) == []


@pytest.mark.parametrize(("approver", "opens"), [("bob", False), ("ann", True)])
async def test_where_others_approve_no_page_is_opened(scene: Scene, approver: str, *, opens: bool) -> None:
    await scene.world.registry.set_policy("test", policy(CHECK | {"doorward:approvers": [approver]}))
    before = scene.world.registry.snapshot
    await scene.ask(scene.attempt())
    writer = scene.world.registry.writer
    assert bool(announced(before, writer.snapshot, writer.now())) is opens


WHO = ("ann", "bob", "eve", "oscar")


async def deciders(scene: Scene, check: Check) -> list[str]:
    snapshot = scene.world.registry.snapshot
    people = [user for name in WHO if (user := snapshot.user_by_name(name)) is not None]
    return [user.name for user in people if may_decide(snapshot, check, user)]


@pytest.mark.parametrize(
    ("approvers", "from_runner", "able"),
    [
        ([], False, ["ann"]),  # their own
        (["bob"], False, ["bob"]),  # not the person at the source, unless named
        (["bob", "ann"], False, ["ann", "bob"]),
        (["group:ops"], False, ["bob"]),  # eve is suspended
        (["autogroup:admin"], True, ["oscar"]),
        (["ann", "group:ops"], True, ["ann", "bob"]),
    ],
)
async def test_who_may_decide(scene: Scene, approvers: list[str], from_runner: bool, able: list[str]) -> None:
    registry = scene.world.registry
    for name, role in (("bob", Role.MEMBER), ("eve", Role.MEMBER), ("oscar", Role.ADMIN)):
        if registry.snapshot.user_by_name(name) is None:
            await registry.create_user("cli", name, role=role)
    await registry.suspend_user("cli", "eve", suspended=True)
    more = {"doorward:approvers": approvers} if approvers else {}
    rule = (BY_OTHERS | more) if from_runner else (CHECK | more)
    text = json.loads(policy(rule)) | {"groups": {"group:ops": ["bob", "eve"]}}
    await registry.set_policy("cli", json.dumps(text))
    attempt = scene.attempt(scene.runner, ssh_user="deploy") if from_runner else scene.attempt()
    check = await scene.ask(attempt)
    assert await deciders(scene, check) == able
    # By the policy as it is now: the group has changed meanwhile, and so has the rule.
    text["groups"] = {"group:ops": ["oscar"]}
    await registry.set_policy("cli", json.dumps(text))
    now = await deciders(scene, check)
    assert ("bob" in now) == ("bob" in able and "bob" in approvers)
    await registry.set_policy("cli", policy(rule | {"checkPeriod": "2h"}).replace("group:ops", "ann"))
    assert await deciders(scene, check) == []


async def test_nobody_decides_for_a_source_that_is_another_persons_by_now(scene: Scene) -> None:
    check = await scene.ask(scene.attempt())
    assert await deciders(scene, check) == ["ann"]
    await scene.world.registry.set_tags("cli", scene.laptop.id, ["tag:ci"])
    assert await deciders(scene, check) == []
