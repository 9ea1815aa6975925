"""Whether an outside provider's ID token is true. OpenID Connect Core 1.0, sections 3.1.3.6, 3.1.3.7 and 5.3.2.

No I/O, no clock: keys, the time and what is expected are arguments. A token is believed when one of the provider's published
keys has signed it, with an algorithm of ALGORITHMS that suits the key, and when issuer, audience, times, nonce and, where there
is one, the hash of the access token are right. Everything is looked at only after the signature.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from doorward.errors import NotPermitted, RemoteProtocolError
from doorward.model import Claims

# Each with the only kind of key that may be used with it: a key's text can then never serve as a password (HS*), and a
# token cannot choose how weakly it is looked at. "Ed25519" is the newer name of EdDSA with that curve (RFC 9864).
ALGORITHMS: dict[str, tuple[type[Key], str]] = {
    "RS256": (RSAKey, ""),
    "PS256": (RSAKey, ""),
    "ES256": (ECKey, "P-256"),
    "EdDSA": (OKPKey, "Ed25519"),
    "Ed25519": (OKPKey, "Ed25519"),
}
LEEWAY = timedelta(seconds=60)  # between the provider's clock and ours
MAX_AGE = timedelta(minutes=10)  # of a token that was made for this very request
MAX_TOKEN = 128 << 10  # characters; hundreds of groups fit
MAX_KEYS = 100
MAX_GROUPS = 1000  # of one person
_GOOGLE = "https://accounts.google.com"
_RSA_BITS = (2048, 8192)  # weaker is broken one day, longer costs us more than them
_WORD_MAX = 200  # characters of a name or group
_EMAIL = re.compile(r"[^\s@\x00-\x1f\"<>(),;:\\]{1,64}@[a-z0-9.-]{1,190}")
_BASE64 = re.compile(r"[A-Za-z0-9_-]*")
_SUBJECT = re.compile(r"[\x20-\x7e]{1,255}")  # Core, section 2


class UnknownKeyError(RemoteProtocolError):
    """A token is signed with a key that is not among those known; the provider may have changed its keys since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKey:
    """One key of a provider."""

    kid: str
    algorithm: str  # the only one it is for, or empty
    key: Key


