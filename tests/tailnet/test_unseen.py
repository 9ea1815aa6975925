"""Where the record of ssh has a gap, an event says so."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.clock import FakeClock
from tests.support.world import counting_entropy

from doorward.errors import Unavailable
from doorward.model import AuditEvent
from doorward.store import Database
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Decide, Settings
from doorward.tailnet.unseen import ACTION, SPREAD

POLICY = '{"ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]}]}'
FALLBACK = timedelta(minutes=10)


class Server:
    """Doorward's tailnet from one start to its end, whose seconds pass when a test says so."""

    def __init__(self, registry: Registry, clock: FakeClock) -> None:
        self.registry = registry
        self.clock = clock

    async def serve(self, span: timedelta = timedelta(seconds=30)) -> None:
        """What runs every second, for so long."""
        end = self.clock.now() + span
        while self.clock.now() < end:
            self.registry.checks.look_at_clock(self.clock.now())
            await self.registry.checks.unseen.keep()
            self.clock.advance(min(SPREAD, (end - self.clock.now()).total_seconds()))
        await self.registry.checks.unseen.keep()

    async def said(self) -> list[dict[str, Any]]:
        found: list[AuditEvent] = await self.registry.audit(action=ACTION)
        assert {(event.actor, event.target) for event in found} <= {("system", "ssh")}
        return [event.details for event in reversed(found)]


Start = Callable[[Decide], Any]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def start(tmp_path: Path, clock: FakeClock) -> Start:
    @asynccontextmanager
    async def begin(decide: Decide) -> AsyncIterator[Server]:
        settings = Settings(
            domain="tailnet.internal", url="http://127.0.0.1:1", ssh_decide=decide, ssh_fallback=FALLBACK
        )
        async with await Database.open(str(tmp_path / "doorward.db"), clock=clock) as database:
            registry = await Registry.open(database, settings, clock, counting_entropy())
            await registry.set_policy("cli", POLICY)
            yield Server(registry, clock)

    return begin


def iso(moment: Any) -> str:
    return str(msgspec.to_builtins(moment))


async def test_away_for_longer_than_nodes_wait_is_a_gap_from_then_on(start: Start, clock: FakeClock) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve(timedelta(minutes=21))
        until = server.registry.snapshot.checks.until
        assert await server.said() == []
    clock.advance(timedelta(hours=2))
    async with start(Decide.FALLBACK) as server:
        back = clock.now()
        await server.serve()
        gap = {"decide": "fallback", "from": iso(until), "to": iso(back)}
        assert await server.said() == [gap]
        await server.serve(timedelta(minutes=20))
        assert await server.said() == [gap]
    clock.advance(timedelta(minutes=4))
    async with start(Decide.FALLBACK) as server:  # a restart that no node noticed
        await server.serve()
        assert await server.said() == [gap]


async def test_a_moment_that_nodes_may_not_have_heard_of_does_not_count(
    start: Start, clock: FakeClock
) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve(timedelta(minutes=4))
        told = server.registry.snapshot.checks.until
        clock.advance(timedelta(minutes=2))
        server.registry.checks.look_at_clock(clock.now())
        assert server.registry.snapshot.checks.until > told
        await server.registry.checks.unseen.keep()  # and killed at once
    clock.advance(timedelta(hours=1))
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        (gap,) = await server.said()
        assert gap["from"] == iso(told)


async def test_killed_before_any_node_heard_of_it_a_start_ends_no_gap(start: Start, clock: FakeClock) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve()
    clock.advance(timedelta(hours=1))
    async with start(Decide.FALLBACK) as server:
        first = clock.now()
        await server.registry.checks.unseen.keep()
    clock.advance(timedelta(hours=1))
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        one, two = await server.said()
        assert (one["to"], two["from"]) == (iso(first), iso(first))


async def test_several_that_start_together_say_it_once(start: Start, clock: FakeClock) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve()
    clock.advance(timedelta(hours=1))
    for _ in range(3):
        async with start(Decide.FALLBACK) as server:
            await server.registry.checks.unseen.keep()
            clock.advance(2)
            assert len(await server.said()) == 1


async def test_under_policy_it_is_said_when_it_comes_into_force_and_when_it_ends(
    start: Start, clock: FakeClock
) -> None:
    began = clock.now()
    async with start(Decide.POLICY) as server:
        await server.serve()
        assert await server.said() == [{"decide": "policy", "from": iso(began), "to": None}]
    clock.advance(timedelta(days=1))
    async with start(Decide.POLICY) as server:  # as before, which was said
        await server.serve()
        assert len(await server.said()) == 1
    async with start(Decide.ALWAYS) as server:
        ended = clock.now()
        await server.serve()
        assert (await server.said())[1:] == [{"decide": "policy", "from": iso(began), "to": iso(ended)}]
    clock.advance(timedelta(days=1))
    async with start(Decide.ALWAYS) as server:  # nobody got in meanwhile
        await server.serve()
        assert len(await server.said()) == 2


async def test_a_gap_before_the_setting_changed_is_said_as_well(start: Start, clock: FakeClock) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        until = server.registry.snapshot.checks.until
    clock.advance(timedelta(hours=1))
    now = iso(clock.now())
    async with start(Decide.POLICY) as server:
        await server.serve()
        assert await server.said() == [
            {"decide": "fallback", "from": iso(until), "to": now},
            {"decide": "policy", "from": now, "to": None},
        ]


async def test_without_a_rule_for_ssh_there_is_nothing_to_miss(start: Start, clock: FakeClock) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.registry.set_policy("cli", '{"grants": []}')
        await server.serve()
    clock.advance(timedelta(hours=1))
    async with start(Decide.FALLBACK) as server:
        await server.registry.set_policy("cli", '{"grants": [ ]}')
        await server.serve()
        assert await server.said() == []


async def test_a_clock_that_was_set_back_does_not_hide_the_next_gap(start: Start, clock: FakeClock) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        clock.jump(timedelta(days=-30))
        await server.serve()
        until = server.registry.snapshot.checks.until
    clock.advance(timedelta(hours=1))
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        (gap,) = await server.said()
        assert gap["from"] == iso(until)


async def test_attempts_off_the_record_are_counted_and_said_when_it_can_be_written_again(
    start: Start, clock: FakeClock
) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        unseen, database = server.registry.checks.unseen, server.registry.writer.database
        database.trouble = Unavailable("the disk is full")
        first = clock.now()
        unseen.missed()
        clock.advance(60)
        last = clock.now()
        unseen.missed()
        await unseen.keep()
        assert await server.said() == []
        database.trouble = None
        await unseen.keep()
        await unseen.keep()
        reason = "the database took no writes"
        expected = {"reason": reason, "attempts": 2, "from": iso(first), "to": iso(last)}
        assert await server.said() == [expected]


async def test_what_could_not_be_said_is_said_later(
    start: Start, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(Decide.FALLBACK) as server:
        await server.serve()
        unseen, writer = server.registry.checks.unseen, server.registry.writer
        first = clock.now()
        unseen.missed()

        async def refuse(*_: object) -> None:
            clock.advance(5)
            unseen.missed()
            raise Unavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(writer, "apply", refuse)
            await unseen.keep()
        await unseen.keep()
        (event,) = await server.said()
        assert (event["attempts"], event["from"], event["to"]) == (2, iso(first), iso(clock.now()))
