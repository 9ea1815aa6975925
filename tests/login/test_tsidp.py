"""tsidp's client file, as it writes it and as it does not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.world import World

from doorward.errors import BadInput
from doorward.login.apps import Apps, Moved, Moving
from doorward.login.tsidp import LARGEST, MOST, read_clients
from doorward.store import audit
from doorward.tailnet import secrets

ID, OTHER, THIRD = "0a" * 16, "1b" * 16, "2c" * 16
SECRET = "f00d" * 16
BACK = "https://grafana.example.com/cb"
NOW: dict[str, Any] = {
    "client_id": ID,
    "client_secret": SECRET,
    "client_name": "My Grafana!",
    "redirect_uris": [BACK],
    "token_endpoint_auth_method": "client_secret_basic",
    "grant_types": ["authorization_code"],
    "response_types": ["code"],
    "scope": "openid",
    "created_at": "2025-11-01T10:00:00Z",
    "redirect_uri": BACK,
}
OLD: dict[str, Any] = {
    "client_id": OTHER,
    "client_secret": SECRET,
    "name": "wiki",
    "redirect_uri": "https://wiki.example.com/cb",
}


def one(**fields: Any) -> Moving:
    (found,) = read_clients(json.dumps({ID: NOW | fields}))
    return found


@pytest.fixture
def apps(world: World) -> Apps:
    return world.context.apps


def test_both_forms_are_read() -> None:
    new, old = read_clients(json.dumps({ID: NOW, OTHER: OLD}))
    assert new.wanted is not None
    assert old.wanted is not None
    assert (new.client_id, new.secret, new.wanted.name) == (ID, SECRET, "my-grafana")
    assert (new.wanted.redirect_uris, new.wanted.public, new.wanted.asks) == ((BACK,), False, False)
    assert (old.client_id, old.wanted.name) == (OTHER, "wiki")
    assert old.wanted.redirect_uris == ("https://wiki.example.com/cb",)
    assert SECRET not in repr((new, old))


def test_what_no_administrator_has_made_asks_and_what_has_no_secret_is_public() -> None:
    assert (found := one(dynamically_registered=True).wanted) is not None
    assert found.asks
    assert (found := one(client_secret=None, token_endpoint_auth_method="none").wanted) is not None
    assert found.public
    # tsidp gives those a secret, too, and asks for it: it stays.
    assert (found := one(token_endpoint_auth_method="none").wanted) is not None
    assert not found.public
    assert (found := one(client_name="日本").wanted) is not None
    assert found.name == f"tsidp-{ID[:8]}"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"client_id": OTHER}, "another client id"),
        ({"client_secret": ""}, "no secret"),
        ({"client_secret": "hunter2-hunter2"}, "not one that tsidp makes"),
        ({"client_secret": f"{SECRET} "}, "not one that tsidp makes"),
        ({"redirect_uris": BACK}, "see redirect_uris"),
        ({"client_name": 7}, "see client_name"),
        ({"client_name": "a" * 1001}, "see client_name"),
    ],
)
def test_a_client_that_cannot_be_one_here_has_the_reason(fields: dict[str, Any], why: str) -> None:
    found = one(**fields)
    assert found.wanted is None
    assert why in found.why
    assert SECRET not in found.why
    assert "hunter2" not in found.why


@pytest.mark.parametrize(
    "client_id", ["", "app-abcdefgh", "userid:5", "a" * 24, "https://a.example/c", "-abcdefghi"]
)
def test_no_client_id_means_something_here(client_id: str) -> None:
    (found,) = read_clients(json.dumps({client_id: {**NOW, "client_id": client_id}}))
    assert found.wanted is None


@pytest.mark.parametrize("text", ["", "[]", "{", "null", f'"{SECRET}"', f'{{"a": {SECRET}', "[" * 100_000])
def test_another_file_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(BadInput, match="no client file of tsidp") as caught:
        read_clients(text)
    assert "oidc-funnel-clients.json" in caught.value.cure
    assert SECRET not in caught.value.sentence()


def test_nulls_of_go_are_no_clients_and_an_empty_file_has_none() -> None:
    assert read_clients("{}") == []
    (found,) = read_clients(json.dumps({ID: None}))
    assert found.wanted is None


def test_a_file_has_bounds() -> None:
    with pytest.raises(BadInput, match="1000 are imported at most"):
        read_clients(json.dumps({f"{number:032x}": {} for number in range(MOST + 1)}))
    with pytest.raises(BadInput, match="1 MiB"):
        read_clients("{" + " " * LARGEST + "}")


@given(st.text(), st.text(max_size=60), st.lists(st.text()))
def test_whatever_stands_there_is_an_app_or_has_a_reason(client_id: str, title: str, back: list[str]) -> None:
    fields = {"client_secret": SECRET, "client_name": title, "redirect_uris": back}
    (found,) = read_clients(json.dumps({client_id: fields}))
    assert (found.wanted is None) == bool(found.why)
    if found.wanted is not None:
        assert found.wanted.name.isascii()
        assert 0 < len(found.wanted.name) <= 42


async def test_ids_and_secrets_stay_good_and_a_second_time_changes_nothing(apps: Apps, world: World) -> None:
    bad = {**NOW, "client_id": THIRD, "redirect_uris": ["http://grafana.example.com/cb"]}
    clients = read_clients(json.dumps({ID: NOW, OTHER: OLD | {"name": "My grafana"}, THIRD: bad}))
    tried = await apps.bring("cli", clients, dry_run=True)
    assert await apps.list() == []
    assert await apps.bring("cli", clients) == tried
    assert [(each.name, each.outcome) for each in tried] == [
        ("my-grafana", "imported"),
        ("my-grafana-2", "imported"),
        ("My Grafana!", "refused"),
    ]
    assert "http: whoever is on the way" in tried[2].reason
    assert "exact https address" in tried[2].reason
    app = await apps.find(ID)
    assert (app.name, app.secret_hash, app.redirect_uris) == ("my-grafana", secrets.digest(SECRET), (BACK,))
    before = await apps.list()
    _, other = await apps.rotate("cli", ID)
    again = await apps.bring("cli", clients)
    assert again[:2] == [Moved(ID, "my-grafana", "there"), Moved(OTHER, "my-grafana-2", "there")]
    assert (await apps.find(ID)).secret_hash == secrets.digest(other)
    assert [each.id for each in await apps.list()] == [each.id for each in before]
    log = await world.registry.writer.database.read(audit.load)
    assert sorted(each.target for each in log if each.action == "app.import") == [
        "app:my-grafana",
        "app:my-grafana-2",
    ]
    assert SECRET not in str(log)


async def test_names_give_way_to_those_that_are_there(apps: Apps) -> None:
    clients = [
        {**NOW, "client_id": f"{number:032x}", "client_name": "a" * 60 if number % 2 else OTHER}
        for number in range(6)
    ]
    done = await apps.bring("cli", read_clients(json.dumps({each["client_id"]: each for each in clients})))
    assert {each.outcome for each in done} == {"imported"}
    assert len({each.name for each in done}) == len(clients)
