"""Keys that an operator puts into files: a DNS server's TSIG key, and an account's with an authority. Read when they are needed."""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from doorward.server.acme.faults import AcmeError

_MOST = 16 << 10  # bytes
_BIND_KEY = re.compile(
    r'\bkey\s+"?(?P<name>[A-Za-z0-9._-]+)"?\s*\{\s*algorithm\s+"?(?P<algorithm>[a-z0-9.-]+)"?\s*;'
    r'\s*secret\s+"?(?P<secret>[A-Za-z0-9+/=]+)"?\s*;\s*\}'
)
_LINE_KEY = re.compile(
    r"^(?:#\s*)?(?P<algorithm>hmac-[a-z0-9-]+):(?P<name>[A-Za-z0-9._-]+):(?P<secret>[A-Za-z0-9+/=]+)\s*$",
    re.MULTILINE,
)
_ACCOUNT_KEY = re.compile(r"[A-Za-z0-9_-]{16,1024}")


class TsigKey(NamedTuple):
    """A key that signs messages to a DNS server (RFC 8945)."""

    name: str
    algorithm: str
    secret: str

    def __repr__(self) -> str:
        return f"TsigKey({self.name}, {self.algorithm})"


def tsig_key(file: Path) -> TsigKey:
    """The key in a file: BIND's form, or a line ``ALGORITHM:NAME:SECRET``, also as a comment (Knot writes it so).

    Raises AcmeError, never with anything of the secret.
    """
    text = _read(file, "tls.acme.dns.key")
    found = _BIND_KEY.search(text) or _LINE_KEY.search(text)
    if found is None:
        raise AcmeError(
            f"there is no TSIG key in {file}",
            cure='It is: key "NAME" { algorithm hmac-sha256; secret "..."; }; as tsig-keygen writes it.',
            counts=False,
        )
    return TsigKey(found["name"], found["algorithm"], found["secret"])


def account_key(file: Path) -> str:
    """The key of an account that an authority gave out (RFC 8555 section 7.3.4), base64url without padding.

    Raises AcmeError, never with anything of the secret.
    """
    text = _read(file, "tls.acme.account.key").strip().rstrip("=")
    # A length of 4n + 1 is no base64 at all.
    if not _ACCOUNT_KEY.fullmatch(text) or len(text) % 4 == 1:
        raise AcmeError(
            f"there is no account's key in {file}",
            cure="It is one line of base64url, as the authority gave it.",
            counts=False,
        )
    return text


def _read(file: Path, setting: str) -> str:
    """The text; bytes that are none become question marks. Raises AcmeError, also where anybody may read it."""
    try:
        # Not blocking: a pipe would hang us.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as opened:
            mode = os.fstat(handle).st_mode
            content = opened.read(_MOST) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise AcmeError(
            f"the key {file} cannot be read: {error.strerror}", cure=f"Correct {setting}.", counts=False
        ) from None
    if mode & stat.S_IROTH:
        raise AcmeError(
            f"anybody may read the key {file}", cure=f"Change it, and: chmod o= {file}", counts=False
        )
    return content.decode("ascii", "replace")
