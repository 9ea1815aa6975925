"""Whether an access token is good: RFC 9068 section 4, with the issuer's keys found by discovery.

The signature comes first, by the key that the token's ``kid`` names among the issuer's and with an algorithm of our choice; then
everything else. An ID token is never an access token (``typ``). Keys are kept for an hour; a token with an unknown key has
them fetched again, at most once a minute, so that nobody can make us a nuisance to the issuer with invented names.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from doorward.clock import Clock, SystemClock
from doorward.errors import BadInput, DoorwardError
from doorward.identity.caller import Identity
from doorward.identity.discovery import (
    AGAIN,
    KEPT,
    Fetch,
    asker,
    check_address,
    fetching,
    place_of,
    read_about,
)
from doorward.identity.needs import Needs, check
from doorward.identity.refusals import TokenError
from doorward.login.idtoken import ALGORITHMS, Keys, PublishedKey, read_keys
from doorward.protocol.jws import read_bytes, read_object

TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 section 4; compared without case
LEEWAY = 60  # seconds between the issuer's clock and ours
LARGEST = 32 << 10  # characters
NODE = (
    "https://doorward.dev/cnf/node"  # the stable id of the node that a token is bound to: ours, no standard
)
STALE = timedelta(days=1).total_seconds()  # how long they serve while the issuer cannot be asked


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
        check_address(issuer, "the issuer")
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._fetch = fetch or fetching(asker(ssl_context))
        self._clock = clock or SystemClock()
        self._keys: Keys = ()
        self._fetched: float | None = None  # when they came
        self._asked: float | None = None  # when they were last asked for
        self._failure: DoorwardError | None = None
        self._one = asyncio.Lock()

    async def verify(
        self, token: str, scopes: Sequence[str] = (), *, key: str = "", node: str = ""
    ) -> Identity:
        """Who an access token speaks for.

        Args:
            token: as it came.
            scopes: what it must allow.
            key: the thumbprint of a key that its bearer has just proven to have: the token must be bound to it.
            node: the stable id of the node that it came from, where that is known: a token bound to another is not good.

        Raises TokenError for one that is not good, ScopeError where it lacks one of ``scopes``, and Unavailable or
        RemoteProtocolError where the issuer's keys cannot be had.
        """
        if len(token) > LARGEST or token.count(".") != 2:
            raise TokenError("the token is no signed token (a JWS of three parts)")
        head, body, signature = token.split(".")
        header = read_object(head, "the token", TokenError)
        algorithm, kind, kid = header.get("alg"), header.get("typ"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenError(f"the token is signed with none of {', '.join(sorted(self._algorithms))} (alg)")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise TokenError("the token is no access token (typ); expected at+jwt")
        if not isinstance(kid, str) or "crit" in header:
            raise TokenError("the token names no key (kid), or wants something that is not known here (crit)")
        published = await self._key(kid, algorithm)
        try:
            good = JWSRegistry.algorithms[algorithm].verify(
                f"{head}.{body}".encode(), read_bytes(signature, "the token", TokenError), published.key
            )
        except (JoseError, ValueError):
            good = False
        if not good:
            raise TokenError("the token's signature is wrong")
        claims = read_object(body, "the token", TokenError)
        now = self._clock.now()
        if claims.get("iss") != self._issuer:
            raise TokenError(f"the token is not from {self._issuer} (iss)")
        check_claims(claims, self._audience, now)
        return admitted(claims, scopes, now, key=key, node=node)

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
            about = await read_about(self._issuer, self._fetch)
            place = place_of(self._issuer, about, "jwks_uri", "the place of the issuer's keys")
            self._keys = read_keys(self._issuer, await self._fetch(place))
        except DoorwardError as error:
            self._failure = error
        else:
            self._failure, self._fetched = None, self._asked


def check_claims(claims: Mapping[str, Any], audience: str, now: datetime) -> None:
    """Raise TokenError for a token that is for somebody else, not good at this time, or about nobody (RFC 9068 section 4)."""
    said = claims.get("aud")
    if audience not in (said if isinstance(said, list) else [said]):
        raise TokenError(f"the token is not for {audience} (aud)")
    ends, begins = claims.get("exp"), claims.get("nbf", 0)
    for value in (ends, begins):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TokenError("the token does not say how long it is good (exp, nbf)")
    if now.timestamp() >= ends + LEEWAY:  # type: ignore[operator]
        raise TokenError("the token is over (exp)")
    if now.timestamp() + LEEWAY < begins:
        raise TokenError("the token is not good yet (nbf)")
    if not _text(claims, "sub"):
        raise TokenError("the token does not say whom it speaks for (sub)")


def admitted(
    claims: Mapping[str, Any], scopes: Sequence[str], now: datetime, *, key: str, node: str
) -> Identity:
    """Who a token speaks for whose claims are good. Raises TokenError and ScopeError, as ``Verifier.verify``."""
    _check_binding(claims, key, node)
    who = Identity(
        subject=_text(claims, "sub"),
        login=_text(claims, "preferred_username"),
        scopes=frozenset(_text(claims, "scope").split()),
        claims=claims,
    )
    check(who, [Needs(scopes=scopes)], now)
    return who


def _check_binding(claims: Mapping[str, Any], key: str, node: str) -> None:
    """A token that is bound to something is good with that alone; a binding that is not known here is one that does not hold."""
    bound = claims.get("cnf", {})
    if not isinstance(bound, dict):
        raise TokenError("the token is bound to nothing that is known here (cnf)")
    held = {"jkt": key, NODE: node}
    for name, value in bound.items():
        if not held.get(name) or value != held[name]:
            raise TokenError("the token is bound to a key or a device, and came without it (cnf)")
    if key and "jkt" not in bound:
        raise TokenError("the token is not bound to the key of the proof (cnf)")


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise TokenError(f"the token's {name} is no text")
    return value
