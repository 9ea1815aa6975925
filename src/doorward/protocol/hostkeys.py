"""Host keys of ssh as people and programs write them: ``ssh-ed25519 AAAA... comment`` (RFC 4253, section 6.6; RFC 8709)."""

import base64
import binascii
import hashlib
from typing import Final

from doorward.errors import BadInput

KINDS: Final = frozenset(
    {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}
)
MOST: Final = 8192  # characters of a line; an RSA key of 16384 bits has 2,800


def parse_host_key(text: str) -> str:
    """One key without its comment, and without what ``known_hosts`` files have before it. Raises BadInput."""
    if len(text) > MOST:
        raise BadInput(f"a host key has at most {MOST} characters")
    words = text.split()
    kind = next((number for number, word in enumerate(words) if word in KINDS), None)
    if kind is None or kind + 1 >= len(words):
        raise BadInput(
            "this is no host key of ssh",
            cure="Write it as the host has it in /etc/ssh/ssh_host_ed25519_key.pub: ssh-ed25519 AAAA...",
        )
    name, body = words[kind], words[kind + 1]
    try:
        raw = base64.b64decode(body.encode(), validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    size = int.from_bytes(raw[:4])
    if raw[4 : 4 + size] != name.encode() or len(raw) < 4 + size + 8:
        raise BadInput(f"what follows {name} is no such key", cure="Was it copied whole?")
    return f"{name} {base64.b64encode(raw).decode()}"


def fingerprint(key: str) -> str:
    """``SHA256:...``, as ``ssh-keygen -l`` shows a key that `parse_host_key` gave."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
