"""The page behind the link that a terminal shows."""

from datetime import timedelta

import httpx2
from starlette.applications import Starlette
from tests.support.checking import Scene

from doorward.ssh import Attempts


def browser(scene: Scene) -> httpx2.AsyncClient:
    attempts = Attempts(scene.world.registry, scene.world.clock, "https://door.test")
    app = Starlette(routes=attempts.routes)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://door.test")


async def test_it_shows_who_wants_what_and_says_how_it_is_decided(scene: Scene) -> None:
    check = await scene.ask(scene.attempt())
    async with browser(scene) as client:
        page = await client.get(f"/check/{check.link}")
        assert page.status_code == 200
        for text in (
            check.code,
            "laptop",
            "server",
            "root",
            "ann",
            f"doorward ssh checks approve {check.id}",
        ):
            assert text in page.text
        assert '<meta http-equiv="refresh"' in page.text
        assert "<form" not in page.text
        assert page.headers["cache-control"] == "no-store"
        still = await client.get(f"/check/{check.link}?refresh=no")
        assert '<meta http-equiv="refresh"' not in still.text


async def test_it_names_those_who_may_approve_where_the_policy_does(scene: Scene) -> None:
    check = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    async with browser(scene) as client:
        page = await client.get(f"/check/{check.link}")
        assert "autogroup:admin" in page.text
        assert "tagged-devices" in page.text


async def test_it_says_what_was_decided_and_then_nothing_more(scene: Scene) -> None:
    registry = scene.world.registry
    approved = await scene.ask(scene.attempt())
    await registry.checks.decide("cli", approved.id, approve=True)
    denied = await scene.ask(scene.attempt(scene.runner, ssh_user="deploy"))
    await registry.checks.decide("cli", denied.id, approve=False)
    async with browser(scene) as client:
        for check, word in ((approved, "Approved"), (denied, "Denied")):
            page = await client.get(f"/check/{check.link}")
            assert word in page.text
            assert "checks approve" not in page.text
        scene.world.clock.advance(timedelta(minutes=10))
        for link in (approved.link, denied.link, "nothing"):
            spent = await client.get(f"/check/{link}")
            assert (spent.status_code, "This link is spent" in spent.text) == (404, True)


async def test_who_asks_without_end_is_told_to_wait(scene: Scene) -> None:
    async with browser(scene) as client:
        codes = [(await client.get("/check/x")).status_code for _ in range(70)]
    assert set(codes) == {404, 429}
