from typing import Any

import pytest
from tests.support.nouns import NOW

from doorward.errors import BadInput
from doorward.issuer.errors import AuthorizeError
from doorward.issuer.request import UnknownApp, find_target, read, single, with_answer
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
    return read(pairs, find_target(pairs, app))


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
