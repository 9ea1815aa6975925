import asyncio
import re
from datetime import timedelta

import pytest
from tests.support.browsing import DOOR, FORM, LOCAL, Browser, House

from doorward.asgi import WrongMediaType
from doorward.errors import BadInput
from doorward.login.asking import LIFETIME, new_recovery_codes, recovery_digest
from doorward.login.sessions import cookie_name
from doorward.store import audit, signin


async def events(house: House) -> list[str]:
    found = await house.registry.writer.database.read(audit.load)
    return [one.action for one in found]


async def test_an_answer_does_what_was_asked_for_once(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/ask")
    number, options = ann.field("asking"), ann.options()
    page = await ann.prove()
    assert page.text == "come in"
    assert house.knocked[0].user.name == "ann"
    assert house.knocked[0].method.startswith("passkey:")
    assert (await events(house))[0] == "user.prove"
    again = await ann.post(
        "/signin/passkey", asking=number, answer=ann.authenticator.sign(options, ann.origin)
    )
    assert again.status_code == 404
    assert "This question is over" in again.text
    assert len(house.knocked) == 1


async def test_two_answers_at_once_are_one(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/ask")
    number, options = ann.field("asking"), ann.options()
    answers = [ann.authenticator.sign(options, ann.origin) for _ in range(2)]
    await asyncio.gather(
        *(
            ann.client.post(
                "/signin/passkey", data={"asking": number, "answer": one}, headers={"content-type": FORM}
            )
            for one in answers
        )
    )
    assert len(house.knocked) == 1


async def test_only_the_browser_that_was_asked_can_answer(house: House) -> None:
    ann, thief = await house.resident("ann"), await house.resident("eve")
    await ann.post("/ask")
    number, options = ann.field("asking"), ann.options()
    stolen = await thief.post(
        "/signin/passkey", asking=number, answer=ann.authenticator.sign(options, ann.origin)
    )
    assert stolen.status_code == 404
    await thief.post("/ask")
    # Its own cookie under the other's number.
    name = next(key for key in thief.client.cookies if "asking" in key)
    thief.client.cookies.set(f"__Host-doorward-asking-{number}", thief.client.cookies[name])
    stolen = await thief.post(
        "/signin/passkey", asking=number, answer=ann.authenticator.sign(options, ann.origin)
    )
    assert stolen.status_code == 404
    assert house.knocked == []


async def test_somebody_else_is_told_who_is_asked(house: House) -> None:
    ann, bob = await house.resident("ann"), await house.resident("bob")
    house.asked = house.registry.snapshot.user_by_name("ann")
    await bob.post("/ask")
    options = bob.options()
    credential = next(iter(bob.authenticator.keys))
    answer = bob.authenticator.sign(options, bob.origin, credential)
    page = await bob.post("/signin/passkey", asking=bob.field("asking"), answer=answer)
    assert page.status_code == 403
    assert "ann" in page.text
    assert house.knocked == []
    await ann.post("/ask")
    assert (await ann.prove()).text == "come in"


async def test_a_proof_for_one_thing_is_none_for_another(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/ask")
    first = ann.options()
    await ann.post("/ask")
    answer = ann.authenticator.sign(first, ann.origin)
    page = await ann.post("/signin/passkey", asking=ann.field("asking"), answer=answer)
    assert page.status_code == 403
    assert house.knocked == []


async def test_it_is_over_after_ten_minutes_and_elsewhere(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/ask")
    house.world.clock.advance(LIFETIME)
    assert (await ann.prove()).status_code == 404
    for wrong in ("", "x", "0", "9" * 30, "-1", "१"):
        assert (await ann.post("/signin/passkey", asking=wrong, answer="{}")).status_code == 404
    assert (await ann.client.get("/signin", headers={"host": "evil.example.com"})).status_code == 421
    assert house.knocked == []


async def test_the_secret_is_made_anew_at_every_proof(house: House) -> None:
    ann = await house.resident("ann")
    place = house.doors.main
    before = ann.client.cookies[cookie_name(place)]
    await ann.post("/ask")
    await ann.prove()
    after = ann.client.cookies[cookie_name(place)]
    assert before != after
    fixed = house.browser()
    fixed.client.cookies.set(cookie_name(place), before)
    assert (await fixed.get("/me")).status_code == 303
    # One that somebody planted is not taken over by who signs in.
    planted = house.browser()
    planted.authenticator = ann.authenticator
    planted.client.cookies.set(cookie_name(place), "planted")
    await planted.sign_in()
    sessions = await house.registry.writer.database.read(signin.open_sessions, house.registry.writer.now())
    assert len(sessions) == 2


async def test_another_persons_session_in_this_browser_ends(house: House) -> None:
    ann, bob = await house.resident("ann"), await house.resident("bob")
    bob.authenticator.keys |= ann.authenticator.keys
    await bob.get("/signin")
    credential = next(iter(ann.authenticator.keys))
    answer = bob.authenticator.sign(bob.options(), bob.origin, credential)
    await bob.post("/signin/passkey", asking=bob.field("asking"), answer=answer)
    assert "ann" in (await bob.follow()).text
    sessions = await house.registry.writer.database.read(signin.open_sessions, house.registry.writer.now())
    names = [house.registry.snapshot.users[one.user_id].name for one in sessions]
    assert names == ["ann", "ann"]


async def test_a_suspended_person_proves_nothing(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/ask")
    await house.registry.suspend_user("cli", "ann", suspended=True)
    page = await ann.prove()
    assert page.status_code == 403
    assert "suspended" in page.text
    assert house.knocked == []


async def test_a_strange_passkey_is_refused_on_the_same_page(house: House) -> None:
    await house.resident("ann")
    stranger = house.browser()
    await stranger.get("/signin")
    stranger.authenticator.keys[b"0123456789abcdef"] = (
        "door.tailnet.internal",
        next(iter((await house.resident("eve")).authenticator.keys.values()))[1],
    )
    page = await stranger.prove()
    assert page.status_code == 403
    assert "This passkey is not known here" in page.text
    assert "data-passkey" in page.text


async def test_who_has_no_passkey_here_is_told_where(house: House) -> None:
    ann = await house.resident("ann")
    house.asked = house.registry.snapshot.user_by_name("ann")
    there = house.browser(LOCAL)
    page = await there.post("/ask")
    assert "door.tailnet.internal" in page.text
    assert "data-passkey" not in page.text
    house.asked = await house.registry.create_user("cli", "bob")
    page = await ann.post("/ask")
    assert "doorward users invite" in page.text


async def test_another_sites_page_posts_nothing(house: House) -> None:
    ann = await house.resident("ann")
    for path in (
        "/signin/passkey",
        "/signin/recovery",
        "/signin/enrol",
        "/signout",
        "/me/codes",
        "/me/passkeys",
    ):
        page = await ann.client.post(path, data={}, headers={"sec-fetch-site": "cross-site"})
        assert page.status_code == 403, path
    assert (await ann.get("/me")).status_code == 200


async def test_a_form_is_a_form(house: House) -> None:
    ann = await house.resident("ann")
    page = await ann.client.post("/signin/passkey", json={})
    assert page.status_code == WrongMediaType.status
    for body in ("a=1&a=2", "a=%ff", "&".join(f"a{n}=1" for n in range(30))):
        page = await ann.client.post("/signin/passkey", content=body, headers={"content-type": FORM})
        assert page.status_code == BadInput.status, body
    page = await ann.client.post("/signin/passkey", content="a" * 40_000, headers={"content-type": FORM})
    assert page.status_code == 413


async def test_who_tries_without_end_is_told_to_wait(house: House) -> None:
    browser = house.browser()
    await browser.get("/signin")
    number = browser.field("asking")
    codes = [
        (await browser.post("/signin/recovery", asking=number, code=f"wrong-{n}")).status_code
        for n in range(30)
    ]
    assert set(codes) == {403, 429}
    assert "Wait" in browser.page.text
    house.world.clock.advance(timedelta(minutes=2))
    assert (await browser.post("/signin/recovery", asking=number, code="wrong")).status_code == 403


async def recovering(house: House, code: str) -> Browser:
    browser = house.browser()
    await browser.get("/signin")
    await browser.post("/signin/recovery", asking=browser.field("asking"), code=code)
    return browser


async def test_a_recovery_code_lets_in_once_and_a_new_passkey_is_made(house: House) -> None:
    ann = await house.resident("ann")
    codes = re.findall(r"[a-z2-7]{4}(?:-[a-z2-7]{4}){4}", ann.page.text)
    assert len(set(codes)) == 10
    lost = await recovering(house, codes[0].upper().replace("-", " "))
    assert "Make a passkey" in lost.page.text
    await lost.make(name="new phone")
    assert "new phone" in (await lost.follow()).text
    assert (await recovering(house, codes[0])).page.status_code == 403
    # It is no proof for anything else.
    await lost.post("/ask")
    page = await lost.post("/signin/recovery", asking=lost.field("asking"), code=codes[1])
    assert "not enough" in page.text
    assert house.knocked == []


def test_recovery_codes_are_random_and_read_in_any_dress() -> None:
    count = iter(range(256))
    codes = new_recovery_codes(lambda size: bytes([next(count)]) * size)
    assert len({recovery_digest(code) for code in codes}) == 10
    assert recovery_digest(codes[0]) == recovery_digest(codes[0].upper().replace("-", " "))


@pytest.mark.parametrize("origin", [DOOR, LOCAL])
async def test_no_page_holds_a_secret_that_is_not_its_own(house: House, origin: str) -> None:
    browser = house.browser(origin)
    page = await browser.get("/signin")
    secrets = [value for name, value in browser.client.cookies.items() if "asking" in name]
    assert len(secrets) == 1
    assert secrets[0] not in page.text
    assert page.headers["cache-control"] == "no-store"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "<style" not in page.text
    assert len(page.content) < 20_000
