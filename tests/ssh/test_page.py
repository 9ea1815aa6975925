"""The page behind the link that a terminal shows, and what its buttons do."""

import json
from datetime import timedelta

import httpx2
import pytest
from tests.support.browsing import FORM, Browser, House
from tests.support.checking import BY_OTHERS, CHECK, Scene, policy

from doorward.errors import Conflict
from doorward.model import CheckState, Role
from doorward.ssh.page import CheckPage
from doorward.store import audit


@pytest.fixture
def house(scene: Scene) -> House:
    made = House(scene.world)
    made.routes += CheckPage(made.askings, scene.world.clock).routes()
    return made


async def decide(browser: Browser, link: str, decision: str) -> httpx2.Response:
    return await browser.post(f"/check/{link}", decision=decision)


def state(scene: Scene, number: int) -> CheckState:
    return scene.world.registry.snapshot.checks.by_id[number].state


async def test_it_shows_who_wants_what(scene: Scene, house: House) -> None:
    check = await scene.ask(scene.attempt())
    page = await house.browser().get(f"/check/{check.link}")
    assert page.status_code == 200
    for text in (check.code, "laptop", "server", "root", "ann"):
        assert text in page.text
    assert page.headers["cache-control"] == "no-store"
    assert len(page.content) < 20_000


async def test_under_another_name_nothing_is_decided(scene: Scene, house: House) -> None:
    check = await scene.ask(scene.attempt())
    outside = house.browser("http://192.0.2.1:8080")
    page = await outside.get(f"/check/{check.link}")
    assert "<form" not in page.text
    assert f"doorward ssh checks approve {check.id}" in page.text
    assert '<meta http-equiv="refresh"' in page.text
    still = await outside.get(f"/check/{check.link}?refresh=no")
    assert '<meta http-equiv="refresh"' not in still.text
    assert (await decide(outside, check.link, "approve")).status_code == 421
    assert state(scene, check.id) is CheckState.WAITING


async def test_a_yes_takes_a_proof_made_for_it(scene: Scene, house: House) -> None:
    ann = await house.resident("ann")  # whose passkey was used a moment ago: that is not enough
    check = await scene.ask(scene.attempt())
    page = await ann.get(f"/check/{check.link}")
    assert "Is it you, entering" in page.text
    assert '<meta http-equiv="refresh"' not in page.text
    await decide(ann, check.link, "approve")
    assert state(scene, check.id) is CheckState.WAITING
    assert "data-at-once" in ann.page.text
    await ann.prove()
    page = await ann.follow()
    assert state(scene, check.id) is CheckState.APPROVED
    assert "may enter" in page.text
    assert "1 hour" in page.text
    event = (await scene.world.registry.writer.database.read(audit.load))[0]
    assert (event.action, event.actor) == ("ssh.check.approve", "user:ann")
    assert (await decide(ann, check.link, "deny")).status_code == 404


async def test_a_device_is_known_but_must_prove(scene: Scene, house: House) -> None:
    ann = await house.resident("ann")
    await ann.post("/signout")
    house.identity = scene.laptop
    check = await scene.ask(scene.attempt())
    page = await ann.get(f"/check/{check.link}")
    assert "Is it you, entering" in page.text
    await decide(ann, check.link, "approve")
    assert "ann" in ann.page.text
    assert state(scene, check.id) is CheckState.WAITING
    await ann.prove()
    assert state(scene, check.id) is CheckState.APPROVED


async def test_a_no_needs_no_more_than_being_known(scene: Scene, house: House) -> None:
    house.identity = scene.laptop
    check = await scene.ask(scene.attempt())
    browser = house.browser()
    await decide(browser, check.link, "deny")
    assert "was turned away" in (await browser.follow()).text
    assert state(scene, check.id) is CheckState.DENIED


async def test_a_stranger_is_asked_who_they_are(scene: Scene, house: House) -> None:
    check = await scene.ask(scene.attempt())
    ann = await house.resident("ann")
    await ann.post("/signout")
    for decision in ("deny", "approve"):
        await decide(ann, check.link, decision)
        assert "Show who you are" in ann.page.text
        assert state(scene, check.id) is CheckState.WAITING
    await ann.prove()
    assert state(scene, check.id) is CheckState.APPROVED


