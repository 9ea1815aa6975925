"""Proofs of possession (RFC 9449), as an app makes them, by code that shares nothing with the server's."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key

_numbers = count(1)


def _ec() -> Key:
    return ECKey.generate_key("P-256")


@dataclass
class Prover:
    """A key of an app."""

    key: Key = field(default_factory=_ec)
    algorithm: str = "ES256"
    nonce: str = ""  # the server's last word

    @property
    def jkt(self) -> str:
        """RFC 7638, by hand."""
        public = self.key.as_dict(private=False)
        names = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
        text = json.dumps({name: public[name] for name in names[str(public["kty"])]}, separators=(",", ":"))
        return text_of(hashlib.sha256(text.encode()).digest())

    def proof(
        self,
        now: datetime,
        address: str,
        method: str = "POST",
        *,
        token: str = "",
        header: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A proof; None takes a claim out."""
        public = self.key.as_dict(private=False)
        jwk = {name: public[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in public}
        claims = {
            "jti": f"proof {next(_numbers)}",
            "htm": method,
            "htu": address,
            "iat": int(now.timestamp()),
        }
        if token:
            claims["ath"] = text_of(hashlib.sha256(token.encode()).digest())
        if self.nonce:
            claims["nonce"] = self.nonce
        said = {name: value for name, value in (claims | changes).items() if value is not None}
        head = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": jwk} | (header or {})
        head = {name: value for name, value in head.items() if value is not None}
        return signed(head, said, self.key)


def signed(header: dict[str, Any], claims: dict[str, Any], key: Key) -> str:
    """A JWS with any header."""
    text = f"{_json(header)}.{_json(claims)}"
    algorithm = jws.JWSRegistry.algorithms[header["alg"]]
    return f"{text}.{text_of(algorithm.sign(text.encode(), key))}"


def _json(value: dict[str, Any]) -> str:
    return text_of(json.dumps(value).encode())


def text_of(raw: bytes) -> str:
    """Base64 as RFC 7515 has it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
