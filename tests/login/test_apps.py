import json
from typing import Any

import pytest
from tests.support.idtokens import jwk, signing_key
from tests.support.world import World

from doorward.errors import BadInput, Conflict, NotFound
from doorward.login.apps import Apps, Wanted
from doorward.store import audit
from doorward.tailnet import secrets

KEYS = json.dumps({"keys": [jwk("ES256")]})
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


async def test_an_app_with_a_key_has_no_secret_and_is_not_public(apps: Apps, world: World) -> None:
    app, secret = await apps.create("cli", Wanted("grafana", BACK, keys=KEYS))
    assert (app.public, app.signs, secret) == (False, True, "")
    assert app.secret_hash  # or a program from before keys would take it for a public one
    assert [one["kid"] for one in app.keys] == ["ES256-0"]
    assert app.keys[0].keys() == {"kty", "crv", "x", "y", "kid", "use"}
    with pytest.raises(Conflict, match="signs with its key"):
        await apps.rotate("cli", "grafana")
    other, _ = await apps.create("cli", Wanted("wiki", BACK, keys_url="https://wiki.example.com/jwks"))
    assert (other.public, other.signs, other.keys) == (False, True, ())
    log = await world.registry.writer.database.read(audit.load)
    assert [one.details["keys"] for one in log if one.action == "app.create"] == [[], ["ES256-0"]]


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
        {"keys": KEYS, "public": True},
        {"keys": KEYS, "keys_url": "https://grafana.example.com/jwks"},
        {"keys": "{}"},
        {"keys": "no JSON"},
        {"keys": '{"keys": [1]}'},
        {"keys": '{"keys": []}'},
        {"keys": '{"keys": [{"kty": "oct", "k": "AAAA"}]}'},
        {"keys": json.dumps({"keys": [signing_key("ES256", 0).as_dict(private=True)]})},
        {"keys": json.dumps({"keys": [jwk("ES256"), {"kty": "EC", "crv": "P-384"}]})},
        {"keys": json.dumps({"keys": [jwk("ES256", kid=str(number)) for number in range(11)]})},
        {"keys_url": "http://grafana.example.com/jwks"},
        {"keys_url": "https://x@grafana.example.com/jwks"},
        {"keys_url": "https://[x"},
        {"signed_out_uris": ("http://grafana.example.com/out",)},
        {"signed_out_uris": ("javascript:alert(1)",)},
        {"signed_out_uris": BACK * 21},
        {"logout_url": "http://grafana.example.com/out"},
        {"logout_url": "https://evil.example.com/out"},
        {"logout_url": "https://grafana.example.com@evil.example.com/out"},
        {"logout_url": "https://grafana.example.com:port/out"},
        {"logout_url": "https://grafana.example.com/out#x"},
    ],
)
async def test_what_cannot_be_an_app_is_refused(apps: Apps, fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        await apps.create("cli", Wanted(**({"name": "grafana", "redirect_uris": BACK} | fields)))


async def test_an_app_is_told_of_logouts_at_a_host_of_its_own(apps: Apps, world: World) -> None:
    out, told = "https://grafana.example.com/out", "https://grafana.example.com:8443/told?by=us"
    app, _ = await apps.create("cli", Wanted("grafana", BACK, signed_out_uris=(out,), logout_url=told))
    assert (app.signed_out_uris, app.logout_url) == ((out,), told)
    resource = "https://wiki.example.com/api"
    await apps.create("cli", Wanted("wiki", BACK, (resource,), logout_url="https://wiki.example.com/told"))
    log = await world.registry.writer.database.read(audit.load)
    assert (told, [out]) in [
        (one.details["logout_url"], one.details["signed_out_uris"])
        for one in log
        if one.action == "app.create"
    ]


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


async def test_scopes_of_its_own_are_words_that_no_other_app_has_from_us(apps: Apps, world: World) -> None:
    made, _ = await apps.create("cli", Wanted("files", BACK, scopes=("files:read", "files:read")))
    assert made.scopes == ("files:read",)
    for wrong in ("openid", "offline_access", "device", "", "two words", 'a"b', "-a", "a" * 101):
        with pytest.raises(BadInput, match="scope"):
            await apps.create("cli", Wanted("wiki", BACK, scopes=(wrong,)))
    with pytest.raises(BadInput, match="50 scopes"):
        await apps.create("cli", Wanted("wiki", BACK, scopes=[f"s{number}" for number in range(51)]))
    (made_event,) = [
        one for one in await world.registry.writer.database.read(audit.load) if one.action == "app.create"
    ]
    assert made_event.details["scopes"] == ["files:read"]
