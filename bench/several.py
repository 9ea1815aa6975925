"""Two ``doorward serve`` on one PostgreSQL: how soon a node at one knows what happened at the other."""

import asyncio
import os
import shutil
import time

import psycopg
import uvloop
from tests.support.postgres import cluster
from tests.support.server import Server

from bench.table import Figures, Found, Group, Options, Row
from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.protocol.keys import DiscoPrivate, MachinePrivate, NodePrivate
from doorward.protocol.netmapstate import Netmap
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.telemetry import configure

EVENTS = 4  # in each round
POLICY = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'


def _client(url: str, name: str) -> ControlClient:
    return ControlClient(
        url,
        machine=MachinePrivate.from_entropy(os.urandom(32)),
        node=NodePrivate.from_entropy(os.urandom(32)),
        disco=DiscoPrivate.from_entropy(os.urandom(32)).public(),
        clock=SystemClock(),
        entropy=os.urandom,
        hostinfo=Hostinfo(Hostname=name, OS="linux"),
    )


async def _until(watcher: ControlClient, name: str, endpoint: str, began: float) -> float:
    """Seconds until the watcher has this peer, with this endpoint if one is given."""

    def has(netmap: Netmap) -> bool:
        return any(
            peer.Name.startswith(f"{name}.") and (not endpoint or endpoint in (peer.Endpoints or []))
            for peer in netmap.peers
        )

    await watcher.until(has)
    return time.perf_counter() - began


async def measure(database: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until a node at the second process knows of a node that joined at the first, and of its new endpoint."""
    environ = {"DOORWARD_DATABASE_URL": database, "DOORWARD_TAILSCALED": "off"}
    joins, reports = [], []
    async with Server(environ=environ | {"DOORWARD_RELAY_REGION": "901"}, level="warning") as first:
        await first.set_policy(POLICY)
        key = await first.key("--user", await first.user(), "--reusable")
        second = Server(environ=environ | {"DOORWARD_RELAY_REGION": "902"}, level="warning")
        # What an operator copies before the second one starts.
        shutil.copy(first.folder / "noise.key", second.folder / "noise.key")
        shutil.copytree(first.folder / "tls", second.folder / "tls")
        async with second, _client(second.url, "watcher") as watcher, asyncio.TaskGroup() as group:
            await watcher.join(auth_key=key)
            following = group.create_task(watcher.follow())
            await watcher.until(lambda _: True)
            for number in range(count):
                name, endpoint = f"node-{number}", f"192.0.2.1:{41000 + number}"
                async with _client(first.url, name) as node:
                    began = time.perf_counter()
                    await node.join(auth_key=key)
                    joins.append(await _until(watcher, name, "", began))
                    await asyncio.sleep(0.1)
                    began = time.perf_counter()
                    await node.report(home_derp=901, endpoints=[endpoint])
                    reports.append(await _until(watcher, name, endpoint, began))
            following.cancel()
    return [1000 * each for each in joins], [1000 * each for each in reports]


def notices(database: str, count: int) -> list[float]:
    """Milliseconds of a bare NOTIFY from one connection to another, commit included."""
    found = []
    with (
        psycopg.connect(database, autocommit=True) as here,
        psycopg.connect(database, autocommit=True) as there,
    ):
        there.execute("LISTEN bench")
        for _ in range(count):
            began = time.perf_counter()
            here.execute("NOTIFY bench")
            next(there.notifies(timeout=5))
            found.append(1000 * (time.perf_counter() - began))
    return found


def both(options: Options) -> Found:
    """Joins and reports. Raises ``Missing`` where PostgreSQL is not installed."""
    configure(level="warning")
    count = 1 if options.smoke else EVENTS * options.rounds
    with cluster() as postgres:
        database = postgres.create_database()
        bare = notices(database, count)
        joins, reports = uvloop.run(measure(database, count))
    note = f"worst {max(joins):.0f} ms"
    return {
        "processes-join": Figures(joins, bare, note),
        "processes-report": Figures(reports, bare, f"worst {max(reports):.0f} ms"),
    }


def _row(name: str, what: str) -> Row:
    return Row(id=name, what=what, unit="ms", baseline="a bare NOTIFY", must=200)


GROUPS = (
    Group(
        name="several processes",
        rows=(
            _row(
                "processes-join",
                "two processes on PostgreSQL: a node joins at one, a node at the other has it",
            ),
            _row("processes-report", "the same for a node's new endpoint"),
        ),
        run=both,
        seconds=15,
    ),
)