Keys = tuple[PublishedKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a token has to say to be the answer to our request."""

    provider: str  # for messages
    issuer: str
    client_id: str
    nonce: str
    access_token: str = ""  # that came with it
    fresh_since: datetime | None = None  # they must have shown who they are after it


def read_keys(provider: str, body: bytes) -> Keys:
    """The signature keys of a JWK Set (RFC 7517). Keys of other kinds are left out.

    Raises RemoteProtocolError for what is no such set.
    """
    listed = _object(provider, body, "keys").get("keys")
    if not isinstance(listed, list):
        raise _lie(provider, 'sent keys without a list "keys"')
    found = (_read_key(one) for one in listed[:MAX_KEYS] if isinstance(one, dict))
    return tuple(one for one in found if one is not None)


def _read_key(jwk: dict[str, Any]) -> PublishedKey | None:
    kinds: dict[Any, tuple[type[Key], tuple[str, ...]]] = {
        "RSA": (RSAKey, ("n", "e")),
        "EC": (ECKey, ("crv", "x", "y")),
        "OKP": (OKPKey, ("crv", "x")),
    }
    said = jwk.get("kty")
    kind, names = kinds.get(said if isinstance(said, str) else None, (None, ()))
    texts = {name: jwk.get(name) for name in ("kty", *names)}
    kid, algorithm = jwk.get("kid", ""), jwk.get("alg", "")
    if kind is None or jwk.get("use", "sig") != "sig" or not isinstance(kid, str):
        return None
    if not all(isinstance(text, str) for text in (*texts.values(), algorithm)):
        return None
    if (kind, texts.get("crv", "")) not in ALGORITHMS.values():
        return None
    if kind is RSAKey and not _RSA_BITS[0] <= _bits(str(texts["n"])) <= _RSA_BITS[1]:
        return None
    try:
        # Only the public half, whatever else stands there.
        key = kind.import_key({name: str(text) for name, text in texts.items()})
    except (JoseError, ValueError, TypeError):
        return None
    return PublishedKey(kid=kid, algorithm=algorithm, key=key)


def _bits(text: str) -> int:
    """How long a number is (RFC 7518, section 2); 0 for what is none."""
    if not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        return 0
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4))).bit_length()


def check_id_token(token: str, keys: Keys, expected: Expected, now: datetime) -> dict[str, Any]:
    """What an ID token says, all of it true as far as its provider can be believed.

    Raises UnknownKeyError when no known key may have signed it, RemoteProtocolError for every lie, and NotPermitted when a fresh
    proof was asked for and this is none.
    """
    provider = expected.provider
    parts = token.split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN:
        raise _lie(provider, "sent an ID token that is no signed token (a JWS of three parts)")
    header = _object(provider, _base64(provider, parts[0]), "an ID token's header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _lie(
            provider,
            f"signed its ID token with {_shown(algorithm)}",
            cure=f"Set one of {', '.join(ALGORITHMS)} as its signature algorithm for ID tokens.",
        )
    if "crit" in header:  # RFC 7515, section 4.1.11: what must be understood and is not makes it invalid
        raise _lie(provider, "sent an ID token with extensions that are not known here")
    signed, signature = f"{parts[0]}.{parts[1]}".encode(), _base64(provider, parts[2])
    found = candidates(keys, algorithm, header.get("kid"))
    if not found:
        raise UnknownKeyError(
            f"{provider} signed its ID token with a key that it does not publish",
            cure="Try again in a minute; if it stays so, the provider is set up wrongly.",
        )
    if not any(verifies(algorithm, signed, signature, one.key) for one in found):
        raise _lie(provider, "sent an ID token whose signature is wrong")
    claims = _object(provider, _base64(provider, parts[1]), "an ID token")
    _check_claims(claims, expected, algorithm, now)
    return claims


def candidates(keys: Keys, algorithm: str, kid: Any) -> list[PublishedKey]:
    """The keys that may have signed: of the right kind, and of the name that the token gives, where it gives one."""
    kind, curve = ALGORITHMS[algorithm]
    return [
        one
        for one in keys
        if isinstance(one.key, kind)
        and (not curve or getattr(one.key, "curve_name", "") == curve)
        and one.algorithm in {"", algorithm}
        and (kid is None or one.kid == kid)
    ]


def verifies(algorithm: str, signed: bytes, signature: bytes, key: Key) -> bool:
    """True for a signature that this key has made, with one of ALGORITHMS."""
    try:
        return JWSRegistry.algorithms[algorithm].verify(signed, signature, key)
    except (JoseError, ValueError):
        return False


def _check_claims(claims: dict[str, Any], expected: Expected, algorithm: str, now: datetime) -> None:
    provider = expected.provider
    if claims.get("iss") != expected.issuer:
        raise _lie(
            provider, f"sent an ID token of {_shown(claims.get('iss'))}, expected one of {expected.issuer!r}"
        )
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if expected.client_id not in audiences:
        raise _lie(provider, "sent an ID token that is meant for another program (aud)")
    authorized = claims.get("azp")
    if authorized != expected.client_id and (authorized is not None or len(audiences) > 1):
        raise _lie(provider, "sent an ID token that was given to another program (azp)")
    _check_times(claims, provider, now)
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise _lie(provider, "sent an ID token that answers another request (nonce)")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise _lie(provider, "sent an ID token that does not say whom it is about (sub)")
    if "at_hash" in claims and expected.access_token:
        digest = hashlib.sha512 if ALGORITHMS[algorithm][0] is OKPKey else hashlib.sha256
        half = digest(expected.access_token.encode()).digest()
        half = half[: len(half) // 2]
        said = str(claims["at_hash"]).encode()
        if not hmac.compare_digest(said, urlsafe_b64encode(half).rstrip(b"=")):
            raise _lie(provider, "sent an ID token that belongs to another access token (at_hash)")
    _check_fresh(claims, expected, now)


def _check_times(claims: dict[str, Any], provider: str, now: datetime) -> None:
    cure = "Set the clocks: of this server, or of the provider's, whichever is wrong."
    made, ends = (_moment(claims, name, provider) for name in ("iat", "exp"))
    if made is None or ends is None:
        raise _lie(
            provider, "sent an ID token that does not say when it was made and how long it holds (iat, exp)"
        )
    if now >= ends + LEEWAY:
        raise _lie(provider, f"sent an ID token that was over {_seconds(now - ends)} ago", cure=cure)
    ahead = max(made, _moment(claims, "nbf", provider) or made) - now
    if ahead > LEEWAY:
        raise _lie(provider, f"sent an ID token from {_seconds(ahead)} in the future", cure=cure)
    if now - made > MAX_AGE + LEEWAY:
        raise _lie(provider, f"sent an ID token that is {_seconds(now - made)} old", cure=cure)


def _check_fresh(claims: dict[str, Any], expected: Expected, now: datetime) -> None:
    """Core, section 2: a provider that was asked for a maximal age must say when they showed who they are."""
    proven = _moment(claims, "auth_time", expected.provider)
    if proven is not None and proven > now + LEEWAY:
        raise _lie(expected.provider, "says that somebody will show only later who they are (auth_time)")
    if expected.fresh_since is None:
        return
    if proven is None:
        raise NotPermitted(
            f"{expected.provider} does not say when you last showed there who you are, so this proves nothing new",
            cure="Use a passkey for this, or have the provider send auth_time.",
        )
    if proven + LEEWAY < expected.fresh_since:
        raise NotPermitted(
            f"{expected.provider} did not ask you again who you are",
            cure="Sign out there and try again, or use a passkey.",
        )


def claims_of(
    provider: str, said: dict[str, Any], userinfo: dict[str, Any] | None, groups_claim: str
) -> Claims:
    """What is of use here: of a checked ID token, and of the answer of the userinfo endpoint where that was asked.

    The token counts more: it is signed. Raises RemoteProtocolError when userinfo is about somebody else (Core, section
    5.3.2), and when the groups cannot be told.
    """
    if userinfo is not None and userinfo.get("sub") != said["sub"]:
        raise _lie(provider, "answered about another person than the one who signed in (userinfo)")
    every = {**(userinfo or {}), **said}
    # An address and the word that it is theirs belong together: never one from here and the other from there.
    source = said if "email" in said else userinfo or {}
    address = _address(source.get("email"))
    return Claims(
        issuer=said["iss"],
        subject=said["sub"],
        email=address,
        email_verified=bool(address) and _is_verified(source) and _may_speak_for(address, said),
        name=_text(every.get("name")),
        preferred_username=_text(every.get("preferred_username")),
        groups=_groups(provider, every, groups_claim),
        auth_time=_moment(said, "auth_time", provider),
    )


def _address(value: Any) -> str:
    """An e-mail address in lower case; empty for all that is none. Nothing is mended: that could make it another's.

    Beyond ASCII, lower case makes one letter of two.
    """
    good = isinstance(value, str) and value.isascii() and _EMAIL.fullmatch(value.lower())
    return value.lower() if good else ""


def _is_verified(source: dict[str, Any]) -> bool:
    """``email_verified``; some send it as text. Entra has a claim of its own: that the domain is its owner's tenant."""
    if "email_verified" in source:
        return source["email_verified"] in (True, "true")
    return source.get("xms_edov") in (True, "1", "true")


def _may_speak_for(address: str, said: dict[str, Any]) -> bool:
    """False for an address of a domain that Google only once saw mail sent to.

    Anybody who had a mailbox there may keep a Google account of that address, verified for ever. Google itself answers for its own
    addresses, and for the domain of an organization (``hd``), as it says of these claims.
    """
    domain = address.rpartition("@")[2]
    return said["iss"] != _GOOGLE or domain == "gmail.com" or said.get("hd") == domain


def _groups(provider: str, every: dict[str, Any], claim: str) -> tuple[str, ...]:
    listed = every.get(claim)
    elsewhere = every.get("_claim_names")
    if listed is None and isinstance(elsewhere, dict) and claim in elsewhere:
        # Core, section 5.6.2. To take it as "in no group" would take access away from those who are in many.
        raise _lie(
            provider,
            "has more groups to tell than fit into its token",
            cure="Have it send only the groups that are assigned to this application.",
        )
    texts = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
    if len(texts) > MAX_GROUPS:
        raise _lie(
            provider,
            f"says that somebody is in {len(texts)} groups; at most {MAX_GROUPS} can be used",
            cure="Have it send only the groups that matter here.",
        )
    # One that does not fit is left out whole: cut short, it could be another's name.
    fitting = {text for text in texts if isinstance(text, str) and 0 < len(text) <= _WORD_MAX}
    return tuple(sorted(text for text in fitting if text.isprintable() and text == text.strip()))


def _text(value: Any) -> str:
    """A claim for people: one line, not endless."""
    if not isinstance(value, str):
        return ""
    return "".join(mark for mark in value[: _WORD_MAX * 2] if mark.isprintable()).strip()[:_WORD_MAX]


def _moment(claims: dict[str, Any], name: str, provider: str) -> datetime | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**36:
        raise _lie(provider, f"sent an ID token whose {name} is no time")
    return datetime.fromtimestamp(value, UTC)


def _base64(provider: str, text: str) -> bytes:
    # With the marks of URLs only, and without padding (RFC 7515, section 2).
    if not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        raise _lie(provider, "sent an ID token that cannot be decoded")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _object(provider: str, body: bytes, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _lie(provider, f"sent {what} that is no JSON object")
    return found


def _shown(value: Any) -> str:
    return repr(_text(value)) if isinstance(value, str) else "nothing that is a name"


def _seconds(span: timedelta) -> str:
    return f"{int(span.total_seconds())} seconds"


def _lie(provider: str, what: str, *, cure: str = "") -> RemoteProtocolError:
    return RemoteProtocolError(
        f"{provider} {what}",
        cure=cure or "Nothing was changed. Sign in another way, and tell whoever runs that provider.",
    )
