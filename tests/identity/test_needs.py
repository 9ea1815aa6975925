from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.clock import FakeClock

from doorward.errors import BadInput, Unauthenticated
from doorward.identity.caller import KEY, Identity
from doorward.identity.needs import SLOT, Needs, Slot, check, check_scopes, demand, names_of
from doorward.identity.refusals import ScopeError, StrengthError

NOW = datetime(2027, 1, 1, tzinfo=UTC)
AT = int(NOW.timestamp())
DEVICE = Identity(subject="n1", login="ann")


def bearer(*scopes: str, **claims: Any) -> Identity:
    return Identity(subject="s1", scopes=frozenset(scopes), claims={"sub": "s1", **claims})


@pytest.mark.parametrize(
    ("path", "asked", "fits"),
    [
        ("/", "/", True),
        ("/", "/any/thing", True),
        ("/admin", "/admin", True),
        ("/admin", "/admin/", True),
        ("/admin/", "/admin", True),
        ("/admin", "/admin/x", True),
        ("/admin", "/administrators", False),
        ("/admin", "/", False),
    ],
)
def test_a_place_is_a_path_and_what_is_below(path: str, asked: str, fits: bool) -> None:
    assert Needs(path).fits("GET", asked) is fits


def test_methods_are_told_apart() -> None:
    assert Needs("/", methods=["POST"]).fits("POST", "/")
    assert not Needs("/", methods=["POST"]).fits("GET", "/")


def test_all_scopes_are_named_at_once() -> None:
    needs = [Needs(scopes=["a", "b"]), Needs(scopes=["b", "c"])]
    assert names_of(needs) == ["a", "b", "c"]
    check(bearer("a", "b", "c"), needs, NOW)
    with pytest.raises(ScopeError) as caught:
        check(bearer("a"), needs, NOW)
    assert caught.value.scopes == ("a", "b", "c")


def test_a_connection_has_no_scopes_and_no_strength() -> None:
    check(DEVICE, [Needs(scopes=["a"])], NOW)
    for needs in (Needs(levels=["x"]), Needs(max_age=60)):
        with pytest.raises(StrengthError):
            check(DEVICE, [needs], NOW)


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"acr": "x", "auth_time": AT - 100}, True),
        ({"acr": "y", "auth_time": AT - 100}, False),
        ({"auth_time": AT - 100}, False),
        ({"acr": "x", "auth_time": AT - 400}, False),
        ({"acr": "x", "auth_time": "now"}, False),
        ({"acr": "x"}, False),
        ({"acr": ["x"]}, False),
    ],
)
def test_how_well_and_how_lately_they_are_known(claims: dict[str, Any], good: bool) -> None:
    needs = [Needs(levels=["x", "z"], max_age=300)]
    if good:
        check(bearer(**claims), needs, NOW)
        return
    with pytest.raises(StrengthError) as caught:
        check(bearer(**claims), needs, NOW)
    assert (caught.value.levels, caught.value.max_age) == (("x", "z"), 300)


def test_a_demand_leaves_its_refusal_for_the_middleware() -> None:
    clock = FakeClock()
    slot = Slot(clock)
    scope: dict[str, Any] = {KEY: bearer("a"), SLOT: slot}
    assert demand(scope, "a").subject == "s1"
    assert not slot.error
    with pytest.raises(ScopeError) as caught:
        demand(scope, "a", "b")
    assert slot.error == caught.value
    with pytest.raises(Unauthenticated):
        demand({KEY: None, SLOT: slot})


@pytest.mark.parametrize("scope", ["", "a b", 'a"', "ä", "offline_access"])
def test_what_no_server_asks_for(scope: str) -> None:
    with pytest.raises(BadInput):
        check_scopes(["a", scope])
