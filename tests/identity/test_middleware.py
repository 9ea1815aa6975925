import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from doorward.engine.base import EngineError
from doorward.identity.caller import Identity, caller
from doorward.identity.middleware import IdentityMiddleware
from doorward.identity.verifier import ScopeError, TokenError

ANN = Identity(subject="n1", login="ann")
BOT = Identity(subject="s1", scopes=frozenset({"mcp"}))


class Tailnet:
    """Stands in for ``connection.Tailnet``."""

    def __init__(self, who: Identity | EngineError | None) -> None:
        self.who = who

    async def identify(self, peer: Any, local: Any) -> Identity | None:
        del peer, local
        if isinstance(self.who, EngineError):
            raise self.who
        return self.who


class Verifier:
    """Stands in for ``verifier.Verifier``: one token is good."""

    async def verify(self, token: str, scopes: Any = ()) -> Identity:
        if token != "good":
            raise TokenError("the token is over (exp)")
        if not BOT.scopes.issuperset(scopes):
            raise ScopeError("the token does not allow more")
        return BOT


async def ask(
    *headers: tuple[bytes, bytes], kind: str = "http", **settings: Any
) -> tuple[dict[str, Any] | None, list[MutableMapping[str, Any]]]:
    """The scope that the app got, or None, and what was sent."""
    seen: list[dict[str, Any]] = []
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": list(headers), "client": ("127.0.0.1", 7), "server": ("127.0.0.1", 80)}
    await IdentityMiddleware(app, **settings)(scope, receive, send)
    return (seen[0] if seen else None), sent


async def test_the_connection_says_who() -> None:
    scope, _ = await ask((b"host", b"wiki"), tailnet=Tailnet(ANN))
    assert scope is not None
    assert caller(scope) is ANN
    assert scope["headers"] == [(b"host", b"wiki")]


async def test_headers_never_do() -> None:
    claims = [(b"Tailscale-User-Login", b"eve"), (b"remote_user", b"eve"), (b"x-forwarded-user", b"eve")]
    scope, _ = await ask(*claims, tailnet=Tailnet(None), required=False)
    assert scope is not None
    assert caller(scope) is None
    assert scope["headers"] == []


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
async def test_a_token_says_who_and_counts_more_than_the_connection(scheme: bytes) -> None:
    scope, _ = await ask((b"authorization", scheme + b" good"), tailnet=Tailnet(ANN), verifier=Verifier())
    assert scope is not None
    assert caller(scope) is BOT


async def test_a_bad_token_is_never_passed_over() -> None:
    scope, sent = await ask(
        (b"authorization", b"Bearer bad"), tailnet=Tailnet(ANN), verifier=Verifier(), required=False
    )
    assert scope is None
    assert sent[0]["status"] == 401
    assert dict(sent[0]["headers"])[b"www-authenticate"] == b'Bearer error="invalid_token"'
    assert json.loads(sent[1]["body"])["title"] == "the token is over (exp)"


async def test_two_tokens_are_none() -> None:
    pair = ((b"authorization", b"Bearer good"), (b"authorization", b"Bearer bad"))
    scope, sent = await ask(*pair, verifier=Verifier())
    assert (scope, sent[0]["status"]) == (None, 401)


async def test_a_missing_scope_is_named_with_where_to_look() -> None:
    where = "https://api.example.com/.well-known/oauth-protected-resource"
    scope, sent = await ask(
        (b"authorization", b"Bearer good"),
        verifier=Verifier(),
        scopes=("mcp", "mcp:write"),
        resource_metadata=where,
    )
    assert (scope, sent[0]["status"]) == (None, 403)
    challenge = dict(sent[0]["headers"])[b"www-authenticate"].decode()
    assert (
        challenge == f'Bearer error="insufficient_scope", scope="mcp mcp:write", resource_metadata="{where}"'
    )


async def test_a_stranger_is_refused_without_an_error_code() -> None:
    scope, sent = await ask(tailnet=Tailnet(None), verifier=Verifier())
    assert (scope, sent[0]["status"]) == (None, 401)
    assert dict(sent[0]["headers"])[b"www-authenticate"] == b"Bearer"


async def test_nobody_is_known_where_nothing_is_believed() -> None:
    scope, sent = await ask((b"authorization", b"Bearer good"))
    assert (scope, sent[0]["status"]) == (None, 401)


async def test_without_a_verifier_the_header_is_the_app_s_own() -> None:
    scope, _ = await ask((b"authorization", b"Basic YTpi"), tailnet=Tailnet(ANN))
    assert scope is not None
    assert (b"authorization", b"Basic YTpi") in scope["headers"]


async def test_a_daemon_that_is_away_lets_nobody_in() -> None:
    scope, sent = await ask(tailnet=Tailnet(EngineError("tailscaled does not answer")), required=False)
    assert (scope, sent[0]["status"]) == (None, 503)


async def test_a_websocket_of_a_stranger_is_closed_before_it_opens() -> None:
    scope, sent = await ask(kind="websocket", tailnet=Tailnet(None))
    assert scope is None
    assert [(one["type"], one["code"]) for one in sent] == [("websocket.close", 1008)]


async def test_lifespan_passes() -> None:
    scope, _ = await ask(kind="lifespan", tailnet=Tailnet(None))
    assert scope is not None
    assert "doorward.identity" not in scope
