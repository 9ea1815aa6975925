"""Secrets that people carry: auth keys, API tokens, codes of links. Pure: entropy in, text and hash out.

Each is ``KIND-ID-SECRET``: the kind tells a person (and a scanner of leaked secrets) what it is, the id tells keys apart
and may be shown, the secret is 160 random bits. Only the SHA-256 of the whole is stored. A fast hash is safe here,
because there is nothing to guess: a password needs a slow one, 160 random bits do not.
"""

import base64
import hashlib
from typing import NamedTuple

from doorward.errors import BadInput

ENTROPY = 24  # bytes that one secret needs
AUTH_KEY = "dwkey"
API_TOKEN = "dwtoken"  # noqa: S105 - the kind, not a token
_ID_BYTES = 4


class Secret(NamedTuple):
    """A new secret. ``text`` is shown once, to the person who asked for it."""

    text: str
    prefix: str
    digest: bytes


def make(kind: str, entropy: bytes) -> Secret:
    """A secret of this kind from ``ENTROPY`` random bytes."""
    if len(entropy) != ENTROPY:
        raise BadInput(f"a secret is made from {ENTROPY} random bytes")
    prefix = f"{kind}-{base32(entropy[:_ID_BYTES])}"
    text = f"{prefix}-{base32(entropy[_ID_BYTES:])}"
    return Secret(text, prefix, digest(text))


def make_code(entropy: bytes) -> Secret:
    """The code of a link: 160 random bits without a kind, since the link says what it is."""
    if len(entropy) != ENTROPY:
        raise BadInput(f"a code is made from {ENTROPY} random bytes")
    text = base32(entropy[_ID_BYTES:])
    return Secret(text, "", digest(text))


def digest(text: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(text.strip().encode()).digest()


def base32(raw: bytes) -> str:
    """Lower-case letters and digits that nobody mistakes for each other, without padding."""
    return base64.b32encode(raw).decode().rstrip("=").lower()
