"""The same node twice, another machine with its key, and a node that stops listening: nobody else notices."""

import asyncio
import json
import os
import signal
import time

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.simulated import administrator, machine, node, simulated
from tests.support.waiting import eventually, promptly

from doorward.engine.client import ControlClient, RegistrationRefused
from doorward.engine.controlconn import UnexpectedStatus
from doorward.protocol.netmapstate import Netmap

pytestmark = pytest.mark.interop


async def online(server: Server, name: str) -> bool:
    """Whether doorward calls the node online."""
    async with administrator(server) as api:
        answer = await api.get(f"/nodes/{name}")
        return bool(answer.json()["online"])


async def test_the_second_stream_of_a_node_takes_over_and_it_never_goes_offline(server: Server) -> None:
    await server.user("alice")
    keys = {"machine_key": machine(), "node_key": node()}
    seen: list[bool] = []
    async with (
        simulated(server.url, "watcher") as watcher,
        simulated(server.url, "twice", **keys) as first,  # type: ignore[arg-type]
        simulated(server.url, "twice", **keys) as second,  # type: ignore[arg-type]
        asyncio.TaskGroup() as group,
    ):
        await watcher.join(auth_key=await server.key("--user", "alice"))
        await first.join(auth_key=await server.key("--user", "alice"))
        following: list[asyncio.Task[None]] = [
            group.create_task(client.follow()) for client in (watcher, first)
        ]
        await watcher.until(lambda netmap: _online(netmap, "twice"))

        async def watch() -> None:
            while True:
                seen.append(_online(watcher.netmap, "twice"))
                await asyncio.sleep(0.02)

        following.append(group.create_task(watch()))
        # The very same node again, as after a change of network that the server has not noticed.
        await second.join()
        following.append(group.create_task(second.follow()))
        await second.until(lambda netmap: netmap.peers)
        # Two that fight for one place, since both are alive, take it from each other with growing pauses.
        await asyncio.sleep(1)
        following.pop(1).cancel()
        first.close()
        await asyncio.sleep(11)  # longer than a node may be without a stream before others are told
        assert await online(server, "twice")
        assert seen
        assert all(seen)
        # What happens to others still reaches the stream that is left.
        async with simulated(server.url, "third") as third:
            await third.join(auth_key=await server.key("--user", "alice"))
            await second.until(lambda netmap: any("third" in peer.Name for peer in netmap.peers))
        for task in following:
            task.cancel()


def _online(netmap: Netmap, name: str) -> bool:
    return any(peer.Name.startswith(f"{name}.") and peer.Online is True for peer in netmap.peers)


async def test_a_node_key_of_another_machine_opens_nothing(server: Server) -> None:
    await server.user("alice")
    stolen = node()
    async with (
        simulated(server.url, "owner", node_key=stolen) as owner,
        simulated(server.url, "thief", node_key=stolen) as thief,
    ):
        await owner.join(auth_key=await server.key("--user", "alice"))
        fresh = await server.key("--user", "alice")
        with pytest.raises(RegistrationRefused, match="belongs to another machine"):
            await thief.join()
        # Not even a good key helps, and it is not spent by trying.
        with pytest.raises(RegistrationRefused, match="belongs to another machine"):
            await thief.join(auth_key=fresh)
        with pytest.raises(UnexpectedStatus, match="another machine"):
            await thief.report(home_derp=900)
        assert (await thief.logout()).NodeKeyExpired
        async with asyncio.TaskGroup() as group:
            following = group.create_task(owner.follow())
            stealing = group.create_task(thief.follow())
            assert (await owner.until(lambda netmap: netmap.node)).node.Name.startswith("owner.")
            await eventually(lambda: _failed(thief))
            following.cancel()
            stealing.cancel()
        assert thief.sessions == 0
        await owner.join()  # its key has survived the other's logout
        async with simulated(server.url, "newcomer") as newcomer:
            await newcomer.join(auth_key=fresh)


async def _failed(client: ControlClient) -> bool:
    return isinstance(client.last_error, UnexpectedStatus)


async def test_a_copied_state_is_refused_in_words_by_a_stock_client(server: Server) -> None:
    await server.user("alice")
    async with StockClient("original") as original:
        await original.up(server.url, await server.key("--user", "alice"))
        state = original.folder / "tailscaled.state"
        text = state.read_text()
        async with StockClient("copy") as copy:
            await copy.kill()
            # The original's node key on another machine. (With the machine key copied too, it is the same node twice.)
            (copy.folder / "tailscaled.state").write_text(_without_machine(text))
            await copy.start(stuck=True)
            result = await copy.up(server.url, hostname="original", check=False)
            assert result.returncode == 1
            assert "this node key belongs to another machine. " in result.stdout + result.stderr
            # The cure: the copy's own login, here by force.
            key = await server.key("--user", "alice")
            await copy.up(server.url, key, extra=["--force-reauth", "--reset"])
            assert (await copy.status())["Self"]["DNSName"] == "copy.tailnet.internal."
        assert (await original.status())["BackendState"] == "Running"
        assert await online(server, "original")


def _without_machine(text: str) -> str:
    return json.dumps({name: value for name, value in json.loads(text).items() if name != "_machinekey"})


async def test_a_client_that_stands_still_holds_up_nobody_and_comes_back(server: Server) -> None:
    async with (
        machines(server, "laptop", "frozen", "server") as (laptop, frozen, _),
        administrator(server) as api,
    ):
        key = (await frozen.status())["Self"]["PublicKey"]

        async def change(number: int) -> float:
            # Each change goes to all three; a long one, so that what the frozen one does not read piles up.
            padding = ", ".join(f'"10.{number}.{part}.0/24"' for part in range(200))
            text = f'{{"grants": [{{"src": ["*"], "dst": ["*"], "ip": ["*"]}}, {{"src": [{padding}], "dst": ["*"], "ip": ["{number + 1}"]}}]}}'
            began = time.monotonic()
            assert (await api.put("/policy", json={"text": text})).status_code == 200
            return time.monotonic() - began

        usual = max([await change(100 + number) for number in range(10)])
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            slowest = max([await change(number) for number in range(30)])
            await api.patch("/nodes/server", json={"name": "renamed"})

            async def is_renamed() -> bool:
                return "renamed" in (await laptop.cli("status")).stdout

            began = time.monotonic()
            await promptly(is_renamed, within=2)
            print(f"slowest policy change {slowest:.2f} s, renamed after {time.monotonic() - began:.2f} s")  # noqa: T201
            assert slowest < max(1, 10 * usual)
            assert "pong from renamed" in await laptop.ping("renamed")
            # Its kernel still answers: a client that is silent is not one that is away.
            assert await online(server, "frozen")
        finally:
            os.kill(frozen.pid, signal.SIGCONT)

        async def knows() -> bool:
            return "renamed" in (await frozen.cli("status")).stdout

        await promptly(knows, within=10)
        status = await frozen.status()
        assert status["BackendState"] == "Running"
        assert status["Self"]["PublicKey"] == key
        assert "pong from renamed" in await frozen.ping("renamed")
