"""What several doorwards on one PostgreSQL tell each other: turns, answers, and certificates that the database cannot read."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.server.acme.test_folder import HOST, issued
from tests.support.clock import FakeClock
from tests.support.neighbours import running
from tests.support.postgres import Cluster, postgres
from tests.support.waiting import eventually, until

from doorward.errors import DoorwardError
from doorward.server.acme import sharing as module
from doorward.server.acme.folder import Answer
from doorward.server.acme.sharing import Had, Sharing
from doorward.store import settings
from doorward.tailnet.registry import Registry

__all__ = ["postgres"]

ANSWER = Answer(host=HOST, challenge="http-01", token="t", authorization="t.x")
DIRECTORY = "https://ca.example/dir"
SECRET = b"\x11" * 32


def sharing_of(registry: Registry, secret: bytes = SECRET) -> Sharing:
    writer = registry.writer
    assert registry.neighbours is not None
    assert writer.process is not None
    return Sharing(writer.database, registry.neighbours, writer.process, secret)


@contextlib.asynccontextmanager
async def two(postgres: Cluster) -> AsyncIterator[tuple[Registry, Registry]]:
    """Two doorwards that know each other."""
    address = postgres.create_database()
    async with running(address, "one", 901) as one, running(address, "two", 902) as other:
        for registry in (one, other):
            neighbours = registry.neighbours
            assert neighbours is not None
            await until(lambda neighbours=neighbours: len(neighbours.others) == 1)  # type: ignore[misc]
        yield one, other


async def test_one_at_a_time_has_the_turn_and_answers_are_everybody_s(
    postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARD", 0.0)
    async with two(postgres) as (first, second):
        one, other = sharing_of(first), sharing_of(second)
        assert await one.claim(HOST)
        assert await one.claim(HOST)  # ours already
        assert not await other.claim(HOST)
        assert await other.claim("control.example.com")  # a turn for each name
        assert (await other.look((HOST,))).answers == ()
        await one.tell(HOST, ANSWER)
        assert (await other.look((HOST,))).answers == (ANSWER,)
        assert (await one.look((HOST,))).answers == ()  # its own it knows
        await one.release(HOST)
        assert (await other.look((HOST,))).answers == ()
        assert await other.claim(HOST)


async def test_a_turn_ends_with_its_process(postgres: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARD", 0.0)
    address = postgres.create_database()
    async with running(address, "one", 901) as first:
        one = sharing_of(first)
        async with running(address, "two", 902) as second:
            other = sharing_of(second)
            assert await other.claim(HOST)
            await other.tell(HOST, ANSWER)
            assert not await one.claim(HOST)
        assert (await one.look((HOST,))).answers == ()
        assert await one.claim(HOST)


async def test_a_certificate_is_passed_on_sealed(postgres: Cluster, tmp_path: Path) -> None:
    pem = issued(tmp_path, FakeClock())
    async with two(postgres) as (first, second):
        one, other = sharing_of(first), sharing_of(second)
        await one.pass_on(HOST, DIRECTORY, pem)
        for _ in range(2):  # the second time it is remembered
            assert (await other.look((HOST, "a.example"))).certificates == {HOST: Had(DIRECTORY, pem)}
        stored = str(await first.writer.database.read(settings.load_all))
        assert HOST in stored
        for line in pem.decode().splitlines():
            if not line.startswith("-"):
                assert line not in stored
        # Whoever has another control key can do nothing with it, nor does it pass for another name's.
        assert (await sharing_of(second, b"\x22" * 32).look((HOST,))).certificates == {}
        held = await first.writer.database.read(settings.get, f"acme.held.{HOST}", module._Held)
        await first.writer.database.run(settings.put, "acme.held.a.example", held)
        assert set((await other.look((HOST, "a.example"))).certificates) == {HOST}
        await first.writer.database.run(settings.put, f"acme.held.{HOST}", module._Held(DIRECTORY, "%%%"))
        assert (await other.look((HOST,))).certificates == {}


async def test_who_is_alone_waits_for_nobody(postgres: Cluster) -> None:
    address = postgres.create_database()
    async with running(address, "one", 901) as first:
        one = sharing_of(first)
        assert one.alone()
        assert await one.claim(HOST)
        await one.tell(HOST, ANSWER)  # and not five seconds later
        async with running(address, "two", 902):

            async def is_seen() -> bool:
                return not one.alone()

            await eventually(is_seen)


async def test_a_database_that_is_away_is_an_error_where_the_answer_matters(
    postgres: Cluster, tmp_path: Path
) -> None:
    address = postgres.create_database()
    async with running(address, "one", 901) as first:
        one = sharing_of(first)
        await first.writer.database.close()
        with pytest.raises(DoorwardError):
            await one.claim(HOST)
        with pytest.raises(DoorwardError):
            await one.look((HOST,))
        await one.release(HOST)
        await one.pass_on(HOST, DIRECTORY, issued(tmp_path, FakeClock()))
