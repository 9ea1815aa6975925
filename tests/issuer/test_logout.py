"""Whoever signs out is out: on the device, in the browser, at every app, and until they say otherwise."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.issuer.test_oidc_logout import OUT, TOLD, asks, is_out, press, signed_in
from tests.support.office import PAGE, Office

from doorward.errors import Conflict
from doorward.issuer.decision import arrival_of
from doorward.store import apps, signin

SCOPE = "openid offline_access"


async def test_the_next_sign_in_takes_a_yes_and_the_one_after_it_none(office: Office) -> None:
    grafana, hint = await signed_in(office)
    first = await grafana.claims()
    await grafana.end_session(id_token_hint=hint)
    browser = grafana.browser()
    page = await grafana.send(browser)
    assert "Yes, sign in" in page.text
    office.world.clock.advance(timedelta(seconds=30))
    await grafana.press(browser)
    assert (await grafana.redeem()).status_code == 200
    second = await grafana.claims()
    assert second["sid"] != first["sid"]
    assert second["auth_time"] > first["auth_time"]
    assert (await grafana.sign_in())["sid"] == second["sid"]


async def test_a_no_keeps_it_so(office: Office) -> None:
    grafana, hint = await signed_in(office)
    await grafana.end_session(id_token_hint=hint)
    browser = grafana.browser()
    await grafana.send(browser)
    await grafana.press(browser, "no")
    assert grafana.answer["error"] == "access_denied"
    assert await is_out(grafana)


async def test_all_that_was_given_there_is_over_whatever_its_number(office: Office) -> None:
    """Of a device that was away a new session begins; what was given in the old one ends with it all the same."""
    await office.person("ann")
    wiki = await office.app("wiki", redirect_uris=("https://wiki.example.com/cb",))
    await wiki.sign_in(scope=SCOPE)
    office.world.clock.advance(timedelta(hours=13))
    grafana = await office.app()
    await grafana.sign_in(scope=SCOPE)
    await grafana.end_session(id_token_hint=grafana.tokens["id_token"])
    for party in (wiki, grafana):
        assert (await party.refresh()).json()["error"] == "invalid_grant"
    (event,) = await office.audited("user.signout")
    assert (event.actor, event.details["app"], event.details["grants"]) == ("user:ann", "grafana", 2)


async def test_another_device_of_theirs_stays_in(office: Office) -> None:
    grafana, hint = await signed_in(office)
    await office.person("ann", 2)
    other = await office.app("wiki", redirect_uris=("https://wiki.example.com/cb",))
    await other.sign_in(scope=SCOPE)
    await office.person("ann", 1)
    office.identity = office.registry.snapshot.node_by_name("ann-1")
    await grafana.end_session(id_token_hint=hint)
    assert (await other.refresh()).status_code == 200


async def test_a_browser_with_a_session_leaves_it_and_its_device(office: Office) -> None:
    await office.person("ann")
    browser = await office.resident("ann")
    grafana = await office.app(signed_out_uris=(OUT,))
    await grafana.sign_in(browser, scope=SCOPE)
    page = await grafana.end_session(browser, id_token_hint=grafana.tokens["id_token"])
    assert "You are signed out" in page.text
    assert "__Host-doorward" not in browser.client.cookies
    assert (await grafana.refresh()).json()["error"] == "invalid_grant"
    assert await is_out(grafana)


async def test_signing_out_at_the_door_is_the_same(office: Office) -> None:
    await office.person("ann")
    browser = await office.resident("ann")
    grafana = await office.app(logout_url=TOLD)
    office.published[TOLD] = b""
    signed = await grafana.sign_in(browser, scope=SCOPE)
    await browser.post("/signout")
    assert (await grafana.refresh()).json()["error"] == "invalid_grant"
    ((_, said),) = await office.told()
    assert said["sid"] == signed["sid"]
    assert await is_out(grafana)


async def test_a_guest_on_anothers_device_leaves_it_asked(office: Office) -> None:
    await office.person("bob")
    browser = await office.resident("ann")
    grafana = await office.app()
    await grafana.sign_in(browser)
    await grafana.end_session(browser, id_token_hint=grafana.tokens["id_token"])
    assert "Yes, sign in" in (await grafana.send(browser)).text  # as bob, and not without a word


async def test_another_persons_token_ends_nothing_without_a_yes(office: Office) -> None:
    grafana, hint = await signed_in(office)
    await office.person("bob", 2)
    browser = grafana.browser()
    page = await grafana.end_session(browser, id_token_hint=hint, post_logout_redirect_uri=OUT)
    assert asks(page)
    assert "somebody else" in page.text
    page = await press(browser, "no")
    assert "still signed in" in page.text
    await grafana.sign_in()
    await office.person("ann", 1)
    office.identity = office.registry.snapshot.node_by_name("ann-1")
    assert not await is_out(grafana)


async def test_a_token_counts_however_old_it_is_and_for_its_own_app_alone(office: Office) -> None:
    grafana, hint = await signed_in(office)
    office.world.clock.advance(timedelta(days=3))
    assert asks(await grafana.end_session(id_token_hint=hint, client_id="app-another"))
    page = await grafana.end_session(
        id_token_hint=hint, client_id=grafana.app.client_id, post_logout_redirect_uri=OUT
    )
    assert page.headers["location"] == OUT


async def test_an_access_token_is_no_hint(office: Office) -> None:
    grafana, _ = await signed_in(office)
    assert asks(await grafana.end_session(id_token_hint=grafana.tokens["access_token"]))


async def test_after_a_yes_a_link_leads_back(office: Office) -> None:
    grafana, _ = await signed_in(office)
    browser = grafana.browser()
    said: dict[str, Any] = {
        "client_id": grafana.app.client_id,
        "post_logout_redirect_uri": OUT,
        "state": "a&b",
    }
    assert asks(await grafana.end_session(browser, **said))
    page = await press(browser)
    assert f'href="{OUT}?state=a%26b"' in page.text
    assert "Back to <bdi>grafana</bdi>" in page.text


async def test_the_page_is_answered_once_by_the_browser_that_was_asked(office: Office) -> None:
    grafana, _ = await signed_in(office)
    browser = grafana.browser()
    await grafana.end_session(browser)
    number = browser.field("asking")
    stranger = await office.browser().post("/end_session/answer", asking=number, answer="yes")
    assert stranger.status_code == 404
    assert not await is_out(grafana)
    await press(browser)
    assert (await browser.post("/end_session/answer", asking=number, answer="yes")).status_code == 404
    forged = await browser.client.post(
        "/end_session/answer",
        data={"asking": number},
        headers={"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    )
    assert forged.status_code == 403


async def test_where_nobody_is_known_the_app_says_whose_session_it_was(office: Office) -> None:
    grafana, hint = await signed_in(office)
    office.identity = None
    page = await grafana.end_session(id_token_hint=hint, post_logout_redirect_uri=OUT)
    assert page.headers["location"] == OUT
    assert [url for url, _ in await office.told()] == [TOLD]
    (event,) = await office.audited("app.signout")
    assert event.actor == "app:grafana"
    page = await grafana.end_session()
    assert "Nobody is signed in here" in page.text
    await grafana.end_session(id_token_hint=hint)  # what has ended ends no second time
    assert len(await office.audited("app.signout")) == 1


async def test_a_post_is_looked_at_with_the_cookie(office: Office) -> None:
    grafana, hint = await signed_in(office)
    form = {"id_token_hint": hint, "post_logout_redirect_uri": OUT, "state": "s"}
    client = office.browser().client
    page = await client.post("/end_session", data=form, headers=PAGE)
    assert (page.status_code, page.headers["location"]) == (303, f"/end_session?{urlencode(form)}")
    assert not await is_out(grafana)
    page = await client.get(page.headers["location"], headers=PAGE)
    assert page.headers["location"] == f"{OUT}?state=s"
    assert (await client.post("/end_session", content=b"{}", headers=PAGE)).status_code == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**PAGE, "sec-fetch-dest": "iframe"}, 403),
        ({**PAGE, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
        ({**PAGE, "sec-purpose": "prefetch"}, 503),
    ],
)
async def test_nobody_is_signed_out_inside_another_page_or_ahead_of_time(
    office: Office, headers: dict[str, str], status: int
) -> None:
    grafana, hint = await signed_in(office)
    assert arrival_of(headers) != arrival_of(PAGE)
    assert (await grafana.end_session(None, headers, id_token_hint=hint)).status_code == status
    assert not await is_out(grafana)


async def test_what_cannot_be_read_is_refused(office: Office) -> None:
    client = office.browser().client
    for query in (
        "state=a&state=b",
        f"state={'s' * 2001}",
        f"ui_locales={'x' * 40_000}",
        "id_token_hint=%ff",
    ):
        assert (await client.get(f"/end_session?{query}", headers=PAGE)).status_code == 400
    assert (await client.head("/end_session", headers=PAGE)).status_code == 405
    elsewhere = await office.browser("https://other.example").client.get("/end_session", headers=PAGE)
    assert elsewhere.status_code == 421


async def test_too_many_are_told_to_wait(office: Office) -> None:
    grafana, _ = await signed_in(office)
    pages = await asyncio.gather(*(grafana.end_session() for _ in range(62)))
    assert 429 in {page.status_code for page in pages}


async def test_an_address_that_the_app_has_lost_meanwhile_is_no_way_back(office: Office) -> None:
    grafana, _ = await signed_in(office)
    browser = grafana.browser()
    said: dict[str, Any] = {"client_id": grafana.app.client_id, "post_logout_redirect_uri": OUT}
    await grafana.end_session(browser, **said)
    await office.apps.delete("cli", "grafana")
    page = await press(browser)
    assert "You are signed out" in page.text
    assert OUT not in page.text


async def test_a_code_that_was_on_its_way_when_its_session_ended_is_not_given(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session ends between the look at it and the code."""
    grafana, hint = await signed_in(office)
    issue = office.issuer._authorize._give

    async def slow(*arguments: object, **named: object) -> object:
        await grafana.end_session(id_token_hint=hint)
        return await issue(*arguments, **named)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(office.issuer._authorize, "_give", slow)
    page = await grafana.send()
    assert page.status_code == Conflict.status
    assert "code" not in grafana.answer


