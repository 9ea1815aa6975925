"""ID tokens as an outside provider makes them, and as one that lies does."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://id.example.com"
CLIENT = "doorward"
NONCE = "a nonce"
NOW = 1_800_000_000  # seconds since 1970


@cache
def signing_key(algorithm: str, number: int) -> Key:
    """A key for an algorithm; another one for each number. Made once: RSA takes long."""
    del number
    if algorithm in {"RS256", "PS256"}:
        return RSAKey.generate_key(2048)
    if algorithm == "ES256":
        return ECKey.generate_key("P-256")
    if algorithm in {"EdDSA", "Ed25519"}:
        return OKPKey.generate_key("Ed25519")
    return OctKey.import_key(b"s" * 32)


def jwk(algorithm: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """The public half, as a provider publishes it."""
    kid = f"{algorithm}-{number}"
    return {**signing_key(algorithm, number).as_dict(private=False), "kid": kid, "use": "sig"} | more


def jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(now: int = NOW, **more: Any) -> dict[str, Any]:
    """Good ones; None takes one away."""
    good = {"iss": ISSUER, "sub": "s1", "aud": CLIENT, "iat": now - 1, "exp": now + 300, "nonce": NONCE}
    return {name: value for name, value in {**good, **more}.items() if value is not None}


def signed(
    said: Any,
    algorithm: str = "ES256",
    *,
    number: int = 0,
    header: Mapping[str, Any] | None = None,
    key: Key | None = None,
) -> str:
    """A token. ``header`` replaces parts of the header; "none" is signed by nothing."""
    head = {"alg": algorithm, "kid": f"{algorithm}-{number}"} | dict(header or {})
    head = {name: value for name, value in head.items() if value is not None}
    text = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(said).encode())}"
    if algorithm == "none":
        return f"{text}."
    signer = key or signing_key(algorithm, number)
    signature = JWSRegistry.algorithms[algorithm].sign(text.encode(), signer)
    return f"{text}.{_base64(signature)}"


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def seconds_now() -> int:
    return int(time.clock_gettime(time.CLOCK_REALTIME))
