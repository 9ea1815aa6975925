"""An authenticator in software: makes passkeys and signs with them, as a browser and a security key do together.

It does what WebAuthn says, and on demand what it forbids, so that a test can see it refused.
"""

import base64
import hashlib
import json
import os
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Authenticator:
    """One device; ``flags`` and ``origin`` may be made to lie."""

    def __init__(self) -> None:
        self.keys: dict[bytes, tuple[str, ec.EllipticCurvePrivateKey]] = {}
        self.count = 0
        self.flags = PRESENT | VERIFIED

    def make(self, options: dict[str, Any], origin: str) -> str:
        """The answer to ``navigator.credentials.create``."""
        credential, key, place = os.urandom(16), ec.generate_private_key(ec.SECP256R1()), options["rp"]["id"]
        self.keys[credential] = (place, key)
        numbers = key.public_key().public_numbers()
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)})
        attested = bytes(16) + len(credential).to_bytes(2) + credential + public
        data = self._data(place, self.flags | ATTESTED) + attested
        return self._answer(
            credential,
            {
                "attestationObject": text(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
                "clientDataJSON": text(self._client_data("webauthn.create", options, origin)),
                "transports": ["internal", "strange"],
            },
        )

    def sign(self, options: dict[str, Any], origin: str, credential: bytes | None = None) -> str:
        """The answer to ``navigator.credentials.get``, with the given passkey or the first that is asked for."""
        wanted = [raw(one["id"]) for one in options["allowCredentials"]]
        chosen = credential or next(one for one in self.keys if one in wanted or not wanted)
        self.count += 1
        data = self._data(options["rpId"], self.flags)
        client = self._client_data("webauthn.get", options, origin)
        signed = self.keys[chosen][1].sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer(
            chosen,
            {
                "authenticatorData": text(data),
                "clientDataJSON": text(client),
                "signature": text(signed),
                "userHandle": None,
            },
        )

    def _data(self, place: str, flags: int) -> bytes:
        return hashlib.sha256(place.encode()).digest() + bytes([flags]) + self.count.to_bytes(4)

    def _client_data(self, kind: str, options: dict[str, Any], origin: str) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _answer(self, credential: bytes, response: dict[str, Any]) -> str:
        return json.dumps(
            {
                "id": text(credential),
                "rawId": text(credential),
                "type": "public-key",
                "clientExtensionResults": {},
                "response": response,
            }
        )
