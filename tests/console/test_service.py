import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.browsing import LOCAL, House
from tests.support.world import World, open_world

from doorward.api.feeds import Feeds
from doorward.console import Console
from doorward.console.bundle import Bundles
from doorward.console.service import FIRST
from doorward.model import Role
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
def house(world: World, bundle: Path) -> House:
    made = House(world)
    made.routes += Console(
        made.askings,
        Feeds(made.registry, world.clock),
        Bundles(bundle),
    ).routes()
    return made


def start(text: str) -> dict[str, object]:
    found = re.search(r'id="bootstrap">(.*?)</script>', text, re.DOTALL)
    assert found, text
    made: dict[str, object] = json.loads(found[1])
    return made


@pytest.mark.parametrize(
    "path",
    [
        "/machines",
        "/machines?q=web&sort=name&q=2",
        "/terminal/web-1",
        "/terminal/web-1/deploy?new=1",
        "/terminal/d%C3%BCrer/a%26b%3Fc",
    ],
)
async def test_whoever_is_not_known_signs_in_and_comes_back_to_all_of_it(house: House, path: str) -> None:
    browser = house.browser()
    answer = await browser.get(path)
    assert answer.status_code == 303
    target = urlsplit(answer.headers["location"])
    assert (target.path, parse_qs(target.query)["next"]) == ("/signin", [path])
    assert answer.headers["cache-control"] == "no-store"
    ann = await house.resident("ann")
    await ann.post("/signout")
    await ann.get(path)
    await ann.follow()
    await ann.prove()
    assert ann.page.headers["location"] == path
    assert (await ann.follow()).status_code == 200


async def test_whoever_is_suspended_is_told_so_in_their_own_browser_and_nowhere_else(house: House) -> None:
    ann, stranger = await house.resident("ann"), house.browser()
    await house.registry.suspend_user("cli", "ann", suspended=True)
    for path in ("/machines", "/terminal/web-1/deploy"):
        answer = await ann.get(path)
        assert answer.status_code == 403
        for words in ("Ann is suspended", "An administrator can say why, and restore you.", "/signin"):
            assert words in answer.text
        assert (await stranger.get(path)).status_code == 303
    # Somebody else may sign in there, and so may they once they are restored.
    assert (await ann.get("/signin")).status_code == 200
    await house.registry.suspend_user("cli", "ann", suspended=False)
    assert (await ann.get("/machines")).status_code == 303


async def test_the_first_page_is_the_machines(house: House) -> None:
    ann = await house.resident("ann")
    for path in ("/terminal", "/"):
        answer = await ann.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/machines")
    answer = await ann.follow()
    assert answer.status_code == 200
    begun = start(answer.text)
    assert begun.pop("you") == {
        "tailnet": house.registry.snapshot.settings.domain,
        "version": "0.1.0",
        "user": {"id": 1, "name": "ann", "display_name": "ann", "role": "member"},
        "signed_in": True,
        "method": "passkey:1",
        "proven": "2026-01-02T03:04:05Z",
        "device": None,
        "counts": {"machines": 0, "online": 0, "ways": 0},
    }
    assert begun == {
        "base": "/",
        "tailnet": house.registry.snapshot.settings.domain,
        "version": "0.1.0",
        "control": house.registry.snapshot.settings.url,
        "machines": [],
    }
    assert "/assets/console-eeee.js" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "connect-src 'self' wss://door.tailnet.internal:8443;" in policy


async def test_a_device_may_look_and_opens_no_terminal(house: House) -> None:
    await house.registry.create_user("cli", "ann")
    house.identity = await house.world.join(1, "laptop", "ann")
    device = house.browser()
    begun = start((await device.get("/machines")).text)
    assert begun["you"]["device"] == "laptop"  # type: ignore[index]
    assert begun["you"]["signed_in"] is False  # type: ignore[index]
    assert [machine["name"] for machine in begun["machines"]] == ["laptop"]  # type: ignore[attr-defined]
    assert (await device.get("/terminal/web-1")).headers["location"] == "/signin?next=/terminal/web-1"
    await house.registry.set_policy("cli", '{"tagOwners": {"tag:ci": []}}')
    house.identity = await house.world.join(2, "runner", None, "tag:ci")
    assert (await device.get("/machines")).status_code == 303


async def test_a_terminal_knows_what_it_was_asked_for(house: House) -> None:
    ann = await house.resident("ann")
    page = await ann.get("/terminal/%3Cscript%3E/%2A")
    assert start(page.text) | {"base": ""} == {
        "base": "",
        "tailnet": house.registry.snapshot.settings.domain,
        "version": "0.1.0",
        "machine": "<script>",
        "account": "*",
        "secure": f"{house.door}/",
    }
    assert "account" not in start((await ann.get("/terminal/web-1")).text)


