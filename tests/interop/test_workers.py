"""One ``doorward serve --workers 3`` on PostgreSQL, with stock clients that land where they land, and workers that die."""

import asyncio
import contextlib
import getpass
import itertools
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.machines import all_ready
from tests.support.openssh import OpenSSH
from tests.support.postgres import Cluster
from tests.support.processes import gone
from tests.support.programs import require_client
from tests.support.server import Server
from tests.support.waiting import eventually, promptly, until
from tests.support.workers_of import admin, all_metrics, held, relayed, spread

pytestmark = [pytest.mark.interop]

SOON = 0.2  # seconds in which a change is known at every worker
CLIENT = 0.3  # seconds that a stock client may take with it, and this test with looking
RELAYED = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
FORWARDED = 'relay_events_total{what="packets_forwarded"}'
OPEN = """{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
           "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"],
                    "users": ["autogroup:nonroot", "root"]}]}"""


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    require_client()
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


@contextlib.asynccontextmanager
async def serving(database: str, workers: int = 3) -> AsyncIterator[Server]:
    async with Server(environ={"DOORWARD_DATABASE_URL": database}, workers=workers) as server:
        await server.user("alice")
        await server.set_policy(OPEN)
        yield server


@contextlib.asynccontextmanager
async def joined(server: Server, *names: str, **options: Any) -> AsyncIterator[list[StockClient]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(StockClient(name, **options)) for name in names]
        key = await server.key("--user", "alice", "--reusable")
        await asyncio.gather(*(client.up(server.url, key) for client in clients))
        await all_ready(clients)
        yield clients


async def reach(client: StockClient, other: StockClient) -> None:
    """Over whatever path; the command would wait for a second after its answer."""
    address = (await other.api.status(peers=False)).addresses[0]

    async def answers() -> bool:
        return not (await client.api.ping(address)).err

    await eventually(answers)


async def everybody_reaches_everybody(clients: list[StockClient]) -> None:
    await asyncio.gather(*(reach(one, other) for one in clients for other in clients if one is not other))


async def names_seen_by(client: StockClient) -> set[str]:
    peers = (await client.api.status()).peers or {}
    return {peer.dns_name.partition(".")[0] for peer in peers.values()}


async def registrations(server: Server) -> list[str]:
    """Every time that a client signed in or was made to."""
    events = await server.json("audit", "list", "--limit", "500")
    return [
        event["action"] for event in events if event["action"] in {"node.register", "node.reauthenticate"}
    ]


async def test_clients_at_several_workers_reach_each_other_and_are_asked_through_any(
    postgres: Cluster, database: str
) -> None:
    async with serving(database) as server, joined(server, "a", "b", "c", "d", environ=RELAYED) as clients:
        await spread(server, postgres, database, clients)
        await all_ready(clients)
        await everybody_reaches_everybody(clients)

        async def is_forwarded() -> bool:
            return sum(await all_metrics(server, FORWARDED)) > 0

        await eventually(is_forwarded)
        parts = {part["name"]: part for part in (await server.json("status"))["parts"]}
        assert parts["workers"]["state"] == "running"
        assert "beside" not in parts
        # A command comes to any worker, and at least one of these nodes is not at that one.
        for client in clients:
            assert client.name in (await server.run("nodes", "ping", client.name)).stdout
        assert "b" in (await server.run("nodes", "ping", "b", "--from", "a")).stdout


async def test_a_change_is_told_by_every_worker_at_once(postgres: Cluster, database: str) -> None:
    async with serving(database) as server, joined(server, "a", "b", "c", environ=RELAYED) as clients:
        where = await spread(server, postgres, database, clients)
        assert len(set(where.values())) > 1
        names, took, asking = ["a", *(f"name{step}" for step in range(7))], [], []
        for before, after in itertools.pairwise(names):
            began = time.monotonic()
            await admin(server, "PATCH", f"/nodes/{before}", {"name": after})
            asking.append(time.monotonic() - began)
            async with asyncio.timeout(30):
                for one in clients[1:]:
                    while after not in await names_seen_by(one):  # noqa: ASYNC110 - a real program, which tells nobody
                        await asyncio.sleep(0.01)
            took.append(time.monotonic() - began)
        # On a machine that does much else the question itself takes longer than the answer may here.
        assert statistics.median(took) < max(SOON + CLIENT, 20 * statistics.median(asking))
        # Deleted, a node is thrown out by the workers that have its stream and its relay, whichever the command came to.
        await admin(server, "DELETE", "/nodes/b")

        async def is_away() -> bool:
            return sum(await relayed(server)) == 3 and "b" not in held(
                postgres, database
            )  # with doorward's own

        await eventually(is_away)
        log = clients[1].log
        await until(lambda: "this node is not known here" in log.read_text(errors="replace"))


