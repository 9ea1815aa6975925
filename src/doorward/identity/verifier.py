"""Whether an access token is good: RFC 9068 section 4, with the issuer's keys found by discovery.

The signature comes first, by the key that the token's ``kid`` names among the issuer's and with an algorithm of our choice; then
everything else. An ID token is never an access token (``typ``). Keys are kept for an hour; a token with an unknown key has
them fetched again, at most once a minute, so that nobody can make us a nuisance to the issuer with invented names.
"""

import asyncio
import re
import ssl
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from doorward.clock import Clock, SystemClock
from doorward.errors import BadInput, DoorwardError, NotPermitted, RemoteProtocolError, Unauthenticated
from doorward.identity.caller import Identity
from doorward.login.idtoken import ALGORITHMS, Keys, PublishedKey, read_keys
from doorward.transport.fetch import Fetcher

TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 section 4; compared without case
LEEWAY = 60  # seconds between the issuer's clock and ours
LARGEST = 32 << 10  # characters
KEPT = timedelta(hours=1).total_seconds()  # how long keys are not asked for again
STALE = timedelta(days=1).total_seconds()  # how long they serve while the issuer cannot be asked
AGAIN = timedelta(minutes=1).total_seconds()  # between two questions, whoever makes us ask
_DOCUMENT = 256 << 10  # bytes

_BASE64 = re.compile(r"[A-Za-z0-9_-]*")

Fetch = Callable[[str], Awaitable[bytes]]


class TokenError(Unauthenticated):
    """The token is not good; the message says why."""

    code: ClassVar[str] = "invalid_token"  # RFC 6750 section 3.1


class ScopeError(NotPermitted):
    """The token is good, and does not allow this."""

    code: ClassVar[str] = "insufficient_scope"


