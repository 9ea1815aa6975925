"""Check mode with a stock client and OpenSSH: the plain ssh waits, somebody decides, and it goes on or ends."""

import asyncio
import contextlib
import getpass
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.machines import machines
from tests.support.openssh import OpenSSH
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

REACH = '"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]'
ME = getpass.getuser()
END = 15  # seconds in which a decision has arrived


def policy(action: str, **more: str) -> str:
    """People ssh to their own devices by one rule."""
    rule = {
        "action": action,
        "src": ["autogroup:member"],
        "dst": ["autogroup:self"],
        "users": ["autogroup:nonroot", "root"],
        **more,
    }
    return f'{{{REACH}, "ssh": [{json.dumps(rule)}]}}'


NOBODY = f'{{{REACH}, "ssh": []}}'


@contextlib.asynccontextmanager
async def serving(policy_text: str, **settings: str) -> AsyncIterator[tuple[Server, StockClient, OpenSSH]]:
    """A server with these settings of ``ssh``, a laptop, and a machine with SSH on."""
    environ = {f"DOORWARD_SSH_{name.upper()}": value for name, value in settings.items()}
    async with Server(environ=environ) as server, machines(server, "laptop", "server") as (laptop, other):
        await server.set_policy(policy_text)
        await other.cli("set", "--ssh")
        yield server, laptop, await OpenSSH.between(laptop, "server")