async def test_each_worker_is_killed_while_everything_runs(postgres: Cluster, database: str) -> None:
    async with (
        serving(database) as server,
        joined(server, "a", "b", "c") as clients,
    ):
        await spread(server, postgres, database, clients)
        await all_ready(clients)
        here, there, third = clients
        address = await server.own_node()
        authority = here.folder / "authority.pem"
        authority.write_text((await server.run("ca")).stdout, encoding="ascii")

        async def who_am_i() -> str:
            answer = await fetch(
                f"https://door.tailnet.internal:{server.door_port}/whoami",
                *("--proxy", f"socks5://localhost:{here.socks_port}"),
                *("--resolve", f"door.tailnet.internal:{server.door_port}:{address}"),
                *("--cacert", str(authority), "--header", "Accept: application/json"),
            )
            assert answer.status == 200, answer.text
            return str(answer.json()["user"]["login_name"])

        assert await who_am_i() == "alice"
        await there.cli("set", "--ssh")
        ssh = await OpenSSH.between(here, "b")
        before = await registrations(server)
        known = {node["name"]: node["id"] for node in await server.json("nodes", "list")}
        daemon, workers = server.daemon_pid(), server.worker_pids()
        assert len(workers) == 3
        async with ssh.session(
            f"{getpass.getuser()}@b", "while read line; do echo got $line; done"
        ) as session:
            keyboard, screen = session.stdin, session.stdout
            assert keyboard is not None
            assert screen is not None

            async def answers(line: bytes) -> bool:
                """Whether the shell at the other end is there; it is control that lets a session begin."""
                keyboard.write(line + b"\n")
                await keyboard.drain()
                async with asyncio.timeout(5):
                    return await screen.readline() == b"got " + line + b"\n"

            assert await answers(b"hello")
            for number, pid in enumerate(workers):
                os.kill(pid, signal.SIGKILL)
                # At once: who is asked while nobody is at one of the three posts waits, or is answered by another.
                async with asyncio.timeout(10):
                    assert await who_am_i() == "alice"
                assert await answers(str(number).encode())
                await reach(here, third)
                await reach(third, here)
                await until(lambda: len(server.worker_pids()) == 3, 10)

                async def all_serve() -> bool:
                    parts = (await server.json("status"))["parts"]
                    return any(part["name"] == "workers" and part["state"] == "running" for part in parts)

                await promptly(all_serve, 20)
        assert set(server.worker_pids()).isdisjoint(workers)
        assert server.daemon_pid() == daemon, "the private daemon outlives every worker"
        assert await server.own_node() == address
        await all_ready(clients)
        await everybody_reaches_everybody(clients)
        # Past every grace: nobody signed in again, and nobody is called away.
        await asyncio.sleep(12)
        assert await registrations(server) == before
        nodes = await server.json("nodes", "list")
        assert {node["name"]: node["id"] for node in nodes if node["online"]} == known
        assert set(held(postgres, database)) == set(known)


async def test_with_the_parent_everything_goes(database: str) -> None:
    async with serving(database) as server:
        await server.own_node()
        await until(lambda: len(_children(server.pid)) == 5, 20)  # three workers, a spare, the daemon
        children = _children(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: all(gone(pid) for pid in children))
        began = time.monotonic()
        await server.start()
        await server.own_node()
        assert time.monotonic() - began < max(20, 5 * server.start_took)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split() if not gone(int(child))]


async def test_a_worker_less_and_the_rest_is_the_same_tailnet(postgres: Cluster, database: str) -> None:
    """The number of workers is changed by a restart; who served before is still known, and its own node too."""
    async with serving(database, workers=2) as server, joined(server, "a", "b") as clients:
        address = await server.own_node()
        await server.stop()
        server.workers = 1
        server._extra[server._extra.index("--workers") + 1] = "1"
        await server.start()
        assert await server.own_node() == address

        async def are_online() -> bool:
            nodes = await server.json("nodes", "list")
            return all(node["online"] for node in nodes) and len(nodes) == 2

        await promptly(are_online, 20)
        await everybody_reaches_everybody(clients)
        await until(lambda: held(postgres, database) == {"a": 1, "b": 1}, 20)
        await eventually(partial(_says_nothing_of_workers, server))


async def _says_nothing_of_workers(server: Server) -> bool:
    return not any(part["name"] in {"workers", "beside"} for part in (await server.json("status"))["parts"])
