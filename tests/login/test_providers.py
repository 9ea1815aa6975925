"""Signing in at an outside provider, through the real pages and the real client; the provider is in memory."""

from datetime import timedelta

import pytest
from tests.support.browsing import House

from doorward.errors import Unavailable
from doorward.login.sessions import FRESH
from doorward.model import Session
from doorward.store import audit, signin


async def sessions(house: House) -> list[Session]:
    return await house.registry.writer.database.read(signin.open_sessions, house.registry.writer.now())


async def test_somebody_new_signs_in_where_the_rules_let_them(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    browser = house.browser()
    page = await browser.get("/signin?next=/check/abc")
    assert "Continue with <bdi>corp</bdi>" in page.text
    asked = await browser.leave(house)
    assert asked["redirect_uri"] == "https://door.tailnet.internal:8443/signin/callback/corp"
    assert "prompt" not in asked
    await browser.come_back(asked)
    assert browser.page.headers["location"] == "/check/abc"
    page = await browser.get("/me")
    assert "ann@example.com" in page.text
    (session,) = await sessions(house)
    assert session.method == "provider:corp"
    # It came back silently, so it proves nothing to the console.
    assert house.registry.writer.now() - session.proven > FRESH
    events = await house.registry.writer.database.read(audit.load)
    assert events[0].action == "user.signin"


async def test_who_is_not_let_in_is_told_and_nobody_is_made(house: House) -> None:
    await house.add_provider(domains=("other.example",))
    before = len(house.registry.snapshot.users)
    browser = house.browser()
    await browser.get("/signin")
    page = await browser.come_back(await browser.leave(house))
    assert page.status_code == 403
    assert await sessions(house) == []
    assert len(house.registry.snapshot.users) == before


async def test_a_proof_is_a_fresh_one(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    now = int(house.world.clock.now().timestamp())
    browser = house.browser()
    await browser.get("/signin")
    await browser.come_back(await browser.leave(house))
    house.asked = next(iter(house.registry.snapshot.users.values()))
    for when, good in ((None, False), (now - 3600, False), (now, True)):
        await browser.post("/ask")
        asked = await browser.leave(house)
        assert (asked["prompt"], asked["max_age"]) == ("login", "0")
        house.corp.said = {} if when is None else {"auth_time": when}
        page = await browser.come_back(asked)
        assert (page.text == "come in") is good, page.text
    assert len(house.knocked) == 1
    (session,) = await sessions(house)
    assert house.registry.writer.now() - session.proven <= FRESH


async def test_an_answer_counts_once_in_one_browser_for_one_question(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    browser, other = house.browser(), house.browser()
    await browser.get("/signin")
    asked = await browser.leave(house)
    await other.get("/signin")
    theirs = await other.leave(house)
    # Another's answer in this browser, and this one's in another's: signing in as somebody who sent a link.
    assert (await browser.come_back(theirs)).status_code == 404
    assert (await other.come_back(asked)).status_code == 404
    house.corp.nonce = asked["nonce"]
    assert (await browser.come_back(asked)).status_code == 303
    assert (await browser.come_back(asked)).status_code == 404
    for wrong in ("", "x", theirs["state"]):
        assert (await browser.come_back(asked, state=wrong)).status_code == 404
    assert len(await sessions(house)) == 1


async def test_a_refused_answer_cannot_be_tried_again(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    browser = house.browser()
    await browser.get("/signin")
    asked = await browser.leave(house)
    page = await browser.come_back(asked, iss="https://evil.example.com")
    assert page.status_code >= 400
    assert "Continue with" in page.text
    assert (await browser.come_back(asked)).status_code == 404
    await browser.get("/signin")
    assert (await browser.come_back(await browser.leave(house))).status_code == 303


async def test_another_providers_address_takes_no_answer(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    await house.add_provider(name="other", issuer="https://other.example.com")
    browser = house.browser()
    await browser.get("/signin")
    asked = await browser.leave(house)
    page = await browser.get(f"/signin/callback/other?code=the+code&state={asked['state']}")
    assert page.status_code == 404
    assert await sessions(house) == []


async def test_a_provider_that_is_down_leaves_the_other_ways(house: House) -> None:
    ann = await house.resident("ann")
    await house.add_provider()
    await ann.post("/signout")
    house.corp.answers["/.well-known/openid-configuration"] = Unavailable("it is down")
    await ann.get("/signin")
    page = await ann.post("/signin/provider", asking=ann.field("asking"), provider="corp")
    assert page.status_code == 503
    assert "data-passkey" in page.text
    assert (await ann.prove()).status_code == 303
    await ann.get("/signin")
    page = await ann.post("/signin/provider", asking=ann.field("asking"), provider="nobody")
    assert page.status_code == 404


async def test_an_invitation_may_be_taken_with_a_provider(house: House) -> None:
    await house.add_provider()  # lets nobody in by itself
    user = await house.registry.create_user("cli", "bob")
    _, code = await house.invitations.invite("cli", user)
    browser = house.browser()
    await browser.post(f"/invite/{code}")
    await browser.come_back(await browser.leave(house))
    assert "<h1><bdi>" in (await browser.follow()).text
    (found,) = await house.registry.writer.database.read(signin.identities_of, user.id)
    assert found.subject == "s1"
    # From now on it is bob who signs in there.
    other = house.browser()
    await other.get("/signin")
    await other.come_back(await other.leave(house))
    assert [one.user_id for one in await sessions(house)] == [user.id, user.id]


async def test_a_suspended_person_does_not_get_in_there_either(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    browser = house.browser()
    await browser.get("/signin")
    await browser.come_back(await browser.leave(house))
    (user,) = house.registry.snapshot.users.values()
    await house.registry.suspend_user("cli", user.name, suspended=True)
    await browser.get("/signin")
    page = await browser.come_back(await browser.leave(house))
    assert page.status_code == 403
    assert "suspended" in page.text
    assert await sessions(house) == []


async def test_a_proof_by_somebody_nobody_knows_admits_nobody(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    browser = house.browser()
    await browser.post("/ask")
    house.corp.said = {"auth_time": int(house.world.clock.now().timestamp())}
    page = await browser.come_back(await browser.leave(house))
    assert page.status_code == 403
    assert len(house.registry.snapshot.users) == 0
    assert house.knocked == []


async def test_it_is_over_after_ten_minutes(house: House) -> None:
    await house.add_provider(domains=("example.com",))
    browser = house.browser()
    await browser.get("/signin")
    asked = await browser.leave(house)
    house.world.clock.advance(timedelta(minutes=10))
    assert (await browser.come_back(asked)).status_code == 404


@pytest.mark.parametrize("error", ["access_denied", "server_error"])
async def test_a_provider_that_says_no_is_repeated(house: House, error: str) -> None:
    await house.add_provider(domains=("example.com",))
    browser = house.browser()
    await browser.get("/signin")
    page = await browser.come_back(await browser.leave(house), error=error)
    assert page.status_code >= 400
    assert "<script>" not in page.text
    assert "Continue with" in page.text


async def test_who_has_signed_in_may_add_a_provider_to_their_passkeys(house: House) -> None:
    ann = await house.resident("ann")
    await house.add_provider()  # lets nobody in by itself
    await ann.post("/me/passkeys")
    await ann.prove()
    await ann.come_back(await ann.leave(house))
    page = await ann.follow()
    assert "corp" in page.text
    found = await house.registry.writer.database.read(audit.load)
    assert [one.actor for one in found if one.action == "user.link"] == ["user:ann"]
