"""The host keys that a node of the tailnet published, as lines of a known_hosts file: what ``ssh`` asks at each connection.

``ssh`` runs this up to three times before it connects, so it loads nothing but four modules of the standard library, and
``doorward.cli.main`` looks here before it loads any other command. It asks the daemon of this machine, which has what nodes published
from control, and believes names and addresses that control gave; what a host calls itself does not count.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator

DEFAULT_SOCKET = "/var/run/tailscale/tailscaled.sock"
PORT = 22  # where nodes run the SSH server whose keys they publish; another port is another program's
COMMAND = ("ssh", "known-hosts")  # how this is called: ... [--socket=PATH] [--port=PORT] [--quiet] -- HOST
# The kinds that a stock node has. Nothing else may get into a known_hosts file: there, "@cert-authority" is a word, too.
KINDS = frozenset(
    {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}
)
_REQUEST = b"GET /localapi/v0/status HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n"
_PATIENCE = 5.0  # seconds until the next bytes; a person waits for their shell
_LIMIT = 256 * 1024 * 1024  # bytes; ten thousand nodes take some 20 MB
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def quick(arguments: list[str]) -> int | None:
    """Run a command line if it is one that `doorward ssh setup` wrote; its exit code, or None if it is any other."""
    if tuple(arguments[:2]) != COMMAND or len(arguments) < 4 or arguments[-2] != "--":
        return None
    path, port, quiet = DEFAULT_SOCKET, str(PORT), False
    for option in arguments[2:-2]:
        if option == "--quiet":
            quiet = True
        elif option.startswith("--port="):
            port = option.removeprefix("--port=")
        elif option.startswith("--socket="):
            path = option.removeprefix("--socket=")
        else:
            return None
    return show(arguments[-1], path, port, quiet=quiet)


def show(host: str, path: str, port: str, *, quiet: bool) -> int:
    """Print the lines for a host; 0 if there are any, else 1. What went wrong is said on stderr, unless ``quiet``."""
    if port != str(PORT):
        if not quiet:
            sys.stderr.write(f"doorward: nodes publish the keys of port {PORT}, and of no other\n")
        return 1
    try:
        found = lines(host, read_status(path))
    except (OSError, ValueError, RecursionError) as error:
        if not quiet:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            sys.stderr.write(f"doorward: tailscaled does not answer at {path}: {reason}\n")
        return 1
    sys.stdout.write("".join(found))
    if not found and not quiet:
        sys.stderr.write(f"doorward: no node called {host!r} has published host keys\n")
    return 0 if found else 1


def read_status(path: str) -> object:
    """What the daemon at a socket says of the tailnet. Raises OSError, ValueError or RecursionError."""
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.settimeout(_PATIENCE)
        daemon.connect(os.fspath(path))
        daemon.sendall(_REQUEST)
        said = bytearray()
        while part := daemon.recv(1 << 18):
            said += part
            if len(said) > _LIMIT:
                raise ValueError("it answers more than any tailnet has")
    head, _, body = bytes(said).partition(b"\r\n\r\n")
    if head.split(b" ")[1:2] != [b"200"]:
        raise ValueError("it refused")
    return json.loads(body)


def lines(host: str, status: object) -> list[str]:
    """The lines for a host as ``ssh`` looks it up: NAME, ADDRESS or ``[NAME]:PORT``, whose words the lines repeat."""
    asked = host
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    wanted = host.rstrip(".").lower()
    # The name stands in a file where a blank or a comma begins something else.
    if not wanted or not asked.isascii() or not asked.isprintable():
        return []
    if not all(c.isalnum() or c in "-._:" for c in wanted):
        return []
    packed = _packed(wanted)
    for name, addresses, keys in _nodes(status):
        if wanted in name or (packed is not None and packed in map(_packed, addresses)):
            return [f"{asked} {key}\n" for key in keys]
    return []


def _nodes(status: object) -> Iterator[tuple[tuple[str, ...], list[str], list[str]]]:
    """Names, addresses and host keys of this node and of those that it sees."""
    if not isinstance(status, dict):
        return
    tailnet, peers = status.get("CurrentTailnet"), status.get("Peer")
    tailnet = tailnet if isinstance(tailnet, dict) else {}
    # Without MagicDNS a short name leads wherever the network at hand says.
    suffix = _text(tailnet.get("MagicDNSSuffix")) if tailnet.get("MagicDNSEnabled") is not False else ""
    every = peers.values() if isinstance(peers, dict) else ()
    for node in (status.get("Self"), *every):
        if not isinstance(node, dict):
            continue
        keys = [key for each in _list(node.get("sshHostKeys")) if (key := plain_key(each))]
        name = _text(node.get("DNSName"))
        if not keys or not name:
            continue
        short = name.removesuffix(f".{suffix}") if suffix else name
        yield (name, short), [_text(each) for each in _list(node.get("TailscaleIPs"))], keys


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value.rstrip(".").lower() if isinstance(value, str) else ""


def plain_key(published: object) -> str:
    """The key as ``KIND BASE64``; empty for what is none. A node chooses this text, so nothing of it is taken on trust."""
    parts = published.split() if isinstance(published, str) else []
    if len(parts) < 2 or parts[0] not in KINDS:
        return ""
    body = parts[1].rstrip("=")
    if not body.isascii() or not body.replace("+", "").replace("/", "").isalnum():
        return ""
    return f"{parts[0]} {parts[1]}"


def _packed(text: str) -> bytes | None:
    """An address whose spelling no longer counts; None for a name."""
    for family in _FAMILIES:
        try:
            return socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
    return None
