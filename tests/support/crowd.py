"""Machines that exist only for control: they join, say what they run, and are there as long as their map stream is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.support.server import Server
from tests.support.simulated import simulated
from tests.support.waiting import eventually

from doorward.engine.client import ControlClient
from doorward.protocol.tailcfg.hostinfo import Hostinfo

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm"


@dataclass(frozen=True)
class Machine:
    """One of them: whose it is, or which tags it has."""

    name: str
    user: str = ""
    tags: tuple[str, ...] = ()
    os: str = "linux"
    version: str = "1.102.4"
    ssh: bool = True  # its client serves it
    online: bool = True


class Crowd:
    """Machines that have joined; each can leave and come back."""

    def __init__(self, server: Server, group: asyncio.TaskGroup) -> None:
        self._server = server
        self._group = group
        self._clients: dict[str, ControlClient] = {}
        self._streams: dict[str, asyncio.Task[None]] = {}

    async def join(self, machine: Machine, key: str) -> None:
        """Join with an auth key; once this returns the machine is there."""
        client = simulated(self._server.url, machine.name)
        client.hostinfo = Hostinfo(
            Hostname=machine.name,
            OS=machine.os,
            IPNVersion=f"{machine.version}-t0123",
            sshHostKeys=[HOST_KEY] if machine.ssh else None,
        )
        self._clients[machine.name] = client
        await client.__aenter__()
        await client.join(auth_key=key)
        await client.report()
        if machine.online:
            await self.come(machine.name)

    async def come(self, name: str) -> None:
        """Come online."""
        client = self._clients[name]
        self._streams[name] = self._group.create_task(client.follow())
        await client.until(lambda netmap: netmap is not None, seconds=30)

    async def go(self, name: str) -> None:
        """Go offline."""
        self._streams.pop(name).cancel()
        self._clients[name].close()

    def end(self) -> None:
        """All of them leave."""
        for stream in self._streams.values():
            stream.cancel()
        for client in self._clients.values():
            client.close()


@contextlib.asynccontextmanager
async def crowd(server: Server, machines: list[Machine]) -> AsyncIterator[Crowd]:
    """Machines of a real server; people and tags that they name have to be there."""
    keys: dict[tuple[str, ...], str] = {}
    async with asyncio.TaskGroup() as group:
        made = Crowd(server, group)
        try:
            for machine in machines:
                whose = (machine.user,) if machine.user else machine.tags
                if whose not in keys:
                    options = (
                        ("--user", machine.user)
                        if machine.user
                        else tuple(part for tag in machine.tags for part in ("--tag", tag))
                    )
                    keys[whose] = await server.key(*options, "--reusable")
                await made.join(machine, keys[whose])
            awaited = {machine.name for machine in machines if machine.online}
            await eventually(lambda: _are_online(server, awaited), 30)
            yield made
        finally:
            made.end()


async def _are_online(server: Server, names: set[str]) -> bool:
    listed = await server.json("nodes", "list")
    return names <= {node["name"] for node in listed if node["online"]}
