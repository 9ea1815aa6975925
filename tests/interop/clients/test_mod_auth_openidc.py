"""Apache's module for OpenID Connect, as Debian has it: pages for people, and addresses for programs."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from tests.support.apache import BACK, HOST, apache
from tests.support.clients import StockClient
from tests.support.house import House, open_house
from tests.support.relay import make_leaf
from tests.support.server import Server, free_port
from tests.support.visiting import Arrived, Visitor
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(180),
    pytest.mark.client("libapache2-mod-auth-openidc", "debian"),
]

SIGNED, OUT = f"https://{HOST}/signed/", f"https://{HOST}/"
ALWAYS_REFRESH = "OIDCRefreshAccessTokenBeforeExpiry 1000"  # longer than a token lasts: at each request
APP = "doorward.dev/cap/app"


def policy(name: str, **more: Any) -> dict[str, Any]:
    """Alice may use the app of this name, and be more there."""
    return {"src": ["alice"], "dst": ["*"], "app": {APP: [{"apps": [name], **more}]}}


async def session(browser: Visitor) -> dict[str, Any]:
    """What the module knows of this browser's session."""
    told = await browser.fetch("GET", f"{BACK}?info=json")
    assert told.status_code == 200, told.text
    found: dict[str, Any] = told.json()
    return found


def headers(arrived: Arrived) -> tuple[str, ...]:
    return tuple(arrived.headers.get(name, "") for name in ("x-user", "x-name", "x-roles"))


@pytest.mark.parametrize("mode", ["query", "form_post"])
@pytest.mark.proves("silent", "pkce", "more")
async def test_people_are_known_with_their_roles_and_nothing_is_clicked(house: House, mode: str) -> None:
    app = await house.app(f"apache-{mode.replace('_', '-')}", "--redirect", BACK)
    settings = "OIDCResponseMode form_post\nOIDCCookieSameSite Off" if mode == "form_post" else ""
    async with (
        house.policy(policy(app.name, roles=["editor"])),
        apache(house, app, settings) as port,
        house.visitor({HOST: port}) as browser,
    ):
        sent = await browser.fetch("GET", SIGNED, Accept="text/html")
        assert "code_challenge_method=S256" in sent.headers["location"]
        page = await browser.go(SIGNED)
        assert (page.url, page.status) == (SIGNED, 200), page.text
        assert headers(page) == ("alice", "alice", "editor")
        known = await session(browser)
        assert known["id_token"]["acr"] == "urn:doorward:acr:network"
        assert known["userinfo"]["sub"] == known["id_token"]["sub"]
        assert (await browser.go(f"https://{HOST}/editors/")).status == 200
    # Who is no editor is signed in all the same, and may not see that.
    async with (
        house.policy(policy(app.name)),
        apache(house, app, settings) as port,
        house.visitor({HOST: port}) as browser,
    ):
        assert (await browser.go(SIGNED)).status == 200
        assert (await browser.go(f"https://{HOST}/editors/")).status == 401


@pytest.mark.proves("click", "deny")
async def test_asks_once_and_no_is_an_answer(house: House) -> None:
    app = await house.app("apache-asks", "--redirect", BACK, "--ask")
    async with apache(house, app) as port:
        async with house.visitor({HOST: port}) as browser:
            page = await browser.go(SIGNED, press="no")
            assert page.answer["error"] == "access_denied"
            # This version takes an error with ``iss`` (RFC 9207) for a sign-in that another site begins, and says so.
            # Without ``iss`` it shows the very same error. Nobody is signed in by either.
            assert "target_link_uri" in page.text
            plain = await browser.go(
                f"{BACK}?{urlencode({**page.answer, 'iss': None})}".replace("&iss=None", "")
            )
            assert "access_denied" in plain.text
            assert headers(await browser.go(SIGNED, press="yes"))[0] == "alice"
        async with house.visitor({HOST: port}) as browser:
            page = await browser.go(SIGNED)
            assert (page.status, page.pressed) == (200, ())


@pytest.mark.proves("refresh", "policy")
async def test_each_refresh_looks_at_the_policy(house: House) -> None:
    app = await house.app("apache-refresh", "--redirect", BACK)
    async with (
        apache(house, app, f"{ALWAYS_REFRESH} logout_on_error") as port,
        house.visitor({HOST: port}) as browser,
    ):
        async with house.policy(policy(app.name)):
            pages = [await browser.go(SIGNED) for _ in range(3)]
            assert {headers(page)[0] for page in pages} == {"alice"}
            assert len({page.headers["x-access"] for page in pages}) == 3
        async with house.policy(policy("another")):
            assert headers(await browser.go(SIGNED)) == (
                "",
                "",
                "",
            )  # the refresh failed: its session is over
            page = await browser.go(SIGNED)
            assert page.answer["error"] == "access_denied"
            assert headers(page) == ("", "", "")


