"""The demo's console in memory; ``tests/cli/test_demo.py`` has the whole demo."""

import io
from pathlib import Path

import httpx2
import pytest
from rich.console import Console
from starlette.applications import Starlette
from tests.support.browsing import LOCAL, House
from tests.support.bundles import make_bundle
from tests.support.world import open_world

from doorward.api.feeds import Feeds
from doorward.cli import demo_console
from doorward.console import Console as Pages
from doorward.console.bundle import Bundles
from doorward.errors import Unavailable
from doorward.login.doors import place_of
from doorward.login.links import SignInLinks, make_link
from doorward.model import Role


def test_a_link_is_shown_to_eyes_alone(tmp_path: Path) -> None:
    file = tmp_path / "sign-in-ann.txt"
    file.write_text("http://localhost:8080/signin/link/secret\n")
    assert (
        "\n    [bold green]http://localhost:8080/signin/link/secret[/bold green]\n"
        in demo_console.told_of(file, shown=True)
    )
    kept = demo_console.told_of(file, shown=False)
    assert (str(file) in kept, "secret" in kept) == (True, False)


@pytest.mark.parametrize(("name", "code"), [("laptop", 0), ("nowhere", 1)])
async def test_it_is_opened_by_its_link_once(tmp_path: Path, name: str, code: int) -> None:
    async with open_world(tmp_path) as world:
        house = House(world)
        user = await world.registry.create_user("cli", "ann", role=Role.OWNER)
        await world.join(1, "laptop", "ann")
        app = Starlette(
            routes=[
                *house.routes,
                *SignInLinks(house.askings, world.clock).routes(),
                *Pages(
                    house.askings, Feeds(world.registry, world.clock), Bundles(make_bundle(tmp_path))
                ).routes(),
            ]
        )
        made = await make_link(world.registry, "cli", user, place_of(LOCAL))
        screen = io.StringIO()
        shown = Console(file=screen, width=200)
        through = httpx2.ASGITransport(app)
        link = f"{LOCAL}/signin/link/{made[1]}"
        assert await demo_console.check(link, name, shown, transport=through) == code
        said = screen.getvalue()
        assert made[1] not in said
        assert ("shows 1 machines" in said) is (code == 0)
        # And that was the once.
        assert await demo_console.check(link, "laptop", shown, transport=through) == 1


async def test_where_nothing_answers_it_says_where_to_look() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no", request=request)

    with pytest.raises(Unavailable, match="the console does not answer"):
        await demo_console.check(f"{LOCAL}/x", "laptop", Console(), transport=httpx2.MockTransport(refuse))
