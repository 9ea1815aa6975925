"""The page behind a join link: what it says in each state, and that a hostile device can do nothing with it."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from tests.support.browsing import DOOR, FORM, LOCAL, House
from tests.support.markup import Markup
from tests.support.nouns import machine_key, node_key
from tests.support.world import CAPVER, World, open_world

from doorward.asgi import SecurityHeaders
from doorward.control.join import JoinPage
from doorward.login import pages
from doorward.model import Role
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterRequest
from doorward.tailnet.settings import Joining

CSS = pages._FILES["door.css"].decode()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        await made.registry.create_user("test", "alice")
        yield made


@pytest.fixture
def house(world: World) -> House:
    made = House(world)
    made.routes += JoinPage(made.askings, world.clock).routes()
    return made


@pytest.fixture
async def browser(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody who opens the link under control's own address."""
    app = Starlette(routes=house.routes)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(SecurityHeaders(app)), base_url="http://127.0.0.1:8080"
    ) as client:
        yield client


def refreshes(page: Markup) -> list[str]:
    return [each["content"] for each in page.all("meta") if each.get("http-equiv") == "refresh"]


async def test_a_waiting_device_is_shown_and_how_it_is_let_in(
    world: World, browser: httpx2.AsyncClient
) -> None:
    code = (await world.ask(1, "tablet-erin")).link_code
    world.clock.advance(42)
    answer = await browser.get(f"/join/{code}")
    assert answer.status_code == 200
    page = Markup(answer.text)
    assert "tablet-erin is not let in yet" in page.text
    assert "It asked to join 42 seconds ago." in page.text
    assert "Device tablet-erin System Linux Client Tailscale 1.102.4" in page.text
    digits = node_key(1).raw.hex()
    assert " ".join(re.findall("....", digits)) in page.text
    assert f"{node_key(1).short()} in lists" in page.text
    assert "42 seconds ago at 03:04 UTC" in page.text
    assert "14 minutes until 03:19 UTC" in page.text
    assert f"doorward nodes approve http://127.0.0.1:8080/join/{code}" in page.text
    assert "--user" not in page.text  # the command knows the one person there is
    assert page.all("body") == [{"class": "ajar"}]
    assert page.all("svg")[2]["aria-label"] == "waits for approval"
    assert refreshes(page) == ["5"]
    # Nothing can be approved here.
    assert "button" not in [tag for tag, _ in page.tags]
    assert [each["href"] for each in page.all("a")] == [
        f"{DOOR}/join/{code}",
        f"{LOCAL}/join/{code}",
        "?refresh=no",
    ]


async def test_the_line_on_the_page_is_the_one_that_works(world: World, browser: httpx2.AsyncClient) -> None:
    code = (await world.ask(1, "tablet-erin")).link_code
    shown = Markup((await browser.get(f"/join/{code}")).text).text
    found = re.search(r"doorward nodes approve (\S+)", shown)
    assert found is not None
    node = await world.registry.approve("cli", found[1])
    page = Markup((await browser.get(f"/join/{code}")).text)
    assert "tablet-erin is in You can close this page." in page.text
    assert f"Addresses {node.ipv4}{node.ipv6} It is alice's" in page.text
    assert page.all("body") == [{"class": "open"}]
    assert refreshes(page) == []


async def test_with_several_people_the_line_names_one(world: World, browser: httpx2.AsyncClient) -> None:
    await world.registry.create_user("test", "bob")
    code = (await world.ask(1, "tablet")).link_code
    page = Markup((await browser.get(f"/join/{code}")).text)
    assert f"/join/{code} --user NAME" in page.text
    assert "bob" not in page.text
    assert "alice" not in page.text


async def test_the_page_can_be_told_to_hold_still(world: World, browser: httpx2.AsyncClient) -> None:
    code = (await world.ask(1, "tablet")).link_code
    page = Markup((await browser.get(f"/join/{code}", params={"refresh": "no"})).text)
    assert refreshes(page) == []
    assert [each["href"] for each in page.all("a")][2:] == ["?"]