async def test_nobody_decides_anothers(scene: Scene, house: House) -> None:
    check = await scene.ask(scene.attempt())
    bob = await house.resident("bob", Role.OWNER)
    house.identity = scene.other
    page = await bob.get(f"/check/{check.link}")
    assert "may not decide this" in page.text
    assert "<form" not in page.text
    for decision in ("approve", "deny"):
        await decide(bob, check.link, decision)
        page = await bob.prove()
        assert page.status_code == 403
        assert "may not decide this" in page.text
    assert state(scene, check.id) is CheckState.WAITING


async def test_those_decide_whom_the_rule_names(scene: Scene, house: House) -> None:
    check = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    bob = await house.resident("bob")
    page = await bob.get(f"/check/{check.link}")
    assert "may not decide" in page.text
    assert "autogroup:admin" in page.text
    await scene.world.registry.set_role("cli", "bob", Role.ADMIN)
    bob = await house.resident("bob")
    page = await bob.get(f"/check/{check.link}")
    assert "May <bdi>runner</bdi> enter" in page.text
    await decide(bob, check.link, "approve")
    await bob.prove()
    assert state(scene, check.id) is CheckState.APPROVED


async def test_a_policy_changed_meanwhile_takes_the_decision_away(scene: Scene, house: House) -> None:
    ann = await house.resident("ann")
    check = await scene.ask(scene.attempt())
    await decide(ann, check.link, "approve")
    await scene.world.registry.set_policy("cli", policy({**CHECK, "checkPeriod": "2h"}, BY_OTHERS))
    assert (await ann.prove()).status_code == 403
    assert state(scene, check.id) is CheckState.WAITING


async def test_two_who_decide_at_once_are_one(scene: Scene, house: House) -> None:
    ann = await house.resident("ann")
    check = await scene.ask(scene.attempt())
    await decide(ann, check.link, "approve")
    await scene.world.registry.checks.decide("cli", check.id, approve=False)
    page = await ann.prove()
    assert page.status_code == 404
    assert state(scene, check.id) is CheckState.DENIED
    with pytest.raises(Conflict):
        await scene.world.registry.checks.decide("cli", check.id, approve=True)


async def test_another_sites_page_decides_nothing(scene: Scene, house: House) -> None:
    house.identity = scene.laptop
    check = await scene.ask(scene.attempt())
    for headers in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        page = await house.browser().client.post(
            f"/check/{check.link}", data={"decision": "deny"}, headers={**headers, "content-type": FORM}
        )
        assert page.status_code == 403
    assert (await decide(house.browser(), check.link, "maybe")).status_code == 400
    assert state(scene, check.id) is CheckState.WAITING


async def test_it_says_what_was_decided_and_then_nothing_more(scene: Scene, house: House) -> None:
    registry = scene.world.registry
    approved = await scene.ask(scene.attempt())
    await registry.checks.decide("cli", approved.id, approve=True)
    denied = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    await registry.checks.decide("cli", denied.id, approve=False)
    browser = house.browser()
    for check, word in ((approved, "Approved"), (denied, "Denied")):
        page = await browser.get(f"/check/{check.link}")
        assert word in page.text
        assert "<form" not in page.text
    scene.world.clock.advance(timedelta(minutes=10))
    for link in (approved.link, denied.link, "nothing"):
        spent = await browser.get(f"/check/{link}")
        assert (spent.status_code, "This link is spent" in spent.text) == (404, True)


async def test_who_asks_without_end_is_told_to_wait(scene: Scene, house: House) -> None:
    browser = house.browser()
    codes = [(await browser.get("/check/x")).status_code for _ in range(70)]
    assert set(codes) == {404, 429}


async def test_names_from_outside_are_text(scene: Scene, house: House) -> None:
    account = "<script>alert(1)</script>"
    rule = {**CHECK, "users": [account]}
    await scene.world.registry.set_policy("cli", json.dumps(json.loads(policy(rule))))
    check = await scene.ask(scene.attempt(ssh_user=account))
    ann = await house.resident("ann")
    assert "<script>alert" not in (await ann.get(f"/check/{check.link}")).text
    await decide(ann, check.link, "approve")
    assert "<script>alert" not in ann.page.text
