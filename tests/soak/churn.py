"""What goes on in a tailnet that never rests, all of it at once against one server.

Nodes join, leave, vanish, roam, report other endpoints, have their key ended and come back with another; pairs of them send
packets through the relay; an administrator edits the policy, renames nodes, makes and revokes keys; some clients read
nothing of what they asked for; strangers say nonsense at every listener, or nothing.
"""

import asyncio
import contextlib
import os
import random
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from tests.support.server import Server
from tests.support.simulated import administrator, machine

from doorward.clock import SystemClock
from doorward.engine.client import ControlClient, RegistrationRefused
from doorward.engine.controlconn import fetch_server_key
from doorward.engine.derp import DERPClient, pinned_context
from doorward.errors import DoorwardError
from doorward.protocol.keys import DiscoPublic, MachinePublic, NodePrivate
from doorward.protocol.tailcfg.hostinfo import Hostinfo

POLICIES = (
    '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}',
    (
        '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:22", "udp:53"]}],'
        ' "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}]}'
    ),
)
TEAM = 25  # nodes of one person, who see each other
PACKET = os.urandom(1200)

# Seconds between two of each, on average.
PACE = {
    "joins and leaves": 0.5,
    "vanishes": 3.0,
    "roams": 0.7,
    "reports": 0.25,
    "packets": 0.1,
    "policies": 7.0,
    "renames": 2.0,
    "keys": 3.0,
    "ended keys": 4.0,
    "slow readers": 5.0,
    "nonsense": 1.0,
    "silence": 1.0,
}
HELD = 15.0  # seconds for which a slow reader, or somebody silent, stays


class Member:
    """One node: its client, and the task that follows its netmap."""

    def __init__(self, client: ControlClient, name: str, user: int) -> None:
        self.client = client
        self.name = name
        self.user = user
        self.following: asyncio.Task[None] | None = None
        self.relay: DERPClient | None = None

    def leave(self) -> None:
        """Stop, without a word."""
        if self.following is not None:
            self.following.cancel()
        if self.relay is not None:
            self.relay.close()
        self.client.close()


