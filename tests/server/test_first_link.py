"""The first administrator's link: shown where somebody reads it, and kept nowhere else."""

import asyncio
import io
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.waiting import until
from tests.support.workers import settings_in
from tests.support.world import counting_entropy

from doorward.config import Ports
from doorward.config.settings import Certificate, Tls
from doorward.errors import Unavailable
from doorward.login.invitations import FIRST_LIFETIME, Invitations, Way
from doorward.model import Passkey, Role, User
from doorward.server import first_link
from doorward.server.first_link import FILE, FirstLink, ways
from doorward.store import Database, signin, users
from doorward.telemetry import configure

PORTS = Ports(listen=8080, door=8443, relay=8444, stun=3478)
WAYS = (Way("http://localhost:8080", "here"), Way("https://door.test:8443", "inside"))
CODE = re.compile(r"/invite/([a-z2-7]{32})\b")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Place:
    """A store, and what a start of the server would say about it."""

    database: Database
    clock: FakeClock
    folder: Path
    log: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.invitations = Invitations(self.database, self.clock, counting_entropy())

    @property
    def file(self) -> Path:
        return self.folder / FILE

    @asynccontextmanager
    async def running(
        self, shown: io.StringIO, started: datetime | None = None
    ) -> AsyncIterator[asyncio.Task[None]]:
        link = FirstLink(self.invitations, WAYS, self.folder, started or self.clock.now(), terminal=shown)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            yield task
            task.cancel()

    async def owner(self) -> User:
        """An owner who can sign in."""
        draft = User(id=0, name="olga", role=Role.OWNER, created=self.clock.now())
        user = await self.database.run(users.insert, draft)
        passkey = Passkey(
            id=0,
            user_id=user.id,
            credential=b"1",
            public_key=b"cose",
            count=0,
            name="key",
            place="door.test",
            created=self.clock.now(),
        )
        await self.database.run(signin.insert_passkey, passkey)
        return user


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = FakeClock()
    async with await Database.open(tmp_path / "doorward.db", clock=clock) as database:
        made = Place(database, clock, tmp_path)
        configure(stream=made.log)
        yield made
        configure()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Nobody is in the tailnet yet: this machine comes first.
        (
            {"listen": "127.0.0.1:8080"},
            [
                ("http://localhost:8080", "in a browser on doorward's own machine"),
                ("https://door.tailnet.internal:8443", "on a device in the tailnet"),
            ],
        ),
        (
            {"listen": "0.0.0.0:8080", "door": "https://door.example.com"},
            [
                ("https://door.example.com", "wherever door.example.com can be reached"),
                ("http://localhost:8080", "in a browser on doorward's own machine"),
            ],
        ),
        # "localhost" leads to none of these.
        (
            {"listen": "192.168.1.10:8080", "door": "https://door.example.com/"},
            [("https://door.example.com", "wherever door.example.com can be reached")],
        ),
        (
            {"listen": "127.0.0.2:8080"},
            [("https://door.tailnet.internal:8443", "on a device in the tailnet")],
        ),
        # A public listener that speaks TLS has no certificate for it.
        (
            {
                "listen": "0.0.0.0:8080",
                "door": "https://door.example.com",
                "tls": Tls(url=Certificate(cert=Path("c"), key=Path("k"))),
            },
            [("https://door.example.com", "wherever door.example.com can be reached")],
        ),
        ({"door": "http://localhost:8080"}, [("http://localhost:8080", "wherever localhost can be reached")]),
    ],
)
def test_ways_in_are_those_that_can_work(
    tmp_path: Path, given: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = ways(settings_in(tmp_path, **given).settled(PORTS))
    assert [(way.address, way.where) for way in found] == expected
    assert [way.is_here for way in found] == ["own machine" in where for _, where in expected]


async def test_a_terminal_shows_the_link_and_nothing_keeps_it(place: Place) -> None:
    shown = Terminal()
    async with place.running(shown):
        await until(lambda: "door.test" in shown.getvalue())
    text = shown.getvalue()
    (code,) = set(CODE.findall(text))
    assert f"\n    http://localhost:8080/invite/{code}\n      here\n" in text
    assert f"\n    https://door.test:8443/invite/{code}\n      inside\n" in text
    found = await place.invitations.take(code)
    assert (found.user_id, found.actor) == (None, "system")
    assert code not in place.log.getvalue()
    assert not place.file.exists()
    assert all(code.encode() not in file.read_bytes() for file in place.folder.iterdir())


async def test_elsewhere_only_the_path_is_said_of_a_file_that_nobody_else_may_read(place: Place) -> None:
    shown = io.StringIO()
    async with place.running(shown):
        await until(lambda: str(place.file) in shown.getvalue())
    assert not CODE.search(shown.getvalue())
    assert shown.getvalue().count("\n") == 1
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600
    first, second = place.file.read_text().splitlines()
    (code,) = CODE.findall(first)
    assert (first, second) == (
        f"http://localhost:8080/invite/{code}",
        f"https://door.test:8443/invite/{code}",
    )
    assert await place.invitations.look(code)
    assert code not in shown.getvalue() + place.log.getvalue()


async def test_a_worker_that_is_started_again_says_nothing_and_a_new_start_does(place: Place) -> None:
    started = place.clock.now()
    async with place.running(io.StringIO(), started):
        await until(place.file.exists)
    first = place.file.read_text()
    place.clock.advance(5)
    again = io.StringIO()
    async with place.running(again, started):
        await asyncio.sleep(0.05)
    assert (again.getvalue(), place.file.read_text()) == ("", first)
    async with place.running(again):
        await until(lambda: str(place.file) in again.getvalue())
    assert place.file.read_text() != first


async def test_who_can_administer_needs_no_link_and_the_file_goes(place: Place) -> None:
    place.file.write_text("of an earlier start")
    await place.owner()
    for shown in (io.StringIO(), Terminal()):
        async with place.running(shown):
            await until(lambda: not place.file.exists())
            await asyncio.sleep(0.01)
        assert shown.getvalue() == ""


async def test_the_file_goes_when_its_time_is_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_link, "FIRST_LIFETIME", FIRST_LIFETIME / 36000)
    async with place.running(io.StringIO()) as task:
        await until(place.file.exists)
        await task
        assert not place.file.exists()


async def test_a_store_that_takes_nothing_is_said_with_its_cure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(place.invitations, "invite_first", refuse)
    async with place.running(io.StringIO()):
        await until(lambda: "the disk is full" in place.log.getvalue())
    assert "users invite" in place.log.getvalue()
