import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from msgspec import structs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.support.clock import FakeClock
from tests.support.proving import proof, thumbprint

from doorward.engine.base import EngineError
from doorward.errors import BadInput, DoorwardError, RemoteProtocolError
from doorward.identity.caller import Identity, caller
from doorward.identity.middleware import IdentityMiddleware
from doorward.identity.needs import Needs, demand
from doorward.identity.possession import Proofs
from doorward.identity.refusals import ScopeError, TokenError
from doorward.identity.resource import Resource

CLOCK = FakeClock()
RESOURCE = Resource("https://api.example.com/mcp", issuer="https://door.example.com", scopes=["mcp", "more"])
METADATA = "https://api.example.com/.well-known/oauth-protected-resource/mcp"
ALGS = 'algs="ES256 EdDSA Ed25519 RS256 PS256"'
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
    """Stands in for ``verifier.Verifier``: one token is good, another one with a key or from a node."""

    def __init__(self, **claims: Any) -> None:
        self.claims = claims
        self.error: DoorwardError | None = None

    async def verify(self, token: str, scopes: Any = (), *, key: str = "", node: str = "") -> Identity:
        if self.error is not None:
            raise self.error
        if token not in {"good", "bound", f"of {node}"} or (token == "bound") != (key == thumbprint()):
            raise TokenError("the token is over (exp)")
        if not BOT.scopes.issuperset(scopes):
            raise ScopeError("the token does not allow more", scopes)
        return structs.replace(BOT, claims={"sub": "s1", **self.claims})


async def ask(
    *headers: tuple[bytes, bytes],
    kind: str = "http",
    method: str = "POST",
    path: str = "/mcp",
    app: Any = None,
    **settings: Any,
) -> tuple[dict[str, Any] | None, list[MutableMapping[str, Any]]]:
    """The scope that the app got, or None, and what was sent."""
    seen: list[dict[str, Any]] = []
    sent: list[MutableMapping[str, Any]] = []

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        if app is not None:
            await app(scope, receive, send)

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "path": path,
        "headers": list(headers),
        "client": ("127.0.0.1", 7),
        "server": ("127.0.0.1", 80),
    }
    if kind == "http":
        scope["method"] = method
    await IdentityMiddleware(asked, clock=CLOCK, **settings)(scope, receive, send)
    return (seen[0] if seen else None), sent


def challenges(sent: list[MutableMapping[str, Any]]) -> list[str]:
    return [value.decode() for name, value in sent[0]["headers"] if name == b"www-authenticate"]


def bearer(token: str = "good") -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode()


def bound(token: str = "bound", *, address: str = RESOURCE.address, **more: Any) -> list[tuple[bytes, bytes]]:
    made = proof("POST", address, CLOCK.now().timestamp(), token=token, **more)
    return [(b"authorization", f"DPoP {token}".encode()), (b"dpop", made.encode())]


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
    who = caller(scope)
    assert who is not None
    assert who.subject == BOT.subject


async def test_a_bad_token_is_never_passed_over() -> None:
    scope, sent = await ask(
        (b"authorization", b"Bearer bad"), tailnet=Tailnet(ANN), verifier=Verifier(), required=False
    )
    assert scope is None
    assert sent[0]["status"] == 401
    assert challenges(sent) == ['Bearer error="invalid_token", error_description="the token is over (exp)"']
    assert json.loads(sent[1]["body"])["title"] == "the token is over (exp)"


async def test_two_tokens_are_none() -> None:
    pair = ((b"authorization", b"Bearer good"), (b"authorization", b"Bearer bad"))
    scope, sent = await ask(*pair, verifier=Verifier())
    assert (scope, sent[0]["status"]) == (None, 400)
    assert challenges(sent)[0].startswith('Bearer error="invalid_request"')


async def test_a_missing_scope_is_named_with_where_to_look() -> None:
    where = "https://api.example.com/.well-known/oauth-protected-resource"
    scope, sent = await ask(
        (b"authorization", b"Bearer good"),
        verifier=Verifier(),
        scopes=("mcp", "mcp:write"),
        resource_metadata=where,
    )
    assert (scope, sent[0]["status"]) == (None, 403)
    said = 'Bearer error="insufficient_scope", error_description="the token does not allow more", '
    assert challenges(sent) == [f'{said}scope="mcp mcp:write", resource_metadata="{where}"']


async def test_a_stranger_is_refused_without_an_error_code() -> None:
    scope, sent = await ask(tailnet=Tailnet(None), verifier=Verifier())
    assert (scope, sent[0]["status"]) == (None, 401)
    assert challenges(sent) == ["Bearer"]


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


