"""The parent of ``doorward relay``: a relay without a store, in one process or several. It loads nothing of what a shard needs.

::

    parent: the sockets ──▶ shard 0 ◀── mesh over Unix sockets ──▶ shard 1 ...
                               │                                      │
                               └── clients, spread by the kernel ─────┘

The shards of one relay share its address (SO_REUSEPORT) and its key, so they are one relay to everybody, and pass packets
to each other as the relays of a region do. The parent holds every socket: a shard that dies is back soon, and who comes
meanwhile waits. It tells them a mesh key of their own, made at each start.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import msgspec

from doorward.config import socket_path, split_listen
from doorward.config.check import is_dns_name
from doorward.errors import BadInput, Conflict
from doorward.server.sockets import bind_shared, bind_unix
from doorward.server.supervisor import MOST_POSTS, Post, Supervisor
from doorward.telemetry import configure

RELAY, STUN, LOCAL = "relay", "stun", "local"


class RelayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    folder: Path  # the relay's own: its key and its certificate
    hostname: str  # a name or an IP address, as clients reach it
    listen: str  # HOST:PORT, TLS
    stun: str = ""  # HOST:PORT, UDP; empty: none
    certificate: Path | None = None
    certificate_key: Path | None = None
    key_file: Path | None = None
    verify_url: str = ""
    fail_open: bool = False
    verify_every: float = 300.0  # seconds between two questions about a node that is connected
    admit_anyone: bool = False
    mesh_key_file: Path | None = None
    mesh_with: tuple[str, ...] = ()
    shards: int = 1
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def check(self) -> None:
        """Raises BadInput for what cannot be, or could not be meant."""
        self.check_hostname()
        if (self.certificate is None) != (self.certificate_key is None):
            raise BadInput("a certificate and its key belong together", cure="Give both, or neither.")
        if bool(self.verify_url) == self.admit_anyone:
            raise BadInput(
                "it is not said whom the relay admits",
                cure="Give --verify-url with the address of control's /verify, or --admit-anyone, not both.",
            )
        if self.verify_url and not self.verify_url.startswith(("http://", "https://")):
            raise BadInput("--verify-url is no http or https address")
        if self.verify_every < 1:
            raise BadInput(
                "control would be asked without a pause", cure="Give --verify-every a second or more."
            )
        if self.mesh_with and self.mesh_key_file is None:
            raise BadInput("relays mesh by a key that they share", cure="Give --mesh-key-file, too.")
        if not 1 <= self.shards <= MOST_POSTS:
            raise BadInput(f"a relay has 1 to {MOST_POSTS} shards, not {self.shards}")
        if self.shards > 1 and self.mesh_key_file is not None:
            # Who dials a sharded relay reaches any one of its shards, and would see a part of its clients.
            raise BadInput(
                "a relay of several shards cannot mesh with other machines",
                cure="Make it a region of its own, or give it one shard.",
            )

    def check_hostname(self) -> None:
        """Raises BadInput for what is neither a DNS name nor an IP address: a certificate is made for it."""
        try:
            known = "%" not in str(ip_address(self.hostname))  # a zone means something on one machine only
        except ValueError:
            known = is_dns_name(self.hostname.lower())
        if not known:
            raise BadInput(
                f"{self.hostname!r} is neither a DNS name nor an IP address",
                cure="Give --hostname as clients write it, in ASCII (xn--... for other scripts).",
            )


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard is told."""

    options: RelayOptions
    mesh_key: str  # of the shards alone, a secret; empty where there is but one
    peers: tuple[str, ...]  # for Peer.parse
    says_pin: bool  # one says it for all

    def __repr__(self) -> str:
        return f"Order({self.peers})"


def run(options: RelayOptions, environ: Mapping[str, str]) -> int:
    """Serve until a signal says stop; the exit code. Prints ``ready URL`` on stdout once, when every shard serves.

    Raises DoorwardError when it cannot start.
    """
    configure(level=options.log_level)
    options.check()
    options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mesh_key = os.urandom(32).hex() if options.shards > 1 else ""
    with _locked(options.folder), contextlib.ExitStack() as closing:
        tcp = _bind(options.listen, socket.SOCK_STREAM, options.shards, closing)
        udp = _bind(options.stun, socket.SOCK_DGRAM, options.shards, closing) if options.stun else []
        local = []
        paths = [
            socket_path(options.folder, f"shard-{index}.sock", environ) for index in range(options.shards)
        ]
        for path in paths:
            path.unlink(missing_ok=True)  # the lock says that whoever made it is gone
            local.append(closing.enter_context(bind_unix(path)))
            closing.callback(path.unlink, missing_ok=True)
        host = f"[{options.hostname}]" if ":" in options.hostname else options.hostname
        url = f"https://{host}:{tcp[0].getsockname()[1]}"

        def ready() -> None:
            sys.stdout.write(f"ready {url}\n")
            sys.stdout.flush()

        posts = []
        for index in range(options.shards):
            others = tuple(f"unix:{path}" for number, path in enumerate(paths) if number != index)
            order = Order(
                options=options, mesh_key=mesh_key, peers=others or options.mesh_with, says_pin=index == 0
            )
            sockets = {
                RELAY: [tcp[index]],
                STUN: udp[index : index + 1],
                LOCAL: [local[index]],
            }
            posts.append(Post(msgspec.json.encode(order, enc_hook=str), sockets))
        asyncio.run(Supervisor("doorward.server.relay_shard:work", posts, on_ready=ready).run())
    return 0


def _bind(
    listen: str, kind: socket.SocketKind, count: int, closing: contextlib.ExitStack
) -> list[socket.socket]:
    made = bind_shared(*split_listen(listen), kind, count)
    for one in made:
        closing.enter_context(one)
    return made


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two relays on one folder would share an address without a word, as shards do."""
    with (folder / "relay.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another relay runs with {folder}", cure="Stop it, or choose another --data-dir."
            ) from None
        yield