class Waiting:
    """An ssh that says on stderr what it waits for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def hears(self, pattern: str, seconds: float = END) -> re.Match[str]:
        assert self.process.stderr is not None
        async with asyncio.timeout(seconds):
            while (found := re.search(pattern, self.said)) is None:
                line = await self.process.stderr.readline()
                assert line, f"ssh ended: {self.said}"
                self.said += line.decode()
        return found

    async def code(self) -> str:
        """The code that the terminal shows."""
        return (await self.hears(r"Its code is ([A-Z0-9-]{7})"))[1]

    async def ends(self, seconds: float = END) -> tuple[int, str]:
        """Its exit code and its output; what else it said is in ``said``."""
        async with asyncio.timeout(seconds):
            out, err = await self.process.communicate()
        self.said += err.decode()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


@contextlib.asynccontextmanager
async def asking(ssh: OpenSSH, command: str = "echo in") -> AsyncIterator[Waiting]:
    async with ssh.session(f"{ME}@server", command) as process:
        yield Waiting(process)


async def waiting(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await server.json("ssh", "checks", "list")
    return found


async def attempts(server: Server) -> list[dict[str, Any]]:
    """The attempts on record, oldest first."""
    found = await server.json("audit", "list", "--action", "ssh.attempt")
    return [{"actor": event["actor"], **event["details"]} for event in found]


async def test_a_plain_ssh_waits_until_somebody_approves_and_then_not_again_within_the_period() -> None:
    async with serving(policy("check", checkPeriod="1h")) as (server, _, ssh):
        async with asking(ssh) as one, asking(ssh) as other:
            code = await one.code()
            assert await other.code() == code  # two retries are one prompt
            (check,) = await waiting(server)
            assert check | {"user": "alice", "source": "laptop", "target": "server", "code": code} == check
            assert (check["account"], check["state"]) == (ME, "waiting")
            datetime.fromisoformat(check["since"])
            link = (await one.hears(r"https://\S+(/check/\S+)"))[1]
            shown = (await fetch(server.url + link)).text
            assert code in shown
            assert f"doorward ssh checks approve {check['id']}" in shown
            done = await server.run("ssh", "checks", "approve", str(check["id"]))
            assert done.stdout.startswith(f"Approved: alice from laptop to {ME}@server.")
            assert [await one.ends(), await other.ends()] == [(0, "in\n")] * 2
            assert "Nothing more will be asked for 60 min" in one.said
        again = await ssh.run(ME, "echo again")
        assert (again.stdout, again.stderr) == ("again\n", "")
        assert await waiting(server) == []
        asked, _, *let_in = await attempts(server)
        assert (
            asked | {"actor": "user:alice", "verdict": "asked", "source": "laptop", "ssh_user": ME} == asked
        )
        assert [each["verdict"] for each in let_in] == ["allowed"] * 3
        assert {(each["target"], each["account"], each["rule"]) for each in let_in} == {
            ("server", ME, "ssh[0]")
        }


async def test_a_denied_ssh_ends_and_always_asks_each_time() -> None:
    async with serving(policy("check", checkPeriod="always")) as (server, _, ssh):
        async with asking(ssh) as first:
            await first.code()
            (check,) = await waiting(server)
            await server.run("ssh", "checks", "deny", str(check["id"]))
            code, out = await first.ends()
            assert (code, out) == (255, "")
            assert "This was denied." in first.said
        for _ in range(2):
            async with asking(ssh) as again:
                await again.code()
                (check,) = await waiting(server)
                await server.run("ssh", "checks", "approve", str(check["id"]))
                assert await again.ends() == (0, "in\n")
        late = await server.run("ssh", "checks", "approve", str(check["id"]), check=False)
        assert (late.returncode, "approved already, by cli" in late.stderr) == (1, True)


async def test_a_restart_in_the_midst_of_a_wait_changes_nothing_for_who_waits() -> None:
    async with serving(policy("check")) as (server, _, ssh), asking(ssh) as patient:
        code = await patient.code()
        await server.stop()
        await server.start()
        (check,) = await waiting(server)
        assert check["code"] == code
        await server.run("ssh", "checks", "approve", str(check["id"]))
        assert await patient.ends(90) == (0, "in\n")


async def test_a_policy_that_changes_meanwhile_decides() -> None:
    async with serving(policy("check")) as (server, _, ssh):
        async with asking(ssh) as refused:
            await refused.code()
            (check,) = await waiting(server)
            await server.set_policy(NOBODY)
            assert await refused.ends() == (255, "")
            assert "tailnet policy does not permit you to SSH to this node" in refused.said
            # An approval that comes too late lets nobody in.
            await server.run("ssh", "checks", "approve", str(check["id"]))
            late = await ssh.run(ME, "true", check=False)
            assert late.returncode == 255
        await server.set_policy(policy("check", checkPeriod="3h"))
        async with asking(ssh) as welcome:
            await welcome.code()
            await server.set_policy(policy("accept"))
            assert await welcome.ends() == (0, "in\n")


@pytest.mark.parametrize("decide", ["always", "fallback"])
async def test_a_revoked_session_ends_although_holds_are_in_place(decide: str) -> None:
    async with (
        serving(policy("accept"), decide=decide) as (server, _, ssh),
        ssh.session(f"{ME}@server", "cat") as session,
    ):
        assert session.stdin is not None
        assert session.stdout is not None
        assert session.stderr is not None
        session.stdin.write(b"still here\n")
        async with asyncio.timeout(END):
            assert await session.stdout.readline() == b"still here\n"
        await server.set_policy(NOBODY)
        async with asyncio.timeout(END):
            assert b"Access revoked." in await session.stderr.read()
            assert await session.wait() != 0
        refused = await ssh.run(ME, "true", check=False)
        assert "tailnet policy does not permit you to SSH to this node" in refused.stderr
        let_in, kept_out = await attempts(server)
        assert (let_in["verdict"], let_in["rule"]) == ("allowed", "ssh[0]")
        assert (kept_out["verdict"], kept_out["rule"]) == ("refused", "")


async def test_with_always_nobody_gets_in_without_control() -> None:
    async with serving(policy("accept"), decide="always") as (server, _, ssh):
        assert (await ssh.run(ME, "echo in")).stdout == "in\n"
        await server.stop()
        async with asking(ssh) as waits:
            with pytest.raises(TimeoutError):
                await waits.ends(12)
            # It is not lost either: control is back, and decides.
            await server.start()
            assert await waits.ends(90) == (0, "in\n")


async def test_with_fallback_nodes_decide_by_the_policy_once_control_is_away_for_long_enough() -> None:
    async with serving(policy("accept"), decide="fallback", fallback="20") as (server, _, ssh):
        # The moment is moved on while control is there.
        await asyncio.sleep(23)
        assert (await ssh.run(ME, "echo in")).stdout == "in\n"
        assert [each["verdict"] for each in await attempts(server)] == ["allowed"]
        await server.stop()

        async def gets_in() -> bool:
            async with asking(ssh) as tries:
                with contextlib.suppress(TimeoutError):
                    return await tries.ends(10) == (0, "in\n")
            return False

        await eventually(gets_in, 90)


async def test_with_policy_nodes_decide_and_an_approval_takes_control_out_of_the_loop() -> None:
    async with serving(policy("accept"), decide="policy") as (server, _, ssh):
        assert (await ssh.run(ME, "echo in")).stdout == "in\n"
        assert await attempts(server) == []
        await server.set_policy(policy("check", checkPeriod="1h"))

        async def asks() -> bool:
            async with asking(ssh) as asked:
                with contextlib.suppress(AssertionError):  # it has got in by the policy of before
                    await asked.code()
                    return True
            return False

        await eventually(asks, 60)
        (check,) = await waiting(server)
        await server.run("ssh", "checks", "approve", str(check["id"]))

        async def is_decided_by_the_node() -> bool:
            before = len(await attempts(server))
            await ssh.run(ME, "true")
            return len(await attempts(server)) == before

        await eventually(is_decided_by_the_node, 90)  # the accept travels to it
        await server.stop()
        assert (await ssh.run(ME, "echo without control")).stdout == "without control\n"
