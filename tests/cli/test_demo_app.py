"""The demo's app before the real issuer, in memory; ``tests/interop/test_demo_browser.py`` has it in a real browser."""

import base64
import hashlib
import html
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support.browsing import DOOR
from tests.support.clock import FakeClock
from tests.support.office import PAGE, Office, Party
from tests.support.world import open_world

from doorward.cli import demo_app
from doorward.clock import SystemClock
from doorward.errors import Unavailable
from doorward.server.tls import Authority, IssuedCertificate

URL = "https://server.tailnet.internal:5000"


class Visit:
    """A browser that goes from the board to the door and back."""

    def __init__(self, office: Office, party: Party) -> None:
        self.office = office
        program = party.program()
        board = demo_app.Board(
            f"{URL}/cb",
            issuer=DOOR,
            client_id=party.app.client_id,
            secret=party.secret,
            client={"transport": program._transport},
        )
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(board.asgi), base_url=URL)

    async def to_the_door(self, **changes: str) -> str:
        """What the door sends the browser back with."""
        sent = await self.client.get("/")
        assert sent.status_code == 302
        target = sent.headers["location"]
        assert target.startswith(f"{DOOR}/authorize?")
        asked = parse_qs(urlsplit(target).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert asked["nonce"]
        assert asked["state"]
        async with self.office.browser().client as browser:
            back = await browser.get(target.removeprefix(DOOR), params=changes or None, headers=PAGE)
        assert back.status_code == 303, back.text
        return str(back.headers["location"])

    async def come_in(self) -> httpx2.Response:
        back = await self.client.get(await self.to_the_door())
        assert (back.status_code, back.headers["location"]) == (303, "/")
        return await self.client.get("/")


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    async with open_world(tmp_path) as world:
        office = Office(world)
        # The library looks at its own clock.
        world.clock.advance(SystemClock().now() - world.clock.now())
        await office.person("ann")
        yield Visit(office, await office.app("board", redirect_uris=(f"{URL}/cb",)))


async def test_who_opens_it_is_known(visit: Visit) -> None:
    page = await visit.come_in()
    assert page.status_code == 200
    assert "Hello, ann" in page.text
    assert "nothing was clicked" in page.text
    assert page.headers["x-board-knows"] == "ann"
    assert page.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    # Known from now on, to this browser alone.
    assert (await visit.client.get("/")).status_code == 200
    visit.client.cookies.clear()
    assert (await visit.client.get("/")).status_code == 302


async def test_nobody_comes_in_with_the_name_of_a_session_that_they_gave_away(visit: Visit) -> None:
    back = await visit.to_the_door()
    before = visit.client.cookies["__Host-board"]
    await visit.client.get(back)
    assert visit.client.cookies["__Host-board"] != before
    visit.client.cookies.clear()
    visit.client.cookies.set("__Host-board", before)
    assert (await visit.client.get("/")).status_code == 302


async def test_a_code_that_somebody_else_began_is_not_taken(visit: Visit) -> None:
    back = await visit.to_the_door()
    visit.client.cookies.clear()
    page = await visit.client.get(back)
    assert page.status_code == 403
    assert "x-board-knows" not in page.headers


async def test_a_no_is_shown_as_text(visit: Visit) -> None:
    page = await visit.client.get("/cb?error=access_denied&error_description=<script>x</script>")
    assert page.status_code == 403
    assert "<script>x" not in page.text
    assert html.escape("<script>x</script>") in page.text


def test_a_name_is_text() -> None:
    shown = demo_app._page({"name": "<b>ann</b>\u202e", "sub": "1"})
    assert b"You showed the door" in bytes(shown.body)
    assert b"<b>ann" not in bytes(shown.body)
    assert shown.headers["x-board-knows"] == "<b>ann</b>?"


async def test_it_remembers_so_many(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_app, "_MOST", 2)
    await visit.come_in()
    others = [httpx2.AsyncClient(transport=visit.client._transport, base_url=URL) for _ in range(2)]
    for other in others:
        await other.get("/")
    assert (await visit.client.get("/")).status_code == 302


async def test_an_app_that_cannot_be_reached_is_said_to_be_so(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, FakeClock())
    place = demo_app.Place(url="https://127.0.0.1:1", proxy="http://127.0.0.1:1", authority=authority.file)
    assert place.callback == "https://127.0.0.1:1/cb"
    with pytest.raises(Unavailable, match="cannot be opened"):
        await demo_app.visit(place, place.proxy)


def test_a_pin_is_of_the_key(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, FakeClock())
    made = IssuedCertificate(authority, "board", FakeClock(), names=["server.tailnet.internal"])
    public = made.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert base64.b64decode(demo_app.pin(tmp_path / "board.pem")) == hashlib.sha256(public).digest()
    assert isinstance(made.leaf, x509.Certificate)


def test_it_is_there_where_the_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo_app.available()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert not demo_app.available()
