"""Signing in at a real OpenID provider: what it says is believed, as far as its administrator here has said."""

import os
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import msgspec
import pytest
from tests.support.provider import CLIENT_ID, CLIENT_SECRET, Browser, RealProvider
from tests.support.server import Server
from tests.support.world import SEALER, World, open_world

from doorward.clock import SystemClock
from doorward.errors import NotPermitted, RemoteProtocolError, Unavailable
from doorward.login.upstream import Upstream
from doorward.model import Claims, Provider

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

BACK = "https://door.example.com/signin/callback/corp"
ACCOUNTS: dict[str, dict[str, Any]] = {
    "u-ann": {
        "email": "ann@example.com",
        "email_verified": True,
        "name": "Ann",
        "preferred_username": "ann",
        "groups": ["eng", "ops"],
    },
    "u-bob": {"name": "Bob"},
    "u-eve": {"email": "ann@example.com", "email_verified": False, "name": "Eve"},
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


class Door:
    """What a page does: send a browser away, and see who comes back."""

    def __init__(self, real: RealProvider, provider: Provider) -> None:
        self.real = real
        self.provider = provider
        self.clock = SystemClock()
        self.upstream = Upstream(self.clock, os.urandom, SEALER, loopback_http=True)

    async def sign_in(
        self, browser: Browser, account: str, *, fresh: bool = False, agree: bool = True, **bent: Any
    ) -> Claims:
        asked = self.clock.now()
        started = await self.upstream.start(self.provider, redirect_uri=BACK, fresh=fresh)
        query = await browser.sign_in(started.url, account, agree=agree)
        told: dict[str, Any] = {
            "redirect_uri": BACK,
            "query": query,
            "state": started.state,
            "nonce": started.nonce,
            "verifier": started.verifier,
            "fresh_since": asked if fresh else None,
        }
        return await self.upstream.finish(self.provider, **(told | bent))


async def _door(world: World, real: RealProvider, **fields: Any) -> Door:
    draft = Provider(
        id=0,
        name="corp",
        issuer=real.issuer,
        client_id=CLIENT_ID,
        client_secret=SEALER.seal(CLIENT_SECRET, real.issuer),
        scopes=("openid", "email", "profile", "groups"),
        domains=("example.com",),
        created=world.clock.now(),
    )
    return Door(real, await world.registry.outside.add("cli", msgspec.structs.replace(draft, **fields)))


@pytest.mark.parametrize("claims_in_userinfo_only", [True, False])
async def test_somebody_signs_in_and_has_their_groups(world: World, claims_in_userinfo_only: bool) -> None:
    async with (
        RealProvider(ACCOUNTS, redirect_uri=BACK, claims_in_userinfo_only=claims_in_userinfo_only) as real,
        real.browser() as browser,
    ):
        door = await _door(world, real)
        claims = await door.sign_in(browser, "u-ann")
        assert claims == Claims(
            issuer=real.issuer,
            subject="u-ann",
            email="ann@example.com",
            email_verified=True,
            name="Ann",
            preferred_username="ann",
            groups=("eng", "ops"),
            auth_time=claims.auth_time,
        )
        user = await world.registry.outside.signed_in(door.provider, claims)
        assert (user.name, user.groups) == ("ann@example.com", ("eng@example.com", "ops@example.com"))
        # The one whose address nobody vouches for is not let in, and not taken for Ann.
        async with real.browser() as other:
            with pytest.raises(NotPermitted, match="does not vouch"):
                await world.registry.outside.signed_in(door.provider, await door.sign_in(other, "u-eve"))
        await world.registry.suspend_user("cli", user.name, suspended=True)
        with pytest.raises(NotPermitted, match="suspended"):
            await world.registry.outside.signed_in(door.provider, await door.sign_in(browser, "u-ann"))


async def test_a_fresh_proof_is_asked_for_and_seen(world: World) -> None:
    async with RealProvider(ACCOUNTS, redirect_uri=BACK) as real, real.browser() as browser:
        door = await _door(world, real)
        await door.sign_in(browser, "u-ann")
        await door.sign_in(browser, "u-ann")
        assert browser.asked_to_sign_in == 1  # the provider remembers them
        claims = await door.sign_in(browser, "u-ann", fresh=True)
        assert browser.asked_to_sign_in == 2
        assert claims.auth_time is not None
        assert door.clock.now() - claims.auth_time < timedelta(minutes=1)
        # What is not fresh enough proves nothing, whatever the provider was asked.
        later = door.clock.now() + timedelta(minutes=5)
        with pytest.raises(NotPermitted, match="did not ask you again"):
            await door.sign_in(browser, "u-ann", fresh=True, fresh_since=later)
        with pytest.raises(NotPermitted, match="does not say when"):  # it was not asked to
            await door.sign_in(browser, "u-ann", fresh_since=door.clock.now())


async def test_what_a_person_or_a_thief_may_bring_back(world: World) -> None:
    async with RealProvider(ACCOUNTS, redirect_uri=BACK) as real, real.browser() as browser:
        door = await _door(world, real)
        with pytest.raises(NotPermitted, match="you said no there"):
            await door.sign_in(browser, "u-ann", agree=False)
        lies: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
            ({"state": "another"}, NotPermitted, "not the answer"),
            ({"nonce": "another"}, RemoteProtocolError, "nonce"),
            ({"verifier": "x" * 43}, RemoteProtocolError, "does not take the code"),  # a stolen code
        )
        for bent, kind, why in lies:
            with pytest.raises(kind, match=why):
                await door.sign_in(browser, "u-ann", **bent)
        started = await door.upstream.start(door.provider, redirect_uri=BACK, fresh=False)
        query = await browser.sign_in(started.url, "u-ann")

        async def come_back() -> Claims:
            return await door.upstream.finish(
                door.provider,
                redirect_uri=BACK,
                query=query,
                state=started.state,
                nonce=started.nonce,
                verifier=started.verifier,
            )

        assert (await come_back()).subject == "u-ann"
        with pytest.raises(RemoteProtocolError, match="does not take the code"):
            await come_back()


