"""Tabs that are nodes, against a stock node: who sees one, what it reaches, and what ends it."""

import asyncio
import contextlib
import getpass
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.desk import Desk
from tests.support.livetab import LiveTab, shell
from tests.support.machines import machines
from tests.support.processes import gone
from tests.support.server import Server, free_port
from tests.support.waiting import eventually, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

ME = getpass.getuser()
RULE = (
    '{{"action": "{action}", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["{account}"]}}'
)
POLICY = '{{"grants": [{{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}}], "ssh": [{rules}]}}'


def policy(action: str = "accept", account: str = ME) -> str:
    return POLICY.format(rules=RULE.format(action=action, account=account))


async def _until_gone(client: StockClient, tab: LiveTab) -> None:
    async def is_gone() -> bool:
        return tab.key not in ((await client.status())["Peer"] or {})

    await eventually(is_gone, within=60)


async def _until_ended(pid: int) -> None:
    await until(lambda: gone(pid), 60)


@contextlib.asynccontextmanager
async def serving(
    text: str, *names: str, **settings: str
) -> AsyncIterator[tuple[Server, Desk, list[StockClient]]]:
    """A server, somebody who has signed in, and machines of theirs: the first has SSH on."""
    environ = {f"DOORWARD_{name.upper()}": value for name, value in settings.items()}
    async with Server(environ=environ) as server, machines(server, *names) as clients:
        await server.set_policy(text)
        await clients[0].cli("set", "--ssh")
        desk = Desk(server)
        await desk.sign_in()

        async def is_known() -> bool:
            machines = (await desk.call("GET", "/console/machines")).json()["machines"]
            return any(one["ssh"] == "tailscale" and one["online"] for one in machines)

        await eventually(is_known, within=60)
        yield server, desk, clients


async def test_a_tab_is_a_node_for_its_target_and_for_nothing_else() -> None:
    async with (
        serving(policy(), "server", "laptop") as (server, desk, (target, laptop)),
        shell(desk, "server", ME) as (tab, pid),
    ):
        assert await tab.works("over")
        peer = ((await target.status())["Peer"] or {})[tab.key]
        assert peer["TailscaleIPs"] == tab.tab["addresses"]
        who = await target.cli("whois", f"{tab.tab['addresses'][0]}:22")
        assert "alice" in who.stdout
        assert tab.key not in ((await laptop.status())["Peer"] or {})

        port = free_port()
        listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", port)
        async with listener:
            assert (await tab.do("reach", port=port, within=3))["port"] == "silent"

        # The network went, and came back; nothing of it is lost.
        await tab.do("cut")
        url = f"http://localhost:{server.listens_at[1]}"
        await tab.do("redial", url=url)
        assert await tab.works("again")

        await server.set_policy(POLICY.format(rules=""))
        await _until_ended(pid)
        await eventually(tab.is_over, within=60)
        state = await tab.state()
        assert (state["over"], state["reason"]) == (
            "policy-ended",
            f"The policy no longer lets you in to server as {ME}.",
        )
        await _until_gone(target, tab)
        await tab.tell("redial", url=url)
        assert "lets nobody" in (await tab.hear())["failed"]


async def test_leaving_and_signing_out_end_it_at_once_and_a_relay_that_was_killed_does_not() -> None:
    async with serving(policy(), "server", console_grace="20") as (server, desk, (target,)):
        async with shell(desk, "server", ME) as (tab, pid):
            os.kill(server.worker_pid(), signal.SIGKILL)
            url = f"http://localhost:{server.listens_at[1]}"

            async def is_back() -> bool:
                await tab.tell("redial", url=url)
                return "did" in await tab.hear()

            await eventually(is_back, within=40)
            assert await tab.works("survived")
            await tab.do("cut", code=4000)
            await eventually(tab.is_over, within=60)
            assert (await tab.state())["over"] == "left"
            await _until_gone(target, tab)
            await _until_ended(pid)

        async with shell(desk, "server", ME, number=2) as (tab, pid):
            other = Desk(server)
            await other.sign_in()
            assert (await other.call("GET", f"/console/tabs/{tab.tab['id']}")).status_code == 404
            refused = await other.call(
                "POST",
                f"/console/tabs/{tab.tab['id']}/targets",
                {"machine": tab.tab["targets"][0]["machine"], "account": ME},
            )
            assert (refused.status_code, refused.json()["type"]) == (404, "tab-over")
            await server.run("users", "sign-out", "alice")
            await _until_ended(pid)
            await _until_gone(target, tab)

        await desk.sign_in()
        async with shell(desk, "server", ME, number=3) as (tab, pid):
            await tab.do("cut")
            await _until_gone(target, tab)
            await _until_ended(pid)
            state: dict[str, Any] = await tab.state()
            assert (state["over"], state["reason"]) == ("lost", "It was away for too long.")


async def test_a_check_that_one_tab_has_passed_counts_for_others_of_its_session_alone() -> None:
    async with serving(policy("check"), "server") as (server, desk, _):
        async with LiveTab(desk) as tab:
            await tab.open("server", ME)
            assert tab.tab["targets"][0]["check"]
            await tab.dial()
            await tab.tell("ssh", user=ME, keys=tab.keys())
            assert "/check/" in await tab.banner("ssh checks approve")
            (check,) = await server.json("ssh", "checks", "list")
            await server.run("ssh", "checks", "approve", str(check["id"]))
            assert (await tab.hear())["did"]["pid"]
            assert await tab.works("checked")
        async with shell(desk, "server", ME, number=2) as (tab, _):
            assert await tab.works("unasked")
            assert not tab.banners
        other = Desk(server)
        await other.sign_in()
        async with LiveTab(other, 3) as tab:
            await tab.open("server", ME)
            await tab.dial()
            await tab.tell("ssh", user=ME, keys=tab.keys())
            assert "/check/" in await tab.banner("ssh checks approve")
