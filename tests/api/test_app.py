"""Who is let in to the API, and what it says to the rest."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from tests.support.means import ORIGIN, cookie, sign_in
from tests.support.world import World

from doorward.api import app as api
from doorward.api.access import Permission
from doorward.asgi import Operation
from doorward.model import Role


def test_every_operation_needs_something_and_has_a_name_of_its_own() -> None:
    assert all(isinstance(each.needs, Permission) for each in api.OPERATIONS)
    assert {each.needs for each in api.OPERATIONS} == set(Permission), "the table of roles says nothing idle"
    assert len({each.name for each in api.OPERATIONS}) == len(api.OPERATIONS)
    assert len({(each.method, each.path) for each in api.OPERATIONS}) == len(api.OPERATIONS)
    assert all(each.summary for each in api.OPERATIONS)


def test_only_reading_needs_no_more_than_reading() -> None:
    drafts = {
        "check_policy",
        "compile_policy",
        "diff_policy",
    }  # they change nothing, and carry a text too long for a URL
    for each in api.OPERATIONS:
        if each.needs is Permission.CONSOLE:
            continue  # about nobody but who asks
        reads = each.method == "GET" or each.name in drafts
        assert reads == (each.needs is Permission.READ), each.name


def example(each: Operation) -> tuple[str, str]:
    return each.method, each.path.format(
        name="ann", node="laptop", number=1, key="custom:x", provider="corp", other="desk"
    )


@pytest.mark.parametrize("each", api.OPERATIONS, ids=lambda each: each.name)
async def test_strangers_are_refused_everywhere(world: World, each: Operation) -> None:
    method, path = example(each)
    for token in ("", "dwtoken-aaaaaaa-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"):
        async with world.client(admin=False, token=token) as stranger:
            answer = await stranger.request(method, path, json={})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["cure"]


@pytest.mark.parametrize("each", api.OPERATIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("role", [Role.AUDITOR, Role.MEMBER])
async def test_readers_write_nothing(world: World, each: Operation, role: Role) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=role)
    method, path = example(each)
    async with world.client(admin=False, token=secret) as reader:
        answer = await reader.request(method, path, json={})
    may = role is Role.AUDITOR and each.needs is Permission.READ
    assert (answer.status_code == 403) is not may


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "bearer\tx", ""])
async def test_other_ways_to_say_who_one_is_do_not_count(world: World, header: str) -> None:
    async with world.client(admin=False) as client:
        headers = {"Authorization": header, "Tailscale-User-Login": "ann", "X-Doorward-User": "ann"}
        assert (await client.get("/nodes", headers=headers)).status_code == 401


@pytest.mark.parametrize("listener", ["public", "door", "", "ADMIN", None])
async def test_only_the_admin_listener_makes_an_administrator(world: World, listener: str | None) -> None:
    async def marked(scope, receive, send):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        await world.app({**scope, "state": {"listener": listener}}, receive, send)

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(marked), base_url="http://door.test"
    ) as client:
        assert (await client.get("/api/v1/nodes")).status_code == 401


async def test_the_audit_log_names_who_asked(world: World, admin: httpx2.AsyncClient) -> None:
    await admin.post("/users", json={"name": "ann"})
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.ADMIN)
    async with world.client(admin=False, token=secret) as client:
        await client.post("/users", json={"name": "bob"})
    events = await world.registry.audit(action="user.create")
    assert {event.target: event.actor for event in events} == {"user:ann": "cli", "user:bob": "token:1"}


async def test_guessing_is_slowed_and_does_not_shut_out_who_knows(world: World) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.AUDITOR)
    async with world.client(admin=False, token="dwtoken-wrong") as guesser:
        answers = [(await guesser.get("/nodes")).status_code for _ in range(12)]
        assert answers == [401] * 10 + [429] * 2
        world.clock.advance(5.0)
        assert (await guesser.get("/nodes")).status_code == 401
    world.clock.advance(5.0)
    async with world.client(admin=False, token=secret) as client:
        assert (await client.get("/nodes")).status_code == 200


async def test_a_token_that_runs_wild_is_slowed(world: World, admin: httpx2.AsyncClient) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.AUDITOR)
    async with world.client(admin=False, token=secret) as client:
        for _ in range(int(api.REQUEST_BURST)):
            assert (await client.get("/users")).status_code == 200
        refused = await client.get("/users")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert (await admin.get("/users")).status_code == 200  # the administrator is never shut out


async def test_a_page_elsewhere_cannot_use_the_api(world: World) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.ADMIN)
    async with world.client(admin=False, token=secret) as client:
        headers = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
        assert (await client.post("/users", json={"name": "eve"}, headers=headers)).status_code == 403


async def test_what_is_not_there_is_said_as_a_problem(admin: httpx2.AsyncClient) -> None:
    assert (await admin.get("/nothing")).json()["type"] == "not-found"
    assert (await admin.delete("/policy")).status_code == 405


async def test_an_operation_is_answered_from_what_other_processes_have_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    async def catch_up() -> None:
        order.append("caught up")

    monkeypatch.setattr(world.registry, "catch_up", catch_up)
    async with world.client() as client:
        assert (await client.get("/users")).status_code == 200
    assert order == ["caught up"]
    async with world.client(admin=False) as client:
        assert (await client.get("/users")).status_code == 401
    assert order == ["caught up"], "not for strangers"


# Browsers ----------------------------------------------------------------------------------------------------------

OWN_PAGE = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}


@asynccontextmanager
async def browser(
    world: World, role: Role, name: str = "ann", secret: str = "cookie", **fields: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser in which somebody has signed in, on a page of the door."""
    user = world.registry.snapshot.user_by_name(name)
    if user is None:
        user = await world.registry.create_user("cli", name, role=role)
    await sign_in(world, user, secret, **fields)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(world.app),
        base_url=f"{ORIGIN}/api/v1",
        headers=OWN_PAGE,
        cookies={"__Host-doorward": cookie(user, secret)},
    ) as client:
        yield client


