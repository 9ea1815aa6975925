import re

from tests.support.browsing import House

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
