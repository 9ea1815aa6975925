from typing import Any

import pytest
from tests.support.nouns import NOW

from doorward.errors import BadInput
from doorward.issuer.claims import SCOPES
from doorward.issuer.errors import AuthorizeError
from doorward.issuer.request import UnknownApp, canonical, find_target, read, single, with_answer
from doorward.model import App

BACK = "https://a.example/cb"
CHALLENGE = "A" * 43
APP = App(
    id=1,
    name="a",
    client_id="app-a",
    secret_hash=b"x",
    redirect_uris=(BACK,),
    resources=("https://mcp.example",),
    actor="",
    created=NOW,
)
PUBLIC = App(id=2, name="p", client_id="app-p", redirect_uris=(BACK,), actor="", created=NOW)


def asked(*more: tuple[str, str], app: App = APP, **changes: str | None) -> Any:
    given: dict[str, str | None] = {
        "redirect_uri": BACK,
        "response_type": "code",
        "scope": "openid",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    pairs = [(name, value) for name, value in (given | changes).items() if value is not None]
    pairs += more
    return read(pairs, find_target(pairs, app), frozenset((*SCOPES, "files:read")), app.resources)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"response_type": None}, "invalid_request"),  # oidcc-response-type-missing
        ({"response_type": "id_token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "x"}, "request_not_supported"),  # oidcc-unsigned-request-object-...
        ({"request_uri": "https://x"}, "request_uri_not_supported"),  # oidcc-request-uri-unsigned-...
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"scope": "calendar"}, "invalid_scope"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "1" * 20}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"state": "s" * 2001}, "invalid_request"),
        ({"resource": "https://other.example"}, "invalid_target"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_told_to_the_app(changes: dict[str, str | None], code: str) -> None:
    with pytest.raises(AuthorizeError) as caught:
        asked(app=APP, **changes)
    assert caught.value.code == code


def test_a_public_app_has_to_use_pkce() -> None:
    assert asked(app=APP, code_challenge=None, code_challenge_method=None).challenge == ""
    with pytest.raises(AuthorizeError, match="PKCE"):
        asked(app=PUBLIC, code_challenge=None, code_challenge_method=None)


def test_what_is_given_twice_is_refused() -> None:
    with pytest.raises(AuthorizeError, match="twice"):
        asked(("scope", "email"))
    for name in ("redirect_uri", "state", "response_mode"):
        with pytest.raises(BadInput, match="twice"):
            asked((name, "x"), state="s", response_mode="query")
    twice = asked(("resource", "https://mcp.example"), ("resource", "https://mcp.example"))
    assert twice.resources == ("https://mcp.example",)


def test_unknown_scopes_and_levels_are_left_out() -> None:
    found = asked(scope="openid calendar email openid", acr_values="1 urn:doorward:acr:click", max_age="7")
    assert found.scopes == ("openid", "email")
    assert found.levels == ("urn:doorward:acr:click",)
    assert asked(acr_values="1 urn:doorward:acr:posture:ours").postures == ("urn:doorward:acr:posture:ours",)
    assert found.oldest is not None
    assert found.oldest.total_seconds() == 7
    assert asked(scope=None).scopes == ("openid",)
    assert asked().oldest is None


def test_nobody_is_sent_to_an_unknown_place() -> None:
    for pairs, app in (([("redirect_uri", BACK)], None), ([("redirect_uri", BACK + "/")], APP), ([], APP)):
        with pytest.raises(UnknownApp):
            find_target(pairs, app)


def test_an_answer_keeps_what_was_registered() -> None:
    assert (
        with_answer("https://a.example/cb?x=%20y", [("code", "a&b")])
        == "https://a.example/cb?x=%20y&code=a%26b"
    )
    assert with_answer("com.example.a:/cb", [("code", "1")]) == "com.example.a:/cb?code=1"
    assert single([("a", "1")], "b") == ""


def test_a_resource_is_known_by_either_spelling_of_the_same_address() -> None:
    for spelling in ("https://mcp.example/", "HTTPS://MCP.example", "https://mcp.example:443"):
        assert asked(("resource", spelling)).resources == ("https://mcp.example",)
    for other in (
        "https://mcp.example/x",
        "http://mcp.example",
        "https://mcp.example:8443",
        "https://a@mcp.example",
    ):
        with pytest.raises(AuthorizeError, match="no tokens for"):
            asked(("resource", other))


@pytest.mark.parametrize(
    ("resource", "same"),
    [
        ("https://H.example/Path/?q=1", "https://h.example/Path/?q=1"),
        ("http://h.example:80", "http://h.example"),
        ("https://h.example:80/", "https://h.example:80"),
        ("https://[FD7A::1]:443/a", "https://[fd7a::1]/a"),
        ("https://h.example/?", "https://h.example/?"),
        ("https://h.example/#", "https://h.example/#"),
        ("https://h.example/?#", "https://h.example/?#"),
        ("https://h.example:no/", "https://h.example:no/"),
        ("https://me@h.example/", "https://me@h.example/"),
        ("urn:Example:a", "urn:Example:a"),
    ],
    ids=repr,
)
def test_what_is_the_same_resource(resource: str, same: str) -> None:
    assert canonical(resource) == same


def test_a_resource_that_is_not_the_apps_is_said_before_its_scopes() -> None:
    with pytest.raises(AuthorizeError) as caught:
        asked(("resource", "https://other.example"), scope="other:read")
    assert caught.value.code == "invalid_target"


def test_a_scope_of_its_own_is_known() -> None:
    assert asked(scope="files:read files:write").scopes == ("files:read",)
