"""``/token``: what an app gets for what it has (RFC 6749 section 3.2)."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import RateExceeded, RateLimit, json_answer
from doorward.issuer.clients import Clients
from doorward.issuer.desk import Desk, one, opened, read_pairs
from doorward.issuer.dpop import HEADER, Binding, Proofs
from doorward.issuer.errors import TokenError
from doorward.issuer.grants.authorization_code import redeem
from doorward.issuer.grants.client_credentials import own_token
from doorward.issuer.grants.device_code import DEVICE_CODE, ask_again
from doorward.issuer.grants.jwt_bearer import JWT_BEARER, accept
from doorward.issuer.grants.refresh_token import refresh
from doorward.issuer.grants.token_exchange import TOKEN_EXCHANGE, exchange
from doorward.issuer.nodes import bound_node, node_of
from doorward.issuer.request import Pairs
from doorward.login.doors import asker
from doorward.model import App
from doorward.telemetry import counter

GRANTS: dict[str, Callable[[Desk, App, Pairs, Binding], Awaitable[dict[str, Any]]]] = {
    "authorization_code": redeem,
    "refresh_token": refresh,
    "client_credentials": own_token,
    DEVICE_CODE: ask_again,
    TOKEN_EXCHANGE: exchange,
    JWT_BEARER: accept,
}

# Each proof that is shown leaves a row, and who uses a public app's name shows nothing first.
_PROOFS_PER_SECOND, _PROOFS = 5.0, 300.0

_tokens = counter("app_tokens_total", "Requests of apps for tokens, by grant and outcome", "grant", "outcome")


class Token:
    """The endpoint. What counts is what the app shows; a connection says something only of an app that has nodes (``nodes``).

    Args:
        desk: the issuer's.
        clients: how apps show who they are.
        proofs: what tokens are bound to.
    """

    def __init__(self, desk: Desk, clients: Clients, proofs: Proofs) -> None:
        self._desk = desk
        self._clients = clients
        self._proofs = proofs
        self._proofs_of_anybody = RateLimit(rate=_PROOFS_PER_SECOND, burst=_PROOFS, clock=desk.clock)

    async def token(self, request: Request) -> Response:
        """``POST /token``."""
        self._desk.require_door(request)
        pairs = await read_pairs(request)
        app = await self._clients.authenticate(request, pairs)
        kind = one(pairs, "grant_type")
        if kind not in GRANTS:
            raise TokenError("unsupported_grant_type", f"grant_type is one of {', '.join(GRANTS)}")
        await self._desk.registry.catch_up()  # another process may have taken away what this one still knows
        try:
            binding = await self._binding(request, app)
            answer = await GRANTS[kind](self._desk, app, pairs, binding)
        except TokenError as error:
            _tokens.labels(kind, error.code).inc()
            raise
        _tokens.labels(kind, "good").inc()
        response = json_answer(answer)
        response.headers["Pragma"] = "no-cache"  # RFC 6749 section 5.1
        if app.dpop:
            response.headers[HEADER] = self._proofs.nonce()
        return opened(response)

    async def _binding(self, request: Request, app: App) -> Binding:
        if app.public and "dpop" in request.headers:
            try:
                self._proofs_of_anybody.take(asker(request))
            except RateExceeded as error:
                raise TokenError("temporarily_unavailable", error.message, status=429) from None
        bound = await self._proofs.binding(request, needed=app.dpop)
        if app.binds:
            bound = bound._replace(node=await bound_node(self._desk, request))
        if app.nodes and (node := await node_of(self._desk, request)) is not None:
            bound = bound._replace(caller=node.stable_id)
        return bound
