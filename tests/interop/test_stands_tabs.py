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
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.simulated import node as node_key
from tests.support.waiting import eventually, until

from doorward.engine.derp import DERPClient
from doorward.protocol.keys import NodePrivate

pytestmark = pytest.mark.interop

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


async def ask(desk: Desk, machine: int, key: NodePrivate) -> httpx2.Response:
    """What the page of a tab asks for."""
    body = {"node_key": str(key.public()), "machine": machine, "account": "root"}
    return await desk.call("POST", "/console/tabs", body)


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