async def test_it_changes_its_keys_goes_away_and_is_set_up_wrongly(world: World) -> None:
    async with RealProvider(ACCOUNTS, redirect_uri=BACK) as real:
        door = await _door(world, real)
        found = await door.upstream.examine(door.provider, redirect_uris=[BACK])
        assert {one.level for one in found} == {"ok"}, found
        await real.stop()
        with pytest.raises(Unavailable, match="cannot be asked"):
            await Upstream(door.clock, os.urandom, SEALER, loopback_http=True).start(
                door.provider, redirect_uri=BACK, fresh=False
            )
        (down,) = await door.upstream.examine(door.provider, redirect_uris=[BACK])
        assert (down.level, down.subject) == ("error", "discovery")
        await real.start()  # with other keys
        door.upstream = Upstream(door.clock, os.urandom, SEALER, loopback_http=True)
        async with real.browser() as browser:
            await door.sign_in(browser, "u-ann")
            await real.stop()
            await real.start()  # and others again, which the same process has to find out about
            door.upstream._known[real.issuer].keys_at -= 60  # it has not looked for a minute
        async with real.browser() as browser:
            assert (await door.sign_in(browser, "u-ann")).subject == "u-ann"
        door.provider = msgspec.structs.replace(
            door.provider, client_secret=SEALER.seal("wrong", real.issuer)
        )
        async with real.browser() as browser:
            with pytest.raises(Unavailable, match="client ID and secret"):
                await door.sign_in(browser, "u-ann")
        found = await door.upstream.examine(door.provider, redirect_uris=[BACK])
        assert [one.subject for one in found if one.level == "error"] == ["client"]


