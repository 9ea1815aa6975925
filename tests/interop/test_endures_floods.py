"""Ten thousand connections that stop half way, no descriptors left, handshakes without end, and everybody back at once."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.soak.measured import metric
from tests.support.clients import StockClient
from tests.support.flooding import KINDS, Process, crowd, initiation
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.simulated import administrator, simulated
from tests.support.waiting import eventually, until

from doorward.engine.client import ControlClient
from doorward.server.descriptors import RESERVE
from doorward.transport.listener import Limits
from doorward.transport.turns import RATE

# Minutes only on a machine that does much else at the same time.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

EACH = 2000  # of five kinds
SHORTEST = 10.0  # seconds that a connection of any kind has
PATIENCE = 10.0  # seconds to join in; by itself it is a tenth of one, but this machine may do much else
# The dearest kind of half-open connection is one in the middle of TLS; with it all places of strangers may be taken.
MOST_MEMORY = 250 << 20


async def _metric(api: httpx2.AsyncClient, name: str) -> float:
    return metric((await api.get("http://localhost/metrics")).text, name)


async def _others_are_unaffected(server: Server, laptop: StockClient, key: str, name: str) -> float:
    """Packets, a change that is told, and somebody new; the seconds that joining took."""
    assert "pong from other" in await laptop.ping("other")
    async with simulated(server.url, name) as newcomer:
        began = time.monotonic()
        await newcomer.join(auth_key=key)
        joined = time.monotonic() - began

    async def is_told() -> bool:
        return name in (await laptop.cli("status")).stdout

    await eventually(is_told, within=PATIENCE)
    return joined


async def test_ten_thousand_connections_that_stop_half_way() -> None:
    async with (
        Server() as server,
        machines(server, "laptop", "other") as (laptop, _),
        administrator(server) as api,
    ):
        key = await server.key("--user", "alice", "--reusable")
        process = Process(server.worker_pid())
        descriptors, memory = process.descriptors(), process.memory()
        with crowd(server, "127.0.0.66") as those:
            began = time.monotonic()
            for kind in KINDS:
                before, was = process.memory(), process.descriptors()
                await those.open(kind, EACH)
                joined = await _others_are_unaffected(server, laptop, key, f"after-{kind}")
                assert joined < PATIENCE
                held = process.descriptors() - was
                print(  # noqa: T201
                    f"{EACH} x {kind}: {(process.memory() - before) >> 20} MiB more, {held} descriptors more, "
                    f"joined in {joined:.2f} s"
                )
            assert process.memory() - memory < MOST_MEMORY
            # Strangers made room for strangers; nobody else had to.
            await until(lambda: those.there() <= Limits().guests)  # some may wait in the listener's queue
            assert await _metric(api, "doorward_connections_guests") <= Limits().guests + 10  # the local ones
            # All but those that are there, and those whose time was over: no more than there is room for in each such time.
            times = int((time.monotonic() - began) / SHORTEST)
            assert (
                await _metric(api, "doorward_connections_sent_away_total")
                >= len(KINDS) * EACH - Limits().guests * (1 + times) - 500
            )
            assert await _metric(api, "doorward_connections_settled") >= 4
            # And those who stay have their time. DERP gives ten seconds, a request's head fifteen, Noise thirty.
            limit = Limits().head_seconds + 5

            async def time_is_over() -> bool:
                return those.there() == 0

            await eventually(time_is_over, within=limit + 20)
        await until(lambda: process.descriptors() <= descriptors + 10, seconds=10)
        assert "pong from other" in await laptop.ping("other")
        await eventually(laptop.is_well)
        log = server.log.read_text(errors="replace")
        assert "Traceback" not in log
        assert "[error" not in log


@contextlib.asynccontextmanager
async def _limited(limit: int) -> AsyncIterator[Server]:
    """A server that may open so few descriptors from its start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = Server(descriptors=limit)
    async with server:
        yield server
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


async def test_a_low_limit_of_descriptors_is_shared_out() -> None:
    async with (
        _limited(400) as server,
        machines(server, "laptop", "other") as (laptop, _),
        administrator(server) as api,
    ):
        key = await server.key("--user", "alice", "--reusable")
        process = Process(server.worker_pid())
        with crowd(server, "127.0.0.66") as those:
            for _ in range(3):
                await those.open("tcp", 500)
                assert await _others_are_unaffected(server, laptop, key, "newcomer") < PATIENCE
                assert (await api.get("/status")).status_code == 200
                assert (await server.run("keys", "create", "--user", "alice")).returncode == 0
            await until(lambda: those.there() <= 400 - RESERVE)  # some may wait in the listener's queue
            assert process.descriptors() <= 400 - RESERVE // 2
        assert await _metric(api, "doorward_accept_exhausted_total") == 0
        assert "Traceback" not in server.log.read_text(errors="replace")