# A resource --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"]
)
async def test_its_metadata_is_there_for_everybody(path: str) -> None:
    scope, sent = await ask(path=path, method="GET", verifier=Verifier(), resource=RESOURCE)
    assert scope is None
    headers = dict(sent[0]["headers"])
    assert (sent[0]["status"], headers[b"content-type"]) == (200, b"application/json")
    assert headers[b"access-control-allow-origin"] == b"*"
    assert json.loads(sent[1]["body"])["resource"] == RESOURCE.address
    for method, status in (("HEAD", 200), ("OPTIONS", 204), ("POST", 405)):
        _, sent = await ask(path=path, method=method, verifier=Verifier(), resource=RESOURCE)
        assert (sent[0]["status"], sent[1]["body"]) == (status, b"")


async def test_no_other_well_known_path_is_open() -> None:
    scope, sent = await ask(
        path="/.well-known/oauth-protected-resource/x", verifier=Verifier(), resource=RESOURCE
    )
    assert (scope, sent[0]["status"]) == (None, 401)


async def test_a_stranger_learns_where_to_go_and_what_to_ask_for() -> None:
    _, sent = await ask(verifier=Verifier(), resource=RESOURCE, scopes=["mcp"])
    told = f'scope="mcp", resource_metadata="{METADATA}"'
    assert challenges(sent) == [f"Bearer {told}", f"DPoP {ALGS}, {told}"]


async def test_needs_add_up_and_are_told_together() -> None:
    settings: dict[str, Any] = {
        "verifier": Verifier(),
        "resource": RESOURCE,
        "scopes": ["mcp"],
        "needs": [Needs("/mcp/admin", scopes=["more"]), Needs("/", scopes=["most"], methods=["DELETE"])],
    }
    scope, _ = await ask(bearer(), **settings)
    assert scope is not None
    for path, method, scopes in (("/mcp/admin/x", "POST", "mcp more"), ("/mcp", "DELETE", "mcp most")):
        scope, sent = await ask(bearer(), path=path, method=method, **settings)
        assert (scope, sent[0]["status"]) == (None, 403)
        assert f'scope="{scopes}"' in challenges(sent)[0]


async def test_where_something_is_needed_no_stranger_gets_in() -> None:
    settings: dict[str, Any] = {"verifier": Verifier(), "required": False, "needs": [Needs("/mcp", ["mcp"])]}
    scope, _ = await ask(path="/", **settings)
    assert scope is not None
    scope, sent = await ask(**settings)
    assert (scope, sent[0]["status"]) == (None, 401)


async def test_a_better_proof_is_asked_for() -> None:
    settings: dict[str, Any] = {"resource": RESOURCE, "needs": [Needs(levels=["gold", "silver"], max_age=60)]}
    good = Verifier(acr="gold", auth_time=CLOCK.now().timestamp())
    scope, _ = await ask(bearer(), verifier=good, **settings)
    assert scope is not None
    _, sent = await ask(bearer(), verifier=Verifier(acr="tin"), **settings)
    assert sent[0]["status"] == 401
    said = challenges(sent)[0]
    for part in ('error="insufficient_user_authentication"', 'acr_values="gold silver"', 'max_age="60"'):
        assert part in said
    # What the connection says is no better one.
    scope, sent = await ask(tailnet=Tailnet(ANN), verifier=good, **settings)
    assert (scope, sent[0]["status"]) == (None, 401)


async def test_the_app_asks_for_more_and_its_own_answer_is_not_heard() -> None:
    async def handler(request: Request) -> Response:
        demand(request.scope, "mcp", "more")
        return PlainTextResponse("done")

    async def kind(request: Request) -> Response:
        try:
            demand(request.scope, "most")
        except ScopeError:
            return PlainTextResponse("never mind")
        return PlainTextResponse("done")

    inner = Starlette(
        routes=[Route("/mcp", handler, methods=["POST"]), Route("/kind", kind, methods=["POST"])]
    )
    for path, scopes in (("/mcp", "mcp more"), ("/kind", "most")):
        scope, sent = await ask(bearer(), app=inner, path=path, verifier=Verifier(), resource=RESOURCE)
        assert scope is not None
        assert [one["type"] for one in sent] == ["http.response.start", "http.response.body"]
        assert sent[0]["status"] == 403
        assert f'scope="{scopes}"' in challenges(sent)[0]


async def test_what_an_app_raises_by_itself_stays_its_own() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        raise TokenError("of another server")

    with pytest.raises(TokenError):
        await ask(bearer(), app=inner, verifier=Verifier())


