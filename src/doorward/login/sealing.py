"""How the client secrets of outside providers are kept: sealed, so that a copy of the database gives none of them away.

The key follows from ``noise.key``, a file beside the database that the processes of one tailnet have in common anyway. A sealed
secret belongs to its issuer: moved to another provider's row by somebody who can write the database, it does not open, and is
so never sent to an issuer that they chose.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from doorward.errors import BadInput, Unavailable

_PURPOSE = b"doorward: client secrets of outside providers"
_MARK = "sealed-1."  # so that another way of sealing can follow this one
_NONCE = 12  # bytes (RFC 8439); random ones are good for far more secrets than anybody has
_LONGEST = 2000  # characters of a secret


class Sealer:
    """Seals and opens client secrets.

    Args:
        root: 32 secret bytes, the same for all processes of a tailnet.
        entropy: random bytes.
    """

    def __init__(self, root: bytes, entropy: Callable[[int], bytes]) -> None:
        # One HMAC is enough: the root is a key already, and only another use of it is to be kept apart (RFC 5869, section 3.3).
        self._cipher = ChaCha20Poly1305(hmac.digest(root, _PURPOSE, hashlib.sha256))
        self._entropy = entropy

    def seal(self, secret: str, issuer: str) -> str:
        """The secret as it is kept; empty stays empty. Raises BadInput for what cannot be a client secret."""
        if not secret:
            return ""
        if len(secret) > _LONGEST or not secret.isprintable():
            raise BadInput(
                "this cannot be a client secret: it is too long, or no plain text",
                cure="Copy it from the provider once more.",
                place="$.client_secret",
            )
        nonce = self._entropy(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, secret.encode(), issuer.encode())
        return _MARK + urlsafe_b64encode(sealed).decode()

    def open(self, kept: str, issuer: str) -> str:
        """The secret itself. Raises Unavailable when it was sealed under another key, or for another issuer."""
        if not kept:
            return ""
        try:
            sealed = urlsafe_b64decode(kept.removeprefix(_MARK).encode() if kept.startswith(_MARK) else b"")
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], issuer.encode()).decode()
        except (InvalidTag, ValueError):
            raise Unavailable(
                f"the client secret for {issuer} was kept under another key than this server's",
                cure="Give it once more: `doorward providers change NAME --client-secret-file FILE`.",
            ) from None
