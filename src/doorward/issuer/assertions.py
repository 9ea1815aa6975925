"""An app shows who it is by signing with its key: ``private_key_jwt`` (RFC 7523 section 2.2, OpenID Connect Core section 9).

What it signs is for us, for a few minutes, and good once: what was seen on its way is worth nothing. Its keys are those that an
administrator has given, or those at an address of the app's, looked at again when it signs with one that is not known.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from doorward.errors import Conflict, DoorwardError
from doorward.issuer.desk import Desk, one
from doorward.issuer.errors import TokenError
from doorward.issuer.fetch import Fetch, Reach
from doorward.issuer.request import Pairs
from doorward.issuer.tokens import BadToken, Parts, split
from doorward.login.idtoken import ALGORITHMS, Keys, candidates, read_keys, verifies
from doorward.model import App
from doorward.store import apps
from doorward.telemetry import log

KIND = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
WINDOW = 300  # seconds that an assertion may be old, whatever it says of its end: some libraries say an hour
LEEWAY = 60  # seconds between the app's clock and ours
_LARGEST_SET = 64 << 10  # bytes
_LONGEST_ID = 200  # characters
_LATEST = 2**36  # seconds since 1970 that are a time

_log = log("issuer")


class Assertions:
    """What apps sign to show who they are.

    Args:
        desk: the issuer's.
        fetch: asks for keys that are at an address.
    """

    def __init__(self, desk: Desk, fetch: Fetch) -> None:
        self._desk = desk
        self._fetch = fetch

    async def app(self, pairs: Pairs, path: str) -> App:
        """The app that has signed this form's assertion for the endpoint at ``path``, or for the issuer.

        Raises TokenError with invalid_client.
        """
        if one(pairs, "client_assertion_type") != KIND:
            raise TokenError("invalid_request", f"client_assertion_type is {KIND}")
        try:
            parts = split(one(pairs, "client_assertion"))
        except BadToken as error:
            raise _refused(error.message) from None
        name = parts.claims.get("sub")
        if not isinstance(name, str) or parts.claims.get("iss") != name:
            raise _refused("iss and sub are both the client id")
        if one(pairs, "client_id") not in {"", name}:
            raise _refused("the form names another app than the assertion")
        app = await self._desk.app(name)
        if app is None or not app.signs:
            raise _refused("this app is not known, or shows who it is in another way")
        await self._check_signature(app, parts)
        await self._check_claims(app, parts.claims, path)
        return app

    async def _check_signature(self, app: App, parts: Parts) -> None:
        algorithm = parts.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or "crit" in parts.header:
            raise _refused(f"it is signed with one of {', '.join(ALGORITHMS)}, and nothing in it is critical")
        kid = parts.header.get("kid")
        found = candidates(await self._keys(app), algorithm, kid)
        if not found and app.keys_url:
            found = candidates(await self._keys(app, anew=True), algorithm, kid)
        if not any(verifies(algorithm, parts.signed, parts.signature, key.key) for key in found):
            raise _refused("no key of the app has signed it")

    async def _check_claims(self, app: App, claims: dict[str, Any], path: str) -> None:
        issuer, now = self._desk.issuer, self._desk.now().timestamp()
        said = claims.get("aud")
        audience = said if isinstance(said, list) else [said]
        # One that is for somebody else too could be shown here by them.
        if not audience or any(each not in (issuer, f"{issuer}/token", issuer + path) for each in audience):
            raise _refused(f"aud is {issuer} and nobody else")
        ends, made, starts = (_moment(claims, name) for name in ("exp", "iat", "nbf"))
        if ends is None:
            raise _refused("it does not say when it ends (exp)")
        if max(made or 0, starts or 0) > now + LEEWAY:
            raise _refused("it is from the future (iat, nbf): set the clocks")
        last = min(ends, ends if made is None else made + WINDOW) + LEEWAY
        if last <= now:
            raise _refused("it is over, or too old (exp, iat): set the clocks")
        if made is None and ends > now + WINDOW + LEEWAY:
            raise _refused("it does not say when it was made (iat), and is good for too long (exp)")
        number = claims.get("jti")
        if not isinstance(number, str) or not 0 < len(number) <= _LONGEST_ID:
            raise _refused(f"it has a jti of {_LONGEST_ID} characters at most, another each time")
        digest = hashlib.sha256(f"assertion {app.client_id} {number}".encode(errors="replace")).digest()
        until = datetime.fromtimestamp(last, UTC) + timedelta(seconds=1)
        try:
            await self._desk.database.run(apps.use_once, digest, self._desk.now(), until)
        except Conflict:
            raise _refused("it was shown before (jti)") from None

    # Keys -----------------------------------------------------------------------------------------------------------

    async def _keys(self, app: App, *, anew: bool = False) -> Keys:
        if app.keys:
            return _given(msgspec.json.encode({"keys": app.keys}))
        try:
            return await self._fetch.get(
                app.keys_url, _published, limit=_LARGEST_SET, reach=self._reach(app), anew=anew
            )
        except DoorwardError as error:
            _log.warning("keys of an app not read", app=app.name, url=app.keys_url, reason=error.message)
            raise TokenError(
                "temporarily_unavailable",
                f"the keys of {app.name} cannot be read at their address",
                status=503,
            ) from None

    def _reach(self, app: App) -> Reach:
        """An administrator's word leads further than an app's own."""
        named = app.brought is None or (app.is_document and self._desk.trust.knows(app.client_id))
        return Reach.GIVEN if named else Reach.OPEN


@lru_cache(maxsize=256)
def _given(encoded: bytes) -> Keys:
    return read_keys("an app", encoded)


def _published(body: bytes) -> Keys:
    return read_keys("an app", body)


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """Seconds since 1970. Raises TokenError for what is no time."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise _refused(f"{name} is no time")
    return value


def _refused(why: str) -> TokenError:
    return TokenError("invalid_client", f"client_assertion: {why}", status=401)
