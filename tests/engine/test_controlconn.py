"""The way to a control server: its key, who it must be, and what happens when it is not there."""

import os
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.responses import Response
from tests.support.small_control import SmallControl

from doorward.engine.controlconn import (
    ANSWER_LIMIT,
    ControlConnection,
    UnexpectedStatus,
    fetch_server_key,
)
from doorward.errors import BadInput, RemoteProtocolError, TooMany, Unavailable
from doorward.protocol.keys import MachinePrivate, MachinePublic

MACHINE = MachinePrivate(b"\x22" * 32)
STRANGER = MachinePrivate(b"\x66" * 32).public()


@pytest.fixture
async def control() -> AsyncIterator[SmallControl]:
    async with SmallControl().running() as running:
        yield running


def connection(url: str, server_key: MachinePublic | None = None) -> ControlConnection:
    return ControlConnection(url, MACHINE, version=142, entropy=os.urandom, server_key=server_key)


async def test_the_key_is_asked_for_with_our_version(control: SmallControl) -> None:
    assert await fetch_server_key(control.url, version=113) == MachinePrivate(b"\x11" * 32).public()
    assert control.key_version == "113"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Response("no v", 400), UnexpectedStatus, "GET /key: control answered 400: no v"),
        (Response("mkey:00"), BadInput, "JSON"),
        (Response('{"publicKey":"nodekey:00"}'), BadInput, "mkey:"),
        (Response(b" " * 70_000), RemoteProtocolError, "more than 65536 bytes"),
    ],
)
async def test_an_answer_that_is_no_key(
    control: SmallControl, answer: Response, error: type[Exception], words: str
) -> None:
    control.key_answer = answer
    with pytest.raises(error, match=words):
        await fetch_server_key(control.url)


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused for certain
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match="no answer from"):
            await fetch_server_key(url)
        with pytest.raises(Unavailable, match="no ts2021 connection"):
            await connection(url, STRANGER).post("/x", b"")


async def test_a_server_with_another_key_is_not_talked_to(control: SmallControl) -> None:
    with pytest.raises(RemoteProtocolError):
        await connection(control.url, STRANGER).post("/x", b"secret")
    assert control.posted == []


async def test_one_connection_serves_every_request_and_is_dialled_again(control: SmallControl) -> None:
    one = connection(control.url)
    await one.post("/a", b"1")
    first = one._connection
    await one.post("/b?c=d", b"2")
    assert one._connection is first
    one.close()
    await one.post("/e", b"3")
    assert one._connection is not first
    one.close()
    assert control.posted == [("POST", "/a", b"1"), ("POST", "/b?c=d", b"2"), ("POST", "/e", b"3")]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Response("busy", 429), TooMany, "control asks to try again later: busy"),
        (Response(status_code=500), UnexpectedStatus, r"^POST /machine/register: control answered 500$"),
        (Response("a\x1b[2Jb\nc", 403), UnexpectedStatus, r"403: a \[2Jb c$"),
        (Response(b"x" * (ANSWER_LIMIT + 1)), RemoteProtocolError, "at most"),
    ],
    ids=["429", "500", "escape codes", "too long"],
)
async def test_answers_that_are_none(
    control: SmallControl, answer: Response, error: type[Exception], words: str
) -> None:
    control.answers = [answer]
    one = connection(control.url)
    body = b'{"Version":142,"NodeKey":"nodekey:' + b"1" * 64 + b'"}'
    with pytest.raises(error, match=words):
        await one.post("/machine/register", body)
    one.close()
