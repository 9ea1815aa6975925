"""Invitations, passkeys and sessions over the API."""

from typing import Any

import httpx2
import pytest
from tests.support.means import give_identity, give_passkey, give_recovery_codes, sign_in
from tests.support.world import World

from doorward.model import Role


async def test_an_invitation_is_answered_with_its_links(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/users", json={"name": "ann"})
    answer = await admin.post("/invitations", json={"user": "ann"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["user"], made["expires"]) == ("ann", "2026-01-05T03:04:05Z")
    first, second = made["links"]
    code = first["url"].removeprefix("https://door.test/invite/")
    assert second == {"url": f"http://localhost:8080/invite/{code}", "where": "on the server"}
    found = await world.context.invitations.take(code)
    assert found.actor == "cli"
    assert code not in (await admin.get("/audit")).text + (await admin.get("/users")).text


async def test_the_first_owner_is_invited_for_an_hour_while_nobody_administers(
    admin: httpx2.AsyncClient, world: World
) -> None:
    made = (await admin.post("/invitations", json={})).json()
    assert (made["user"], made["expires"]) == (None, "2026-01-02T04:04:05Z")
    made = (await admin.post("/invitations", json={"expires_in": 7200})).json()
    assert made["expires"] == "2026-01-02T05:04:05Z"
    await give_passkey(world, await world.registry.create_user("cli", "eve", role=Role.ADMIN))
    refused = await admin.post("/invitations", json={})
    assert (refused.status_code, refused.json()["type"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user": "nobody"}, 404),
        ({"user": "ann", "expires_in": 59}, 400),
        ({"user": "ann", "expires_in": 30 * 86400 + 1}, 400),
        ({"user": "ann", "lifetime": 60}, 400),
        ({"user": 1}, 400),
    ],
)
async def test_invitations_that_cannot_be(
    admin: httpx2.AsyncClient, body: dict[str, Any], status: int
) -> None:
    await admin.post("/users", json={"name": "ann"})
    answer = await admin.post("/invitations", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize(
    ("asker", "invited", "may"),
    [
        (Role.OWNER, Role.OWNER, True),
        (Role.OWNER, None, True),
        (Role.ADMIN, Role.ADMIN, True),
        (Role.ADMIN, Role.OWNER, False),
        (Role.ADMIN, None, False),
        (Role.IT_ADMIN, Role.MEMBER, True),
        (Role.IT_ADMIN, Role.IT_ADMIN, False),
        (Role.IT_ADMIN, Role.OWNER, False),
        (Role.IT_ADMIN, None, False),
        (Role.NETWORK_ADMIN, Role.MEMBER, False),
        (Role.AUDITOR, Role.MEMBER, False),
    ],
)
async def test_nobody_takes_over_who_is_above_them(
    world: World, asker: Role, invited: Role | None, may: bool
) -> None:
    if invited is not None:
        await world.registry.create_user("cli", "ann", role=invited)
    _, secret = await world.registry.create_api_token("cli", description="x", role=asker)
    async with world.client(admin=False, token=secret) as client:
        answer = await client.post("/invitations", json={"user": None if invited is None else "ann"})
    assert answer.status_code == (201 if may else 403)
    assert len(await world.registry.audit(action="user.invite")) == may


async def test_a_link_that_was_made_for_a_member_does_not_open_an_owners_account(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as helper:
        made = (await helper.post("/invitations", json={"user": "ann"})).json()
    await world.registry.set_role("cli", "ann", Role.OWNER)
    code = made["links"][0]["url"].rpartition("/")[2]
    assert await world.context.invitations.look(code) is None


async def test_an_invitation_is_shown_and_withdrawn(admin: httpx2.AsyncClient) -> None:
    await admin.post("/users", json={"name": "ann"})
    assert (await admin.delete("/users/ann/invitation")).status_code == 404
    await admin.post("/invitations", json={"user": "ann"})
    assert (await admin.get("/users/ann")).json()["invited"] == "2026-01-05T03:04:05Z"
    assert (await admin.delete("/users/ann/invitation")).status_code == 204
    assert (await admin.get("/users/ann")).json()["invited"] is None


async def test_what_people_sign_in_with_is_listed_and_taken(admin: httpx2.AsyncClient, world: World) -> None:
    ann = await world.registry.create_user("cli", "ann")
    key = await give_passkey(world, ann)
    session = await sign_in(world, ann, method=f"passkey:{key.id}")
    await give_identity(world, ann)
    await give_recovery_codes(world, ann, "a", "b")
    expected = {"passkeys": 1, "identities": 1, "recovery_codes": 2, "sessions": 1, "invited": None}
    shown, (listed,) = (await admin.get("/users/ann")).json(), (await admin.get("/users")).json()
    assert shown == listed
    assert shown.items() >= expected.items()
    assert (await admin.get("/users/ann/passkeys")).json() == [
        {
            "id": key.id,
            "name": "laptop",
            "place": "door.test",
            "created": "2026-01-02T03:04:05Z",
            "used": None,
        }
    ]
    sessions = (await admin.get("/sessions")).json()
    assert sessions == (await admin.get("/users/ann/sessions")).json()
    assert sessions == [
        {
            "id": session.id,
            "user": "ann",
            "created": "2026-01-02T03:04:05Z",
            "seen": "2026-01-02T03:04:05Z",
            "expires": "2026-01-03T03:04:05Z",
            "proven": "2026-01-02T03:04:05Z",
            "method": f"passkey:{key.id}",
            "address": "192.0.2.1",
            "agent": "a browser",
            "door": "https://door.test",
        }
    ]
    assert (await admin.delete(f"/users/ann/passkeys/{key.id}")).json() == {"sessions": 1}
    assert (await admin.delete(f"/users/ann/passkeys/{key.id}")).status_code == 404
    assert (await admin.get("/sessions")).json() == []


async def test_people_are_signed_out(admin: httpx2.AsyncClient, world: World) -> None:
    ann = await world.registry.create_user("cli", "ann")
    first, _, _ = [await sign_in(world, ann, name) for name in "abc"]
    assert (await admin.delete(f"/users/ann/sessions/{first.id}")).json() == {"sessions": 1}
    assert (await admin.delete(f"/users/ann/sessions/{first.id}")).status_code == 404
    assert (await admin.delete("/users/ann/sessions")).json() == {"sessions": 2}
    assert (await admin.delete("/users/ann/sessions")).json() == {"sessions": 0}
    assert (await admin.delete("/users/eve/sessions")).status_code == 404


async def test_rank_holds_for_passkeys_sessions_and_invitations(world: World) -> None:
    olga = await world.registry.create_user("cli", "olga", role=Role.OWNER)
    key, session = await give_passkey(world, olga), await sign_in(world, olga)
    await world.context.invitations.invite("cli", olga)
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as helper:
        for path in (f"passkeys/{key.id}", "sessions", f"sessions/{session.id}", "invitation"):
            answer = await helper.delete(f"/users/olga/{path}")
            assert (answer.status_code, answer.json()["type"]) == (403, "not-permitted")
    held = (await world.context.means.held())[olga.id]
    assert (held.passkeys, held.sessions, held.invited is None) == (1, 1, False)


async def test_a_link_that_signs_in_is_made_on_the_server_alone(
    admin: httpx2.AsyncClient, world: World
) -> None:
    await admin.post("/users", json={"name": "ann"})
    answer = await admin.post("/sign-in-links", json={"user": "ann"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["user"], made["expires"]) == ("ann", "2026-01-02T04:04:05Z")
    (only,) = made["links"]
    code = only["url"].removeprefix("http://localhost:8080/signin/link/")
    assert len(code) == 32
    assert code not in (await admin.get("/audit")).text
    assert (await admin.post("/sign-in-links", json={"user": "nobody"})).status_code == 404
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.OWNER)
    async with world.client(admin=False, token=secret) as client:
        refused = await client.post("/sign-in-links", json={"user": "ann"})
    assert (refused.status_code, refused.json()["type"]) == (403, "not-permitted")
    assert len(await world.registry.audit(action="user.link")) == 1
