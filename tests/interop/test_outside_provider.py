"""Signing in at a real OpenID provider: what it says is believed, as far as its administrator here has said."""

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.provider import CLIENT_ID, CLIENT_SECRET, Browser, RealProvider
from tests.support.world import World, open_world

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
        self.upstream = Upstream(self.clock, os.urandom, loopback_http=True)

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
        client_secret=CLIENT_SECRET,
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
            await Upstream(door.clock, os.urandom, loopback_http=True).start(
                door.provider, redirect_uri=BACK, fresh=False
            )
        (down,) = await door.upstream.examine(door.provider, redirect_uris=[BACK])
        assert (down.level, down.subject) == ("error", "discovery")
        await real.start()  # with other keys
        door.upstream = Upstream(door.clock, os.urandom, loopback_http=True)
        async with real.browser() as browser:
            await door.sign_in(browser, "u-ann")
            await real.stop()
            await real.start()  # and others again, which the same process has to find out about
            door.upstream._known[real.issuer].keys_at -= 60  # it has not looked for a minute
        async with real.browser() as browser:
            assert (await door.sign_in(browser, "u-ann")).subject == "u-ann"
        door.provider = msgspec.structs.replace(door.provider, client_secret="wrong")
        async with real.browser() as browser:
            with pytest.raises(Unavailable, match="client ID and secret"):
                await door.sign_in(browser, "u-ann")
        found = await door.upstream.examine(door.provider, redirect_uris=[BACK])
        assert [one.subject for one in found if one.level == "error"] == ["client"]
