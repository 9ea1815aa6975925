import re

import pytest
from tests.support.browsing import House
from tests.support.office import BACK, Office
from tests.support.world import World

from doorward.errors import Unauthenticated
from doorward.model import Role
from doorward.store import audit


async def test_another_passkey_takes_a_proof_and_then_works(house: House) -> None:
    ann = await house.resident("ann")
    page = await ann.post("/me/passkeys")
    assert "Before another passkey is made" in page.text
    await ann.prove()
    await ann.make(name="key\x00 on my ring")
    page = await ann.follow()
    assert "key on my ring" in page.text
    assert page.text.count("/delete") == 2
    assert (await ann.sign_in()).status_code == 303


async def test_a_passkey_is_forgotten_but_not_the_last(house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/me/passkeys")
    await ann.prove()
    await ann.make(name="second")
    first, second = re.findall(r"/me/passkeys/(\d+)/delete", (await ann.follow()).text)
    await ann.post(f"/me/passkeys/{second}/delete")
    assert "Forget the passkey" in ann.page.text
    await ann.prove()
    assert "second" not in (await ann.follow()).text
    await ann.post(f"/me/passkeys/{first}/delete")
    page = await ann.prove()
    assert page.status_code == 409
    assert "last way to sign in" in page.text
    assert "/delete" in (await ann.get("/me")).text
    assert (await ann.post("/me/passkeys/999/delete")).status_code == 404
    assert (await ann.post("/me/passkeys/x/delete")).status_code == 404


async def test_nobody_touches_what_is_anothers(house: House) -> None:
    ann, bob = await house.resident("ann"), await house.resident("bob")
    (passkey,) = re.findall(r"/me/passkeys/(\d+)/delete", (await ann.get("/me")).text)
    (session,) = re.findall(r"/me/sessions/(\d+)/end", ann.page.text)
    assert (await bob.post(f"/me/passkeys/{passkey}/delete")).status_code == 404
    assert (await bob.post(f"/me/sessions/{session}/end")).status_code == 404
    assert (await ann.get("/me")).status_code == 200


async def test_new_recovery_codes_replace_the_old(house: House) -> None:
    ann = await house.resident("ann")
    old = re.findall(r"<li>(.*?)</li>", ann.page.text)
    await ann.post("/me/codes")
    page = await ann.prove()
    new = re.findall(r"<li>(.*?)</li>", page.text)
    assert len(new) == 10
    assert not set(old) & set(new)
    browser = house.browser()
    await browser.get("/signin")
    assert (
        await browser.post("/signin/recovery", asking=browser.field("asking"), code=old[0])
    ).status_code == 403
    found = await house.registry.writer.database.read(audit.load)
    assert found[0].action == "user.codes"
    assert not any(code in str(one.details) for one in found for code in new)


@pytest.fixture
def office(world: World) -> Office:
    return Office(world)


async def test_what_an_app_was_given_is_shown_and_taken_back(office: Office) -> None:
    ann = await office.resident("ann")
    assert "<h2>Apps</h2>" not in (await ann.get("/me")).text
    wiki, grafana = await office.app("wiki", asks=True), await office.app("grafana")
    await wiki.send(ann, scope="openid offline_access")
    await wiki.press(ann)
    assert (await wiki.redeem()).status_code == 200
    await grafana.sign_in(ann, scope="openid offline_access")
    page = await ann.get("/me")
    assert re.findall(r"<dt><bdi>(wiki|grafana)</bdi></dt>", page.text) == ["grafana", "wiki"]
    assert "may sign you in without asking at" in page.text
    ends = re.findall(r"/me/apps/(\d+)/end", page.text)
    assert ends == [str(grafana.app.id), str(wiki.app.id)]
    assert (await ann.post(f"/me/apps/{wiki.app.id}/end")).status_code == 303
    page = await ann.get("/me")
    assert "<dt><bdi>wiki</bdi></dt>" not in page.text
    assert "<dt><bdi>grafana</bdi></dt>" in page.text
    # Both kinds of token are worth nothing, the app has to ask, and the other app noticed nothing.
    assert (await wiki.userinfo()).status_code == 401
    assert (await wiki.refresh()).json()["error"] == "invalid_grant"
    assert "Yes, sign in" in (await wiki.send(ann, scope="openid offline_access")).text
    assert (await grafana.refresh()).status_code == 200
    (event,) = await office.audited("app.revoke")
    assert (event.actor, event.target) == ("user:ann", "app:wiki")
    assert (len(event.details["grants"]), event.details["consents"]) == (1, 1)
    assert (await ann.post(f"/me/apps/{wiki.app.id}/end")).status_code == 404


async def test_a_yes_is_taken_back_alone(office: Office) -> None:
    ann = await office.resident("ann")
    wiki = await office.app("wiki", asks=True)
    await wiki.send(ann)
    await wiki.press(ann)
    assert (await wiki.redeem()).status_code == 200
    assert (await wiki.send(ann)).status_code == 303
    (number,) = re.findall(r"/me/consents/(\d+)/delete", (await ann.get("/me")).text)
    assert (await ann.post(f"/me/consents/{number}/delete")).status_code == 303
    assert "<dt><bdi>wiki</bdi></dt>" in (await ann.get("/me")).text
    assert "Yes, sign in" in (await wiki.send(ann)).text
    assert (await wiki.userinfo()).status_code == 200
    (event,) = await office.audited("app.forget")
    assert event.details["host"] in BACK
    assert (await ann.post(f"/me/consents/{number}/delete")).status_code == 404


async def test_nobody_takes_back_what_another_gave(office: Office) -> None:
    ann, bob = await office.resident("ann"), await office.resident("bob")
    wiki = await office.app("wiki", asks=True)
    await wiki.send(ann)
    await wiki.press(ann)
    assert (await wiki.redeem()).status_code == 200
    (number,) = re.findall(r"/me/consents/(\d+)/delete", (await ann.get("/me")).text)
    assert "wiki" not in (await bob.get("/me")).text
    assert (await bob.post(f"/me/apps/{wiki.app.id}/end")).status_code == 404
    assert (await bob.post(f"/me/consents/{number}/delete")).status_code == 404
    assert (await wiki.userinfo()).status_code == 200


async def test_a_device_alone_shows_apps_and_takes_nothing_back(office: Office) -> None:
    await office.person("ann")
    wiki = await office.app("wiki")
    await wiki.sign_in()
    browser = office.browser()
    page = await browser.get("/me")
    assert "<dt><bdi>wiki</bdi></dt>" in page.text
    assert "/me/apps/" not in page.text
    assert (await browser.post(f"/me/apps/{wiki.app.id}/end")).status_code == 401
    assert (await wiki.userinfo()).status_code == 200


async def test_a_token_takes_a_proof_and_does_what_its_maker_may(house: House) -> None:
    boss, ann = await house.resident("boss", Role.ADMIN), await house.resident("ann")
    assert "Make a token" not in (await ann.get("/me")).text
    assert (await ann.post("/me/tokens", description="x")).status_code == 403
    page = await boss.post("/me/tokens", description="backups <b>")
    assert "Before a token is made" in page.text
    assert await house.registry.list_api_tokens() == []
    page = await boss.prove()
    (text,) = re.findall(r"dwtoken-[a-z0-9-]+", page.text)
    token = await house.registry.check_api_token(text)
    assert (token.role, token.description) == (Role.ADMIN, "backups <b>")
    page = await boss.get("/me")
    assert token.prefix in page.text
    assert text not in page.text
    assert "backups &lt;b&gt;" in page.text
    found = await house.registry.writer.database.read(audit.load)
    assert not any(text in str(one.details) for one in found)
    assert (await ann.post(f"/me/tokens/{token.id}/revoke")).status_code == 404
    await boss.post(f"/me/tokens/{token.id}/revoke")
    assert token.prefix not in (await boss.follow()).text
    with pytest.raises(Unauthenticated):
        await house.registry.check_api_token(text)