class Visitor(Browser):
    """A browser at doorward's own door."""

    def __init__(self, origin: str, ends_at: str) -> None:
        super().__init__(ends_at)
        self._origin = origin

    async def post(self, path: str, **fields: str) -> httpx2.Response:
        """Press a button of one of the door's pages."""
        headers = {
            "origin": self._origin,
            "sec-fetch-site": "same-origin",
            "content-type": "application/x-www-form-urlencoded",  # also of a form without fields
        }
        return await self._client.post(f"{self._origin}{path}", content=urlencode(fields), headers=headers)

    async def come_in(self, account: str) -> httpx2.Response:
        """Sign in from the page for it; the page that one then gets to see."""
        return await self.answer(await self._client.get(f"{self._origin}/signin"), account)

    async def answer(self, asks: httpx2.Response, account: str) -> httpx2.Response:
        """Press the provider's button on a page that asks, sign in there, and come back."""
        form = re.search(r'name="asking" value="(\d+)"', asks.text)
        assert form is not None, asks.text
        leave = await self.post("/signin/provider", asking=form[1], provider="corp")
        query = await self.sign_in(leave.headers["refresh"].partition("url=")[2], account)
        return await self._client.get(self._ends_at, params=query, follow_redirects=True)

    async def me(self) -> str:
        """What the page about oneself says, and where one is sent from it."""
        answer = await self._client.get(f"{self._origin}/me")
        return answer.headers.get("location", "") + answer.text


def _path_in(file: Path) -> str:
    """The path of the link in an invitation's file."""
    found = re.search(r"/invite/\w+", file.read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


async def test_from_the_button_of_the_door_and_back(tmp_path: Path) -> None:
    environ = {"DOORWARD_LOGIN_LOOPBACK_HTTP": "true", "DOORWARD_TAILSCALED": "off"}
    async with Server(environ=environ) as server:
        origin = f"http://localhost:{server.listens_at[1]}"
        back = f"{origin}/signin/callback/corp"
        async with RealProvider(ACCOUNTS, redirect_uri=back) as real, Visitor(origin, back) as visitor:
            secret = tmp_path / "secret"
            secret.write_text(f"{CLIENT_SECRET}\n")
            added = ["providers", "add", "corp", "--issuer", real.issuer, "--client-id", CLIENT_ID]
            made = await server.json(
                *added,
                "--client-secret-file",
                str(secret),
                "--domains",
                "example.com",
                "--scopes",
                "openid",
                "email",
                "profile",
                "groups",
            )
            assert back in made["redirect_uris"]
            found = await server.json("providers", "test", "corp")
            assert {one["level"] for one in found} == {"ok"}, found
            kept = b"".join(file.read_bytes() for file in server.folder.glob("doorward.db*"))
            assert b"sealed-1." in kept
            assert CLIENT_SECRET.encode() not in kept + server.log.read_bytes()

            page = await visitor.come_in("u-ann")
            assert page.status_code == 200, page.text
            assert "ann@example.com" in await visitor.me()
            (ann,) = [one for one in await server.json("users", "list") if one["identities"]]
            assert (ann["name"], ann["display_name"]) == ("ann@example.com", "Ann")
            assert ann["groups"] == ["eng@example.com", "ops@example.com"]
            (session,) = await server.json("users", "sessions", "ann@example.com")
            assert session["method"] == "provider:corp"

            # What takes a new proof has the provider ask again, although it remembers the browser.
            before = visitor.asked_to_sign_in
            codes = await visitor.answer(await visitor.post("/me/codes"), "u-ann")
            assert visitor.asked_to_sign_in == before + 1
            assert len(re.findall(r"<li>\w{4}-", codes.text)) == 10

            # Whoever is invited signs in at the provider instead of making a passkey, whatever its rules say.
            invited = await server.json("users", "invite", "bob")
            async with Visitor(origin, back) as bob:
                await bob.answer(await bob.post(_path_in(Path(invited["file"]))), "u-bob")
                assert "bob" in await bob.me()
            (linked,) = await server.json("users", "identities", "bob")
            assert (linked["provider"], linked["subject"]) == ("corp", "u-bob")

            # Somebody of the same address, for whom nobody vouches, is refused on a page that says what helps.
            async with Visitor(origin, back) as eve:
                refused = await eve.come_in("u-eve")
                assert refused.status_code == 403
                assert "u-eve" in refused.text
                assert "ann@example.com" not in await eve.me()
            await server.run("users", "suspend", "ann@example.com")
            assert "/signin" in await visitor.me()  # signed out everywhere
            assert "suspended" in (await visitor.come_in("u-ann")).text
            await server.run("users", "restore", "ann@example.com")
