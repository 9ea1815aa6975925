"""Proofs of possession (RFC 9449) as a program makes them, and as one that lies does."""

import hashlib
import itertools
from base64 import urlsafe_b64encode
from typing import Any

from tests.support import idtokens

_NUMBERS = itertools.count()


def thumbprint(algorithm: str = "ES256", number: int = 0) -> str:
    """What a token is bound to whose bearer has this key."""
    return str(idtokens.signing_key(algorithm, number).thumbprint())


def proof(
    method: str,
    address: str,
    now: float,
    *,
    token: str = "",
    algorithm: str = "ES256",
    number: int = 0,
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A good one; None takes a part away."""
    public = idtokens.signing_key(algorithm, number).as_dict(private=False)
    said: dict[str, Any] = {"jti": f"j{next(_NUMBERS)}", "htm": method, "htu": address, "iat": int(now)}
    if token:
        said["ath"] = urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    said = {name: value for name, value in (said | claims).items() if value is not None}
    head = {"typ": "dpop+jwt", "jwk": public, "kid": None} | (header or {})
    return idtokens.signed(said, algorithm, number=number, header=head)
