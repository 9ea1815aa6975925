"""Host keys of ssh, as a person, a file or a page says them; and where a tab says that it comes from."""

from tests.fuzz.feeding import argument_of, feed

from doorward.errors import DoorwardError
from doorward.protocol.hostkeys import fingerprint, parse_host_key
from doorward.protocol.keys import NodePublic

COVERS = (
    "protocol.hostkeys:fingerprint",
    "protocol.hostkeys:parse_host_key",
)
LIMIT = 16 << 10
_ED25519 = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
SEEDS = (
    _ED25519,
    b"host,192.0.2.1 " + _ED25519 + b" root@host\n",
    b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAAAA",
    b"ssh-rsa AAAAB3NzaC1yc2E=",
    b"nodekey:" + b"0f" * 32,
)


def _read(text: str) -> None:
    key = parse_host_key(text)
    assert parse_host_key(key) == key
    assert fingerprint(key).startswith("SHA256:")


def fuzz(data: bytes) -> None:
    """Read it as a key; what is one is one again as it is kept."""
    feed(argument_of(data), _read, NodePublic.parse, refusal=DoorwardError)
