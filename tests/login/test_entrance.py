import asyncio

from tests.support.browsing import LOCAL, House

from doorward.model import Role
from doorward.store import audit, signin


async def test_the_first_owner_comes_in_by_a_link(house: House) -> None:
    _, code = await house.invitations.invite("system", None)
    browser = house.browser(LOCAL)
    page = await browser.get(f"/invite/{code}")
    assert "becomes its owner" in page.text
    wrong = await browser.post(f"/invite/{code}", name="no name at all!")
    assert wrong.status_code == 400
    assert "cannot be a user" in wrong.text
    page = await browser.take(code, name=" Alice ")
    assert "Keep these codes" in page.text
    user = house.registry.snapshot.user_by_name("alice")
    assert user is not None
    assert user.role is Role.OWNER
    assert "alice" in (await browser.get("/me")).text
    spent = await browser.get(f"/invite/{code}")
    assert spent.status_code == 404


async def test_somebody_who_is_there_may_become_the_first_owner(house: House) -> None:
    await house.registry.create_user("cli", "bob")
    _, code = await house.invitations.invite("system", None)
    await house.registry.create_user("cli", "carol")
    await house.registry.suspend_user("cli", "carol", suspended=True)
    browser = house.browser()
    page = await browser.post(f"/invite/{code}", name="carol")
    assert (page.status_code, "arol is suspended" in page.text) == (400, True)
    await browser.take(code, name="bob")
    user = house.registry.snapshot.user_by_name("bob")
    assert user is not None
    assert user.role is Role.OWNER


async def test_an_invitation_lets_in_one_browser(house: House) -> None:
    user = await house.registry.create_user("cli", "ann")
    _, code = await house.invitations.invite("cli", user)
    first, second = house.browser(), house.browser()
    for each in (first, second):
        assert "Welcome, <bdi>ann</bdi>" in (await each.get(f"/invite/{code}")).text
    pages = await asyncio.gather(first.post(f"/invite/{code}"), second.post(f"/invite/{code}"))
    assert sorted(page.status_code for page in pages) == [200, 404]
    winner, loser = (first, second) if first.page.status_code == 200 else (second, first)
    number, options = winner.field("asking"), winner.options()
    # The one that lost cannot make a passkey for the other's question.
    answer = loser.authenticator.make(options, loser.origin)
    assert (await loser.post("/signin/enrol", asking=number, answer=answer)).status_code == 404
    assert (await winner.make()).status_code == 200
    actions = [one.action for one in await house.registry.writer.database.read(audit.load)]
    assert actions[:4] == ["user.codes", "user.passkey.add", "user.invite.use", "user.invite"]


async def test_a_passkey_that_does_not_hold_makes_nobody(house: House) -> None:
    user = await house.registry.create_user("cli", "ann")
    _, code = await house.invitations.invite("cli", user)
    browser = house.browser()
    await browser.post(f"/invite/{code}")
    bad = browser.authenticator.make(browser.options(), "https://evil.example.com")
    page = await browser.post("/signin/enrol", asking=browser.field("asking"), answer=bad)
    assert page.status_code == 403
    assert await house.registry.writer.database.read(signin.passkeys_of, user.id) == []
    assert (await browser.make()).status_code == 200  # the question is still open


async def test_a_question_for_something_else_makes_no_passkey(house: House) -> None:
    ann = await house.resident("ann")
    user = house.registry.snapshot.user_by_name("ann")
    assert user is not None
    _, code = await house.invitations.invite("cli", user)
    other = house.browser()
    await other.post(f"/invite/{code}")
    options = other.options()
    await ann.post("/ask")
    answer = ann.authenticator.make(options, ann.origin)
    assert (await ann.post("/signin/enrol", asking=ann.field("asking"), answer=answer)).status_code == 404


async def test_a_suspended_person_makes_no_passkey(house: House) -> None:
    user = await house.registry.create_user("cli", "ann")
    _, code = await house.invitations.invite("cli", user)
    browser = house.browser()
    await browser.post(f"/invite/{code}")
    await house.registry.suspend_user("cli", "ann", suspended=True)
    assert (await browser.make()).status_code == 403


async def test_signing_in_leads_where_one_was_going_and_out_ends_it(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/signout")
    assert (await ann.get("/me")).status_code == 303
    await ann.sign_in("/check/abc")
    assert ann.page.headers["location"] == "/check/abc"
    await ann.sign_in("https://evil.example.com/")
    assert ann.page.headers["location"] == "/me"
    assert (await ann.get("/me")).status_code == 200