async def test_tags_that_a_device_asks_for_are_named(world: World, browser: httpx2.AsyncClient) -> None:
    tags = [f"tag:t{number}" for number in range(500)]
    code = (await world.ask(1, "tablet", RequestTags=tags)).link_code
    page = Markup((await browser.get(f"/join/{code}")).text)
    assert "Asks for tag:t0tag:t1" in page.text
    assert "and 492 more" in page.text


@pytest.mark.parametrize(
    "code", ["a" * 32, "nothing", "A" * 32, "%20" + "a" * 32, "1'%20OR%201=1", "x" * 5000]
)
async def test_a_link_that_never_was_is_spent(code: str, browser: httpx2.AsyncClient) -> None:
    answer = await browser.get(f"/join/{code}")
    assert answer.status_code == 404
    page = Markup(answer.text)
    assert "This link is spent" in page.text
    assert "Run tailscale up again on the device." in page.text
    assert page.all("body") == [{"class": "shut"}]
    assert refreshes(page) == []


async def test_a_link_ends(world: World, browser: httpx2.AsyncClient) -> None:
    code = (await world.ask(1, "tablet")).link_code
    world.clock.advance(timedelta(minutes=15) - timedelta(seconds=1))
    assert "1 second until" in Markup((await browser.get(f"/join/{code}")).text).text
    world.clock.advance(1)
    assert (await browser.get(f"/join/{code}")).status_code == 404


async def test_a_link_ends_when_its_device_asks_again(world: World, browser: httpx2.AsyncClient) -> None:
    first = (await world.ask(1, "tablet")).link_code
    second = (await world.ask(1, "tablet")).link_code
    assert (await browser.get(f"/join/{first}")).status_code == 404
    assert (await browser.get(f"/join/{second}")).status_code == 200


async def test_an_approved_device_that_was_deleted_is_not_called_in(
    world: World, browser: httpx2.AsyncClient
) -> None:
    code = (await world.ask(1, "tablet")).link_code
    node = await world.registry.approve("cli", code)
    await world.registry.delete_node("cli", node.id)
    assert (await browser.get(f"/join/{code}")).status_code == 404


async def test_a_device_that_waits_for_an_administrator_is_not_called_in(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.registry.access.set_joining("cli", Joining(approval=True))
    code = (await world.ask(1, "tablet")).link_code
    node = await world.registry.approve("user:alice", code)
    page = Markup((await browser.get(f"/join/{code}")).text)
    assert "tablet has one more door to pass" in page.text
    assert "doorward nodes approve tablet" in page.text
    assert page.all("body") == [{"class": "ajar"}]
    await world.registry.access.approve_node("cli", node.id)
    assert "tablet is in" in Markup((await browser.get(f"/join/{code}")).text).text


async def test_a_denied_device_is_told_so(world: World, browser: httpx2.AsyncClient) -> None:
    code = (await world.ask(1, "tablet")).link_code
    await world.registry.deny("cli", code)
    answer = await browser.get(f"/join/{code}")
    page = Markup(answer.text)
    assert answer.status_code == 403
    assert "This device was denied" in page.text
    assert page.all("body") == [{"class": "barred"}]
    assert refreshes(page) == []


async def test_where_clients_send_the_person_at_a_device_that_waits(browser: httpx2.AsyncClient) -> None:
    answer = await browser.get("/admin")
    page = Markup(answer.text)
    assert answer.status_code == 403
    assert "An administrator lets new devices in" in page.text
    assert "doorward nodes approve NAME" in page.text


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "invoice\u202egpj.exe",
    "\x00\x1b]0;title\x07\r\n",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&amp;",
    "A" * 10_240,
    "<" * 10_240,
    "\u202e" * 10_240,
    "a\u0300" * 5_000,
    "\u3164",
    "",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_a_device_says_of_itself_stays_text(
    text: str, world: World, browser: httpx2.AsyncClient
) -> None:
    hostinfo = Hostinfo(
        Hostname=text,
        OS=text,
        OSVersion=text,
        Distro=text,
        DistroVersion=text,
        IPNVersion=text,
        RequestTags=[text] * 20,
    )
    request = RegisterRequest(Version=CAPVER, NodeKey=node_key(1), Hostinfo=hostinfo)
    code = (await world.registry.admission.register(machine_key(1), request)).link_code
    answer = await browser.get(f"/join/{code}")
    assert answer.status_code == 200
    page = Markup(answer.text)  # refuses scripts, handlers and tags that do not match
    assert page.all("img") == []
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x07\x1b]", answer.text)
    if text and len(text) < 40:
        seen = re.sub("[\u202e\u3164\x00\x07\x1b\r\n]", lambda found: f"U+{ord(found[0]):04X}", text)
        assert f"Device {seen} System" in page.text
    elif not text:
        assert "A device is not let in yet" in page.text
        assert "Device gave no name System not said Client not said" in page.text


