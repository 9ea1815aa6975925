"""Questions to nodes: asked down the stream, answered by the asked machine alone."""

import asyncio
import base64
from typing import Any

import pytest
from tests.support.served_control import Link, Served, Stream
from tests.support.waiting import until

from doorward.control import ask
from doorward.errors import DoorwardError, Unavailable
from doorward.model import Node
from doorward.protocol import c2n


@pytest.fixture
async def link(served: Served) -> Link:
    made = await served.link(1)
    await made.join(1)
    return made


@pytest.fixture
async def stream(link: Link) -> Stream:
    made = await link.stream(1)
    await made.next()
    return made


def asked(served: Served) -> Node:
    return served.world.registry.snapshot.nodes[1]


def path_of(question: dict[str, Any], served: Served) -> str:
    ping = question["PingRequest"]
    base = served.world.registry.snapshot.settings.url
    assert ping["URL"].startswith(base)
    assert ping["URLIsNoise"] is True
    path = ping["URL"].removeprefix(base)
    assert isinstance(path, str)
    return path


async def test_a_client_echoes(served: Served) -> None:
    """With the whole client, which answers as stock ones do."""
    async with served.client(1) as client, asyncio.TaskGroup() as group:
        _, auth = await served.world.registry.create_auth_key("test", user="ann")
        await client.join(auth_key=auth)
        following = group.create_task(client.follow())
        await client.until(lambda netmap: netmap.node)
        for body in (b"", b"hello\r\n\r\nthere", bytes(range(256)) * 1000):
            answer = await served.control.questions.c2n(asked(served), "POST", "/echo", body)
            assert answer == ask.C2NAnswer(200, body)
        unknown = await served.control.questions.c2n(asked(served), "GET", "/none")
        assert unknown.status == 404
        ping = await served.control.questions.ping(asked(served), "100.64.0.9")
        assert (ping.Type, ping.IP) == ("disco", "100.64.0.9")
        assert ping.Err
        following.cancel()


async def test_a_question_is_a_whole_request(served: Served, link: Link, stream: Stream) -> None:
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(served.control.questions.c2n(asked(served), "POST", "/echo", b"hi"))
        question = await stream.next()
        request = c2n.parse_request(base64.b64decode(question["PingRequest"]["Payload"]))
        assert (request.method, request.target, request.body) == ("POST", "/echo", b"hi")
        assert request.headers["host"]
        assert question["PingRequest"]["Types"] == "c2n"
        status, _, _ = await link.ask(path_of(question, served), c2n.encode_response(200, b"hi"))
        assert status == 200
    assert asking.result() == ask.C2NAnswer(200, b"hi")


async def test_only_the_asked_machine_may_answer(served: Served, link: Link, stream: Stream) -> None:
    stranger = await served.link(2)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(served.control.questions.ping(asked(served), "100.64.0.9", "TSMP"))
        question = await stream.next()
        path = path_of(question, served)
        assert (question["PingRequest"]["Types"], question["PingRequest"]["IP"]) == ("TSMP", "100.64.0.9")
        for method in ("POST", "HEAD", "GET", "PUT"):
            assert (await stranger.ask(path, b"{}", method=method))[0] == 403
        assert not asking.done()
        assert (await link.ask(path, b'{"Type":"TSMP","LatencySeconds":0.5}'))[0] == 200
    assert asking.result().LatencySeconds == 0.5
    assert (await link.ask(path, b"{}"))[0] == 404  # it was used


async def test_an_unknown_question_has_no_answer(link: Link) -> None:
    for code in ("x", "", "../map"):
        status, _, _ = await link.ask(f"/machine/answer/{code}", b"{}")
        assert status in {404, 405}


async def test_every_question_has_its_own_address(served: Served, link: Link, stream: Stream) -> None:
    """Stock clients ignore a question whose address they have seen."""
    seen: set[str] = set()
    for _ in range(3):
        async with asyncio.TaskGroup() as group:
            group.create_task(served.control.questions.c2n(asked(served), "GET", "/echo"))
            path = path_of(await stream.next(), served)
            await link.ask(path, c2n.encode_response(200, b""))
            seen.add(path)
    assert len(seen) == 3


