"""A daemon's LocalAPI that says what a test has it say."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OWN_KEY = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAA="


def status(*peers: dict[str, Any], **tailnet: Any) -> dict[str, Any]:
    """A tailnet called tail.net with this node ``me`` and peers."""
    own = {"DNSName": "me.tail.net.", "TailscaleIPs": ["100.64.0.1"], "sshHostKeys": [OWN_KEY]}
    return {
        "Self": own,
        "CurrentTailnet": {"MagicDNSSuffix": "tail.net", "MagicDNSEnabled": True, **tailnet},
        "Peer": {f"nodekey:{number}": peer for number, peer in enumerate(peers)},
    }


def peer(name: str, *keys: Any, addresses: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "DNSName": name,
        "HostName": "whatever",
        "TailscaleIPs": list(addresses),
        "sshHostKeys": list(keys),
    }


@contextmanager
def daemon(folder: Path, answer: bytes, times: int = 1) -> Iterator[Path]:
    """A socket on which somebody answers so often."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for _ in range(times):
                accepted, _ = listener.accept()
                with accepted:
                    accepted.recv(4096)
                    accepted.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join(10)


def answered(body: object, code: int = 200) -> bytes:
    return f"HTTP/1.0 {code} X\r\nContent-Type: application/json\r\n\r\n{json.dumps(body)}".encode()
