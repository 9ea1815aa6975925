"""How a wait for approval ends when nobody decides, when the person has gone, when many decide; and who is never asked about."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.interop.test_check import ME, REACH, Waiting, asking, attempts, policy, serving, waiting
from tests.support.clients import StockClient
from tests.support.machines import all_ready
from tests.support.openssh import OpenSSH, another_account
from tests.support.programs import OLDEST_CLIENT, require_client, require_root
from tests.support.server import Server
from tests.support.waiting import eventually

from doorward.engine.processes import stop

pytestmark = pytest.mark.interop

SHIFTED = Path(__file__).parent.parent / "support" / "shifted"


async def _left(ssh: Waiting) -> None:
    """The person presses Ctrl-C."""
    await stop(ssh.process, 2)


async def test_nobody_decides_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shift = tmp_path / "shift"
    shift.write_text("0")
    monkeypatch.setenv("PYTHONPATH", str(SHIFTED), prepend=":")
    monkeypatch.setenv("CLOCK_SHIFT_FILE", str(shift))
    async with serving(policy("check", checkPeriod="1h")) as (server, _, ssh):
        async with asking(ssh) as patient:
            code = await patient.code()
            shift.write_text(str(11 * 60))
            assert await waiting(server) == []
            # Whoever waits is judged anew at every change, as when its time is over.
            await server.set_policy(policy("check", checkPeriod="1h") + "// the same rules")
            assert await patient.ends() == (255, "")
            assert "Nobody approved this in time. Connect again to ask once more." in patient.said
        late = await server.run("ssh", "checks", "approve", "1", check=False)
        assert (late.returncode, "nobody waits for check 1 any more" in late.stderr) == (1, True)
        asked, refused = await attempts(server)
        assert [each["verdict"] for each in (asked, refused)] == ["asked", "refused"]
        assert asked["check"] == refused["check"] == 1
        async with asking(ssh) as again:
            assert await again.code() != code
            (check,) = await waiting(server)
            await server.run("ssh", "checks", "approve", str(check["id"]))
            assert await again.ends() == (0, "in\n")


async def test_who_has_gone_is_not_there_to_be_let_in_and_what_was_said_stands() -> None:
    async with serving(policy("check", checkPeriod="1h")) as (server, _, ssh):
        async with asking(ssh) as gone:
            code = await gone.code()
            await _left(gone)
        # The node does not say that the person has gone: who comes back meanwhile joins what waits.
        async with asking(ssh) as back:
            assert await back.code() == code
            (check,) = await waiting(server)
            await _left(back)
        # An approval is a fact about the decision, not about a session: it counts for its period.
        await server.run("ssh", "checks", "approve", str(check["id"]))
        assert (await ssh.run(ME, "echo in")).stdout == "in\n"
        await server.set_policy(policy("check", checkPeriod="always"))

        async def is_asked() -> bool:
            async with asking(ssh) as asks:
                with contextlib.suppress(AssertionError):  # it has got in by the policy of before
                    await asks.code()
                    return True
            return False

        await eventually(is_asked, 60)
        # With "always" it is for those that showed its code, and they have gone.
        (check,) = await waiting(server)
        await server.run("ssh", "checks", "approve", str(check["id"]))
        async with asking(ssh) as other:
            assert await other.code() != check["code"]
            (asked,) = await waiting(server)
            await server.run("ssh", "checks", "deny", str(asked["id"]))
            assert await other.ends() == (255, "")
            assert "This was denied." in other.said


async def test_of_many_who_decide_at_once_one_has_decided() -> None:
    async with serving(policy("check", checkPeriod="always")) as (server, _, ssh):
        async with asking(ssh) as waits:
            await waits.code()
            (check,) = await waiting(server)
            number = str(check["id"])
            words = ["approve", "deny"] * 3
            done = await asyncio.gather(
                *(server.run("ssh", "checks", word, number, check=False) for word in words)
            )
            winners = [word for word, each in zip(words, done, strict=True) if each.returncode == 0]
            assert len(winners) == 1
            assert sum("already, by cli" in each.stderr for each in done) == len(words) - 1
            assert await waits.ends() == ((0, "in\n") if winners == ["approve"] else (255, ""))
        decided = [
            event
            for act in ("ssh.check.approve", "ssh.check.deny")
            for event in await server.json("audit", "list", "--action", act)
        ]
        assert [event["action"] for event in decided] == [
            f"ssh.check.{'approve' if winners == ['approve'] else 'deny'}"
        ]


@contextlib.asynccontextmanager
async def _old_target(decide: str, text: str) -> AsyncIterator[tuple[Server, OpenSSH]]:
    """A laptop, and a machine whose client takes numbers for accounts."""
    async with Server(environ={"DOORWARD_SSH_DECIDE": decide}) as server:
        await server.user("alice")
        await server.set_policy(text)
        trusting = {"SSL_CERT_FILE": str(server.folder / "tls" / "authority.pem")}
        old = StockClient("server", client=require_client(OLDEST_CLIENT), environ=trusting)
        async with StockClient("laptop") as laptop, old as target:
            for client in (laptop, target):
                await client.up(server.url, await server.key("--user", "alice"))
            await all_ready([laptop, target])
            await target.cli("set", "--ssh")
            yield server, await OpenSSH.between(laptop, "server")


@pytest.mark.root
@pytest.mark.parametrize("decide", ["policy", "fallback", "always"])
async def test_no_number_is_root_where_root_is_left_out(decide: str) -> None:
    require_root()
    other = another_account()
    rule = '"src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]'
    accepts, checks = (f'{{{REACH}, "ssh": [{{"action": "{act}", {rule}}}]}}' for act in ("accept", "check"))
    async with _old_target(decide, accepts) as (server, ssh):
        assert (await ssh.run(other, "whoami")).stdout == f"{other}\n"
        for text in (accepts, checks):
            await server.set_policy(text)
            for name in ("0", "00", "+0", "toor", "root"):
                refused = await ssh.run(name, "id -u", check=False)
                assert (refused.returncode, refused.stdout) == (255, ""), name
                ours = f'tailnet policy does not permit you to SSH as user "{name}"'
                assert ("Permission denied (tailscale)" if decide == "policy" else ours) in refused.stderr
        # Nobody was even asked.
        assert await waiting(server) == []