async def test_who_has_begun_to_answer_cannot_ask_for_more() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        demand(scope, "more")

    with pytest.raises(ScopeError):
        await ask(bearer(), app=inner, verifier=Verifier())


async def test_an_issuer_that_talks_nonsense_is_not_the_caller_s_fault() -> None:
    verifier = Verifier()
    verifier.error = RemoteProtocolError("the metadata are another issuer's")
    scope, sent = await ask(bearer(), verifier=verifier)
    assert (scope, sent[0]["status"], challenges(sent)) == (None, 503, [])


# Bound tokens ------------------------------------------------------------------------------------------------------


async def test_a_bound_token_comes_with_a_proof() -> None:
    scope, _ = await ask(*bound(), verifier=Verifier(), resource=RESOURCE)
    assert scope is not None
    made = bound()
    proofs = Proofs(clock=CLOCK)
    for expected in (True, False):  # and once with each
        scope, sent = await ask(*made, verifier=Verifier(), resource=RESOURCE, proofs=proofs)
        assert (scope is not None) is expected
    told = f'resource_metadata="{METADATA}"'
    assert challenges(sent) == [
        f"Bearer {told}",
        f'DPoP error="invalid_dpop_proof", error_description="the proof was shown before (jti)", {ALGS}, {told}',
    ]


@pytest.mark.parametrize(
    "headers",
    [
        [bearer("bound")],
        bound("good"),
        bound()[:1],
        [*bound(), bound()[1]],
        bound(address="https://other.example/mcp"),
        bound(address="https://api.example.com/"),
        bound(number=1),
        bound(ath="x"),
        [bearer("bound"), bound()[1]],
    ],
)
async def test_without_its_proof_it_is_worth_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    scope, sent = await ask(*headers, verifier=Verifier(), resource=RESOURCE)
    assert (scope, sent[0]["status"]) == (None, 401)


async def test_the_host_header_does_not_say_for_whom_a_proof_is() -> None:
    made = bound(address="https://other.example/mcp")
    scope, _ = await ask(*made, (b"host", b"other.example"), verifier=Verifier(), resource=RESOURCE)
    assert scope is None


async def test_a_nonce_is_given_and_asked_for() -> None:
    settings: dict[str, Any] = {
        "verifier": Verifier(),
        "resource": RESOURCE,
        "proofs": Proofs(nonces=True, clock=CLOCK),
        "app": PlainTextResponse("done"),
    }
    _, sent = await ask(*bound(), **settings)
    assert sent[0]["status"] == 401
    assert 'DPoP error="use_dpop_nonce"' in challenges(sent)[1]
    nonce = dict(sent[0]["headers"])[b"dpop-nonce"].decode()
    _, sent = await ask(*bound(nonce=nonce), **settings)
    assert sent[0]["status"] == 200
    assert dict(sent[0]["headers"])[b"dpop-nonce"].decode() == nonce
    _, sent = await ask(bearer(), **settings)
    assert b"dpop-nonce" not in dict(sent[0]["headers"])


async def test_a_server_may_take_bound_tokens_alone() -> None:
    only = Resource(RESOURCE.address, issuer=RESOURCE.issuer, bound_only=True)
    scope, sent = await ask(bearer(), verifier=Verifier(), resource=only)
    assert (scope, sent[0]["status"]) == (None, 401)
    assert [each.partition(" ")[0] for each in challenges(sent)] == ["DPoP"]
    scope, _ = await ask(*bound(), verifier=Verifier(), resource=only)
    assert scope is not None


async def test_a_token_of_a_node_is_good_from_that_node_alone() -> None:
    settings: dict[str, Any] = {"verifier": Verifier(), "resource": RESOURCE}
    headers = [bearer("of n1")]
    scope, _ = await ask(*headers, tailnet=Tailnet(ANN), **settings)
    assert scope is not None
    for tailnet in (Tailnet(structs.replace(ANN, subject="n2")), Tailnet(None), None):
        scope, sent = await ask(*headers, tailnet=tailnet, **settings)
        assert (scope, sent[0]["status"]) == (None, 401)
    away = Tailnet(EngineError("tailscaled does not answer"))
    assert (await ask(*headers, tailnet=away, **settings))[1][0]["status"] == 401
    assert (await ask(bearer(), tailnet=away, **settings))[
        0
    ] is not None  # any other token is good without it


@pytest.mark.parametrize("settings", [{"resource": RESOURCE}, {"verifier": Verifier(), "proofs": Proofs()}])
def test_settings_that_would_open_a_hole(settings: dict[str, Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(BadInput):
        IdentityMiddleware(app, **settings)
