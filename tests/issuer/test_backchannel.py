import asyncio
from datetime import datetime, timedelta

import pytest
from tests.issuer.test_oidc_logout import TOLD, signed_in
from tests.support.office import Office, Party
from tests.support.waiting import eventually

from doorward.errors import Unavailable
from doorward.issuer import backchannel
from doorward.issuer.backchannel import AGAIN, GIVEN_UP, LEASE, again
from doorward.issuer.fetch import Fetch, Reach
from doorward.issuer.trust import Trust
from doorward.model import Role
from doorward.store import Connection, logouts
from doorward.transport.fetch import Answer

NOBODY = '{"grants": [{"src": ["bob"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{}]}}]}'
MANY = 20


async def sids(office: Office) -> list[str]:
    return [str(said["sid"]) for _, said in await office.told()]


async def waiting(office: Office) -> int:
    return await office.registry.writer.database.read(logouts.waiting)


# What an app is told of ----------------------------------------------------------------------------------------------


async def test_of_a_suspension_and_of_a_deletion(office: Office) -> None:
    await office.registry.create_user("cli", "olga", role=Role.OWNER)
    grafana, _ = await signed_in(office)
    sid = (await grafana.claims())["sid"]
    await office.registry.suspend_user("cli", "ann", suspended=True)
    assert await sids(office) == [sid]
    await office.registry.suspend_user("cli", "ann", suspended=False)
    await grafana.sign_in()
    await office.registry.delete_user("cli", "ann", with_nodes=True)
    ((_, said),) = await office.told()
    assert said["sid"] == sid


async def test_of_the_app_that_is_deleted(office: Office) -> None:
    grafana, _ = await signed_in(office)
    await office.apps.delete("cli", "grafana")
    assert await sids(office) == [(await grafana.claims())["sid"]]


async def test_of_the_policy_and_of_a_device_that_is_gone(office: Office) -> None:
    grafana, _ = await signed_in(office)
    sid = (await grafana.claims())["sid"]
    await office.policy(NOBODY)
    await office.issuer._sweep.look()
    assert await sids(office) == [sid]
    await office.policy("{}")
    await grafana.sign_in()
    assert office.identity is not None
    await office.registry.delete_node("cli", office.identity.id)
    await office.issuer._sweep.look()
    assert await sids(office) == [sid]


async def test_of_a_device_whose_key_has_ended(office: Office) -> None:
    grafana, _ = await signed_in(office)
    assert office.identity is not None
    await office.registry.expire_node("cli", office.identity.id)
    await office.issuer._sweep.look()
    assert await sids(office) == [(await grafana.claims())["sid"]]


async def test_of_a_browser_that_somebody_else_signs_out(office: Office) -> None:
    browser = await office.resident("ann")
    grafana = await office.app(logout_url=TOLD)
    office.published[TOLD] = b""
    sid = (await grafana.sign_in(browser))["sid"]
    user = office.registry.snapshot.user_by_name("ann")
    assert user is not None
    await office.world.context.means.sign_out("cli", user)
    assert await sids(office) == [sid]


async def test_of_a_person_who_takes_it_back(office: Office) -> None:
    browser = await office.resident("ann")
    grafana = await office.app(logout_url=TOLD)
    office.published[TOLD] = b""
    sid = (await grafana.sign_in(browser))["sid"]
    await browser.post(f"/me/apps/{grafana.app.id}/end")
    assert await sids(office) == [sid]


@pytest.mark.parametrize(
    ("hosts", "told", "reaches"),
    [((), "tool", False), (("tool.example.com",), "tool", True), (("tool.example.com",), "other", False)],
)
async def test_t16_a_description_reaches_no_further_than_its_own_host_is_trusted(
    office: Office, hosts: tuple[str, ...], told: str, reaches: bool
) -> None:
    office.rule(Trust(hosts=hosts))
    await office.person("ann")
    back, url = f"https://{told}.example.com/back", f"https://{told}.example.com/logout"
    fields = {"redirect_uris": [back], "backchannel_logout_uri": url}
    tool = office.publish("https://tool.example.com/client.json", **fields)
    office.published[url] = b""
    browser = tool.browser()
    await tool.send(browser)
    await tool.press(browser)
    assert (await tool.redeem()).status_code == 200
    await office.registry.suspend_user("cli", "ann", suspended=True)
    assert [one for one, _ in await office.told()] == [url]
    ((_, rules),) = [one for one in office.fetched if one[0] == url]
    assert (rules.resolve == office.issuer._backchannel._fetch._resolve) is reaches


async def test_not_of_a_token_that_it_gives_back_itself(office: Office) -> None:
    grafana, _ = await signed_in(office)
    await grafana.post("/revoke", token=grafana.tokens["access_token"])
    assert await sids(office) == []


