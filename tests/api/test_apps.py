"""Apps over the API."""

import json

import httpx2
from tests.support.world import World

from doorward.model import Role

GRAFANA = {"name": "grafana", "redirect_uris": ["https://grafana.example.com/cb"]}


async def test_an_app_from_its_making_to_its_end(admin: httpx2.AsyncClient) -> None:
    made = await admin.post("/apps", json=GRAFANA)
    assert made.status_code == 201
    app, secret = made.json()["app"], made.json()["secret"]
    assert app["issuer"] == "https://door.tailnet.internal:8443"
    assert (app["actor"], app["public"], app["algorithm"]) == ("cli", False, "RS256")
    assert (await admin.get("/apps")).json() == [app]
    assert (await admin.get(f"/apps/{app['client_id']}")).json() == app
    other = (await admin.post("/apps/grafana/secret")).json()
    assert other["secret"] != secret
    for text in (secret, other["secret"]):
        assert text not in (await admin.get("/apps")).text + (await admin.get("/audit")).text
    assert (await admin.delete("/apps/grafana")).json() == app
    assert (await admin.get("/apps/grafana")).status_code == 404


async def test_what_cannot_be_an_app(admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/apps", json={"name": "grafana"})).status_code == 400
    assert (await admin.post("/apps", json=GRAFANA | {"algorithm": "none"})).status_code == 400
    assert (await admin.post("/apps", json=GRAFANA | {"silent": True})).status_code == 400
    assert (await admin.post("/apps", json=GRAFANA)).status_code == 201
    assert (await admin.post("/apps", json=GRAFANA)).status_code == 409


async def test_clients_of_tsidp_are_taken_over(world: World, admin: httpx2.AsyncClient) -> None:
    known, secret = "0a" * 16, "f00d" * 16
    clients = json.dumps(
        {known: {"client_secret": secret, "name": "wiki", "redirect_uri": "https://wiki.example.com/cb"}}
    )
    done = [
        (await admin.post("/app-imports", json={"clients": clients, "dry_run": dry})) for dry in (True, False)
    ]
    told = {"client_id": known, "name": "wiki", "outcome": "imported", "reason": "", "asks": False}
    assert [each.json() for each in done] == [{"apps": [told], "dry_run": dry} for dry in (True, False)]
    app = (await admin.get("/apps/wiki")).json()
    assert (app["client_id"], app["public"]) == (known, False)
    assert secret not in (await admin.get("/apps")).text + (await admin.get("/audit")).text
    said = await admin.post("/app-imports", json={"clients": f'["{secret}"'})
    assert said.status_code == 400
    assert secret not in said.text
    _, token = await world.registry.create_api_token("cli", description="x", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=token) as client:
        assert (await client.post("/app-imports", json={"clients": clients})).status_code == 403


async def test_only_administrators_make_apps(world: World) -> None:
    for role, status in ((Role.ADMIN, 201), (Role.IT_ADMIN, 403), (Role.AUDITOR, 403)):
        _, secret = await world.registry.create_api_token("cli", description="x", role=role)
        async with world.client(admin=False, token=secret) as client:
            assert (await client.post("/apps", json=GRAFANA | {"name": role.value})).status_code == status
            assert (await client.get("/apps")).status_code == 200


async def test_an_app_that_comes_by_itself_is_approved_of(admin: httpx2.AsyncClient) -> None:
    url = "https://claude.example/client.json"
    said = await admin.post("/app-approvals", json={"app": url})
    assert said.status_code == 200, said.text
    app = said.json()
    assert (app["kind"], app["title"], app["owner"]) == ("document", "claude.example", "")
    assert (app["approved"], app["client_id"]) == (["claude.example"], url)
    assert (await admin.get(f"/apps/{app['name']}")).json() == app
    said = await admin.post("/app-approvals", json={"app": app["name"], "approved": False})
    assert said.json()["approved"] == []
    assert (await admin.post("/app-approvals", json={"app": "http://claude.example/x"})).status_code == 404
    await admin.post("/apps", json=GRAFANA)
    assert (await admin.get("/apps/grafana")).json()["kind"] == "made"
    assert (await admin.post("/app-approvals", json={"app": "grafana"})).status_code == 409


async def test_only_administrators_approve_of_apps(world: World) -> None:
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as client:
        body = {"app": "https://claude.example/client.json"}
        assert (await client.post("/app-approvals", json=body)).status_code == 403


async def test_invitations_to_register_apps(world: World, admin: httpx2.AsyncClient) -> None:
    made = await admin.post("/app-invitations", json={"uses": 3})
    assert made.status_code == 201
    said = made.json()
    assert (said["uses"], said["address"]) == (3, "https://door.tailnet.internal:8443/register")
    assert said["secret"] not in (await admin.get("/audit")).text
    assert (await admin.delete("/app-invitations")).json() == {"count": 1}
    assert (await admin.delete("/app-invitations")).json() == {"count": 0}
    for wrong in ({"uses": 0}, {"uses": 1001}, {"seconds": 0}, {"seconds": 10**9}, {"seconds": 2**62}):
        assert (await admin.post("/app-invitations", json=wrong)).status_code == 400
    _, secret = await world.registry.create_api_token("cli", description="x", role=Role.IT_ADMIN)
    async with world.client(admin=False, token=secret) as client:
        assert (await client.post("/app-invitations", json={})).status_code == 403
        assert (await client.delete("/app-invitations")).status_code == 403
