"""A tailnet with machines for people who look at it in a browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from tests.support.means import ORIGIN, cookie, sign_in
from tests.support.world import World

from doorward.model import Node, Role

POLICY = """{
    "tagOwners": {"tag:server": [], "tag:db": []},
    "postures": {"posture:linux": ["node:os == 'linux'"]},
    "grants": [
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
        {"src": ["ann"], "dst": ["tag:server"], "ip": ["22", "80"]},
        {"src": ["bob"], "dst": ["tag:db"], "ip": ["5432"]},
    ],
    "ssh": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]},
        {"action": "check", "src": ["ann"], "dst": ["tag:server"], "users": ["root", "deploy"]},
    ],
}"""
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIxsDU7Qd0uPWqjZ1xTdzyVX2KyVkuvC7q/hAEXAMPLE"


async def furnish(world: World) -> dict[str, Node]:
    """laptop is ann's, desk is bob's, server (with Tailscale SSH) and db are nobody's."""
    for name in ("ann", "bob"):
        await world.registry.create_user("test", name)
    await world.registry.set_policy("test", POLICY)
    found = {
        "laptop": await world.join(1, "laptop", "ann"),
        "desk": await world.join(2, "desk", "bob", sshHostKeys=[HOST_KEY]),
        "server": await world.join(3, "server", None, "tag:server", sshHostKeys=[HOST_KEY]),
        "db": await world.join(4, "db", None, "tag:db"),
    }
    for node in found.values():
        await world.report(node)
    return {name: world.registry.snapshot.nodes[node.id] for name, node in found.items()}


@asynccontextmanager
async def page(
    world: World, name: str = "ann", *, role: Role | None = None, secret: str = "cookie", **fields: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A page of the door in a browser in which somebody has signed in."""
    if role is not None and world.registry.snapshot.user_by_name(name) is None:
        await world.registry.create_user("test", name, role=role)
    user = world.registry.snapshot.user_by_name(name)
    assert user is not None
    await sign_in(world, user, secret, **fields)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(world.app),
        base_url=f"{ORIGIN}/api/v1",
        headers={"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN},
        cookies={"__Host-doorward": cookie(user, secret)},
    ) as client:
        yield client
