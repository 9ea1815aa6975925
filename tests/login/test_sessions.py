from datetime import timedelta

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.support.browsing import DOOR, LOCAL, House
from tests.support.nouns import node_key

from doorward.login.doors import place_of
from doorward.login.sessions import (
    FRESH,
    LIFETIME,
    AccountSuspended,
    SignedIn,
    Visitor,
    cookie_name,
    set_cookie,
)
from doorward.store import signin


async def test_the_cookie_is_for_this_origin_alone_and_no_script(house: House) -> None:
    ann = await house.resident("ann")
    (cookie,) = [one for one in ann.page.headers.get_list("set-cookie") if one.startswith("__Host-doorward=")]
    for part in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
    here = house.browser(LOCAL)
    _, code = await house.invitations.invite("cli", house.registry.snapshot.user_by_name("ann"))
    await here.take(code)
    (cookie,) = [one for one in here.page.headers.get_list("set-cookie") if one.startswith("doorward-8080=")]
    assert "Secure" not in cookie
    assert (await here.get("/me")).status_code == 200
    # A cookie of one door is none at the other.
    stolen = house.browser(DOOR)
    stolen.client.cookies.set("__Host-doorward", cookie.partition("=")[2].partition(";")[0])
    assert (await stolen.get("/me")).status_code == 303


async def test_a_session_ends_by_time_by_hand_and_with_its_person(house: House) -> None:
    clock, registry = house.world.clock, house.registry
    for end in ("time", "hand", "suspension", "deletion"):
        name = f"p{end}"
        person = await house.resident(name)
        assert (await person.get("/me")).status_code == 200
        if end == "time":
            clock.advance(LIFETIME)
        elif end == "hand":
            user = registry.snapshot.user_by_name(name)
            assert user is not None
            (session,) = await registry.writer.database.read(
                signin.open_sessions, registry.writer.now(), user.id
            )
            await person.post(f"/me/sessions/{session.id}/end")
        elif end == "suspension":
            await registry.suspend_user("cli", name, suspended=True)
            await registry.suspend_user("cli", name, suspended=False)  # it does not come back
        else:
            await registry.delete_user("cli", name)
        assert (await person.get("/me")).status_code == 303, end


async def _visitor(house: House, cookies: dict[str, str]) -> Visitor:
    """Who a request with these cookies is from."""
    found: list[Visitor] = []

    async def look(request: Request) -> Response:
        found.append(await house.sessions.visitor(request))
        return Response()

    transport = httpx2.ASGITransport(Starlette(routes=[Route("/", look)]))
    async with httpx2.AsyncClient(transport=transport, base_url=house.door, cookies=cookies) as client:
        await client.get("/")
    return found[0]


async def test_who_is_suspended_hears_it_from_a_session_that_has_not_run_out(house: House) -> None:
    ann = await house.resident("ann")
    cookies = dict(ann.client.cookies)
    visitor = await _visitor(house, cookies)
    assert (visitor.signed_in is not None, visitor.refusal) == (True, None)
    await house.registry.suspend_user("cli", "ann", suspended=True)
    visitor = await _visitor(house, cookies)
    assert visitor.signed_in is None
    assert isinstance(visitor.refusal, AccountSuspended)
    assert visitor.refusal.message == "ann is suspended"
    assert (await _visitor(house, dict.fromkeys(cookies, "x" * 32))).refusal is None
    house.world.clock.advance(LIFETIME)
    assert (await _visitor(house, cookies)).refusal is None


async def test_a_proof_is_fresh_for_a_quarter_of_an_hour(house: House) -> None:
    ann = await house.resident("ann")
    database, now = house.registry.writer.database, house.registry.writer.now()
    (session,) = await database.read(signin.open_sessions, now)
    user = house.registry.snapshot.users[session.user_id]
    signed_in = SignedIn(user, session)
    assert signed_in.is_fresh(now + FRESH)
    assert not signed_in.is_fresh(now + FRESH + timedelta(seconds=1))
    assert not signed_in.is_fresh(now - timedelta(seconds=1))  # the clock was set back
    house.world.clock.advance(timedelta(hours=1))
    await ann.get("/me")
    (later,) = await database.read(signin.open_sessions, house.registry.writer.now())
    assert later.seen - session.seen == timedelta(hours=1)
    assert later.proven == session.proven


async def test_a_device_says_whose_it_is_until_it_may_not(house: House) -> None:
    await house.registry.create_user("cli", "ann")
    node = await house.world.join(1, "laptop", "ann")
    browser = house.browser()
    assert (await browser.get("/me")).status_code == 303
    house.identity = node
    page = await browser.get("/me")
    assert page.status_code == 200
    assert "Known by your device" in page.text
    assert "laptop" in page.text
    # Reading it is all: nothing on it posts without having signed in.
    assert page.text.count("<form") == 0
    assert (await browser.post("/me/passkeys")).status_code == 401
    await house.registry.suspend_user("cli", "ann", suspended=True)
    assert (await browser.get("/me")).status_code == 303
    assert node.node_key == node_key(1)


async def test_who_signed_in_is_who_is_there_whosever_the_device(house: House) -> None:
    bob = await house.resident("bob")
    await house.registry.create_user("cli", "ann")
    house.identity = await house.world.join(1, "laptop", "ann")
    page = await bob.get("/me")
    assert "<h1><bdi>bob</bdi></h1>" in page.text


@pytest.mark.parametrize(
    ("door", "name", "path"),
    [
        ("https://door.example.com", "__Host-doorward", "/"),
        ("https://intranet.example.com/tailnet", "__Secure-doorward", "/tailnet"),
        ("http://localhost:8080", "doorward-8080", "/"),
    ],
)
def test_a_cookie_is_for_one_place_and_no_neighbour_of_it(door: str, name: str, path: str) -> None:
    place, response = place_of(door), Response()
    set_cookie(response, place, cookie_name(place), "secret", timedelta(hours=1))
    first, *said = response.headers["set-cookie"].split("; ")
    assert first == f"{name}=secret"
    assert f"Path={path}" in said
    assert ("Secure" in said) == door.startswith("https")
    assert "HttpOnly" in said
    assert not any(one.startswith("Domain") for one in said)