async def test_not_of_another_passkey_that_is_made(office: Office) -> None:
    """It makes a new cookie; the session is the one that apps know."""
    browser = await office.resident("ann")
    grafana = await office.app(logout_url=TOLD)
    first = await grafana.sign_in(browser)
    await browser.post("/me/passkeys")
    await browser.prove()
    await browser.make()
    assert await waiting(office) == 0
    assert (await grafana.sign_in(browser))["sid"] == first["sid"]


# How -----------------------------------------------------------------------------------------------------------------


async def ended(office: Office) -> Party:
    grafana, hint = await signed_in(office)
    await grafana.end_session(id_token_hint=hint)
    return grafana


@pytest.mark.parametrize("trouble", [Unavailable("nobody there"), 302, 400, 500, 201])
async def test_what_did_not_arrive_comes_again_later_and_later(
    office: Office, trouble: Unavailable | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(office)
    clock, tries = office.world.clock, 0

    async def post(self: Fetch, url: str, form: dict[str, str], *, reach: Reach) -> Answer:
        nonlocal tries
        tries += 1
        assert (url, reach) == (TOLD, Reach.GIVEN)
        assert form.keys() == {"logout_token"}
        if isinstance(trouble, Unavailable):
            raise trouble
        return Answer(trouble, {"location": "https://elsewhere.example/"}, b"")

    monkeypatch.setattr(Fetch, "post", post)
    step = office.issuer._backchannel.step
    await step()
    await step()
    assert tries == 1
    for number in range(4):
        clock.advance(again(number) - timedelta(seconds=1))
        await step()
        assert tries == number + 1
        clock.advance(timedelta(seconds=1))
        await step()
        assert tries == number + 2
    clock.advance(GIVEN_UP)
    await step()
    assert await waiting(office) == 0
    (event,) = await office.audited("app.logout.lost")
    assert (event.actor, event.target, event.details["tries"]) == ("system", "app:grafana", 6)
    clock.advance(GIVEN_UP)
    await step()
    assert tries == 6


def test_it_waits_twice_as_long_each_time_and_an_hour_at_most() -> None:
    assert [again(tries) / AGAIN for tries in range(5)] == [1, 2, 4, 8, 16]
    assert again(12) == again(1000) == timedelta(hours=1)


async def test_one_who_is_killed_over_it_leaves_it_for_another(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    grafana = await ended(office)

    begun = asyncio.Event()

    async def post(self: Fetch, url: str, form: dict[str, str], *, reach: Reach) -> Answer:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    with monkeypatch.context() as dying:
        dying.setattr(Fetch, "post", post)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(office.issuer._backchannel.step())
            await begun.wait()
            task.cancel()
    assert await sids(office) == []  # it is still the other's
    office.world.clock.advance(LEASE)
    assert len(await sids(office)) == 1
    assert grafana.tokens
    assert await waiting(office) == 0


async def test_one_that_cannot_be_noted_comes_twice_and_not_never(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(office)

    def down(connection: Connection, number: int) -> bool:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(logouts, "settle", down)
        assert len(await sids(office)) == 1
    office.world.clock.advance(LEASE)
    assert len(await sids(office)) == 1


async def test_a_slow_app_keeps_others_waiting_no_longer_than_it_takes(office: Office) -> None:
    """As many at once as there may be; the rest in the next step."""
    await ended(office)
    office.published[TOLD] = b""
    await office.told()
    for number in range(MANY):
        party = await office.app(f"app{number}", logout_url=TOLD)
        await office.person("ann")
        browser = party.browser()
        await party.send(browser)
        if "asking" in browser.page.text:
            await party.press(browser)
        await party.redeem()
    await office.registry.create_user("cli", "olga", role=Role.OWNER)
    await office.registry.suspend_user("cli", "ann", suspended=True)
    office.posted.clear()
    assert await office.issuer._backchannel.step() == 0.0
    assert len(office.posted) == backchannel.AT_ONCE
    assert await office.issuer._backchannel.step() == backchannel.LOOK
    assert len(office.posted) == MANY


async def test_it_delivers_by_itself_and_outlives_a_store_that_does_not_answer(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(office)
    monkeypatch.setattr(backchannel, "LOOK", 0.0)
    was = logouts.is_due
    failures: list[datetime] = []

    def sometimes(connection: Connection, now: datetime) -> bool:
        if not failures:
            failures.append(now)
            raise Unavailable("the store is away")
        return was(connection, now)

    monkeypatch.setattr(logouts, "is_due", sometimes)

    async def arrived() -> bool:
        return bool(office.posted) and await waiting(office) == 0

    async with asyncio.TaskGroup() as group:
        task = group.create_task(office.issuer.run())
        await eventually(arrived)
        task.cancel()
    assert failures
    assert len(office.posted) == 1
