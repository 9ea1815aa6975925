"""Two ``doorward serve`` on one PostgreSQL: how soon a node at one knows what happened at the other."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from functools import partial

import psycopg
import uvloop
from tests.support.postgres import cluster
from tests.support.server import Server

from bench.table import Figures, Found, Group, Options, Row
from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.protocol.keys import DiscoPrivate, MachinePrivate, NodePrivate, NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.node import Node
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


async def _until(watcher: ControlClient, is_so: Callable[[Node], bool]) -> None:
    await watcher.until(lambda netmap: any(map(is_so, netmap.peers)))


def _is_called(name: str, peer: Node) -> bool:
    return peer.Name.startswith(f"{name}.")


def _has_key(key: NodePublic, peer: Node) -> bool:
    return peer.Key == key


def _is_at(endpoint: str, peer: Node) -> bool:
    return endpoint in (peer.Endpoints or [])


async def measure(database: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds until a node at the second process knows a new key of a node at the first, and a new endpoint."""
    environ = {"DOORWARD_DATABASE_URL": database, "DOORWARD_TAILSCALED": "off"}
    changes, reports = [], []
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
                    await node.join(auth_key=key)
                    await _until(watcher, partial(_is_called, name))
                    began = time.perf_counter()
                    await node.rotate(NodePrivate.from_entropy(os.urandom(32)))
                    await _until(watcher, partial(_has_key, node.node.public()))
                    changes.append(1000 * (time.perf_counter() - began))
                    await asyncio.sleep(0.1)
                    began = time.perf_counter()
                    await node.report(home_derp=901, endpoints=[endpoint])
                    await _until(watcher, partial(_is_at, endpoint))
                    reports.append(1000 * (time.perf_counter() - began))
            following.cancel()
    return changes, reports


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
    """Changes and reports. Raises ``Missing`` where PostgreSQL is not installed."""
    configure(level="warning")
    count = 1 if options.smoke else EVENTS * options.rounds
    with cluster() as postgres:
        database = postgres.create_database()
        bare = notices(database, count)
        changes, reports = uvloop.run(measure(database, count))
    return {
        "processes-change": Figures(changes, bare, f"worst {max(changes):.0f} ms"),
        "processes-report": Figures(reports, bare, f"worst {max(reports):.0f} ms"),
    }


def _row(name: str, what: str) -> Row:
    return Row(id=name, what=what, unit="ms", baseline="a bare NOTIFY", must=200)


GROUPS = (
    Group(
        name="several processes",
        rows=(
            _row(
                "processes-change",
                "two processes on PostgreSQL: a node's new key at one, known to a node at the other",
            ),
            _row("processes-report", "the same for a node's new endpoint"),
        ),
        run=both,
        seconds=15,
    ),
)