@pytest.mark.proves("replay")
async def test_a_refresh_token_that_comes_twice_ends_the_session(house: House) -> None:
    app = await house.app("apache-replay", "--redirect", BACK)
    async with apache(house, app) as port, house.visitor({HOST: port}) as browser:
        await browser.go(SIGNED)
        known = await session(browser)
        stolen = {"grant_type": "refresh_token", "refresh_token": known["refresh_token"]}
        # A thief who has the app's secret, too, is first; then comes the app.
        thief = await browser.send(f"{house.issuer}/token", stolen, (app.client_id, app.secret))
        assert thief.status_code == 200, thief.text
        asked = f"{BACK}?refresh=https://{HOST}/&access_token={known['access_token']}"
        failed = await browser.fetch("GET", asked)
        assert "error_code=refresh_failed" in failed.headers["location"]
        new = {"grant_type": "refresh_token", "refresh_token": thief.json()["refresh_token"]}
        late = await browser.send(f"{house.issuer}/token", new, (app.client_id, app.secret))
        assert late.json()["error"] == "invalid_grant"


@pytest.mark.proves("logout")
async def test_signing_out_ends_both_sessions(house: House) -> None:
    app = await house.app("apache-leaves", "--redirect", BACK, "--signed-out", OUT)
    async with apache(house, app) as port, house.visitor({HOST: port}) as browser:
        assert headers(await browser.go(SIGNED))[0] == "alice"
        left = await browser.go(f"{BACK}?logout={quote(OUT, safe='')}")
        assert (left.url, left.status, left.pressed) == (OUT, 200, ())
        assert (await browser.fetch("GET", SIGNED)).status_code == 302
        page = await browser.go(SIGNED)
        assert page.url.startswith(house.issuer)  # it asks
        assert headers(await browser.go(SIGNED, press="yes"))[0] == "alice"


@pytest.mark.proves("logout", "policy")
async def test_apache_is_told_who_is_taken_out_of_the_policy(tmp_path: Path) -> None:
    leaf, authority, also = make_leaf(), tmp_path / "authority.pem", free_port()
    authority.write_bytes(leaf.pem)
    environ = {"DOORWARD_APPS_NETWORKS": "127.0.0.1", "DOORWARD_APPS_AUTHORITY": str(authority)}
    at = f"https://localhost:{also}/signed/back"
    async with Server(environ=environ) as server, open_house(server) as house:
        told = ("--redirect", at, "--logout-url", f"{at}?logout=backchannel")
        app = await house.app("apache-told", "--redirect", BACK, *told)
        async with (
            apache(house, app, also=also, leaf=leaf) as port,
            house.visitor({HOST: port}) as browser,
        ):
            assert headers(await browser.go(SIGNED))[0] == "alice"
            assert (await browser.fetch("GET", SIGNED)).status_code == 200

            async def is_signed_out() -> bool:
                return (await browser.fetch("GET", SIGNED)).status_code == 302

            async with house.policy(policy("another")):
                await eventually(is_signed_out, 40)


@pytest.mark.proves("rotation")
async def test_new_keys_of_the_issuer_break_nobody(house: House) -> None:
    app = await house.app("apache-rotation", "--redirect", BACK)
    async with apache(house, app) as port:
        keys = set()
        for days in (0, 89.5, 1):
            if days:
                await house.age_keys(days)
            async with house.visitor({HOST: port}) as browser:
                assert headers(await browser.go(SIGNED))[0] == "alice"
                raw = await browser.fetch("GET", f"{BACK}?info=json")
                assert json.loads(raw.text)["id_token"]["iss"] == house.issuer
                keys |= await house.published_keys()
        assert len(keys) >= 6


@pytest.mark.proves("iss")
async def test_an_answer_of_another_issuer_is_refused(house: House) -> None:
    app = await house.app("apache-mixed-up", "--redirect", BACK)
    async with apache(house, app) as port, house.visitor({HOST: port}) as browser:
        stopped = await browser.go(SIGNED, ends_at=BACK)
        assert stopped.answer["iss"] == house.issuer
        page = await browser.go(stopped.url.replace("iss=https", "iss=http"))
        assert page.url.startswith(BACK)
        assert (await browser.fetch("GET", SIGNED)).status_code == 302  # not signed in
        assert headers(await browser.go(SIGNED))[0] == "alice"


@pytest.mark.proves("audience", "more")
async def test_a_program_shows_a_token_and_one_for_somebody_else_is_refused(house: House) -> None:
    app = await house.app("apache-api", "--redirect", BACK, "--service")
    other = await house.app("apache-other", "--service")
    api = f"https://{HOST}/api/"
    async with apache(house, app) as port, house.visitor({HOST: port}) as program:
        assert (await program.fetch("GET", api)).status_code == 401
        for each, status in ((app, 200), (other, 401)):
            form = {"grant_type": "client_credentials"}
            made = await program.send(f"{house.issuer}/token", form, (each.client_id, each.secret))
            answer = await program.fetch("GET", api, Authorization=f"Bearer {made.json()['access_token']}")
            assert answer.status_code == status, answer.text


@pytest.mark.proves("outside", "tagged")
async def test_who_is_not_known_and_who_is_nobody(house: House) -> None:
    app = await house.app("apache-outside", "--redirect", BACK)
    async with apache(house, app) as port, StockClient("robot") as robot:
        async with house.outsider({HOST: port}) as browser:
            page = await browser.go(SIGNED, press="yes")
            assert page.url.startswith(house.issuer)
            assert "passkey" in page.text
        await robot.up(house.server.url, await house.server.key("--tag", "tag:robot"))
        async with house.visitor({HOST: port}, on=robot) as browser:
            page = await browser.go(SIGNED)
            assert page.answer["error"] == "access_denied"
            assert headers(page) == ("", "", "")
