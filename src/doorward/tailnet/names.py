"""What nodes and people are called: a hostname as the client gave it becomes a DNS label, unique in its tailnet."""

import re
from collections.abc import Callable

from doorward.errors import BadInput

LABEL_MAX = 63
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_FALLBACK = "node"
_USER = re.compile(r"[a-z0-9][a-z0-9._+-]{0,62}(@[a-z0-9][a-z0-9.-]{0,250})?")


def label_of(hostname: str) -> str:
    """A DNS label (RFC 1035 section 2.3.1) for any text: lower-case letters, digits and inner hyphens, at most 63.

    Only the first part of a dotted name counts. Text with nothing usable in it becomes ``node``.
    """
    first = hostname.strip().lower().removesuffix(".local").split(".", 1)[0]
    kept = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9]+", "-", first)).strip("-")
    return kept[:LABEL_MAX].strip("-") or _FALLBACK


def check_label(name: str) -> str:
    """The name an administrator chose, lower-cased; raises BadInput when it is no DNS label."""
    lowered = name.strip().lower()
    if not _LABEL.fullmatch(lowered):
        raise BadInput(
            f"{name!r} cannot be a node's name",
            cure="Use 1 to 63 letters, digits and hyphens, neither first nor last a hyphen.",
        )
    return lowered


def unique(base: str, taken: Callable[[str], bool]) -> str:
    """``base``, or the first of ``base-1``, ``base-2`` ... that is not taken, shortened so that it stays a label."""
    if not taken(base):
        return base
    number = 1
    while True:
        suffix = f"-{number}"
        candidate = base[: LABEL_MAX - len(suffix)].rstrip("-") + suffix
        if not taken(candidate):
            return candidate
        number += 1


def user_name(text: str) -> str:
    """A login name as it is kept, lower-cased; raises BadInput when it cannot be one."""
    lowered = text.strip().lower()
    if not _USER.fullmatch(lowered):
        raise BadInput(
            f"{text!r} cannot be a user's name",
            cure="Use lower-case letters, digits, '.', '_', '+', '-', and a domain after '@' if you like.",
        )
    return lowered
