"""When a certificate is ordered, what happens when that fails, and what is said of it; the authority is a script."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.server.acme.test_folder import HOST, issued
from tests.support.clock import FakeClock
from tests.support.waiting import until

from doorward.config import Settings
from doorward.config.settings import Acme, AcmeDns, Tls
from doorward.server import tls
from doorward.server.acme import keeper as module
from doorward.server.acme.certificate import OrderedCertificate
from doorward.server.acme.conversation import Advice, Present, Proof
from doorward.server.acme.faults import HOUR, MINUTE, AcmeError
from doorward.server.acme.folder import Folder, State
from doorward.server.acme.keeper import Keeper, renewal

LIFE = tls.LEAF_LIFE + tls.EARLIER  # of what ``issued`` makes, most of it gone by already


class Script:
    """An authority that does as the test says."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._folder = folder
        self._clock = clock
        self.orders: list[str] = []
        self.fails: AcmeError | None = None
        self.gives: Callable[[str], bytes] = lambda host: issued(folder, clock, host)
        self.during: Callable[[], None] = lambda: None
        self.challenge = "http-01"
        self.advises = Advice(None, clock.now())

    async def order(self, host: str, present: Present) -> bytes:
        self.orders.append(host)
        async with present(Proof(host, self.challenge, f"token-{host}", f"token-{host}.key", "record")):
            self.during()
            if self.fails is not None:
                raise self.fails
        return self.gives(host)

    async def advice(self, leaf: x509.Certificate) -> Advice:
        return self.advises


class Keeping:
    """A keeper of one name, on a clock of its own."""

    def __init__(self, path: Path, clock: FakeClock, hosts: tuple[str, ...] = (HOST,), **acme: Any) -> None:
        self.clock = clock
        self.folder = Folder(path / "tls" / "acme")
        authority = tls.Authority.open(path / "tls", clock)
        self.certificates = {
            host: OrderedCertificate(self.folder, authority, host, host, clock) for host in hosts
        }
        self.settings = Settings(
            door=f"https://{HOST}",
            tls=Tls(acme=Acme(**{"directory": "https://ca.example/dir", "agree": True, **acme})),
        )
        self.script = Script(path, clock)
        self.keeper = Keeper(self.settings, self.folder, self.certificates, clock, bytes)
        self.keeper._talk = lambda: self.script  # type: ignore[method-assign,assignment,return-value]

    async def look(self) -> float:
        """One look; seconds until the next."""
        return await self.keeper._look(HOST)

    @property
    def state(self) -> State:
        return self.folder.state(HOST)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keeping(tmp_path: Path, clock: FakeClock) -> Keeping:
    return Keeping(tmp_path, clock)


async def test_the_first_is_ordered_at_once_and_its_proof_is_seen_while_it_is_asked_for(
    keeping: Keeping,
) -> None:
    seen: list[Any] = []
    keeping.script.during = lambda: seen.extend(keeping.folder.answers())
    assert keeping.keeper.due(HOST) <= keeping.clock.now()
    await keeping.look()
    ((answer),) = seen
    assert (answer.host, answer.challenge, answer.authorization) == (HOST, "http-01", f"token-{HOST}.key")
    assert keeping.folder.answers() == ()
    assert keeping.certificates[HOST].ordered
    assert keeping.script.orders == [HOST]
    await keeping.look()
    assert keeping.script.orders == [HOST]


async def test_it_is_renewed_at_two_thirds_of_its_life(keeping: Keeping) -> None:
    await keeping.look()
    leaf = keeping.certificates[HOST].leaf
    due = keeping.keeper.due(HOST)
    assert due == renewal(leaf)
    two_thirds = leaf.not_valid_before_utc + LIFE * 2 / 3
    assert two_thirds - LIFE / 20 <= due <= two_thirds
    keeping.clock.jump(due - keeping.clock.now() - timedelta(seconds=1))
    await keeping.look()
    assert keeping.certificates[HOST].leaf == leaf
    keeping.clock.advance(1)
    await keeping.look()
    assert keeping.certificates[HOST].leaf != leaf
    assert keeping.script.orders == [HOST, HOST]


def test_renewals_are_spread_by_chance(tmp_path: Path, clock: FakeClock) -> None:
    leaves = [x509.load_pem_x509_certificates(issued(tmp_path, clock))[0] for _ in range(20)]
    parts = [(renewal(leaf) - leaf.not_valid_before_utc) / LIFE for leaf in leaves]
    assert all(2 / 3 - 1 / 20 <= part <= 2 / 3 for part in parts)
    assert max(parts) - min(parts) > 0.01


