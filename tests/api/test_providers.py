"""Outside providers over the API."""

import httpx2
import pytest
from tests.support.world import SEALER, World

from doorward.model import Claims, Role

CORP = {
    "name": "corp",
    "issuer": "https://sso.example.com",
    "client_id": "doorward",
    "client_secret": "very secret",
    "domains": ["example.com"],
}


async def test_a_secret_goes_in_and_never_comes_out(admin: httpx2.AsyncClient, world: World) -> None:
    made = await admin.post("/providers", json=CORP)
    assert made.status_code == 201
    assert made.json()["has_secret"] is True
    assert made.json()["redirect_uris"][0] == "https://door.test/signin/callback/corp"
    changed = await admin.patch("/providers/corp", json={"client_secret": "newer secret", "groups": ["eng"]})
    assert changed.json()["groups"] == ["eng"]
    assert changed.json()["domains"] == ["example.com"]
    said = [
        made.text,
        changed.text,
        *[(await admin.get(path)).text for path in ("/providers", "/providers/corp", "/audit")],
        (await admin.post("/providers/corp/test")).text,
    ]
    assert not any("secret" in text.replace("has_secret", "").replace("client_secret", "") for text in said)
    kept = await world.registry.outside.provider("corp")
    assert SEALER.open(kept.client_secret, kept.issuer) == "newer secret"
    assert "newer" not in kept.client_secret
    assert "secret" not in repr(kept)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/providers", CORP, 409),
        ("POST", "/providers", CORP | {"name": "other", "issuer": "https://x?y"}, 400),
        ("POST", "/providers", CORP | {"name": "other", "role": "owner"}, 400),
        ("POST", "/providers", CORP | {"name": "other", "users": ["x"] * 1001}, 400),
        ("POST", "/providers", CORP | {"name": "other", "client_secret": "very secret\n"}, 400),
        ("PATCH", "/providers/corp", {"client_secret": "very secret" * 200}, 400),
        ("PATCH", "/providers/none", {"client_secret": "very secret"}, 404),
        ("PATCH", "/providers/corp", {}, 400),
        ("PATCH", "/providers/corp", {"issuer": "https://evil.example.com"}, 400),
        ("PATCH", "/providers/none", {"groups": []}, 404),
        ("GET", "/providers/none", None, 404),
        ("POST", "/providers/none/test", None, 404),
        ("DELETE", "/providers/none", None, 404),
        ("GET", "/users/none/identities", None, 404),
        ("POST", "/users/ann/identities", {"provider": "corp", "subject": ""}, 400),
        ("DELETE", "/users/ann/identities/corp", None, 404),
    ],
    ids=str,
)
async def test_what_cannot_be(
    admin: httpx2.AsyncClient, method: str, path: str, body: dict[str, object] | None, status: int
) -> None:
    await admin.post("/users", json={"name": "ann"})
    await admin.post("/providers", json=CORP)
    answer = await admin.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert "very secret" not in answer.text


async def test_what_is_wrong_with_a_provider_is_told(admin: httpx2.AsyncClient) -> None:
    await admin.post("/providers", json=CORP)
    (found,) = (await admin.post("/providers/corp/test")).json()
    assert (found["level"], found["subject"]) == ("error", "discovery")
    assert "sso.example.com" in found["message"]


async def test_a_person_s_accounts_and_groups_are_shown(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/providers", json=CORP)
    claims = Claims(
        issuer="https://sso.example.com",
        subject="s1",
        email="ann@example.com",
        email_verified=True,
        groups=("eng",),
    )
    await world.registry.outside.signed_in(await world.registry.outside.provider("corp"), claims)
    shown = (await admin.get("/users/ann@example.com")).json()
    assert (shown["groups"], shown["identities"]) == (["eng@example.com"], 1)
    (identity,) = (await admin.get("/users/ann@example.com/identities")).json()
    assert (identity["provider"], identity["subject"], identity["groups"]) == ("corp", "s1", ["eng"])
    assert (await admin.delete("/providers/corp")).json() == {"identities": 1}
    assert (await admin.get("/users/ann@example.com/identities")).json() == []


async def test_nobody_makes_a_way_in_above_themselves(admin: httpx2.AsyncClient, world: World) -> None:
    await admin.post("/providers", json=CORP)
    for name, role in (("boss", "owner"), ("ann", "member")):
        await admin.post("/users", json={"name": name, "role": role})
    _, secret = await world.registry.create_api_token("cli", description="it", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as client:
        mine = {"provider": "corp", "subject": "mine"}
        assert (await client.post("/users/boss/identities", json=mine)).status_code == 403
        assert (await client.post("/users/ann/identities", json=mine)).status_code == 201
        assert (await client.delete("/users/boss/identities/corp")).status_code == 403
        assert (await client.delete("/users/ann/identities/corp")).json() == {"identities": 1}
        for method, path in (
            ("POST", "/providers"),
            ("PATCH", "/providers/corp"),
            ("DELETE", "/providers/corp"),
        ):
            assert (await client.request(method, path, json=CORP)).status_code == 403
        assert (await client.post("/providers/corp/test")).status_code == 403
        assert (await client.get("/providers")).status_code == 200