class Churn:
    """The population and what it does. ``run`` it until cancelled.

    Attributes:
        done: how often each thing happened.
        faults: what the server refused though it should not have, by its sentence.
        packets: how many were received over the relay.
    """

    def __init__(self, server: Server, count: int, seed: int, pace: float = 1.0) -> None:
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.packets = 0
        self._server = server
        self._count = count
        self._pace = pace
        self._random = random.Random(seed)
        self._members: list[Member] = []
        self._keys: list[str] = []
        self._server_key: MachinePublic | None = None
        self._group: asyncio.TaskGroup
        self._api: httpx2.AsyncClient
        self._number = 0

    async def run(self, ready: asyncio.Event) -> None:
        """Fill the tailnet, say so, and go on until cancelled."""
        async with administrator(self._server) as self._api, asyncio.TaskGroup() as self._group:
            await self._fill()
            ready.set()
            acts: dict[str, Callable[[], Awaitable[None]]] = {
                "joins and leaves": self._replace_one,
                "vanishes": self._vanish,
                "roams": self._roam,
                "reports": self._report,
                "packets": self._send,
                "policies": self._policy,
                "renames": self._rename,
                "keys": self._make_key,
                "ended keys": self._end_key,
                "slow readers": self._read_slowly,
                "nonsense": self._talk_nonsense,
                "silence": self._be_silent,
            }
            for name, act in acts.items():
                self._group.create_task(self._repeat(name, act))
            try:
                await asyncio.Event().wait()
            finally:
                for member in self._members:
                    member.leave()

    async def _repeat(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        async def once() -> None:
            try:
                await act()
            except (DoorwardError, OSError, httpx2.HTTPError) as error:
                self.faults[f"{name}: {error}"] += 1

        while True:
            await asyncio.sleep(self._random.expovariate(1 / (PACE[name] * self._pace)))
            self._group.create_task(once())
            self.done[name] += 1

    async def _fill(self) -> None:
        self._server_key = await fetch_server_key(self._server.url)
        await self._put_policy(POLICIES[0])
        for user in range((self._count + TEAM - 1) // TEAM):
            (await self._api.post("/users", json={"name": f"user{user}"})).raise_for_status()
            wanted = {"user": f"user{user}", "reusable": True, "expires_in": 86400 * 30}
            self._keys.append((await self._api.post("/keys", json=wanted)).json()["secret"])
        for number in range(self._count):
            await self._join(number // TEAM)

    def _any(self) -> Member:
        return self._random.choice(self._members)

    async def _join(self, user: int) -> Member:
        self._number += 1
        name = f"node-{self._number}"
        client = ControlClient(
            self._server.url,
            machine=machine(),
            node=NodePrivate.from_entropy(os.urandom(32)),
            disco=DiscoPublic(os.urandom(32)),
            clock=SystemClock(),
            entropy=os.urandom,
            hostinfo=Hostinfo(Hostname=name, OS="linux", IPNVersion="1.102.4", Distro="debian"),
            server_key=self._server_key,
            keep_netmap=False,
        )
        member = Member(client, name, user)
        await client.join(auth_key=self._keys[user])
        member.following = self._group.create_task(self._follow(client))
        await client.report(home_derp=900, endpoints=[self._endpoint()])
        if self._random.random() < 0.2:
            member.relay = await self._relay(client.node)
        self._members.append(member)
        return member

    async def _follow(self, client: ControlClient) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await client.follow()

    async def _relay(self, key: NodePrivate, *, reads: bool = True) -> DERPClient:
        return await DERPClient.connect(
            "127.0.0.1",
            self._server.relay_port,
            key,
            entropy=os.urandom,
            context=pinned_context(),
            on_packet=self._received if reads else None,
        )

    def _received(self, _source: bytes, _packet: bytes) -> None:
        self.packets += 1

    def _endpoint(self) -> str:
        return f"192.0.2.{self._random.randrange(1, 255)}:{self._random.randrange(1024, 65536)}"

    # What nodes do.

    async def _replace_one(self) -> None:
        member = self._members.pop(self._random.randrange(len(self._members)))
        await self._delete(member)
        await self._join(member.user)

    async def _delete(self, member: Member) -> None:
        if self._random.random() < 0.5:
            with contextlib.suppress(RegistrationRefused):
                await member.client.logout()
        member.leave()
        await self._api.delete(f"/nodes/{member.client.node.public()}")
        found = [one for one in (await self._api.get("/nodes")).json() if one["hostname"] == member.name]
        for one in found:
            await self._api.delete(f"/nodes/{one['id']}")

    async def _vanish(self) -> None:
        """Without a word: the connection stays half open until the kernel gives it up, or is cut."""
        member = self._members.pop(self._random.randrange(len(self._members)))
        member.leave()
        await asyncio.sleep(self._random.random() * 20)
        await self._delete(member)
        await self._join(member.user)

    async def _roam(self) -> None:
        member = self._any()
        member.client.close()
        if member.relay is not None:
            member.relay.close()
            member.relay = await self._relay(member.client.node)

    async def _report(self) -> None:
        await self._any().client.report(endpoints=[self._endpoint(), self._endpoint()])

    async def _send(self) -> None:
        there = [member for member in self._members if member.relay is not None and member.relay.is_open]
        if len(there) < 2:
            return
        source, target = self._random.sample(there, 2)
        assert source.relay is not None
        for _ in range(20):
            source.relay.send(target.client.node.public(), PACKET)

    async def _end_key(self) -> None:
        member = self._any()
        found = [one for one in (await self._api.get("/nodes")).json() if one["hostname"] == member.name]
        if found:
            (await self._api.post(f"/nodes/{found[0]['id']}/expire")).raise_for_status()
            await member.client.rotate(
                NodePrivate.from_entropy(os.urandom(32)), auth_key=self._keys[member.user]
            )
            member.client.close()

    # What the administrator does.

    async def _put_policy(self, text: str) -> None:
        (await self._api.put("/policy", json={"text": text})).raise_for_status()

    async def _policy(self) -> None:
        await self._put_policy(self._random.choice(POLICIES))

    async def _rename(self) -> None:
        nodes = (await self._api.get("/nodes")).json()
        node = self._random.choice(nodes)["id"]
        answer = await self._api.patch(
            f"/nodes/{node}", json={"name": f"renamed-{self._random.getrandbits(40)}"}
        )
        if answer.status_code != 404:  # it may have left meanwhile
            answer.raise_for_status()

    async def _make_key(self) -> None:
        answer = await self._api.post("/keys", json={"user": "user0", "expires_in": 60})
        answer.raise_for_status()
        (await self._api.delete(f"/keys/{answer.json()['key']['id']}")).raise_for_status()

    # What nobody should do.

    async def _read_slowly(self) -> None:
        """A relay client that is sent more than it takes, and takes nothing."""
        member = self._any()
        slow = await self._relay(member.client.node, reads=False)
        try:
            senders = [one for one in self._members if one.relay is not None and one.relay.is_open]
            for sender in senders[:5]:
                assert sender.relay is not None
                for _ in range(200):
                    sender.relay.send(member.client.node.public(), PACKET)
            await asyncio.sleep(HELD)
        finally:
            slow.close()

    async def _connect(self, *, tls: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ports = [self._server.listens_at[1], self._server.relay_port, self._server.door_port]
        context: ssl.SSLContext | None = None
        port = self._random.choice(ports)
        if tls and port != ports[0]:
            context = pinned_context()
        return await asyncio.open_connection("127.0.0.1", port, ssl=context)

    async def _talk_nonsense(self) -> None:
        with contextlib.suppress(OSError):
            _, writer = await self._connect(tls=self._random.random() < 0.7)
            try:
                writer.write(self._nonsense())
                await asyncio.sleep(self._random.random() * HELD)
            finally:
                writer.transport.abort()

    def _nonsense(self) -> bytes:
        upgrade = b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
        return self._random.choice(
            (
                os.urandom(3000),
                b"GET /key HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 80_000,
                upgrade + b"X-Tailscale-Handshake: " + b"A" * 134 + b"==\r\n\r\n" + os.urandom(500),
                b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
                + os.urandom(900),
                b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n[",
            )
        )

    async def _be_silent(self) -> None:
        _, writer = await self._connect(tls=False)
        try:
            await asyncio.sleep(HELD)
        finally:
            writer.transport.abort()

    def sentence(self) -> str:
        """What happened, for people."""
        things = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
        return f"{things}; {self.packets} packets through the relay"

    def troubles(self) -> dict[str, Any]:
        """What was refused, most often first."""
        return dict(self.faults.most_common(12))