async def test_the_authority_may_want_it_sooner_or_later(keeping: Keeping) -> None:
    await keeping.look()
    leaf, now = keeping.certificates[HOST].leaf, keeping.clock.now()
    usual = keeping.keeper.due(HOST)
    keeping.clock.advance(module.ASK + 1)
    keeping.script.advises = Advice(usual + timedelta(days=5), now + timedelta(days=3))
    await keeping.look()
    assert keeping.keeper.due(HOST) == usual + timedelta(days=5)
    # Another moment of the same window changes nothing, and one of another window does.
    keeping.clock.advance(timedelta(days=1))
    keeping.script.advises = Advice(usual + timedelta(days=4), now)
    await keeping.look()
    assert keeping.keeper.due(HOST) == usual + timedelta(days=5)
    keeping.clock.advance(timedelta(days=1))
    keeping.script.advises = Advice(usual - timedelta(days=40), now)
    keeping.keeper.ask()
    await keeping.look()
    assert keeping.keeper.due(HOST) == usual - timedelta(days=40)
    # It is asked again within a day, whatever it says; beyond five sixths of the life nothing is put off.
    assert keeping.state.ask is not None
    assert timedelta(0) < keeping.state.ask - keeping.clock.now() <= timedelta(days=1)
    keeping.folder.keep_state(HOST, State(renew=leaf.not_valid_after_utc))
    assert keeping.keeper.due(HOST) == leaf.not_valid_before_utc + LIFE * 5 / 6
    keeping.folder.keep_state(HOST, State())
    keeping.script.advises = Advice(now - timedelta(hours=1), now)
    await keeping.look()
    await keeping.look()
    assert keeping.certificates[HOST].leaf != leaf
    assert keeping.state.renew is None  # that was about the one before


async def test_what_fails_leaves_what_is_there_and_waits_longer_each_time(keeping: Keeping) -> None:
    await keeping.look()
    leaf = keeping.certificates[HOST].leaf
    keeping.clock.jump(keeping.keeper.due(HOST) - keeping.clock.now())
    keeping.script.fails = AcmeError("the authority refused: no", cure="Do this.")
    for count, wait in enumerate((15 * MINUTE, 30 * MINUTE, HOUR), 1):
        await keeping.look()
        assert keeping.state.failures == count
        assert keeping.keeper.due(HOST) == keeping.clock.now() + timedelta(seconds=wait)
        assert (await keeping.look()) > 0
        assert len(keeping.script.orders) == count + 1
        keeping.clock.advance(wait)
    assert keeping.certificates[HOST].leaf == leaf
    part = keeping.keeper.part()
    assert (part.state, part.cure) == ("failing", "Do this.")
    assert "failed 3 times" in part.text
    assert "the authority refused: no" in part.text
    (finding,) = keeping.keeper.findings()
    assert (finding.level, finding.cure) == ("warning", "Do this.")
    keeping.script.fails = None
    await keeping.look()
    assert keeping.keeper.part().state == "running"
    assert keeping.keeper.findings()[0].level == "ok"


async def test_without_a_good_one_a_failure_is_an_error(keeping: Keeping) -> None:
    assert [one.level for one in keeping.keeper.findings()] == ["warning"]  # it is being ordered
    keeping.script.fails = AcmeError("no")
    await keeping.look()
    assert [one.level for one in keeping.keeper.findings()] == ["error"]


async def test_a_restart_does_not_ask_again_but_other_settings_and_an_administrator_do(
    tmp_path: Path, clock: FakeClock
) -> None:
    first = Keeping(tmp_path, clock)
    first.script.fails = AcmeError("no")
    await first.look()
    again = Keeping(tmp_path, clock)
    again.script.fails = first.script.fails
    await again.look()
    again.keeper.ask()
    await again.look()  # within a minute of the last one
    assert again.script.orders == []
    clock.advance(MINUTE + 1)
    await again.look()
    assert again.script.orders == []
    again.keeper.ask()
    await again.look()
    assert again.script.orders == [HOST]
    other = Keeping(tmp_path, clock, email="me@example.com")
    other.script.fails = AcmeError("too many", retry_after=2 * HOUR)
    await other.look()
    assert other.script.orders == [HOST]
    clock.advance(HOUR)
    other.keeper.ask()
    await other.look()  # the authority itself has said when
    assert other.script.orders == [HOST]


async def test_a_clock_that_was_put_back_does_not_stop_it(keeping: Keeping) -> None:
    keeping.clock.jump(timedelta(days=400))
    keeping.script.fails = AcmeError("no")
    await keeping.look()
    keeping.clock.jump(timedelta(days=-400))
    await keeping.look()
    assert len(keeping.script.orders) == 2


