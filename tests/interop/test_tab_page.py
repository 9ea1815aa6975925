"""The node of a page, as browsers run it, with a real server and a stock node: from a click to each way in which it ends."""

import contextlib
import getpass
import os
import signal
from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.support.clients import StockClient
from tests.support.desk import Desk
from tests.support.livepage import LivePage
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

ME = getpass.getuser()
GRANTS = '"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]'


def _policy(action: str = "", *accounts: str) -> str:
    users = ", ".join(f'"{account}"' for account in accounts)
    rule = f'{{"action": "{action}", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": [{users}]}}'
    return f'{{{GRANTS}, "ssh": [{rule if action else ""}]}}'


@contextlib.asynccontextmanager
async def _at_a_desk(policy: str) -> AsyncIterator[tuple[Server, LivePage, StockClient, int]]:
    """A server, a page of somebody who has signed in, and a machine of theirs with SSH on."""
    async with Server() as server, machines(server, "server") as (target,):
        await server.set_policy(policy)
        await target.cli("set", "--ssh")
        desk = Desk(server)
        await desk.sign_in()
        found: list[int] = []

        async def is_known() -> bool:
            listed = (await desk.call("GET", "/console/machines")).json()["machines"]
            found[:] = [one["id"] for one in listed if one["ssh"] == "tailscale" and one["online"]]
            return bool(found)

        await eventually(is_known, within=60)
        async with LivePage(desk) as page:
            yield server, page, target, found[0]


async def _answers(page: LivePage, number: int, text: str) -> None:
    """The shell is there, and does what is typed; login(1) throws away what is typed before it has begun."""
    await page.until(lambda: page.printed(number))
    page.tell("type", id=number, text=f"echo {text[:2]}''{text[2:]}\n")
    await page.until(lambda: text in page.printed(number))


async def _sign_out(desk: Desk) -> None:
    async with httpx2.AsyncClient(trust_env=False, cookies={desk.cookie: desk.secret}) as client:
        answer = await client.post(f"{desk.origin}/signout", data={"": ""}, headers={"Origin": desk.origin})
        assert answer.status_code == 303, answer.text


async def test_a_shell_outlives_its_relay_and_ends_with_the_policy() -> None:
    async with _at_a_desk(_policy("accept", ME)) as (server, page, target, machine):
        first = page.open(machine, ME)
        await page.until(lambda: page.said("open", first))
        done = [one["name"] for one in page.said("step", first) if one["state"] == "done"]
        assert done == ["node", "relay", "tunnel", "tcp", "hostkey", "signin", "shell"]
        assert not page.said("hostKey")  # the machine has published its keys
        second = page.open("server", ME)
        await page.until(lambda: page.said("open", second))
        for number in (first, second):
            await _answers(page, number, f"at-first-{number}")
        node = page.said("node")[-1]
        assert node["relay"] == "up"
        peers = ((await target.status())["Peer"] or {}).values()
        assert [one["TailscaleIPs"] for one in peers if one["HostName"] != "doorward"] == [node["addresses"]]

        os.kill(server.worker_pid(), signal.SIGKILL)
        await page.until(lambda: page.said("link", first))
        await page.until(lambda: page.said("link", first)[-1]["state"] == "up")
        page.tell("cut")
        for number in (first, second):
            await _answers(page, number, f"and-later-{number}")
        assert not page.said("end")

        nobody = page.open(machine, "nobody-there")
        refused = (await page.ended(nobody))["failure"]
        assert refused["kind"] == "not-allowed"
        assert "nobody-there" in refused["message"]
        assert refused["cure"]

        await server.set_policy(_policy())
        for number in (first, second):
            failure = (await page.ended(number))["failure"]
            assert failure["kind"] == "policy-ended"
        gone = page.open(machine, ME)
        assert (await page.ended(gone))["failure"]["kind"] == "not-allowed"


async def test_a_check_is_seen_answered_and_followed_by_the_shell() -> None:
    async with _at_a_desk(_policy("check", ME)) as (server, page, target, machine):
        number = page.open(machine, ME)
        [check] = await page.until(lambda: page.said("check", number))
        [waiting] = await server.json("ssh", "checks", "list")
        assert "/check/" in check["url"]
        assert check["code"]
        assert check["code"] in check["text"]
        assert not page.said("open", number)
        await server.run("ssh", "checks", "approve", str(waiting["id"]))
        await page.until(lambda: page.said("open", number))
        await _answers(page, number, "after-the-check")
        states = [(one["name"], one["state"]) for one in page.said("step", number)]
        assert ("check", "doing") in states
        assert ("check", "done") in states

        page.tell("leave")
        await page.ended(number)

        async def is_gone() -> bool:
            peers = ((await target.status())["Peer"] or {}).values()
            return not [one for one in peers if one["HostName"] != "doorward"]

        await eventually(is_gone, within=60)


async def test_who_signs_out_loses_every_shell_at_once() -> None:
    async with _at_a_desk(_policy("accept", ME)) as (_, page, _target, machine):
        number = page.open(machine, ME)
        await page.until(lambda: page.said("open", number))
        await _sign_out(page.desk)
        failure = (await page.ended(number))["failure"]
        assert failure["kind"] == "session-over"
        assert failure["message"] == "You are not signed in here any more."
        again = page.open(machine, ME)
        assert (await page.ended(again))["failure"]["kind"] == "session-over"