async def test_a_terminal_knows_the_number_of_a_machine_that_the_person_sees_and_of_no_other(
    house: House,
) -> None:
    ann = await house.resident("ann")
    await house.registry.create_user("cli", "bob")
    await house.registry.set_policy("cli", '{"acls": []}')
    mine, other = await house.world.join(1, "laptop", "ann"), await house.world.join(2, "vault", "bob")
    assert start((await ann.get("/terminal/Laptop/root")).text)["number"] == mine.id
    assert "number" not in start((await ann.get(f"/terminal/{other.name}/root")).text)
    assert "number" not in start((await ann.get("/terminal/nowhere")).text)


async def test_a_terminal_may_connect_to_relays_elsewhere_that_browsers_trust(house: House) -> None:
    node = DERPNode(Name="1a", RegionID=1, HostName="relay.example", DERPPort=8443)
    bad = DERPNode(Name="1b", RegionID=1, HostName="evil; script-src *")
    region = DERPRegion(RegionID=1, RegionCode="r", RegionName="R", Nodes=[node, bad])
    await house.registry.set_derp_map(DERPMap(Regions={1: region}), None)
    ann = await house.resident("ann")
    policy = (await ann.get("/terminal/web-1")).headers["content-security-policy"]
    assert "connect-src 'self' wss://door.tailnet.internal:8443 wss://relay.example:8443;" in policy


async def test_a_plain_door_opens_plain_sockets(house: House) -> None:
    _, code = await house.invitations.invite("cli", await house.registry.create_user("cli", "ann"))
    here = house.browser(LOCAL)
    await here.take(code)
    answer = await here.get("/machines")
    assert "connect-src 'self' ws://localhost:8080;" in answer.headers["content-security-policy"]


async def test_the_page_has_the_first_machines_in_it_and_how_many_there_are(house: House) -> None:
    ann = await house.resident("ann", Role.OWNER)
    for number in range(1, FIRST + 3):
        await house.world.join(number, f"web-{number:03}", "ann")
    begun = start((await ann.get("/machines")).text)
    names = [machine["name"] for machine in begun["machines"]]  # type: ignore[attr-defined]
    assert names == [f"web-{number:03}" for number in range(1, FIRST + 1)]
    assert begun["you"]["counts"]["machines"] == FIRST + 2  # type: ignore[index]


async def test_under_another_name_there_is_no_page(house: House) -> None:
    stranger = house.browser("http://rebound.example")
    for path in ("/", "/machines", "/terminal/web-1"):
        assert (await stranger.get(path)).status_code == 421


async def test_without_a_bundle_the_page_says_how_to_make_one(house: House, bundle: Path) -> None:
    ann = await house.resident("ann")
    (bundle / ".vite" / "manifest.json").unlink()
    answer = await ann.get("/machines")
    assert answer.status_code == 503
    assert "<code>make web-build</code>" in answer.text
    assert str(bundle) not in answer.text
    assert (await ann.get("/assets/shared-aaaa.js")).status_code == 503


async def test_assets_never_change_and_are_as_small_as_the_browser_takes_them(house: House) -> None:
    anybody = house.browser().client
    codings = {"br;q=1.0, gzip": "br", "gzip, br;q=0": "gzip", "GZIP": "gzip", "identity": None, "": None}
    for accepted, coding in codings.items():
        answer = await anybody.get("/assets/shared-bbbb.css", headers={"accept-encoding": accepted})
        assert "content-encoding" not in answer.headers
        request = anybody.build_request(
            "GET", "/assets/shared-aaaa.js", headers={"accept-encoding": accepted}
        )
        raw = await anybody.send(request, stream=True)  # what is in our files is no real compression
        assert raw.headers.get("content-encoding") == coding
        assert raw.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert raw.headers["x-content-type-options"] == "nosniff"
        assert raw.headers["vary"] == "Accept-Encoding"
        assert raw.headers["content-type"] == "text/javascript; charset=utf-8"
        await raw.aclose()


@pytest.mark.parametrize(
    "path",
    [
        "/assets/nothing.js",
        "/assets/..%2f..%2fsecret.js",
        "/assets/%2e%2e/%2e%2e/secret.js",
        "/assets/.vite/manifest.json",
        "/assets/",
        "/assets/shared-aaaa.js%00.css",
    ],
)
async def test_no_other_file_is_served(house: House, path: str) -> None:
    answer = await house.browser().get(path)
    assert answer.status_code == 404
    assert "business" not in answer.text
