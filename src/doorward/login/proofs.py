"""Whether a proof of possession is right: the ``DPoP`` header of one request, RFC 9449 section 4.3.

No I/O, no clock. What is left to who asks is what takes a memory: that a proof is good once (``number`` with ``thumbprint``),
that ``nonce`` is one that was handed out, and that the token which came along is bound to ``thumbprint``.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import msgspec

from doorward.errors import BadInput
from doorward.login.idtoken import ALGORITHMS, candidates, read_keys, verifies
from doorward.protocol.jws import read_bytes, read_object

KIND = "dpop+jwt"
# Of those that there are: what is published, and what is taken. Ed25519 has two names (RFC 9864).
PROOF_ALGORITHMS = ("ES256", "EdDSA", "Ed25519", "RS256", "PS256")
WINDOW = 300  # seconds that a proof may be older or newer than our clock
LARGEST = 8 << 10  # characters of a proof; an RSA key of 8192 bits fits
_LATEST = 2**36  # seconds since 1970 that are a time
_LONGEST = 256  # characters of a jti and of a nonce
_SECRET_PARTS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))  # RFC 7518 section 6
_DEFAULT_PORTS = {"https": 443, "http": 80}


class ProofError(BadInput):
    """A proof that proves nothing; the message says why."""

    code: ClassVar[str] = "invalid_dpop_proof"  # RFC 9449 section 5


class Proof(NamedTuple):
    """What a right proof says."""

    thumbprint: str  # of its key (RFC 7638): what ``cnf.jkt`` of a bound token has to be
    number: str  # its jti: of one key, no two requests have the same
    nonce: str  # empty where it has none
    issued: float  # seconds since 1970


def read_proof(text: str, *, method: str, address: str, now: datetime, token: str = "") -> Proof:
    """What the proof of a request says.

    Args:
        text: the header's value, of which there is one.
        method: of the request.
        address: of the request, as the one who sent it has it; its query does not count.
        now: the time.
        token: the access token that came along, to which the proof has to belong; empty where none did.

    Raises ProofError.
    """
    header, claims, signed, signature = _split(text)
    thumbprint = _check_signature(header, signed, signature)
    if claims.get("htm") != method:
        raise ProofError("the proof is for another method (htm)")
    said = claims.get("htu")
    if not isinstance(said, str) or plain_address(said) != plain_address(address):
        raise ProofError("the proof is for another address (htu)")
    issued = claims.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int | float) or not 0 <= issued < _LATEST:
        raise ProofError("the proof does not say when it was made (iat)")
    if abs(now.timestamp() - issued) > WINDOW:
        raise ProofError("the proof is too old, or from the future (iat): set the clocks")
    number, nonce = claims.get("jti"), claims.get("nonce", "")
    if not isinstance(number, str) or not 0 < len(number) <= _LONGEST:
        raise ProofError(f"the proof has a jti of {_LONGEST} characters at most, another each time")
    if not isinstance(nonce, str) or len(nonce) > _LONGEST:
        raise ProofError("the proof's nonce is none that was given out")
    if token:
        digest = urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=")
        bound = claims.get("ath")
        if not isinstance(bound, str) or not hmac.compare_digest(bound.encode(errors="replace"), digest):
            raise ProofError("the proof belongs to another access token (ath)")
    return Proof(thumbprint, number, nonce, float(issued))


def plain_address(address: str) -> tuple[str, str, int | None, str]:
    """An address as proofs are compared by: scheme, host, port and path (RFC 3986 sections 6.2.2 and 6.2.3).

    Raises ProofError for what is none.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ProofError("the proof's address is none (htu)") from None
    scheme = parts.scheme.lower()
    # Two ways to write one path are one path only as far as their percent signs go.
    path = re.sub("%[0-9a-fA-F]{2}", lambda found: found[0].upper(), parts.path or "/")
    return scheme, host, port or _DEFAULT_PORTS.get(scheme), path


def _check_signature(header: dict[str, Any], signed: bytes, signature: bytes) -> str:
    """The thumbprint of the key that has signed. Raises ProofError."""
    algorithm, key = header.get("alg"), header.get("jwk")
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower() != KIND:
        raise ProofError(f"the proof is none (typ); expected {KIND}")
    if not isinstance(algorithm, str) or algorithm not in PROOF_ALGORITHMS or "crit" in header:
        raise ProofError(f"the proof is signed with none of {', '.join(PROOF_ALGORITHMS)} (alg)")
    assert algorithm in ALGORITHMS
    if not isinstance(key, dict) or _SECRET_PARTS & key.keys():
        raise ProofError("the proof has no public key in its header (jwk), or a secret one")
    # The name and the use of a key that comes with the proof say nothing.
    bare = {name: value for name, value in key.items() if name in {"kty", "n", "e", "crv", "x", "y"}}
    found = candidates(read_keys("the proof", msgspec.json.encode({"keys": [bare]})), algorithm, None)
    if not found or not verifies(algorithm, signed, signature, found[0].key):
        raise ProofError("the proof's signature is wrong, or its key is none for it")
    return str(found[0].key.thumbprint())


def _split(text: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    parts = text.split(".")
    if len(text) > LARGEST or len(parts) != 3:
        raise ProofError("the proof is no signed token (a JWS of three parts)")
    header, claims = (read_object(one, "the proof", ProofError) for one in parts[:2])
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), read_bytes(parts[2], "the proof", ProofError)
