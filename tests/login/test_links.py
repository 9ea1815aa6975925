import asyncio
from datetime import timedelta

import httpx2
import pytest
from starlette.applications import Starlette
from tests.support.browsing import FORM, LOCAL, House

from doorward.errors import Conflict
from doorward.login.doors import place_of
from doorward.login.links import SignInLinks, make_link
from doorward.model import Role, User
from doorward.store import audit, signin

HERE = place_of(LOCAL)


@pytest.fixture
def house(house: House) -> House:
    house.routes += SignInLinks(house.askings, house.world.clock).routes()
    return house


async def made(house: House, name: str = "ann") -> tuple[User, str]:
    known = house.registry.snapshot.user_by_name(name)
    user = known or await house.registry.create_user("cli", name, role=Role.ADMIN)
    return user, f"/signin/link/{(await make_link(house.registry, 'cli', user, HERE))[1]}"


async def test_a_link_signs_one_browser_in_once(house: House) -> None:
    user, link = await made(house)
    browser, other = house.browser(LOCAL), house.browser(LOCAL)
    for each in (browser, other):
        page = await each.get(link)
        assert (page.status_code, "Come in as <bdi>ann</bdi>?" in page.text) == (200, True)
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
    pages = await asyncio.gather(browser.post(link), other.post(link))
    assert sorted(page.status_code for page in pages) == [303, 404]
    winner, loser = (browser, other) if browser.page.status_code == 303 else (other, browser)
    assert winner.page.headers["location"] == "/machines"
    assert "by a one-time link" in (await winner.get("/me")).text
    assert (await loser.get("/me")).status_code == 303 or "ann" not in loser.page.text
    assert (await loser.get(link)).status_code == 404
    (session,) = await house.registry.writer.database.read(
        signin.open_sessions, house.world.clock.now(), user.id
    )
    assert (session.method, session.origin) == ("link", LOCAL)
    events = await house.registry.writer.database.read(audit.load)
    assert [(one.action, one.actor) for one in events[:2]] == [
        ("user.signin", "user:ann"),
        ("user.link", "cli"),
    ]
    assert link.rpartition("/")[2] not in str(events)


async def test_it_is_worth_nothing_at_the_door_that_others_reach(house: House) -> None:
    _, link = await made(house)
    outside = house.browser()
    assert (await outside.get(link)).status_code == 404
    assert (await outside.post(link)).status_code == 404
    assert (await house.browser("http://rebound.example").post(link)).status_code == 421
    assert (await house.browser(LOCAL).get(link)).status_code == 200  # and none of that used it up


async def test_a_host_that_somebody_elsewhere_writes_opens_nothing(house: House) -> None:
    _, link = await made(house)
    app = Starlette(routes=house.routes)
    for address in ("192.0.2.7", "fd7a:115c:a1e0::7", "somewhere"):
        through = httpx2.ASGITransport(app, client=(address, 1234))
        async with httpx2.AsyncClient(transport=through, base_url=LOCAL) as client:
            assert (await client.get(link)).status_code == 404
            form = {"content-type": FORM, "sec-fetch-site": "same-origin"}
            assert (await client.post(link, data={}, headers=form)).status_code == 404
    await house.registry.create_user("cli", "bob")
    house.identity = await house.world.join(1, "laptop", "bob")  # whose connection our own node passes on
    assert (await house.browser(LOCAL).post(link)).status_code == 404
    house.identity = None
    assert (await house.browser(LOCAL).post(link)).status_code == 303


async def test_it_ends(house: House) -> None:
    user, link = await made(house)
    browser = house.browser(LOCAL)
    house.world.clock.advance(timedelta(minutes=59).total_seconds())
    assert (await browser.get(link)).status_code == 200
    house.world.clock.advance(61)
    assert (await browser.get(link)).status_code == 404
    assert (await browser.post(link)).status_code == 404
    _, first = await made(house)
    _, second = await made(house)
    assert [(await browser.get(one)).status_code for one in (first, second)] == [404, 200]
    await house.registry.suspend_user("cli", user.name, suspended=True)
    assert (await browser.post(second)).status_code == 404
    with pytest.raises(Conflict, match="ann is suspended"):
        await make_link(house.registry, "cli", user, HERE)


async def test_nothing_else_that_is_asked_can_be_answered_by_it(house: House) -> None:
    """A browser that is asked for a passkey holds a secret, too; put into a link it is no answer."""
    ann = await house.resident("ann")
    await ann.post("/signout")
    browser = house.browser(LOCAL)
    await browser.get("/signin")
    held = [cookie.value for cookie in browser.client.cookies.jar if "asking" in cookie.name]
    assert len(held) == 1
    for secret in (*held, "x" * 32, "a", "%2e" * 32):
        assert (await browser.post(f"/signin/link/{secret}")).status_code == 404


async def test_another_sites_page_uses_none_up(house: House) -> None:
    _, link = await made(house)
    browser = house.browser(LOCAL)
    refused = await browser.client.post(
        link,
        data={},
        headers={"sec-fetch-site": "cross-site", "content-type": "application/x-www-form-urlencoded"},
    )
    assert refused.status_code == 403
    assert (await browser.post(link)).status_code == 303


async def test_whoever_was_signed_in_there_is_not_any_more(house: House) -> None:
    _, first = await made(house)
    bob, second = await made(house, "bob")
    browser = house.browser(LOCAL)
    await browser.post(first)
    await browser.post(second)
    assert "bob" in (await browser.get("/me")).text
    now = house.world.clock.now()
    kept = await house.registry.writer.database.read(signin.open_sessions, now)
    assert [one.user_id for one in kept] == [bob.id]
