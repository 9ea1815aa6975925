"""Two workers of one ``serve``: a question reaches the one that has the node's stream, whichever was asked."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from tests.support.neighbours import join, running
from tests.support.postgres import Cluster, postgres
from tests.support.waiting import until

from doorward.api.types import Pong
from doorward.clock import SystemClock
from doorward.errors import Unavailable
from doorward.model import Node
from doorward.server import siblings
from doorward.server.siblings import Siblings
from doorward.server.sockets import PUBLIC, WORKER, bind_unix
from doorward.server.team import Team
from doorward.tailnet.registry import Registry
from doorward.transport.listener import ListenerSpec, serve

__all__ = ["postgres"]


@pytest.fixture
def address(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


class Worker:
    """As much of one as answers its siblings. It says its own number where the path would be."""

    def __init__(self, team: Team, registry: Registry) -> None:
        self.registry = registry
        self.team = team
        self.siblings = Siblings(team, registry, self.reach)
        self.refuses = False

    async def reach(self, target: Node, source: Node | None) -> Pong:
        asked = target if source is None else source
        if self.refuses or not self.registry.writer.changes.connected(asked.id):
            raise Unavailable(f"{asked.name} is not connected", cure="Is it switched on?")
        name = "" if source is None else source.name
        return Pong(
            node=target.name, source=name, seconds=0.5, endpoint=f"worker {self.team.number}", relay=""
        )


@contextlib.asynccontextmanager
async def serving(worker: Worker, listeners: list[ListenerSpec]) -> AsyncIterator[None]:
    stop, ready = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        app = Starlette(routes=worker.siblings.routes)
        group.create_task(serve(listeners, app, {}, clock=SystemClock(), stop=stop, ready=ready))
        await ready.wait()
        try:
            yield
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def two(address: str) -> AsyncIterator[tuple[Worker, Worker]]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dw-", dir="/tmp")))
        paths = tuple(folder / f"worker-{number}.sock" for number in (1, 2))
        made = []
        for number, name in ((1, "x"), (2, "x/2")):
            # The same relay: that is allowed to workers of one serve.
            registry = await stack.enter_async_context(running(address, name, 901))
            worker = Worker(Team(number=number, paths=paths), registry)
            spec = ListenerSpec(name=WORKER, sockets=[bind_unix(paths[number - 1])])
            await stack.enter_async_context(serving(worker, [spec]))
            made.append(worker)
        first, second = made
        await until(lambda: len(first.registry.neighbours.siblings) == 2)  # type: ignore[union-attr]
        yield first, second


@contextlib.asynccontextmanager
async def with_nodes(address: str) -> AsyncIterator[tuple[Worker, Worker, list[Node]]]:
    """Two workers and two nodes, whose streams both are at the second."""
    async with two(address) as (first, second):
        await first.registry.create_user("test", "ann")
        nodes = [await join(first.registry, number) for number in (1, 2)]
        await until(lambda: all(node.id in second.registry.snapshot.nodes for node in nodes))
        for node in nodes:
            second.registry.writer.changes.subscribe(node.id)
            second.registry.observations.connected(node.id)
        await until(lambda: all(first.registry.snapshot.nodes[node.id].observed.online for node in nodes))
        yield first, second, [first.registry.snapshot.nodes[node.id] for node in nodes]


async def test_who_does_not_have_the_stream_asks_who_does(address: str) -> None:
    async with with_nodes(address) as (first, second, (one, other)):
        for asked in (first, second):
            pong = await asked.siblings.ping(one, None)
            assert (pong.node, pong.source, pong.endpoint) == (one.name, "", "worker 2")
            # Down whose stream it goes is the source's.
            pong = await asked.siblings.ping(one, other)
            assert (pong.node, pong.source, pong.endpoint) == (one.name, other.name, "worker 2")


async def test_a_refusal_is_handed_back_with_its_cure(address: str) -> None:
    async with with_nodes(address) as (first, second, (one, _)):
        second.refuses = True
        with pytest.raises(Unavailable, match="is not connected") as caught:
            await first.siblings.ping(one, None)
        assert caught.value.cure == "Is it switched on?"
        # It was deleted meanwhile, and only the other knows.
        second.registry.writer.snapshot, _ = second.registry.snapshot.with_nodes([], [one.id])
        with pytest.raises(Unavailable, match="was deleted"):
            await first.siblings.ping(one, None)


async def test_a_worker_that_is_away_is_said_to_come_back(address: str) -> None:
    async with with_nodes(address) as (first, _, (one, _)):
        first.team.paths[1].unlink()
        with pytest.raises(Unavailable, match="does not answer") as caught:
            await first.siblings.ping(one, None)
        assert "again" in caught.value.cure


async def test_one_that_answers_nonsense_or_not_at_all(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "PATIENCE", 0.2)
    async with with_nodes(address) as (first, _, (one, _)):
        path = first.team.paths[1]
        path.unlink()
        answers = [b"", b"HTTP/1.1 200 OK\r\n\r\nnonsense", b"HTTP/1.1 503 X\r\n\r\n{}", b"x" * 100_000, None]
        for answer in answers:

            async def say(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes | None = answer
            ) -> None:
                with contextlib.suppress(ConnectionError):
                    await reader.readuntil(b"\r\n\r\n")
                    if answer is None:
                        await reader.read()  # until it is tired of waiting
                    writer.write(answer or b"")
                writer.close()

            async with await asyncio.start_unix_server(say, path):
                with pytest.raises(Unavailable):
                    await first.siblings.ping(one, None)
            path.unlink(missing_ok=True)


async def test_only_workers_may_ask(address: str) -> None:
    async with with_nodes(address) as (_, second, (one, _)):
        with socket.create_server(("127.0.0.1", 0)) as bound:
            bound.setblocking(False)
            spec = ListenerSpec(name=PUBLIC, sockets=[bound])
            async with serving(second, [spec]):
                reader, writer = await asyncio.open_connection(*bound.getsockname())
                body = f'{{"target":{one.id},"source":null}}'
                writer.write(
                    f"POST {siblings.PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                assert b" 403 " in (await reader.read()).partition(b"\r\n")[0]
                writer.close()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"target":1}x', b'{"target":"a","source":null}', b"x" * 5000])
async def test_a_question_that_cannot_be_read_is_refused(address: str, body: bytes) -> None:
    async with two(address) as (first, _):
        status, content = await siblings._post(first.team.paths[1], body)
        assert status in {403, 503}
        assert b'"title"' in content


async def test_a_lone_worker_asks_itself() -> None:
    assert Siblings(Team(), None, None).routes == []  # type: ignore[arg-type]
