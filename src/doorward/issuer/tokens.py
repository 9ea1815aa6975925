"""Signed tokens: made, and read again. RFC 7515, RFC 9068, OpenID Connect Core section 2.

An access token and an ID token differ in ``typ``, and neither is ever taken for the other. What reads a token looks at
its signature first, with the key that its ``kid`` names among ours and the one algorithm that this key is for.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from doorward.errors import NotPermitted
from doorward.issuer.keys import Ring
from doorward.model import App, AppGrant

ACCESS = timedelta(minutes=5)
ID = timedelta(minutes=5)
LARGEST = 16 << 10  # characters of a token of ours that is read
ACCESS_TYPE = "at+jwt"  # RFC 9068 section 2.1
ID_TYPE = "JWT"


class BadToken(NotPermitted):
    """This is no token of ours, or none of the kind that is wanted."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the token is not good: {why}")


class Access(NamedTuple):
    """What an access token of ours says."""

    client_id: str
    subject: str
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    grant_id: int  # 0: the app's own, for no person
    issued: int
    expires: int
    claims: Mapping[str, Any]


def sign(ring: Ring, algorithm: str, kind: str, claims: Mapping[str, Any]) -> str:
    """A token in compact form."""
    key = ring.signing[algorithm]
    header = _encode({"alg": algorithm, "kid": key.kid, "typ": kind})
    signed = f"{header}.{_encode(claims)}"
    signature = JWSRegistry.algorithms[algorithm].sign(signed.encode(), key.key)
    return f"{signed}.{_text(signature)}"


def access_claims(
    ring: Ring,
    issuer: str,
    app: App,
    *,
    random: str,
    now: datetime,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    grant: AppGrant | None = None,
    extra: Mapping[str, Any] | None = None,
    last: int | None = None,
) -> dict[str, Any]:
    """What an access token says (RFC 9068 section 2.2): for a person by their grant, or for the app itself.

    ``last``: when it is over at the latest, in seconds since 1970.
    """
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        **(extra or {}),
        "iss": issuer,
        "sub": app.client_id if grant is None else ring.subject(grant.user_id),
        "aud": _audience(app, resources),
        "exp": min(issued + int(ACCESS.total_seconds()), last or 2**53),
        "iat": issued,
        # Which grant it came of is in its number, so that it ends with it.
        "jti": f"{0 if grant is None else grant.id}.{random}",
        "client_id": app.client_id,
        "scope": " ".join(scopes),
    }
    if grant is not None:
        claims |= {
            "auth_time": int(grant.auth_time.timestamp()),
            "acr": grant.acr,
            "amr": list(grant.amr),
            "sid": grant.sid,
        }
    return claims


def id_token(
    ring: Ring, issuer: str, app: App, grant: AppGrant, access: str, now: datetime, extra: Mapping[str, Any]
) -> str:
    """An ID token (Core section 2), bound to the access token that goes with it (section 3.1.3.6)."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        **extra,
        "iss": issuer,
        "sub": ring.subject(grant.user_id),
        "aud": app.client_id,
        "exp": issued + int(ID.total_seconds()),
        "iat": issued,
        "auth_time": int(grant.auth_time.timestamp()),
        "acr": grant.acr,
        "amr": list(grant.amr),
        "sid": grant.sid,
        "at_hash": half_hash(app.algorithm, access),
    }
    if grant.nonce:
        claims["nonce"] = grant.nonce
    return sign(ring, app.algorithm, ID_TYPE, claims)


def half_hash(algorithm: str, text: str) -> str:
    """The left half of a hash (Core section 3.1.3.6); with Ed25519 the hash is SHA-512."""
    digest = (hashlib.sha512 if algorithm == "EdDSA" else hashlib.sha256)(text.encode()).digest()
    return _text(digest[: len(digest) // 2])


class Parts(NamedTuple):
    """A signed token, taken apart. Nothing that it says is true yet."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def split(token: str) -> Parts:
    """A token's parts (RFC 7515 section 3.1). Raises BadToken."""
    parts = token.split(".")
    if len(token) > LARGEST or len(parts) != 3:
        raise BadToken("it is no signed token")
    return Parts(_decode(parts[0]), _decode(parts[1]), f"{parts[0]}.{parts[1]}".encode(), _raw(parts[2]))


def read(ring: Ring, token: str, kind: str) -> dict[str, Any]:
    """What a token of ours says, of whatever age. Raises BadToken."""
    header, claims, signed, signature = split(token)
    kid = header.get("kid")
    key = ring.verifying.get(kid) if isinstance(kid, str) else None
    if key is None or header.get("alg") != key.algorithm or header.get("typ") != kind or "crit" in header:
        raise BadToken("it is not ours, or of another kind")
    try:
        good = JWSRegistry.algorithms[key.algorithm].verify(signed, signature, key.key)
    except (JoseError, ValueError):
        good = False
    if not good:
        raise BadToken("its signature is wrong")
    return claims


def access_of(claims: Mapping[str, Any], issuer: str, now: datetime) -> Access:
    """What the claims of an access token of ours say, while it is good by itself. Raises BadToken."""
    # Made by us, so of our form; another issuer's claim would mean that the door has another name now.
    if claims["iss"] != issuer:
        raise BadToken("it is from another door")
    if claims["exp"] <= now.timestamp():
        raise BadToken("it is over")
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    return Access(
        client_id=claims["client_id"],
        subject=claims["sub"],
        audience=tuple(audience),
        scopes=tuple(claims["scope"].split()),
        grant_id=int(claims["jti"].partition(".")[0]),
        issued=claims["iat"],
        expires=claims["exp"],
        claims=claims,
    )


def _audience(app: App, resources: tuple[str, ...]) -> str | list[str]:
    if not resources:
        return app.client_id
    return resources[0] if len(resources) == 1 else list(resources)


def _encode(value: Any) -> str:
    return _text(msgspec.json.encode(value))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _raw(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise BadToken("it cannot be decoded") from None


def _decode(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_raw(text), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadToken("it cannot be decoded") from None