async def test_the_same_for_a_browser_that_signed_in(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await office.resident("ann")
    grafana = await office.app()
    issue = office.issuer._authorize._give
    database = office.registry.writer.database
    (session,) = await database.read(signin.open_sessions, office.world.clock.now())

    async def slow(*arguments: object, **named: object) -> object:
        now = office.world.clock.now()
        await database.run(signin.end_sessions, now, session_id=session.id)
        kept = await database.read(apps.session, apps.browser_key(session.id))
        assert kept is None
        return await issue(*arguments, **named)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(office.issuer._authorize, "_give", slow)
    page = await grafana.send(browser)
    assert page.status_code == Conflict.status
    assert "code" not in grafana.answer


# By an administrator --------------------------------------------------------------------------------------------------


async def test_an_administrator_sees_who_is_signed_in_where_and_ends_it(office: Office) -> None:
    grafana, _ = await signed_in(office)
    await grafana.sign_in(scope=SCOPE)
    await office.person("bob", 2)
    wiki = await office.app("wiki", redirect_uris=("https://wiki.example.com/cb",))
    await wiki.sign_in()
    async with office.world.client() as client:
        listed = (await client.get("/app-sessions")).json()
        assert [(one["app"], one["user"], one["node"]) for one in listed] == [
            ("grafana", "ann", "ann-1"),
            ("wiki", "bob", "bob-2"),
        ]
        assert (await client.get("/app-sessions?app=wiki")).json() == listed[1:]
        assert (await client.get("/app-sessions?user=ann")).json() == listed[:1]
        assert (await client.get("/app-sessions?app=nothing")).status_code == 404
        number = listed[0]["id"]
        assert (await client.delete(f"/users/bob/app-sessions/{number}")).status_code == 404
        ended = await client.delete(f"/users/ann/app-sessions/{number}")
        assert ended.json()["name"] == "grafana"
        assert (await client.delete(f"/users/ann/app-sessions/{number}")).status_code == 404
        assert (await client.get("/app-sessions")).json() == listed[1:]
    assert (await grafana.refresh()).json()["error"] == "invalid_grant"
    assert [url for url, _ in await office.told()] == [TOLD]
    (event,) = await office.audited("app.end")
    assert event.details["why"] == "signed out by an administrator"


async def test_a_person_sees_where_an_app_knows_them(office: Office) -> None:
    grafana, _ = await signed_in(office)
    assert "on ann-1" in (await office.browser().get("/me")).text
    browser = await office.resident("ann")
    office.identity = None
    await grafana.sign_in(browser)
    assert "in a browser" in (await browser.get("/me")).text