async def test_a_node_that_is_not_there_is_not_asked(served: Served, link: Link) -> None:
    assert link.served is served
    with pytest.raises(Unavailable, match="host1 is not connected"):
        await served.control.questions.c2n(asked(served), "GET", "/echo")


async def test_patience_ends(
    served: Served, link: Link, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "PATIENCE", 0.03)
    with pytest.raises(Unavailable, match="host1 did not answer"):
        await served.control.questions.c2n(asked(served), "GET", "/echo")
    path = path_of(await stream.next(), served)
    assert (await link.ask(path, c2n.encode_response(200, b"")))[0] == 404  # too late


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1", b"HTTP/1.1 x\r\n\r\n", b"\r\n\r\n", b"\xff" * 100])
async def test_an_answer_that_is_none(served: Served, link: Link, stream: Stream, answer: bytes) -> None:
    async def asking() -> DoorwardError | None:
        try:
            await served.control.questions.c2n(asked(served), "GET", "/echo")
        except DoorwardError as error:
            return error
        return None

    async with asyncio.TaskGroup() as group:
        task = group.create_task(asking())
        await link.ask(path_of(await stream.next(), served), answer)
    assert isinstance(task.result(), Unavailable)


async def test_an_answer_may_not_be_endless(served: Served, link: Link, stream: Stream) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(served.control.questions.ping(asked(served), "100.64.0.9"))
        path = path_of(await stream.next(), served)
        assert (await link.ask(path, b" " * (ask.ANSWER_LIMIT + 1)))[0] == 413
        assert not task.done()
        await link.ask(path, b"{}")


async def test_who_asks_may_go_away(served: Served, link: Link, stream: Stream) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(served.control.questions.c2n(asked(served), "GET", "/echo"))
        path = path_of(await stream.next(), served)
        task.cancel()
    await until(task.done)
    assert (await link.ask(path, b""))[0] == 404


async def test_whether_a_node_is_there_and_reaches_another(served: Served) -> None:
    async with served.client(1) as client, asyncio.TaskGroup() as group:
        _, auth = await served.world.registry.create_auth_key("test", user="ann")
        await client.join(auth_key=auth)
        following = group.create_task(client.follow())
        await client.until(lambda netmap: netmap.node)
        there = await served.control.questions.reach(asked(served), None)
        assert (there.node, there.source, there.endpoint, there.relay) == (asked(served).name, "", "", "")
        assert 0 < there.seconds < 5
        following.cancel()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"LatencySeconds":0.5,"Endpoint":"192.0.2.7:1"}', (0.5, "192.0.2.7:1", "")),
        (b'{"LatencySeconds":0.25,"DERPRegionCode":"home"}', (0.25, "", "home")),
        (b'{"Err":"no matching peer"}', "host1 does not reach host1: no matching peer"),
    ],
)
async def test_the_path_between_two_nodes_is_told(
    served: Served, link: Link, stream: Stream, answer: bytes, expected: tuple[float, str, str] | str
) -> None:
    async def asking() -> object:
        try:
            found = await served.control.questions.reach(asked(served), asked(served))
        except Unavailable as error:
            return error.message
        return (found.seconds, found.endpoint, found.relay)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(asking())
        await link.ask(path_of(await stream.next(), served), answer)
    assert task.result() == expected


async def test_an_echo_of_something_else_is_no_answer(served: Served, link: Link, stream: Stream) -> None:
    async def asking() -> object:
        try:
            return await served.control.questions.reach(asked(served), None)
        except Unavailable as error:
            return error.message

    async with asyncio.TaskGroup() as group:
        task = group.create_task(asking())
        await link.ask(path_of(await stream.next(), served), c2n.encode_response(200, b"something"))
    assert task.result() == "host1 answered something else than it was asked"
