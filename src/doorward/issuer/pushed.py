"""``/par``: an app leaves its request here, and sends a browser with nothing but its name (RFC 9126).

::

    app ──▶ /par: client authentication, the whole request judged ──▶ a name, good for a minute
    app ──▶ browser ──▶ /authorize with client_id and that name ──▶ the request, once

So nobody on the way reads or changes what was asked for, and an app that has a secret shows it before anybody is asked. The name
is bound to the app. What is wrong with the request the app is told at once.
"""

from collections.abc import Iterable
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import RateExceeded, RateLimit, json_answer
from doorward.errors import BadInput
from doorward.issuer.clients import Clients
from doorward.issuer.desk import Desk, one, opened, read_pairs
from doorward.issuer.dpop import Proofs
from doorward.issuer.errors import OAuthError, TokenError
from doorward.issuer.request import Pairs, find_target, read
from doorward.login.doors import asker
from doorward.model import App, PushedRequest
from doorward.store import apps
from doorward.tailnet import secrets

URN = "urn:ietf:params:oauth:request_uri:"  # RFC 9126 section 2.2
LIFETIME = timedelta(
    seconds=60
)  # from the app to a browser takes no longer; a page that asks has the request itself
_SHOWN = frozenset(
    ("client_id", "client_secret", "client_assertion", "client_assertion_type")
)  # how the app says who it is: not part of what waits
# Each is a row. Who has shown a secret is limited by name, far above what people do; anybody else by where they are.
_CONFIDENTIAL_PER_SECOND, _CONFIDENTIAL = 50.0, 1000.0
_PUBLIC_PER_SECOND, _PUBLIC = 1.0, 60.0


class Pushed:
    """The endpoint.

    Args:
        desk: the issuer's.
        clients: how apps show who they are.
        proofs: what a code may be bound to.
    """

    def __init__(self, desk: Desk, clients: Clients, proofs: Proofs) -> None:
        self._desk = desk
        self._clients = clients
        self._proofs = proofs
        self._known = RateLimit(rate=_CONFIDENTIAL_PER_SECOND, burst=_CONFIDENTIAL, clock=desk.clock)
        self._anybody = RateLimit(rate=_PUBLIC_PER_SECOND, burst=_PUBLIC, clock=desk.clock)

    async def push(self, request: Request) -> Response:
        """``POST /par``. Raises TokenError."""
        desk = self._desk
        desk.require_door(request)
        pairs = await read_pairs(request)
        app = await self._clients.authenticate(request, pairs)
        try:
            if app.public:
                self._anybody.take(asker(request))
            else:
                self._known.take(app.client_id)
        except RateExceeded as error:
            raise TokenError("temporarily_unavailable", error.message, status=429) from None
        wanted = [("client_id", app.client_id), *(pair for pair in pairs if pair[0] not in _SHOWN)]
        _judge(wanted, app, await desk.scopes_known(app, wanted), desk.resources(app))
        wanted = await self._bound(request, wanted)
        secret = secrets.make_code(desk.registry.writer.entropy(secrets.ENTROPY))
        draft = PushedRequest(
            id=0,
            app_id=app.id,
            secret_hash=secret.digest,
            pairs=tuple(wanted),
            expires=desk.now() + LIFETIME,
        )
        await desk.database.run(apps.insert_pushed, draft)
        answer = {"request_uri": URN + secret.text, "expires_in": int(LIFETIME.total_seconds())}
        return opened(json_answer(answer, 201))

    async def _bound(self, request: Request, wanted: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """A proof that comes along binds the code, as the parameter dpop_jkt does (RFC 9449 section 10.1)."""
        jkt = (await self._proofs.binding(request)).jkt
        said = one(wanted, "dpop_jkt")
        if jkt and said not in {"", jkt}:
            raise TokenError("invalid_dpop_proof", "dpop_jkt names another key than the proof's")
        return [*wanted, ("dpop_jkt", jkt)] if jkt and not said else wanted


def _judge(pairs: Pairs, app: App, known: frozenset[str], allowed: Iterable[str]) -> None:
    """What ``/authorize`` would say of it; it does so again, as the app may have changed by then."""
    if any(name == "request_uri" for name, _ in pairs):
        raise TokenError("invalid_request", "a request that is pushed names no other one")  # section 2.1
    try:
        read(pairs, find_target(pairs, app), known, allowed)
    except OAuthError as error:
        raise TokenError(error.code, error.message) from None
    except BadInput as error:  # no such address of the app, or it is given twice
        raise TokenError("invalid_request", error.message) from None


def is_pushed(request_uri: str) -> bool:
    """True for the name of a request that is here; any other one would be an address to fetch, which is never done."""
    return request_uri.startswith(URN)


async def take(desk: Desk, app: App, request_uri: str) -> Pairs:
    """The request with this name. Raises BadInput for one that was used, is over, or is another app's: a page says so."""
    digest = secrets.digest(request_uri.removeprefix(URN))
    found = await desk.database.run(apps.take_pushed, app.id, digest, desk.now())
    if found is None:
        raise BadInput(
            "this request to sign in is not known any more",
            cure=f"Go back to {app.name} and begin anew: a request is good once, and for a minute.",
        )
    return found.pairs
