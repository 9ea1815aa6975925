"""The disk is full, the database is gone: what is set up goes on, changes are refused with a cure, and it mends itself."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.clients import StockClient
from tests.support.machines import all_ready, machines
from tests.support.postgres import cluster
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.small_disk import needs_root, small_disk
from tests.support.waiting import eventually, promptly, until

from doorward.engine.client import ControlClient
from doorward.errors import DoorwardError

# Minutes only on a machine that does much else at the same time.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

OPEN = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
CLOSED = '{"grants": []}'


class Tailnet:
    """A server with two stock clients and two simulated ones, and the questions that every trouble is met with."""

    def __init__(self, server: Server, api: httpx2.AsyncClient, clients: list[StockClient]) -> None:
        self.server = server
        self.api = api
        self.laptop, self.other = clients
        self.reusable = ""
        self.answered: list[str] = []  # keys whose making was answered with yes
        self.first: ControlClient
        self.second: ControlClient
        self.links: list[str] = []  # of a device that waits for a person all the while
        self.waiting: asyncio.Task[Any]

    @classmethod
    @contextlib.asynccontextmanager
    async def made(cls, server: Server) -> AsyncIterator["Tailnet"]:
        async with (
            machines(server, "laptop", "other") as clients,
            administrator(server) as api,
            simulated(server.url, "first") as first,
            simulated(server.url, "second") as second,
            simulated(server.url, "waiter") as waiter,
            asyncio.TaskGroup() as group,
        ):
            tailnet = cls(server, api, clients)
            tailnet.first, tailnet.second = first, second
            tailnet.reusable = await server.key("--user", "alice", "--reusable")
            following = []
            for client in (first, second):
                await client.join(auth_key=tailnet.reusable)
                following.append(group.create_task(client.follow()))
                await client.until(lambda netmap: netmap.node)
            tailnet.waiting = group.create_task(waiter.join(show=tailnet.links.append))
            await until(lambda: bool(tailnet.links))
            yield tailnet
            for task in following:
                task.cancel()

    async def make_key(self) -> httpx2.Response:
        answer = await self.api.post("/keys", json={"user": "alice"})
        if answer.status_code == 201:
            self.answered.append(answer.json()["key"]["prefix"])
        return answer

    async def until_refused(self) -> dict[str, Any]:
        """The problem that keys are refused with, as soon as they are."""
        problem: dict[str, Any] = {}

        async def is_refused() -> bool:
            answer = await self.make_key()
            problem.update(answer.json() if answer.status_code != 201 else {})
            return answer.status_code != 201

        await promptly(is_refused, within=20)
        return problem

    async def everything_that_is_set_up_works(self) -> None:
        """Packets, reports that reach others, and clients that come back."""
        assert "pong from other" in await self.laptop.ping("other")
        port = 1024 + len(self.answered) % 60000
        await self.first.report(home_derp=900, endpoints=[f"192.0.2.7:{port}"])
        await self.second.until(
            lambda netmap: any(f"192.0.2.7:{port}" in (peer.Endpoints or ()) for peer in netmap.peers)
        )
        sessions = self.second.sessions
        self.second.close()  # and it dials again, and is told everything anew
        await eventually(lambda: _later(self.second, sessions))
        await self.second.until(lambda netmap: len(netmap.peers) >= 3)
        # A client that starts anew signs in with the key it has.
        await self.other.restart()
        await self.other.wait_until("Running")

    async def changes_are_refused(self, words: str) -> None:
        """Each says why, and what helps."""
        refused = await self.server.run("keys", "create", "--user", "alice", check=False)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert len(refused.stderr.splitlines()) >= 1
        assert "try again" in refused.stderr.lower()
        for answer in (
            await self.api.put("/policy", json={"text": CLOSED}),
            await self.api.post("/users", json={"name": "bob"}),
            await self.api.post("/registrations/approve", json={"link": self.links[-1], "user": "alice"}),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.json()["cure"]
        async with simulated(self.server.url, "newcomer") as newcomer:
            with pytest.raises(DoorwardError, match="503"):
                await newcomer.join(auth_key=self.reusable)

    async def everybody_is_told(self, words: str) -> None:
        async def is_told() -> bool:
            return words in (await self.laptop.cli("status")).stdout

        await promptly(is_told, within=15)
        status = await self.server.json("status")
        (part,) = [part for part in status["parts"] if part["name"] == "database"]
        assert part["state"] == "failing"
        assert words in part["text"]
        assert part["cure"]
        doctor = await self.server.run("doctor", "--json", check=False)
        assert doctor.returncode == 1
        assert any(
            words in finding["message"]
            for finding in json.loads(doctor.stdout)
            if finding["level"] == "error"
        )
        metrics = (await self.api.get("http://localhost/metrics")).text
        assert "doorward_store_in_trouble 1.0" in metrics

    async def all_is_well_again(self, within: float = 20) -> None:
        async def is_well() -> bool:
            answer = await self.api.get("/status")
            if answer.status_code != 200:
                return False
            return all(
                part["state"] == "running" for part in answer.json()["parts"] if part["name"] == "database"
            )

        await eventually(is_well, within=within)

        async def is_told() -> bool:
            return "cannot save changes" not in (await self.laptop.cli("status")).stdout

        await promptly(is_told, within=15)
        assert (await self.make_key()).status_code == 201
        # The device that waited is let in now, by a link that is older than the trouble.
        assert not self.waiting.done()
        approval = {"link": self.links[-1], "user": "alice"}
        (await self.api.post("/registrations/approve", json=approval)).raise_for_status()
        async with asyncio.timeout(40):
            await self.waiting
        known = {key["prefix"] for key in (await self.api.get("/keys")).json()}
        assert set(self.answered) <= known
        assert (await self.server.run("audit", "verify")).returncode == 0
        async with simulated(self.server.url, "late") as late:
            await late.join(auth_key=self.reusable)
        await all_ready([self.laptop, self.other])
        assert "pong from laptop" in await self.other.ping("laptop")


async def _later(client: ControlClient, sessions: int) -> bool:
    return client.sessions > sessions


def _memory(server: Server) -> int:
    for line in Path(f"/proc/{server.worker_pid()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.root
@needs_root
async def test_a_full_disk(tmp_path: Path) -> None:
    server = Server()
    with small_disk(server.folder, 40) as disk:
        async with server, Tailnet.made(server) as tailnet:
            worker = server.worker_pid()
            disk.fill()
            problem = await tailnet.until_refused()
            assert "full" in problem["title"]
            assert "Free space" in problem["cure"]
            await tailnet.everybody_is_told("full")
            await tailnet.everything_that_is_set_up_works()
            await tailnet.changes_are_refused("full")
            # What is reported meanwhile is kept once for each node, however often.
            before = _memory(server)
            for port in range(1, 1500):
                await tailnet.first.report(endpoints=[f"192.0.2.8:{port}"])
            assert _memory(server) - before < 8 << 20
            assert server.worker_pid() == worker
            disk.free()
            await tailnet.all_is_well_again()
            assert server.worker_pid() == worker
            with contextlib.closing(
                sqlite3.connect(f"file:{server.folder}/doorward.db?mode=ro", uri=True)
            ) as database:

                async def is_written() -> bool:
                    rows = database.execute("SELECT endpoints FROM node_observations").fetchall()
                    return any("192.0.2.8:1499" in row[0] for row in rows)

                await eventually(is_written)


@pytest.mark.root
@needs_root
async def test_a_worker_that_dies_on_a_full_disk_is_back(tmp_path: Path) -> None:
    server = Server(environ={"DOORWARD_TAILSCALED": "off"})
    with small_disk(server.folder, 40) as disk:
        async with server, administrator(server) as api, simulated(server.url, "node") as node:
            await server.user("alice")
            await node.join(auth_key=await server.key("--user", "alice"))
            async with asyncio.TaskGroup() as group:
                following = group.create_task(node.follow())
                await node.until(lambda netmap: netmap.node)
                disk.fill()
                sessions, worker = node.sessions, server.worker_pid()
                os.kill(worker, signal.SIGKILL)
                await promptly(lambda: _later(node, sessions), within=20)
                disk.free()

                async def is_well() -> bool:
                    return (await api.post("/keys", json={"user": "alice"})).status_code == 201

                await promptly(is_well, within=20)
                following.cancel()
        assert "Traceback" not in server.log.read_text() if server.log.exists() else True


async def test_the_database_server_is_killed_and_comes_back() -> None:
    with cluster() as postgres:
        async with (
            Server(environ={"DOORWARD_DATABASE_URL": postgres.create_database()}) as server,
            Tailnet.made(server) as tailnet,
        ):
            worker = server.worker_pid()
            await tailnet.make_key()
            postgres.stop("immediate")
            problem = await tailnet.until_refused()
            assert "PostgreSQL" in problem["cure"]
            await tailnet.everybody_is_told("cannot be reached")
            await tailnet.everything_that_is_set_up_works()
            await tailnet.changes_are_refused("cannot be reached")
            postgres.start()
            await tailnet.all_is_well_again()
            # And the feed goes on: what another process would write is heard.
            assert server.worker_pid() == worker
            postgres.execute("test1", "NOTIFY doorward_changes")
            log = server.log.read_text()
            assert "Traceback" not in log