async def test_a_browser_is_the_person_who_has_signed_in(world: World) -> None:
    async with browser(world, Role.ADMIN) as client:
        assert (await client.get("/users")).json()[0]["name"] == "ann"
        assert (await client.post("/users", json={"name": "bob"})).status_code == 201
        (event, *_) = await world.registry.audit(action="user.create")
        assert (event.actor, event.target) == ("user:ann", "user:bob")
    async with browser(world, Role.AUDITOR, "eve") as client:
        assert (await client.get("/users")).status_code == 200
        refused = await client.post("/users", json={"name": "x"})
        assert (refused.status_code, refused.json()["type"]) == (403, "not-permitted")


async def test_a_change_needs_a_proof_of_the_last_quarter_of_an_hour(world: World) -> None:
    async with browser(world, Role.ADMIN) as client:
        world.clock.advance(timedelta(minutes=15))
        assert (await client.post("/users", json={"name": "bob"})).status_code == 201
        world.clock.advance(1)
        refused = await client.post("/users", json={"name": "eve"})
        assert (refused.status_code, refused.json()["type"]) == (403, "fresh-proof-needed")
        assert refused.json()["cure"] == "Sign in once more at https://door.test/signin, and try again."
        assert (await client.get("/users")).status_code == 200, "to look it is good"
        assert (await client.post("/policy/check", json={"text": "{}"})).status_code == 200
    async with browser(
        world, Role.ADMIN, secret="2", proven=world.clock.now() + timedelta(seconds=1)
    ) as client:
        refused = await client.post("/users", json={"name": "eve"})
        assert refused.json()["type"] == "fresh-proof-needed", "a proof of the future is none"


@pytest.mark.parametrize("each", api.OPERATIONS, ids=lambda each: each.name)
async def test_every_change_asks_for_a_proof_and_what_makes_a_way_in_each_time(
    world: World, each: Operation
) -> None:
    method, path = example(each)
    async with browser(world, Role.OWNER, "bob", "old") as client:
        world.clock.advance(timedelta(hours=1))
        stale = await client.request(method, path, json={})
    async with browser(world, Role.OWNER, "bob") as client:
        fresh = await client.request(method, path, json={})
    needed = "fresh-proof-needed"
    kinds = [answer.json()["type"] if answer.status_code == 403 else "" for answer in (fresh, stale)]
    if each.method == "GET" or each.needs in {Permission.READ, Permission.CONSOLE}:
        assert kinds == ["", ""]
    elif each.needs in {
        Permission.TOKENS,
        Permission.CHECKS,
        Permission.INVITE,
        Permission.FACTORS,
        Permission.PROVIDERS,
    }:
        assert kinds == [needed, needed]
        assert "each time" in fresh.json()["title"]
    else:
        assert kinds == ["", needed]


async def test_a_browser_makes_no_token(world: World) -> None:
    async with browser(world, Role.OWNER) as client:
        refused = await client.post("/tokens", json={"description": "x"})
    assert (refused.status_code, refused.json()["type"]) == (403, "fresh-proof-needed")
    assert await world.registry.list_api_tokens() == []


