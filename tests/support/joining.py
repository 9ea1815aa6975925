"""What clients do to be let in, against a registry in memory; see ``tests.support.world``."""

from typing import Any

import msgspec
from tests.support.nouns import machine_key, node_key
from tests.support.world import CAPVER, World, counting_entropy

from doorward.model import Node
from doorward.protocol.keys import NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterAuth, RegisterRequest
from doorward.tailnet.admission import Outcome, Verdict
from doorward.tailnet.registry import Registry

TAGS = """{"tagOwners": {"tag:web": ["ann"], "tag:db": ["tag:web"], "tag:other": []},
           "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}"""


async def register(
    world: World,
    key: int,
    *,
    machine: int = 1,
    auth: str = "",
    old: int | None = None,
    registry: Registry | None = None,
    **fields: Any,
) -> Outcome:
    request = RegisterRequest(
        Version=fields.pop("Version", CAPVER),
        NodeKey=node_key(key),
        OldNodeKey=NodePublic.zero() if old is None else node_key(old),
        Auth=RegisterAuth(AuthKey=auth) if auth else None,
        Hostinfo=fields.pop("Hostinfo", Hostinfo(Hostname="laptop", OS="linux")),
        **fields,
    )
    return await (registry or world.registry).admission.register(machine_key(machine), request)


async def auth_key(world: World, user: str | None = "ann", *tags: str, **options: Any) -> str:
    return (await world.registry.create_auth_key("test", user=user, tags=tags, **options))[1]


async def admitted(world: World, key: int, *, machine: int = 1, user: str = "ann", **fields: Any) -> Node:
    outcome = await register(world, key, machine=machine, auth=await auth_key(world, user), **fields)
    assert outcome.verdict is Verdict.ADMITTED
    assert outcome.node is not None
    return outcome.node


async def reopened(world: World) -> Registry:
    """The registry of a new process over the same database."""
    snapshot = world.registry.snapshot
    return await Registry.open(
        world.registry.writer.database, snapshot.settings, world.clock, counting_entropy()
    )


def in_memory(world: World) -> list[Node]:
    return sorted(world.registry.snapshot.nodes.values(), key=lambda node: node.id)


async def as_stored(world: World) -> list[Node]:
    """What the next process would know, observations left out."""
    again = await reopened(world)
    known = world.registry.snapshot.nodes
    return [
        msgspec.structs.replace(node, observed=known[node.id].observed)
        for node in sorted(again.snapshot.nodes.values(), key=lambda node: node.id)
    ]


def link(asked: Outcome) -> str:
    return f"http://127.0.0.1:8080/join/{asked.link_code}"