async def test_a_worker_that_dies_of_an_order_does_not_die_of_it_all_the_time(
    tmp_path: Path, clock: FakeClock
) -> None:
    first = Keeping(tmp_path, clock)
    states: list[State] = []
    first.script.during = lambda: states.append(first.state)
    await first.look()
    assert first.state.began is None
    (cut_off,) = states
    first.folder.certificate_file(HOST).unlink()
    first.folder.keep_state(HOST, cut_off)
    again = Keeping(tmp_path, clock)
    clock.advance(10)
    await again.look()
    assert again.script.orders == []
    clock.advance(MINUTE)
    await again.look()
    assert again.script.orders == [HOST]


async def test_an_order_that_is_stopped_with_us_is_made_at_the_next_start(
    tmp_path: Path, clock: FakeClock
) -> None:
    first, asked = Keeping(tmp_path, clock), asyncio.Event()

    async def hang(host: str, present: Present) -> bytes:
        async with present(Proof(host, "http-01", "t", "t.x", "")):
            asked.set()
            await asyncio.Event().wait()
        return b""

    first.script.order = hang  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(first.look())
        await asked.wait()
        assert first.folder.answers()
        task.cancel()
    assert first.folder.answers() == ()
    again = Keeping(tmp_path, clock)
    await again.look()
    assert again.script.orders == [HOST]


async def test_another_authority_in_the_settings_means_another_certificate(
    tmp_path: Path, clock: FakeClock
) -> None:
    await Keeping(tmp_path, clock).look()
    same, other = Keeping(tmp_path, clock), Keeping(tmp_path, clock, directory="https://other.example/dir")
    assert same.keeper.due(HOST) > clock.now()
    assert other.keeper.due(HOST) <= clock.now()
    await other.look()
    assert other.keeper.due(HOST) > clock.now()


async def test_an_answer_that_is_no_certificate_for_us_is_a_failure(keeping: Keeping, tmp_path: Path) -> None:
    keeping.script.gives = lambda _: issued(tmp_path, keeping.clock, "evil.example.com")
    await keeping.look()
    assert "is not for door.example.com" in keeping.state.reason
    assert not keeping.certificates[HOST].ordered


async def test_where_nothing_can_be_written_nobody_is_asked(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tls, "replace", full)
    await keeping.look()
    assert keeping.script.orders == []
    monkeypatch.undo()
    await keeping.look()
    assert keeping.script.orders == [HOST]


async def test_records_are_taken_away_whatever_happens(tmp_path: Path, clock: FakeClock) -> None:
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f'#!/bin/sh\necho "$@" >> {told}\n[ "$1" = add ]\n')
    hook.chmod(0o700)
    keeping = Keeping(tmp_path, clock, challenge="dns-01", hook=hook, dns=AcmeDns())
    keeping.script.challenge = "dns-01"
    keeping.script.fails = AcmeError("no")
    await keeping.look()
    assert told.read_text() == f"add _acme-challenge.{HOST} record\nremove _acme-challenge.{HOST} record\n"
    assert keeping.state.reason == "no"  # and not that the record was left behind
    assert keeping.folder.answers() == ()


@contextlib.asynccontextmanager
async def running(*keepings: Keeping) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.keeper.run()) for one in keepings]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()


async def test_one_worker_orders_all_present_and_another_goes_on(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN", 0.01)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "LOOK", 0.01)
    hosts = (HOST, "control.example.com")
    first, second = Keeping(tmp_path, clock, hosts), Keeping(tmp_path, clock, hosts)
    async with running(first, second) as tasks:
        for one in (first, second):
            await until(lambda one=one: all(each.ordered for each in one.certificates.values()))  # type: ignore[misc]
        assert sorted(first.script.orders + second.script.orders) == sorted(hosts)
        ordering = 0 if first.script.orders else 1
        tasks[ordering].cancel()
        left = (second, first)[ordering]
        leaf = left.certificates[HOST].leaf
        clock.jump(left.keeper.due(HOST) - clock.now())
        await until(lambda: left.certificates[HOST].leaf != leaf)


async def test_a_fault_of_ours_costs_one_look(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "LOOK", 0.01)
    looks = []

    async def faulty(host: str) -> float:
        looks.append(host)
        raise RuntimeError("a fault")

    monkeypatch.setattr(keeping.keeper, "_look", faulty)
    async with running(keeping):
        await until(lambda: len(looks) > 2)