@pytest.mark.parametrize(
    ("headers", "reads", "writes"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}, True, True),
        ({"Sec-Fetch-Site": "same-origin"}, True, True),
        ({"Origin": ORIGIN}, True, True),
        ({"Sec-Fetch-Site": "none"}, True, False),
        ({}, True, False),
        ({"Sec-Fetch-Site": "cross-site"}, False, False),
        ({"Sec-Fetch-Site": "same-site"}, False, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://other.door.test"}, False, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://door.test:8443"}, False, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN}, False, False),
        ({"Origin": "null"}, False, False),
        ({"Origin": "http://door.test"}, False, False),
        ({"Origin": "https://evil.test"}, False, False),
        ({"Sec-Fetch-Site": "SAME-ORIGIN"}, False, False),
    ],
)
async def test_only_a_page_of_the_same_door_uses_the_cookie(
    world: World, headers: dict[str, str], reads: bool, writes: bool
) -> None:
    async with browser(world, Role.OWNER) as client:
        for name in OWN_PAGE:
            del client.headers[name]
        assert (await client.get("/users", headers=headers)).status_code == (200 if reads else 403)
        made = await client.post("/users", json={"name": "bob"}, headers=headers)
        assert made.status_code == (201 if writes else 403)
        assert made.json().get("type") != "fresh-proof-needed"
    assert (world.registry.snapshot.user_by_name("bob") is not None) is writes


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "evil.test", "Origin": "https://evil.test"},
        {"Host": "door.test.evil.test"},
        {"Host": "localhost:8080", "Cookie": "doorward-8080=ann-cookie"},
        {"Cookie": "__Host-doorward=somebody-elses"},
        {"Cookie": "doorward-8080=ann-cookie"},
        {"Cookie": "__Host-doorward="},
    ],
)
async def test_a_cookie_is_nobodys_at_another_door_or_of_another_name(
    world: World, headers: dict[str, str]
) -> None:
    async with browser(world, Role.OWNER) as client:
        client.cookies.clear()
        sent = {"Cookie": "__Host-doorward=ann-cookie"} | headers
        assert (await client.get("/users", headers=sent)).status_code == 401
        assert (await client.post("/users", json={"name": "bob"}, headers=sent)).status_code == 401
        assert (
            await client.get("/users", headers={"Cookie": "__Host-doorward=ann-cookie"})
        ).status_code == 200


async def test_a_session_that_has_ended_is_nobodys(world: World, admin: httpx2.AsyncClient) -> None:
    async with browser(world, Role.OWNER) as client:
        assert (await client.get("/users")).status_code == 200
        await admin.delete("/users/ann/sessions")
        assert (await client.get("/users")).status_code == 401


async def test_a_token_counts_before_a_cookie_and_a_wrong_one_is_not_helped_by_it(world: World) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.AUDITOR)
    async with browser(world, Role.OWNER) as client:
        for text, status in ((f"Bearer {secret}", 403), ("Bearer wrong", 401), ("Basic x", 401), ("", 401)):
            headers = {"Authorization": text}
            answer = await client.post("/users", json={"name": "bob"}, headers=headers)
            assert answer.status_code == status, text


async def test_roles_and_suspensions_count_at_once(world: World) -> None:
    async with browser(world, Role.ADMIN) as client:
        await world.registry.set_role("cli", "ann", Role.MEMBER)
        assert (await client.get("/nodes")).status_code == 403
        await world.registry.set_role("cli", "ann", Role.AUDITOR)
        assert (await client.get("/nodes")).status_code == 200
        await world.registry.suspend_user("cli", "ann", suspended=True)
        told = await client.get("/nodes")
        assert (told.status_code, told.json()["type"]) == (403, "account-suspended")
        assert told.json()["title"] == "ann is suspended"
        assert told.json()["cure"] == "An administrator can say why, and restore you."
        # Without a cookie of theirs nobody learns of it.
        name, secret = next(iter(client.cookies.items()))
        for cookie in ("", secret[:-1] + ("a" if secret[-1] != "a" else "b")):
            stranger = await client.get("/nodes", headers={"Cookie": f"{name}={cookie}"})
            assert (stranger.status_code, stranger.json()["type"]) == (401, "unauthenticated")
        await world.registry.suspend_user("cli", "ann", suspended=False)
        await world.registry.delete_user("cli", "ann")
        assert (await client.get("/nodes")).status_code == 401


