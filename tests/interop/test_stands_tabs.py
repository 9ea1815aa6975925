"""Tabs, where the server that they are at is killed, its disk is full or its database busy, and where many are asked for at once."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.desk import Desk, ssh_to
from tests.support.locking import locked
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.simulated import node as node_key
from tests.support.small_disk import needs_root, small_disk
from tests.support.waiting import eventually, until

from doorward.engine.derp import DERPClient
from doorward.protocol.keys import NodePrivate

# Minutes only on a machine that does much else at the same time.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

SESSION = 20  # tabs that one browser may have (console.tabs_of_session)
CLOSED = '{"grants": []}'
LAZY = Path(__file__).parent.parent / "support" / "lazy"


@contextlib.asynccontextmanager
async def sitting(server: Server) -> AsyncIterator[tuple[Desk, int]]:
    """Alice at a desk of this server, which runs, and a machine of hers that she may enter from a browser, by its number."""
    async with (
        administrator(server) as api,
        simulated(server.url, "server") as machine,
        asyncio.TaskGroup() as group,
    ):
        (await api.post("/users", json={"name": "alice"})).raise_for_status()
        key = (await api.post("/keys", json={"user": "alice"})).json()["secret"]
        await machine.join(auth_key=key)
        following = group.create_task(machine.follow())
        await machine.until(lambda netmap: netmap.node)
        (await api.put("/policy", json={"text": ssh_to("root")})).raise_for_status()
        desk = Desk(server)
        await desk.sign_in()
        await desk.knows("server", online=True, any_account=True)
        yield desk, (await desk.machine("server"))["id"]
        following.cancel()


def wanted(machine: int, key: NodePrivate) -> dict[str, Any]:
    """What the page of a tab asks for."""
    return {"node_key": str(key.public()), "machine": machine, "account": "root"}


async def ask(desk: Desk, machine: int, key: NodePrivate) -> httpx2.Response:
    """Ask for a tab."""
    return await desk.call("POST", "/console/tabs", wanted(machine, key))


def browser(desk: Desk) -> httpx2.AsyncClient:
    """A browser that asks for much at once."""
    return httpx2.AsyncClient(
        base_url=f"{desk.origin}/api/v1",
        trust_env=False,
        timeout=60,
        cookies={desk.cookie: desk.secret},
        headers={"Origin": desk.origin, "Sec-Fetch-Site": "same-origin"},
    )


async def test_a_server_that_is_killed_as_a_tab_comes_is_followed_by_one_that_knows_it_came() -> None:
    path = os.pathsep.join(filter(None, (str(LAZY), os.environ.get("PYTHONPATH"))))
    async with Server(environ={"PYTHONPATH": path}) as server, sitting(server) as (desk, machine):
        keys = [node_key(), node_key()]
        came, never = [(await ask(desk, machine, key)).json()["id"] for key in keys]
        relayed = await DERPClient.connect(*server.listens_at, keys[0], entropy=os.urandom)

        def online(tab: int) -> Any:
            with contextlib.closing(sqlite3.connect(server.folder / "doorward.db")) as database:
                rows = database.execute("SELECT online FROM node_observations WHERE node_id = ?", (tab,))
                return rows.fetchone()[0]

        # All else that this server sees is written in an hour.
        await until(lambda: online(came))
        assert not online(never)
        killed = server.worker_pid()
        os.kill(killed, signal.SIGKILL)
        relayed.close()

        # It is missed from now on, as one that was there: what that means for its end is tested where ends are.
        async def is_away() -> bool:
            if server.worker_pid() == killed:
                return False
            async with administrator(server) as api:
                known = {node["id"]: node for node in (await api.get("/nodes")).json()}
            return not known[came]["online"] and known[came]["last_seen"] is not None

        await eventually(is_away, 100)


async def tabs_of(server: Server) -> set[str]:
    """The names of the tabs that are nodes."""
    async with administrator(server) as api:
        return {node["name"] for node in (await api.get("/nodes")).json() if node["tab"]}


async def is_refused_and_forgotten(server: Server, desk: Desk, machine: int, words: str) -> NodePrivate:
    """The page is told why, and what helps, and there is no more of the tab than its key, which this returns."""
    before, key = await tabs_of(server), node_key()
    refused = await ask(desk, machine, key)
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (503, "unavailable")
    assert words in problem["title"]
    assert problem["cure"]
    assert await tabs_of(server) == before
    return key


async def takes_changes(api: httpx2.AsyncClient, *, yes: bool = True) -> None:
    """Wait until the store does, or does not: asked by what has no limit of its own, as tabs have."""

    async def answered() -> bool:
        answer = await api.post("/keys", json={"user": "alice"})
        return answer.status_code == (201 if yes else 503)

    await eventually(answered, 60)


async def test_a_locked_database_a_policy_that_changes_and_two_hundred_at_once() -> None:
    async with Server() as server, sitting(server) as (desk, machine), administrator(server) as api:
        with locked(server.folder):
            key = await is_refused_and_forgotten(server, desk, machine, "locked")
        await takes_changes(api)
        assert (await ask(desk, machine, key)).status_code == 201
        assert len(await tabs_of(server)) == 1
        await _while_the_policy_changes(server, desk, machine, api)
        # What nobody may any more is gone, whichever policy it was let in by.
        await eventually(lambda: _has_none(server), 60)
        (await api.put("/policy", json={"text": ssh_to("root")})).raise_for_status()
        await _two_hundred_at_once(server, desk, machine)
        verdict = await server.run("audit", "verify")
        assert "The audit log is whole." in verdict.stdout


async def _has_none(server: Server) -> bool:
    return not await tabs_of(server)


async def _while_the_policy_changes(
    server: Server, desk: Desk, machine: int, api: httpx2.AsyncClient
) -> None:
    """Every answer is one of the two that are true, and the last policy is the last word."""

    async def change() -> None:
        for text in [ssh_to("root"), CLOSED] * 5:
            (await api.put("/policy", json={"text": text})).raise_for_status()

    async with browser(desk) as client, asyncio.TaskGroup() as group:
        changing = group.create_task(change())
        for _ in range(12):
            answer = await client.post("/console/tabs", json=wanted(machine, node_key()))
            if answer.status_code != 201:
                assert (answer.status_code, answer.json()["type"]) == (403, "not-allowed"), answer.text
                assert answer.json()["cure"]
        await changing
        answer = await client.post("/console/tabs", json=wanted(machine, node_key()))
        assert (answer.status_code, answer.json()["type"]) == (403, "not-allowed")


async def _two_hundred_at_once(server: Server, desk: Desk, machine: int) -> None:
    async with browser(desk) as client:
        bodies = [wanted(machine, node_key()) for _ in range(200)]
        answers = await asyncio.gather(*(client.post("/console/tabs", json=body) for body in bodies))
    made = {one.json()["id"] for one in answers if one.status_code == 201}
    assert len(made) == len(await tabs_of(server)) == SESSION
    told = {one.json()["type"] for one in answers if one.status_code == 429 and one.json()["cure"]}
    assert told <= {"too-many-tabs", "rate-exceeded"}
    assert "too-many-tabs" in told
    assert {one.status_code for one in answers} == {201, 429}


@pytest.mark.root
@needs_root
async def test_a_full_disk() -> None:
    server = Server()
    with small_disk(server.folder, 40) as disk:
        async with server, sitting(server) as (desk, machine), administrator(server) as api:
            disk.fill()
            await takes_changes(api, yes=False)
            key = await is_refused_and_forgotten(server, desk, machine, "full")
            disk.free()
            await takes_changes(api)
            assert (await ask(desk, machine, key)).status_code == 201
            assert len(await tabs_of(server)) == 1
