"""Who is let in to the API, and what it says to the rest."""

import httpx2
import pytest
from tests.support.world import World

from doorward.api import app as api
from doorward.api.access import Permission
from doorward.asgi import Operation
from doorward.model import Role


def test_every_operation_needs_something_and_has_a_name_of_its_own() -> None:
    assert all(isinstance(each.needs, Permission) for each in api.OPERATIONS)
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
        reads = each.method == "GET" or each.name in drafts
        assert reads == (each.needs is Permission.READ), each.name


def example(each: Operation) -> tuple[str, str]:
    return each.method, each.path.format(name="ann", node="laptop", number=1, key="custom:x")


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