async def test_a_members_own_things_need_no_role_and_others_are_out_of_reach(world: World) -> None:
    bob = await world.registry.create_user("cli", "bob")
    await sign_in(world, bob)
    async with browser(world, Role.MEMBER) as client:
        for path in ("", "/passkeys", "/sessions"):
            assert (await client.get(f"/users/ann{path}")).status_code == 200
            assert (await client.get(f"/users/bob{path}")).status_code == 403
        assert (await client.delete("/users/bob/sessions")).status_code == 403
        assert (await client.delete("/users/bob/passkeys/1")).json()["type"] == "not-permitted"
        assert (await client.delete("/users/ann/passkeys/1")).json()["type"] == "fresh-proof-needed"
        for body in ({"role": "owner"}, {"suspended": True}):
            assert (await client.patch("/users/ann", json=body)).status_code == 403
        assert (await client.delete("/users/ann")).status_code == 403
        assert (await client.get("/sessions")).status_code == 403
        world.clock.advance(timedelta(hours=1))
        assert (await client.delete("/users/ann/sessions")).json() == {"sessions": 1}, (
            "one may leave any time"
        )
    assert len(await world.context.means.sessions(bob)) == 1


async def test_an_it_admin_signs_themselves_out_but_nobody_of_their_rank(world: World) -> None:
    await world.registry.create_user("cli", "ida", role=Role.IT_ADMIN)
    async with browser(world, Role.IT_ADMIN) as client:
        assert (await client.delete("/users/ida/sessions")).status_code == 403
        assert (await client.delete("/users/ann/sessions")).json() == {"sessions": 1}


async def test_a_token_owns_nothing(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.MEMBER)
    async with world.client(admin=False, token=secret) as client:
        assert (await client.get("/users/ann")).status_code == 403


async def test_a_page_that_runs_wild_is_slowed(world: World) -> None:
    async with browser(world, Role.AUDITOR) as client:
        for _ in range(int(api.REQUEST_BURST)):
            assert (await client.get("/users")).status_code == 200
        assert (await client.get("/users")).status_code == 429
    async with browser(world, Role.AUDITOR, secret="another browser") as client:
        assert (await client.get("/users")).status_code == 200


# Devices -----------------------------------------------------------------------------------------------------------


def device(world: World, stable_id: str, host: str = "door.test") -> httpx2.AsyncClient:
    """A program on a node, as the identity listener lets it in."""

    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        await world.app({**scope, "state": {"listener": "door", "identity": stable_id}}, receive, send)

    return httpx2.AsyncClient(transport=httpx2.ASGITransport(identified), base_url=f"https://{host}/api/v1")


async def test_a_persons_own_device_looks_and_changes_nothing(world: World) -> None:
    await world.registry.create_user("cli", "olga", role=Role.OWNER)
    await world.registry.create_user("cli", "ann", role=Role.ADMIN)
    node = await world.join(1, "laptop", "ann")
    async with device(world, node.stable_id) as client:
        assert (await client.get("/users")).status_code == 200
        for each in api.OPERATIONS:
            if each.needs is not Permission.READ and each.method != "GET":
                method, path = example(each)
                refused = await client.request(method, path, json={}, headers=OWN_PAGE)
                assert (refused.status_code, refused.json()["type"]) == (403, "fresh-proof-needed"), path
                assert "https://door.test" in refused.json()["cure"]
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}):
            assert (await client.get("/users", headers=headers)).status_code == 403
        await world.registry.set_role("cli", "ann", Role.MEMBER)
        assert (await client.get("/users")).status_code == 403
        assert (await client.get("/users/ann")).status_code == 200
        await world.registry.suspend_user("cli", "ann", suspended=True)
        assert (await client.get("/users/ann")).status_code == 401, "a device alone is told nothing"


async def test_a_device_that_is_nobodys_or_under_another_name_is_a_stranger(world: World) -> None:
    await world.registry.set_policy("cli", '{"tagOwners": {"tag:web": []}}')
    await world.registry.create_user("cli", "ann", role=Role.OWNER)
    mine, tagged = await world.join(1, "laptop", "ann"), await world.join(2, "web", "ann", "tag:web")
    for stable_id, host in (
        (tagged.stable_id, "door.test"),
        (mine.stable_id, "evil.test"),
        ("nX", "door.test"),
    ):
        async with device(world, stable_id, host) as client:
            assert (await client.get("/users")).status_code == 401
    await world.registry.expire_node("cli", mine.id)
    async with device(world, mine.stable_id) as client:
        assert (await client.get("/users")).status_code == 401
