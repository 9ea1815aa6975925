"""One type per key, so that a machine key can never be passed for a node key (protocol note control.md, section 2).

Public keys are values: parse, print, compare, hash. Private keys hide themselves from ``repr`` and ``str``, compare in
constant time, and are made from 32 bytes of entropy that the caller provides. Errors never repeat the text that did not
parse, because it might be a private key given by mistake.
"""

import base64
import hmac
from functools import cached_property
from typing import ClassVar, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from doorward.errors import BadInput

KEY_SIZE = 32
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _parse_hex(text: str, prefix: str, size: int) -> bytes:
    digits = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(digits) != 2 * size:
        raise BadInput(f"not a key of the form {prefix}<{2 * size} hex digits>")
    # Asked first, because ``fromhex`` skips spaces: two texts must not be the same key.
    if not _HEX_DIGITS.issuperset(digits):
        raise BadInput(f"a key of the form {prefix}<{2 * size} hex digits> holds other characters")
    return bytes.fromhex(digits)


class PublicKey:
    """32 bytes with a prefix that says whose they are. Compare and hash by value; ``str`` is the wire form."""

    __slots__ = ("raw",)
    prefix: ClassVar[str] = ""
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise BadInput(f"a key has {KEY_SIZE} bytes, not {len(raw)}")
        self.raw = raw

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<prefix><64 hex digits>``; raises BadInput, without repeating the text, for anything else."""
        return cls(_parse_hex(text, cls.prefix, KEY_SIZE))

    @classmethod
    def zero(cls) -> Self:
        """The key of 32 zero bytes: how the protocol says "none"."""
        return cls(bytes(KEY_SIZE))

    def is_zero(self) -> bool:
        """True for the key that means "none"."""
        return not any(self.raw)

    def short(self) -> str:
        """The form for logs: ``[`` + five base64 characters + ``]``."""
        return f"[{base64.b64encode(self.raw).decode()[:5]}]"

    def __str__(self) -> str:
        return self.prefix + self.raw.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short()})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)


class MachinePublic(PublicKey):
    """Identifies an installation of a client to the control server; proven by Noise."""

    __slots__ = ()
    prefix = "mkey:"


class NodePublic(PublicKey):
    """A node's WireGuard key, which is also its DERP identity."""

    __slots__ = ()
    prefix = "nodekey:"


class DiscoPublic(PublicKey):
    """A node's path-discovery key, new at each start of the client."""

    __slots__ = ()
    prefix = "discokey:"


class ChallengePublic(PublicKey):
    """The one-connection key of the early payload."""

    __slots__ = ()
    prefix = "chalpub:"


class DERPPublic(PublicKey):
    """A relay's key. Written without a prefix (protocol note derp.md, section 1)."""

    __slots__ = ()


class PrivateKey:
    """An X25519 private key. Never printed: ``repr`` and ``str`` show only the type.

    ``serialize`` is the one way out, for storage in a file of mode 0600.
    """

    prefix: ClassVar[str] = "privkey:"

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise BadInput(f"a private key has {KEY_SIZE} bytes")
        self._raw = raw

    @classmethod
    def from_entropy(cls, entropy: bytes) -> Self:
        """Make a key from 32 random bytes.

        Clamped at creation as RFC 7748 section 5 says. X25519 clamps again when used, so this changes no result; it is
        done because other programs compare or store the clamped form.
        """
        raw = bytearray(entropy)
        if len(raw) != KEY_SIZE:
            raise BadInput(f"a private key is made from {KEY_SIZE} bytes")
        raw[0] &= 248
        raw[31] = (raw[31] & 127) | 64
        return cls(bytes(raw))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``serialize`` wrote; raises BadInput without repeating the text."""
        return cls(_parse_hex(text, cls.prefix, KEY_SIZE))

    def serialize(self) -> str:
        """The storable form. A secret: only for a file of mode 0600."""
        return self.prefix + self._raw.hex()

    @property
    def raw(self) -> bytes:
        """The 32 secret bytes, for the NaCl box."""
        return self._raw

    @cached_property
    def x25519(self) -> X25519PrivateKey:
        """The key as the cryptography library wants it."""
        return X25519PrivateKey.from_private_bytes(self._raw)

    @cached_property
    def public_raw(self) -> bytes:
        """The 32 bytes of the public half."""
        return self.x25519.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def exchange(self, public_raw: bytes) -> bytes:
        """The X25519 shared secret. Raises BadInput for a public key of small order (RFC 7748 section 6.1)."""
        try:
            return self.x25519.exchange(X25519PublicKey.from_public_bytes(public_raw))
        except ValueError:
            raise BadInput("the public key cannot be used for a key exchange") from None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(other._raw, self._raw)

    def __hash__(self) -> int:
        return hash(self.public_raw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    __str__ = __repr__


class MachinePrivate(PrivateKey):
    """The private half of a machine key; also the control server's own Noise key."""

    def public(self) -> MachinePublic:
        """The public half."""
        return MachinePublic(self.public_raw)


class NodePrivate(PrivateKey):
    """The private half of a node key."""

    def public(self) -> NodePublic:
        """The public half."""
        return NodePublic(self.public_raw)


class DiscoPrivate(PrivateKey):
    """The private half of a disco key."""

    def public(self) -> DiscoPublic:
        """The public half."""
        return DiscoPublic(self.public_raw)


class ChallengePrivate(PrivateKey):
    """The private half of an early-payload challenge."""

    def public(self) -> ChallengePublic:
        """The public half."""
        return ChallengePublic(self.public_raw)


class DERPPrivate(PrivateKey):
    """A relay's private key, its own and not control's; kept across restarts."""

    def public(self) -> DERPPublic:
        """The public half."""
        return DERPPublic(self.public_raw)
