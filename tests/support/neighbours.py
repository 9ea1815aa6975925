"""Several registries on one PostgreSQL, as several processes have them, in one loop and without their servers."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from tests.support.nouns import machine_key, raw
from tests.support.world import CAPVER

from doorward.clock import SystemClock
from doorward.model import Node, Process
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterAuth, RegisterRequest
from doorward.store import Database
from doorward.tailnet.admission import Outcome
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Settings

_numbers = itertools.count(1)


def region(number: int) -> DERPRegion:
    node = DERPNode(Name=f"{number}a", RegionID=number, HostName="127.0.0.1", DERPPort=number)
    return DERPRegion(RegionID=number, RegionCode=f"r{number}", RegionName=f"r{number}", Nodes=[node])


def process(name: str, relay: int, **fields: Any) -> Process:
    values: dict[str, Any] = {
        "id": 0,
        "installation": name,
        "boot": next(_numbers),
        "label": name,
        "noise_key": machine_key(0),
        "door_port": 8000 + relay,
        "region": region(relay),
    }
    return Process(**(values | fields))


def _entropy() -> Any:
    start = next(_numbers)
    count = itertools.count(1)
    return lambda size: raw(f"entropy of {start}", next(count))[:size]


@contextlib.asynccontextmanager
async def opened(
    address: str, who: Process, *, grace: timedelta = timedelta(minutes=5)
) -> AsyncIterator[Registry]:
    """A registry that does not run: it changes things, and follows nothing by itself."""
    own = DERPMap(Regions={who.region.RegionID: who.region} if who.region else {})
    settings = Settings(
        domain="tailnet.internal",
        url="http://127.0.0.1:8080",
        door_host="door.tailnet.internal",
        door_ports=(who.door_port,),
        derp_map=own,
        ephemeral_grace=grace,
    )
    async with await Database.open(address, clock=SystemClock()) as database:
        yield await Registry.open(database, settings, SystemClock(), _entropy(), who)


@contextlib.asynccontextmanager
async def running(
    address: str, name: str, relay: int, *, grace: timedelta = timedelta(minutes=5)
) -> AsyncIterator[Registry]:
    """A registry that runs, until the end of the block; then it says that it leaves."""
    async with opened(address, process(name, relay), grace=grace) as registry, asyncio.TaskGroup() as group:
        task = group.create_task(registry.run())
        for _ in range(3):
            await asyncio.sleep(0)  # what has not begun would not say that it leaves
        try:
            yield registry
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def pair(address: str) -> AsyncIterator[tuple[Registry, Registry]]:
    """Two that run."""
    async with running(address, "one", 901) as one, running(address, "two", 902) as two:
        yield one, two


async def register(
    registry: Registry, number: int, *, auth: str = "", machine: int | None = None, **fields: Any
) -> Outcome:
    """What a client with this number does at ``tailscale up``."""
    request = RegisterRequest(
        Version=CAPVER,
        NodeKey=NodePublic(raw("node", number)),
        Auth=RegisterAuth(AuthKey=auth) if auth else None,
        Hostinfo=fields.pop("Hostinfo", Hostinfo(Hostname=f"host{number}", OS="linux")),
        **fields,
    )
    return await registry.admission.register(
        MachinePublic(raw("machine", number if machine is None else machine)), request
    )


async def join(registry: Registry, number: int, user: str = "ann", **options: Any) -> Node:
    """A node that joined with an auth key."""
    _, secret = await registry.create_auth_key("test", user=user, **options)
    outcome = await register(registry, number, auth=secret)
    assert outcome.node is not None
    return outcome.node


def knows(registry: Registry) -> Any:
    """Everything that both must agree on."""
    snapshot = registry.snapshot
    return (
        {node_id: snapshot.nodes[node_id] for node_id in sorted(snapshot.nodes)},
        {user_id: snapshot.users[user_id] for user_id in sorted(snapshot.users)},
        snapshot.policy_text,
        snapshot.settings.dns,
        sorted(snapshot.system),
        {prefix: snapshot.primary[prefix] for prefix in sorted(snapshot.primary, key=str)},
    )