async def test_every_page_is_small_and_uses_only_classes_that_exist(
    world: World, browser: httpx2.AsyncClient
) -> None:
    waiting = (await world.ask(1, "tablet", RequestTags=["tag:a"])).link_code
    let_in = (await world.ask(2, "laptop")).link_code
    await world.registry.approve("cli", let_in)
    long_one = (await world.ask(3, "name-" * 12)).link_code
    for code in (waiting, let_in, long_one, "spent"):
        answer = await browser.get(f"/join/{code}")
        assert len(answer.content) + len(CSS) < 20_000
        page = Markup(answer.text)
        assert not [each for each in page.classes if f".{each}" not in CSS]


async def test_a_page_is_kept_by_nobody_and_shown_in_no_frame(
    world: World, browser: httpx2.AsyncClient
) -> None:
    code = (await world.ask(1, "tablet")).link_code
    for path in (f"/join/{code}", "/join/spent"):
        headers = (await browser.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-robots-tag"] == "noindex, nofollow"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers.get_list("content-security-policy") == [headers["content-security-policy"]]
        assert headers["x-frame-options"] == "DENY"


async def test_head_and_no_other_method(world: World, browser: httpx2.AsyncClient) -> None:
    code = (await world.ask(1, "tablet")).link_code
    assert (await browser.head(f"/join/{code}")).status_code == 200
    assert (await browser.head("/join/spent")).status_code == 404
    assert (await browser.put(f"/join/{code}")).status_code == 405
    form = {"decision": "approve"}
    assert (await browser.post(f"/join/{code}", data=form)).status_code == 421  # nothing is decided here
    assert (await world.registry.list_registrations())[0].node_id is None


async def test_who_asks_too_often_waits(world: World, browser: httpx2.AsyncClient) -> None:
    code = (await world.ask(1, "tablet")).link_code
    answers = [(await browser.get(f"/join/{code}")).status_code for _ in range(61)]
    assert answers == [200] * 60 + [429]
    refused = await browser.get(f"/join/{code}")
    assert refused.headers["retry-after"] == "1"
    assert refreshes(Markup(refused.text)) == ["6"]  # a waiting page finds its way back
    world.clock.advance(1)
    assert (await browser.get(f"/join/{code}")).status_code == 200


# At the door: yes and no


async def test_a_person_takes_a_device_in_by_a_fresh_proof(world: World, house: House) -> None:
    bob = await house.resident("bob")
    code = (await world.ask(1, "tablet")).link_code
    page = await bob.get(f"/join/{code}")
    assert "Is this your device?" in page.text
    assert "It will be yours, bob" in Markup(page.text).text
    assert '<meta http-equiv="refresh"' not in page.text
    await bob.post(f"/join/{code}", decision="approve")  # the passkey was used a moment ago
    assert "tablet is in" in Markup((await bob.follow()).text).text
    (node,) = world.registry.snapshot.nodes.values()
    assert world.registry.snapshot.owner_name(node) == "bob"
    world.clock.advance(timedelta(minutes=16))
    code = (await world.ask(2, "phone")).link_code
    await bob.post(f"/join/{code}", decision="approve")
    assert "Show who you are" in bob.page.text
    assert len(world.registry.snapshot.nodes) == 1
    await bob.prove()
    assert len(world.registry.snapshot.nodes) == 2


async def test_a_device_inside_says_who_one_is_but_lets_nothing_in(world: World, house: House) -> None:
    alice = await house.resident("alice")
    await alice.post("/signout")
    house.identity = await world.join(1, "laptop", "alice")
    code = (await world.ask(2, "phone")).link_code
    page = await alice.get(f"/join/{code}")
    assert "You are <bdi>alice</bdi>" in page.text
    for decision in ("approve", "deny"):
        await alice.post(f"/join/{code}", decision=decision)
        assert "Show who you are" in alice.page.text
        assert len(world.registry.snapshot.nodes) == 1
    await alice.prove()
    assert (await alice.follow()).status_code == 403  # denied, the last that was asked
    again = (await world.ask(2, "phone")).link_code
    await alice.post(f"/join/{again}", decision="approve")
    assert len(world.registry.snapshot.nodes) == 2


async def test_a_stranger_is_asked_who_they_are_and_learns_nobodys_name(world: World, house: House) -> None:
    await world.join(1, "laptop", "alice")
    code = (await world.ask(2, "laptop")).link_code
    stranger = house.browser()
    page = await stranger.get(f"/join/{code}")
    assert "alice" not in page.text
    await stranger.post(f"/join/{code}", decision="approve")
    assert "data-passkey" in stranger.page.text
    assert (await stranger.post(f"/join/{code}", decision="perhaps")).status_code == 400


async def test_another_persons_machine_is_named_to_who_would_take_it(world: World, house: House) -> None:
    await world.join(1, "laptop", "alice")
    bob = await house.resident("bob")
    asked = await world.registry.admission.register(
        machine_key(1),
        RegisterRequest(Version=CAPVER, NodeKey=node_key(9), Hostinfo=Hostinfo(Hostname="laptop")),
    )
    page = Markup((await bob.get(f"/join/{asked.link_code}")).text)
    assert "This machine was another person's: laptop of alice." in page.text
    await bob.post(f"/join/{asked.link_code}", decision="approve")
    owners = {world.registry.snapshot.owner_name(node) for node in world.registry.snapshot.nodes.values()}
    assert owners == {"alice", "bob"}


async def test_where_an_administrator_looks_a_member_is_not_enough(world: World, house: House) -> None:
    await world.registry.access.set_joining("cli", Joining(approval=True))
    bob, boss = await house.resident("bob"), await house.resident("carol", Role.IT_ADMIN)
    code = (await world.ask(1, "tablet")).link_code
    await bob.post(f"/join/{code}", decision="approve")
    page = await bob.follow()
    assert "one more door to pass" in page.text
    assert "<form" not in page.text
    assert (await bob.post(f"/join/{code}", decision="approve")).status_code == 403
    page = await boss.get(f"/join/{code}")
    assert "Shut it out" in page.text
    await boss.post(f"/join/{code}", decision="approve")
    assert "is in" in (await boss.follow()).text
    # What an administrator takes in waits for nobody.
    code = (await world.ask(2, "phone")).link_code
    await boss.post(f"/join/{code}", decision="approve")
    assert all(node.approved for node in world.registry.snapshot.nodes.values())


async def test_two_who_decide_at_once_are_one(world: World, house: House) -> None:
    bob, carol = await house.resident("bob"), await house.resident("carol")
    code = (await world.ask(1, "tablet")).link_code
    await bob.post(f"/join/{code}", decision="approve")
    page = await carol.post(f"/join/{code}", decision="deny")
    assert page.status_code == 403
    (node,) = world.registry.snapshot.nodes.values()
    assert world.registry.snapshot.owner_name(node) == "bob"


async def test_another_sites_page_lets_nothing_in(world: World, house: House) -> None:
    bob = await house.resident("bob")
    code = (await world.ask(1, "tablet")).link_code
    page = await bob.client.post(
        f"/join/{code}",
        data={"decision": "approve"},
        headers={"sec-fetch-site": "cross-site", "content-type": FORM},
    )
    assert page.status_code == 403
    assert len(world.registry.snapshot.nodes) == 0
    assert (await bob.post(f"/join/{'a' * 32}", decision="approve")).status_code == 404
