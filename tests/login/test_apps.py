from typing import Any

import pytest
from tests.support.world import World

from doorward.errors import BadInput, Conflict, NotFound
from doorward.login.apps import Apps, Wanted
from doorward.store import audit
from doorward.tailnet import secrets

BACK = ("https://grafana.example.com/cb",)


@pytest.fixture
def apps(world: World) -> Apps:
    return world.context.apps


async def test_a_secret_is_shown_once_and_only_its_hash_is_kept(apps: Apps, world: World) -> None:
    app, secret = await apps.create("cli", Wanted("grafana", BACK))
    assert app.client_id.startswith("app-")
    assert app.secret_hash == secrets.digest(secret)
    again, other = await apps.rotate("cli", app.client_id)
    assert again.secret_hash == secrets.digest(other) != app.secret_hash
    assert (await apps.find("grafana")) == again == (await apps.list())[0]
    log = await world.registry.writer.database.read(audit.load)
    assert not any(text in str(one) + repr(again) for one in log for text in (secret, other))
    assert {one.action for one in log} >= {"app.create", "app.rotate"}


async def test_a_public_app_has_no_secret(apps: Apps) -> None:
    app, secret = await apps.create("cli", Wanted("cli", ("http://127.0.0.1/cb",), public=True))
    assert (app.public, app.secret_hash, secret) == (True, b"", "")
    with pytest.raises(Conflict, match="no secret"):
        await apps.rotate("cli", "cli")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Grafana"},
        {"name": ""},
        {"name": "a" * 43},
        {"redirect_uris": ()},
        {"redirect_uris": ("http://grafana.example.com/cb",)},
        {"redirect_uris": BACK * 21},
        {"algorithm": "none"},
        {"algorithm": "HS256"},
        {"service": True, "public": True},
        {"resources": ("mcp",)},
        {"resources": ("https://mcp.example.com/#x",)},
        {"resources": ("http://[x",)},
    ],
)
async def test_what_cannot_be_an_app_is_refused(apps: Apps, fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        await apps.create("cli", Wanted(**({"name": "grafana", "redirect_uris": BACK} | fields)))


async def test_names_are_taken_once_and_free_again(apps: Apps) -> None:
    first, _ = await apps.create("cli", Wanted("grafana", BACK))
    with pytest.raises(Conflict, match="grafana"):
        await apps.create("cli", Wanted("grafana", BACK))
    await apps.delete("cli", "grafana")
    for act in (apps.find("grafana"), apps.rotate("cli", "grafana"), apps.delete("cli", "grafana")):
        with pytest.raises(NotFound):
            await act
    second, _ = await apps.create("cli", Wanted("grafana", BACK, service=True))
    assert second.client_id != first.client_id