class Verifier:
    """Checks access tokens of one issuer.

    Args:
        issuer: its address, exactly as tokens have it; https, or http on this computer.
        audience: what a token must be for: this program's client id, or its resource's address.
        algorithms: what may have signed. RSA, ECDSA and Ed25519 are known, secrets never.
        ssl_context: whom to trust for https, such as the output of ``doorward ca``; the system's authorities by default.
        fetch: gets a body by its address; for programs with a client of their own.
        clock: the time.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        algorithms: Sequence[str] = ("ES256", "EdDSA", "RS256"),
        ssl_context: ssl.SSLContext | None = None,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
    ) -> None:
        if unknown := [name for name in algorithms if name not in ALGORITHMS]:
            raise BadInput(f"{unknown[0]!r} is none of {', '.join(ALGORITHMS)}")
        _check_address(issuer, "the issuer")
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._tls = ssl_context
        self._fetch = fetch or self._get
        self._clock = clock or SystemClock()
        self._keys: Keys = ()
        self._fetched: float | None = None  # when they came
        self._asked: float | None = None  # when they were last asked for
        self._failure: DoorwardError | None = None
        self._one = asyncio.Lock()

    async def verify(self, token: str, scopes: Sequence[str] = ()) -> Identity:
        """Who an access token speaks for.

        Raises TokenError for one that is not good, ScopeError where it lacks one of ``scopes``, and Unavailable or
        RemoteProtocolError where the issuer's keys cannot be had.
        """
        if len(token) > LARGEST or token.count(".") != 2:
            raise TokenError("the token is no signed token (a JWS of three parts)")
        head, body, signature = token.split(".")
        header = _object(head)
        algorithm, kind, kid = header.get("alg"), header.get("typ"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenError(f"the token is signed with none of {', '.join(sorted(self._algorithms))} (alg)")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise TokenError("the token is no access token (typ); expected at+jwt")
        if not isinstance(kid, str) or "crit" in header:
            raise TokenError("the token names no key (kid), or wants something that is not known here (crit)")
        key = await self._key(kid, algorithm)
        try:
            good = JWSRegistry.algorithms[algorithm].verify(
                f"{head}.{body}".encode(), _raw(signature), key.key
            )
        except (JoseError, ValueError):
            good = False
        if not good:
            raise TokenError("the token's signature is wrong")
        claims = _object(body)
        self._check(claims)
        granted = frozenset(_text(claims, "scope").split())
        if missing := [name for name in scopes if name not in granted]:
            raise ScopeError(f"the token does not allow {missing[0]}", cure="Ask the issuer for that scope.")
        return Identity(
            subject=_text(claims, "sub"),
            login=_text(claims, "preferred_username"),
            scopes=granted,
            claims=claims,
        )

    def _check(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise TokenError(f"the token is not from {self._issuer} (iss)")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise TokenError(f"the token is not for {self._audience} (aud)")
        now = self._clock.now().timestamp()
        ends, begins = claims.get("exp"), claims.get("nbf", 0)
        for value in (ends, begins):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TokenError("the token does not say how long it is good (exp, nbf)")
        if now >= ends + LEEWAY:  # type: ignore[operator]
            raise TokenError("the token is over (exp)")
        if now + LEEWAY < begins:
            raise TokenError("the token is not good yet (nbf)")
        if not _text(claims, "sub"):
            raise TokenError("the token does not say whom it speaks for (sub)")

    async def _key(self, kid: str, algorithm: str) -> PublishedKey:
        found = self._known(kid, algorithm)
        if found is None or self._age(self._fetched) >= KEPT:
            async with self._one:  # a crowd asks once
                found = self._known(kid, algorithm)
                if (found is None or self._age(self._fetched) >= KEPT) and self._age(self._asked) >= AGAIN:
                    await self._refresh()
                    found = self._known(kid, algorithm)
        if self._failure is not None and self._age(self._fetched) >= STALE:
            raise self._failure
        if found is None:
            raise TokenError("the token is signed with a key that its issuer does not publish (kid)")
        return found

    def _known(self, kid: str, algorithm: str) -> PublishedKey | None:
        kind, curve = ALGORITHMS[algorithm]
        for one in self._keys:
            fits = isinstance(one.key, kind) and (not curve or getattr(one.key, "curve_name", "") == curve)
            if one.kid == kid and fits and one.algorithm in {"", algorithm}:
                return one
        return None

    def _age(self, moment: float | None) -> float:
        return float("inf") if moment is None else self._clock.monotonic() - moment

    async def _refresh(self) -> None:
        self._asked = self._clock.monotonic()
        try:
            base = self._issuer.rstrip("/")
            about = await self._document(f"{base}/.well-known/openid-configuration")
            if about.get("issuer") != self._issuer:
                raise RemoteProtocolError(f"the metadata at {self._issuer} is another issuer's")
            place = about.get("jwks_uri")
            if not isinstance(place, str):
                raise RemoteProtocolError(f"{self._issuer} does not say where its keys are (jwks_uri)")
            _check_address(place, "the place of the issuer's keys")
            self._keys = read_keys(self._issuer, await self._fetch(place))
        except DoorwardError as error:
            self._failure = error
        else:
            self._failure, self._fetched = None, self._asked

    async def _document(self, address: str) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(await self._fetch(address))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RemoteProtocolError(f"the metadata of {self._issuer} is no JSON object")
        return found

    async def _get(self, address: str) -> bytes:
        # The address is the operator's, or signed off by it over https: private ones are what tailnets are made of.
        async with Fetcher(allow_private=True, ssl_context=self._tls) as fetcher:
            return await fetcher.get(address, limit=_DOCUMENT)


def _check_address(address: str, what: str) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    local = host in {"localhost", "127.0.0.1", "::1"}
    if not host or parts.scheme not in ({"http", "https"} if local else {"https"}):
        raise BadInput(f"{what} is not at an https address", cure="Only on this computer http will do.")


def _raw(text: str) -> bytes:
    """Base64 as RFC 7515 section 2 has it. Raises TokenError."""
    # Looked at by hand: the decoder leaves out what it does not know, and one token would have many forms.
    if not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        raise TokenError("the token cannot be decoded")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _object(part: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(_raw(part))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TokenError("a part of the token is no JSON object")
    return found


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise TokenError(f"the token's {name} is no text")
    return value
