"""A node asks about an ssh inside Noise, and only about ssh to itself."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest
from tests.support.served_control import Link, Served, Stream, serving_control
from tests.support.world import World

from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet.settings import Decide
from doorward.tailnet.writer import Effect

SSH = """{"tagOwners": {}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "ssh": [
    {"action": "check", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]}]}"""


async def ask(link: Link, path: str) -> dict[str, Any]:
    status, body, _ = await link.ask(path, method="GET")
    assert status == 200, body
    found = msgspec.json.decode(body)
    assert isinstance(found, dict)
    return found


async def two(served: Served) -> tuple[Link, int, int]:
    """The target's connection, and the numbers of source and target."""
    await served.world.registry.set_policy("test", SSH)
    source = await (await served.link(1)).join(1)
    link = await served.link(2)
    return link, source, await link.join(2)


def action(source: int, target: int, ssh_user: str, account: str = "") -> str:
    return f"/machine/ssh/action/{source}/to/{target}?ssh_user={ssh_user}&local_user={account or ssh_user}"


async def test_an_accept_is_answered_at_once_and_a_check_once_it_is_decided(served: Served) -> None:
    link, source, target = await two(served)
    assert (await ask(link, action(source, target, "deploy")))["accept"] is True
    held = await ask(link, action(source, target, "root"))
    assert held["message"].startswith("# This ssh has to be approved within 10 minutes.")
    number = int(held["holdAndDelegate"].rpartition("=")[2])
    again = f"{action(source, target, 'root')}&check={number}"
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(ask(link, again))
        # The connection carries other requests meanwhile.
        assert (await link.ask("/machine/whoami", method="GET"))[0] == 200
        await served.world.registry.checks.decide("cli", number, approve=True)
    assert waits.result()["accept"] is True


async def test_nobody_asks_about_ssh_to_another(served: Served) -> None:
    link, source, target = await two(served)
    stranger = await served.link(3)
    await stranger.join(3, "bob")
    for path in (action(source, target, "deploy"), action(source, target, "root") + "&check=1"):
        assert (await ask(stranger, path))["reject"] is True
    assert (await ask(link, action(target, source, "deploy")))["reject"] is True
    assert await served.world.registry.audit(action="ssh.attempt") == []


@pytest.mark.parametrize(
    "path",
    [
        "1/to/4711?ssh_user=root&local_user=root",
        "x/to/{target}?ssh_user=root&local_user=root",
        "1/to/x",
        "99999999999999999999999/to/{target}?ssh_user=root",
        "{source}/to/{target}",
        "{source}/to/{target}?ssh_user=" + "x" * 300,
        "{source}/to/{target}?ssh_user=root&local_user=root&check=%00",
        "{source}/to/{target}?ssh_user=%00%1b&local_user=root&check=-1",
        "{source}",
        "",
    ],
)
async def test_what_makes_no_sense_is_refused_by_an_answer(served: Served, path: str) -> None:
    link, source, target = await two(served)
    found = await ask(link, "/machine/ssh/action/" + path.format(source=source, target=target))
    assert found.get("reject") is True or "holdAndDelegate" in found
    assert found["message"].endswith("\r\n")


async def test_under_policy_an_approval_is_told_to_the_target_and_to_nobody_else(served: Served) -> None:
    link, source, target = await two(served)
    first = await served.link(1)
    streams = [await first.stream(1), await link.stream(2)]
    for stream in streams:
        assert [rule["action"].get("accept") for rule in (await stream.next())["SSHPolicy"]["rules"]] == [
            None,
            True,
        ]
    held = await ask(link, action(source, target, "root"))
    check = await served.world.registry.checks.decide(
        "cli", int(held["holdAndDelegate"].rpartition("=")[2]), approve=True
    )
    assert check.until is not None
    while "SSHPolicy" not in (told := await streams[1].next()):
        pass  # that the other came online
    accept, *rest = told["SSHPolicy"]["rules"]
    assert accept["action"]["accept"] is True
    assert accept["ruleExpires"] == check.until.isoformat().replace("+00:00", "Z")
    assert [rule["action"].get("accept") for rule in rest] == [None, True]
    streams[1].close()
    for message in await _rest(streams[0]):
        assert "SSHPolicy" not in message


async def _rest(stream: Stream) -> list[dict[str, Any]]:
    """What still comes in a moment."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(await stream.next(0.5))
    return found


async def test_the_moment_to_fall_back_is_told_before_it_comes(world: World) -> None:
    registry = world.registry
    settings = msgspec.structs.replace(registry.snapshot.settings, ssh_decide=Decide.FALLBACK)
    registry.writer.publish(Effect(result=None, settings=settings))
    registry.checks.look_at_clock(world.clock.now())
    async with serving_control(world) as served:
        link, _, _ = await two(served)
        keys = Hostinfo(Hostname="host2", OS="linux", sshHostKeys=["ssh-ed25519 AAAA"])
        await link.report(2, Hostinfo=keys)
        stream = await link.stream(2)

        def ends(message: dict[str, Any]) -> set[str]:
            return {rule.get("ruleExpires", "") for rule in message["SSHPolicy"]["rules"]}

        before = ends(await stream.next())
        assert len(before) == 2  # the check's hold and the accept have none
        world.clock.advance(settings.ssh_fallback / 2)
        registry.checks.look_at_clock(world.clock.now())
        while "SSHPolicy" not in (told := await stream.next()):
            pass
        assert len(ends(told) - before) == 1
