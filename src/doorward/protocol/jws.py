"""The parts of a signed token in compact form (RFC 7515 section 7.1), each in the one form that it can have. Pure.

What is wrong is said by the caller's own error, made of a sentence: each caller answers another program.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import msgspec

_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


def read_bytes(part: str, what: str, refuse: Callable[[str], Exception]) -> bytes:
    """Base64 with the marks of URLs and without padding (RFC 7515 section 2).

    Args:
        part: as it stands in the token.
        what: the whole, for the error: "the token".
        refuse: makes the error that is raised for what cannot be decoded.
    """
    # Looked at by hand: the decoder leaves out what it does not know, and one token would have many forms.
    if not _BASE64.fullmatch(part) or len(part) % 4 == 1:
        raise refuse(f"{what} cannot be decoded")
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def read_object(part: str, what: str, refuse: Callable[[str], Exception]) -> dict[str, Any]:
    """A JSON object in that form; arguments and errors as of ``read_bytes``."""
    try:
        found = msgspec.json.decode(read_bytes(part, what, refuse))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise refuse(f"a part of {what} is no JSON object")
    return found
