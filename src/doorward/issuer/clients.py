"""Which app is calling, and that it is: RFC 6749 section 2.3.

A confidential app shows its secret, in the Authorization header or in the form and never in both, or signs with its key, or runs on a node of its own (``nodes``). A public one says its name, which
proves nothing: what it may have, it has by PKCE and by tokens that are exchanged once.
"""

import base64
import binascii
import hmac
from urllib.parse import unquote_plus

from starlette.requests import Request

from doorward.asgi import RateExceeded, RateLimit
from doorward.issuer.assertions import Assertions
from doorward.issuer.desk import Desk, one
from doorward.issuer.errors import TokenError
from doorward.issuer.nodes import app_of, by_node
from doorward.issuer.request import Pairs
from doorward.login.doors import asker
from doorward.model import App
from doorward.tailnet import secrets

_LONGEST = 2000  # characters of a header
# Nobody guesses 160 bits; the limit keeps those who try out of the database.
_FAILURES_PER_SECOND, _FAILURES = 0.5, 30.0


class Clients:
    """How apps show who they are.

    Args:
        desk: the issuer's.
        assertions: what apps sign.
    """

    def __init__(self, desk: Desk, assertions: Assertions) -> None:
        self._desk = desk
        self._assertions = assertions
        self._failures = RateLimit(rate=_FAILURES_PER_SECOND, burst=_FAILURES, clock=desk.clock)

    async def authenticate(self, request: Request, pairs: Pairs) -> App:
        """The app that sent this form. Raises TokenError with invalid_client, and for credentials given in two ways."""
        try:
            self._failures.check(asker(request))
        except RateExceeded as error:
            raise TokenError("temporarily_unavailable", error.message, status=429) from None
        if by_node(request):
            return await self._by_node(request, pairs)
        header = request.headers.get("authorization", "")
        named, secret = one(pairs, "client_id"), one(pairs, "client_secret")
        if any(one(pairs, name) for name in ("client_assertion", "client_assertion_type")):
            if header or secret:
                raise TokenError("invalid_request", "the app shows who it is in two ways")
            try:
                return await self._assertions.app(pairs, request.url.path)
            except TokenError:
                self._failures.take(asker(request))
                raise
        if header:
            if secret:
                raise TokenError("invalid_request", "the app shows its secret in two ways")
            by_header = _basic(header)
            if named and named != by_header[0]:
                raise TokenError("invalid_request", "the form names another app than the header")
            named, secret = by_header
        app = await self._desk.app(named)
        if app is not None and app.public and not secret and not header:
            return app
        # A public app's empty hash is no digest, so it equals none.
        if (
            app is None
            or app.signs
            or app.nodes
            or not hmac.compare_digest(secrets.digest(secret), app.secret_hash)
        ):
            self._failures.take(asker(request))
            raise _refused(header)
        return app

    async def _by_node(self, request: Request, pairs: Pairs) -> App:
        others = ("client_secret", "client_assertion", "client_assertion_type")
        if "authorization" in request.headers or any(one(pairs, name) for name in others):
            raise TokenError("invalid_request", "the app shows who it is in two ways")
        try:
            return await app_of(self._desk, request, one(pairs, "client_id"))
        except TokenError:
            self._failures.take(asker(request))
            raise


def _basic(header: str) -> tuple[str, str]:
    """Name and secret (RFC 6749 section 2.3.1: each form-encoded, then Basic)."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > _LONGEST:
        raise _refused(header)
    try:
        name, colon, secret = base64.b64decode(text.strip(), validate=True).decode("ascii").partition(":")
        if not colon:
            raise _refused(header)
        return unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict")
    except (binascii.Error, UnicodeDecodeError):
        raise _refused(header) from None


def _refused(header: str) -> TokenError:
    challenge = 'Basic realm="doorward"' if header else ""
    return TokenError(
        "invalid_client", "this app is not known, or its secret is wrong", status=401, challenge=challenge
    )
