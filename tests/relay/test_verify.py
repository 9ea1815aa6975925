"""Asking control whom to admit: what is asked, what is remembered, and what happens while nobody answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.clock import FakeClock
from tests.support.relay import HOST, node_key

from doorward.protocol.keys import NodePublic
from doorward.relay import verify
from doorward.relay.verify import AWAY_SECONDS, KNOWN_SECONDS, NO_SECONDS, YES_SECONDS, Verifier

ALICE, BOB, CAROL = (node_key(number).public() for number in range(1, 4))
FROM = "192.0.2.1"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Control:
    """Answers POST /verify, over real HTTP."""

    def __init__(self) -> None:
        self.asked: list[tuple[NodePublic, str]] = []
        self.known = {ALICE}
        self.status = 200
        self.body: bytes | None = None  # instead of the answer
        self.at_once = 0
        self.most_at_once = 0
        self.hold: asyncio.Event | None = None
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /verify HTTP/1.1\r\n")
        assert b"content-type: application/json" in head.lower()
        (length,) = (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        asked = json.loads(await reader.readexactly(length))
        assert set(asked) == {"NodePublic", "Source"}
        key = NodePublic.parse(asked["NodePublic"])
        self.asked.append((key, asked["Source"]))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.hold is not None:
            await self.hold.wait()
        self.at_once -= 1
        body = json.dumps({"Allow": key in self.known}).encode() if self.body is None else self.body
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (self.status, len(body), body))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def running_control() -> AsyncIterator[Control]:
    control = Control()
    server = await asyncio.start_server(control.answer, HOST, 0)
    control.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/verify"
    async with server:
        yield control


async def test_control_decides_and_is_told_key_and_address() -> None:
    async with running_control() as control, Verifier(control.url, FakeClock()) as verifier:
        assert await verifier.admit(ALICE, FROM)
        assert not await verifier.admit(BOB, FROM)
        assert control.asked == [(ALICE, FROM), (BOB, FROM)]


async def test_a_yes_is_remembered_for_a_minute_and_a_no_for_moments() -> None:
    clock = FakeClock()
    async with running_control() as control, Verifier(control.url, clock) as verifier:
        for _ in range(3):
            assert await verifier.admit(ALICE, FROM)
            assert not await verifier.admit(BOB, FROM)
        assert len(control.asked) == 2
        assert await verifier.admit(ALICE, "192.0.2.2"), "control may decide by the address"
        assert len(control.asked) == 3
        control.known = {BOB}
        clock.advance(NO_SECONDS)
        assert await verifier.admit(BOB, FROM)
        assert await verifier.admit(ALICE, FROM)
        clock.advance(YES_SECONDS)
        assert not await verifier.admit(ALICE, FROM)


async def test_many_at_once_ask_once_each_and_not_all_together() -> None:
    async with running_control() as control, Verifier(control.url, FakeClock()) as verifier:
        control.hold = asyncio.Event()
        keys = [node_key(number).public() for number in range(1, 2 * verify.AT_ONCE)]
        async with asyncio.TaskGroup() as group:
            for key in [*keys, *keys]:
                group.create_task(verifier.admit(key, FROM))
            async with asyncio.timeout(5):
                while control.at_once < verify.AT_ONCE:  # noqa: ASYNC110 - it is another task's number
                    await asyncio.sleep(0.002)
            await asyncio.sleep(0.02)
            control.hold.set()
        assert control.most_at_once == verify.AT_ONCE
        # A key that was asked about twice in the same moment is asked about twice at most.
        assert len(control.asked) < 2 * len(keys)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b'{"Allow":"yes"}'),
        (200, b"\xff"),
        (200, b'{"Allow":true}' + b" " * 5000),
        (403, b'{"Allow":true}'),
        (500, b'{"Allow":true}'),
        (302, b'{"Allow":true}'),
    ],
)
@pytest.mark.parametrize("fail_open", [False, True])
async def test_nonsense_is_a_no_also_when_open(status: int, body: bytes, fail_open: bool) -> None:
    clock = FakeClock()
    async with running_control() as control, Verifier(control.url, clock, fail_open=fail_open) as verifier:
        assert await verifier.admit(ALICE, FROM)
        clock.advance(YES_SECONDS)
        control.status, control.body = status, body
        assert not await verifier.admit(ALICE, FROM)
        control.status, control.body = 200, None
        assert await verifier.admit(ALICE, FROM), "and it is not remembered"


async def test_without_control_nobody_new_comes_in() -> None:
    clock = FakeClock()
    async with running_control() as control:
        verifier = Verifier(control.url, clock)
        assert await verifier.admit(ALICE, FROM)
    async with verifier:
        assert not await verifier.admit(BOB, FROM)
        assert await verifier.admit(ALICE, FROM), "its answer is not a minute old"
        clock.advance(YES_SECONDS)
        assert not await verifier.admit(ALICE, FROM)


@pytest.mark.parametrize("status", [None, 502, 503, 504])
async def test_open_means_for_those_whom_control_knew(status: int | None) -> None:
    clock = FakeClock()
    async with running_control() as control, Verifier(control.url, clock, fail_open=True) as verifier:
        assert await verifier.admit(ALICE, FROM)
        assert not await verifier.admit(BOB, FROM)
        clock.advance(YES_SECONDS)
        if status is None:
            verifier._url = "http://127.0.0.1:1/verify"
        else:
            control.status = status
        assert await verifier.admit(ALICE, "192.0.2.99"), "nodes move"
        assert not await verifier.admit(BOB, FROM)
        assert not await verifier.admit(CAROL, FROM)
        clock.advance(KNOWN_SECONDS)
        assert not await verifier.admit(ALICE, FROM)


async def test_a_node_that_control_turned_away_is_not_known_any_more() -> None:
    clock = FakeClock()
    async with running_control() as control, Verifier(control.url, clock, fail_open=True) as verifier:
        assert await verifier.admit(ALICE, FROM)
        control.known = set()
        clock.advance(YES_SECONDS)
        assert not await verifier.admit(ALICE, FROM)
        clock.advance(NO_SECONDS)
        control.status = 503
        assert not await verifier.admit(ALICE, FROM)


async def test_after_a_silence_nobody_waits_for_the_next() -> None:
    clock = FakeClock()
    async with running_control() as control, Verifier(control.url, clock) as verifier:
        control.status = 503
        for key in (ALICE, BOB, CAROL):
            assert not await verifier.admit(key, FROM)
        assert len(control.asked) == 1
        clock.advance(AWAY_SECONDS)
        control.status = 200
        assert await verifier.admit(ALICE, FROM), "a refusal without control is not remembered"


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MOST", 2)
    async with running_control() as control, Verifier(control.url, FakeClock()) as verifier:
        control.known = {ALICE, BOB, CAROL}
        for key in (ALICE, BOB, CAROL, BOB, ALICE):
            assert await verifier.admit(key, FROM)
        assert [key for key, _ in control.asked] == [ALICE, BOB, CAROL, ALICE]
        assert len(verifier._answers._entries) == len(verifier._known._entries) == 2


async def test_one_that_is_in_is_asked_about_anew_and_doubt_is_no_answer() -> None:
    clock = FakeClock()
    async with running_control() as control, Verifier(control.url, clock) as verifier:
        assert await verifier.admit(ALICE, FROM)
        assert await verifier.still(ALICE, FROM) is True
        assert len(control.asked) == 2, "a yes that is remembered is what is in question"
        control.known = set()
        assert await verifier.still(ALICE, FROM) is False
        assert not await verifier.admit(ALICE, FROM), "and whoever was thrown out does not come back by it"
        assert await verifier.still(ALICE, FROM) is False
        assert len(control.asked) == 3, "a no is remembered for moments"
        control.body = b"nonsense"
        assert await verifier.still(BOB, FROM) is None
        control.status = 503
        assert await verifier.still(BOB, FROM) is None
        asked = len(control.asked)
        assert await verifier.still(CAROL, FROM) is None, "control is away: nobody is asked about for moments"
        assert len(control.asked) == asked