async def test_descriptors_that_run_out_all_the_same() -> None:
    """Somebody takes the worker's descriptors away while it runs: it waits, does not spin, sends strangers away, goes on."""
    async with (
        Server() as server,
        machines(server, "laptop", "other") as (laptop, _),
        administrator(server) as api,
    ):
        key = await server.key("--user", "alice", "--reusable")
        worker = server.worker_pid()
        process = Process(worker)
        assert "pong from other" in await laptop.ping("other")
        limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        with crowd(server) as those:
            # As many as are open now, and ten: the next connections cannot even be accepted.
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (process.descriptors() + 10, limits[1]))
            await those.open("tcp", 300)
            before = process.cpu()
            await asyncio.sleep(3)
            assert process.cpu() - before < 1.5  # it does not spin
            assert "pong from other" in await laptop.ping("other")
            assert (await laptop.status())["BackendState"] == "Running"
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        assert await _others_are_unaffected(server, laptop, key, "newcomer") < PATIENCE
        assert await _metric(api, "doorward_accept_exhausted_total") >= 2
        assert server.worker_pid() == worker
        assert "Traceback" not in server.log.read_text(errors="replace")


async def test_handshakes_without_end_leave_half_of_the_time_to_others() -> None:
    async with (
        Server(environ={"DOORWARD_TAILSCALED": "off"}) as server,
        administrator(server) as api,
        asyncio.TaskGroup() as group,
    ):
        await server.user("alice")
        key = await server.key("--user", "alice", "--reusable")
        words = await initiation(server)
        flood = [group.create_task(_shake_for_ever(server, words)) for _ in range(64)]
        process = Process(server.worker_pid())
        await asyncio.sleep(1)
        before, began = await _metric(api, "doorward_noise_handshakes_total"), time.monotonic()
        cpu = process.cpu()
        async with simulated(server.url, "node") as node:
            joining = time.monotonic()
            await node.join(auth_key=key)
            following = group.create_task(node.follow())
            await node.until(lambda netmap: netmap.node)
            assert time.monotonic() - joining < PATIENCE
            following.cancel()
        await asyncio.sleep(1)
        seconds = time.monotonic() - began
        done = await _metric(api, "doorward_noise_handshakes_total") - before
        print(f"{done / seconds:.0f} handshakes/s, {(process.cpu() - cpu) / seconds:.2f} of a core")  # noqa: T201
        assert done / seconds <= RATE * 1.2
        for task in flood:
            task.cancel()


async def _shake_for_ever(server: Server, words: bytes) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(*server.listens_at, local_addr=("127.0.0.66", 0))
            try:
                writer.write(words)
                await reader.readexactly(20)
            finally:
                writer.transport.abort()


async def test_everybody_is_back_after_the_worker_was_killed() -> None:
    nodes = 300
    async with (
        Server(environ={"DOORWARD_TAILSCALED": "off"}, level="warning") as server,
        contextlib.AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        await server.set_policy(
            '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}'
        )
        clients = [simulated(server.url, f"node-{number}") for number in range(nodes)]
        room = asyncio.Semaphore(32)
        keys = []
        for team in range(6):
            await server.user(f"user{team}")
            keys.append(await server.key("--user", f"user{team}", "--reusable"))

        async def join(client: ControlClient, key: str) -> None:
            stack.callback(client.close)
            async with room:
                await client.join(auth_key=key)

        async with asyncio.TaskGroup() as joining:
            for number, client in enumerate(clients):
                joining.create_task(join(client, keys[number % len(keys)]))
        following = [group.create_task(client.follow()) for client in clients]
        await until(lambda: all(client.sessions for client in clients), seconds=60)
        worker = server.worker_pid()
        before = [client.sessions for client in clients]
        began = time.monotonic()
        os.kill(worker, signal.SIGKILL)

        def all_are_back() -> bool:
            return all(client.sessions > was for client, was in zip(clients, before, strict=True))

        await until(all_are_back, seconds=60)
        wall = time.monotonic() - began
        process = Process(server.worker_pid())
        print(f"{nodes} back after {wall:.2f} s, {process.cpu():.2f} CPU-s")  # noqa: T201
        assert process.cpu() < 6  # most of it is the worker's own start; a wall time would be the machine's
        for task in following:
            task.cancel()
