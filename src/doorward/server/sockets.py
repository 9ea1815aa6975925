"""The sockets that doorward listens on: bound by the parent process, which keeps them while workers come and go.

| name | what | where |
| --- | --- | --- |
| ``public`` | control, relay over HTTP, pages | ``listen`` |
| ``door`` | the identity listener: whom the daemon forwards to us from the tailnet | 127.0.0.1, the door's port |
| ``relay`` | the relay's own TLS, where it is not at control's address | ``relay.listen``, else the host of ``listen`` |
| ``acme`` | proofs for http-01, and the way to https | ``tls.acme.listen`` |
| ``stun`` | STUN, over UDP | the same |
| ``admin`` | the API for whoever may read the data directory | ``DATA_DIR/doorward.sock``, mode 0600 |
| ``worker`` | one worker of several: mesh of the relay, questions that only it can answer | ``DATA_DIR/worker-N.sock``, mode 0600 |

A port that the settings name must be free. Otherwise the one kept from an earlier run must be, since people and clients
know it by now; at the first start it is the usual one, or a free one where that is taken. systemd may bring sockets
under the same names (``FileDescriptorName=``); one without a name is the public one.

Several workers each get a socket of their own on the same address (SO_REUSEPORT), because the kernel then spreads
connections evenly: on one socket that all listen on, whoever wakes first takes them, which was seen to be two thirds for one
of three. What systemd brings is one socket, and other systems than Linux do not spread: there all listen on the same.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from doorward.config import Ports, Settings, load_ports, save_ports, socket_path, split_listen
from doorward.errors import Conflict

PUBLIC, DOOR, RELAY, STUN, ADMIN, WORKER = "public", "door", "relay", "stun", "admin", "worker"
ACME = "acme"
ADMIN_SOCKET = "doorward.sock"
LOOPBACK = "127.0.0.1"

USUAL = Ports()
# Connections that wait while a worker starts: a fleet's worth. The kernel cuts it to net.core.somaxconn (4096).
BACKLOG = 4096
TRIES, TRY_AGAIN = 100, 0.02  # until a port that must be ours is said to be taken: two seconds
_FIRST_ACTIVATED = 3  # sd_listen_fds(3)


class SocketError(Conflict):
    """An address that cannot be listened on."""


@dataclass
class Bound:
    """What was bound, and the settings with the ports that it turned out to be.

    Attributes:
        sockets: by name; where ``spread`` has the name, one for each worker.
        paths: of the Unix sockets of each worker alone; empty where there is only one worker.
    """

    settings: Settings
    sockets: dict[str, list[socket.socket]]
    _lock: IO[str]
    paths: tuple[Path, ...] = ()
    spread: frozenset[str] = frozenset()
    _admin: Path = field(default_factory=Path)

    def share(self, index: int) -> dict[str, list[socket.socket]]:
        """What a worker serves on, the first being 0."""
        return {
            name: [group[index]] if name in self.spread else list(group)
            for name, group in self.sockets.items()
        }

    def close(self) -> None:
        """Close everything; the files of the Unix sockets go too."""
        for group in self.sockets.values():
            for one in group:
                one.close()
        for path in (self._admin, *self.paths):
            path.unlink(missing_ok=True)
        self._lock.close()


def bind(settings: Settings, environ: Mapping[str, str]) -> Bound:
    """Bind every socket, and keep the ports in the data directory.

    Raises:
        SocketError: an address is taken or not allowed, or another doorward serves this data directory.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(settings.data_dir)
    sockets = activated(environ, os.getpid())
    spread: set[str] = set()
    try:
        _bind_tcp_and_udp(settings, sockets, spread)
        admin, paths = _bind_unix(settings, sockets, spread, environ)
    except BaseException:
        for group in sockets.values():
            for one in group:
                one.close()
        lock.close()
        raise

    def port(name: str, unused: int) -> int:
        return int(sockets[name][0].getsockname()[1]) if sockets.get(name) else unused

    usual = load_ports(settings.data_dir) or USUAL
    ports = Ports(
        listen=port(PUBLIC, 0),
        door=port(DOOR, 0),
        relay=port(RELAY, usual.relay),
        stun=port(STUN, usual.stun),
    )
    save_ports(settings.data_dir, ports)
    return Bound(settings.settled(ports), sockets, lock, paths, frozenset(spread), admin)


def activated(environ: Mapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """The sockets that systemd brought this process, by name. Raises SocketError for a name we do not know."""
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    count = _count(environ.get("LISTEN_FDS", "0"))
    names = environ.get("LISTEN_FDNAMES", "").split(":") if environ.get("LISTEN_FDNAMES") else []
    found: dict[str, list[socket.socket]] = {}
    for number in range(count):
        name = names[number] if number < len(names) else "unknown"
        # systemd's own names for a socket without one: "unknown", or the unit's.
        name = PUBLIC if name == "unknown" or name.endswith(".socket") else name
        if name not in {PUBLIC, DOOR, RELAY, STUN, ACME}:
            raise SocketError(
                f"systemd brought a socket called {name!r}",
                cure="FileDescriptorName= is one of public, door, relay, stun and acme.",
            )
        one = socket.socket(fileno=_FIRST_ACTIVATED + number)
        one.set_inheritable(False)
        found.setdefault(name, []).append(one)
    return found


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 4:
        raise SocketError(
            "LISTEN_FDS is not the number of sockets that systemd brought", cure="Unset LISTEN_FDS."
        )
    return int(text)


def _bind_tcp_and_udp(settings: Settings, sockets: dict[str, list[socket.socket]], spread: set[str]) -> None:
    """Bind what is missing in ``sockets``; ``spread`` gets the names of which each worker has its own."""
    kept = load_ports(settings.data_dir) or Ports(listen=0, door=0, relay=0, stun=0)
    host, listen = split_listen(settings.listen)
    wanted = settings.ports
    count = settings.workers if sys.platform == "linux" else 1

    def need(name: str, kind: socket.SocketKind, host: str, wanted: int, kept: int, usual: int) -> None:
        if name not in sockets:
            sockets[name] = _choose(kind, count, host, wanted, kept, usual)
            if count > 1:
                spread.add(name)

    need(PUBLIC, socket.SOCK_STREAM, host, listen, kept.listen, 0)
    door = wanted.door or _port_of(settings.door)
    need(DOOR, socket.SOCK_STREAM, LOOPBACK, door, kept.door, USUAL.door)
    if settings.relay.enabled:
        at = settings.relay_listens_on()
        if not settings.relay_is_at_url():
            need(RELAY, socket.SOCK_STREAM, at, wanted.relay, kept.relay, USUAL.relay)
        need(STUN, socket.SOCK_DGRAM, at, wanted.stun, kept.stun, USUAL.stun)
    if plain := settings.plain_listener():
        host, port = split_listen(plain)
        need(ACME, socket.SOCK_STREAM, host, port, 0, 0)


def _bind_unix(
    settings: Settings, sockets: dict[str, list[socket.socket]], spread: set[str], environ: Mapping[str, str]
) -> tuple[Path, tuple[Path, ...]]:
    """Bind the Unix sockets; the paths of the administrator's and of each worker's own."""

    def made(name: str) -> tuple[Path, socket.socket]:
        path = socket_path(settings.data_dir, name, environ)
        # The lock says that no other doorward lives here, so a file in the way is one that a killed one left.
        path.unlink(missing_ok=True)
        return path, bind_unix(path)

    admin, one = made(ADMIN_SOCKET)
    sockets[ADMIN] = [one]
    own = [made(worker_socket(number)) for number in range(1, settings.workers + 1) if settings.workers > 1]
    if own:
        sockets[WORKER] = [one for _, one in own]
        spread.add(WORKER)
    return admin, tuple(path for path, _ in own)


def worker_socket(number: int) -> str:
    """The name of the Unix socket of one worker of several, the first being 1."""
    return f"worker-{number}.sock"


def _choose(
    kind: socket.SocketKind, count: int, host: str, wanted: int, kept: int, usual: int
) -> list[socket.socket]:
    """Sockets on the port that is asked for, else the kept one, else the usual one, else a free one."""
    if wanted or kept:
        port = wanted or kept
        for left in reversed(range(TRIES)):
            try:
                return _group(host, port, kind, count)
            except OSError as error:
                # The workers of a parent that was killed this moment are about to go, and their sockets with them.
                if not left or error.errno != errno.EADDRINUSE:
                    raise _refused(error, host, port, kept_only=not wanted) from None
            time.sleep(TRY_AGAIN)
    try:
        return _group(host, usual, kind, count)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise _refused(error, host, usual, kept_only=False) from None
        return _group(host, 0, kind, count)


def _refused(error: OSError, host: str, port: int, *, kept_only: bool) -> SocketError:
    where = f"{host} port {port}"
    if error.errno == errno.EADDRINUSE:
        cure = "Stop it, or choose another port in the settings."
        if kept_only:
            cure = "Clients know this port from an earlier run: stop what uses it, or delete ports.json and let them learn."
        return SocketError(f"something else listens on {where}", cure=cure)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return SocketError(
            f"this user may not listen on {where}",
            cure="Choose a port from 1024 up, or give doorward CAP_NET_BIND_SERVICE or a systemd socket.",
        )
    return SocketError(
        f"cannot listen on {where}: {error.strerror}",
        cure="Is it an address of this machine?",
        detail=repr(error),
    )


def bind_shared(host: str, port: int, kind: socket.SocketKind, count: int) -> list[socket.socket]:
    """So many sockets on one address, among which the kernel spreads connections; TCP ones listen. Port 0: a free one.

    They share their address with each other and with no one else. Raises SocketError.
    """
    try:
        return _group(host, port, kind, count)
    except OSError as error:
        raise _refused(error, host, port, kept_only=False) from None


def _group(host: str, port: int, kind: socket.SocketKind, count: int) -> list[socket.socket]:
    """See ``bind_shared``. Raises OSError."""
    made: list[socket.socket] = []
    try:
        if count > 1:
            # Another program of this user could share the address without a word; it must be free.
            with _inet(host, port, kind) as alone:
                port = alone.getsockname()[1]
        for _ in range(count):
            made.append(_inet(host, port, kind, shared=count > 1))
            if kind == socket.SOCK_STREAM:
                # From here on connections wait in the queue, however long the worker takes.
                made[-1].listen(BACKLOG)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


def _inet(host: str, port: int, kind: socket.SocketKind, *, shared: bool = False) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # Without it a restart would have to wait for old connections to time out. It lets nobody else in.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and host == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(address)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only this user may open. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The file must never be open to others, not even between its making and a chmod.
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    made.listen(BACKLOG)
    made.setblocking(False)
    return made


def _lock(data_dir: Path) -> IO[str]:
    handle = (data_dir / "doorward.lock").open("w", encoding="ascii")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise SocketError(
            f"another doorward serves {data_dir}",
            cure="Stop it, or choose another --data-dir.",
            place=str(data_dir),
        ) from None
    return handle


def _port_of(door: str) -> int:
    """The port of the door's own address: inside the tailnet people arrive at our node on the same one. 0: none given."""
    if not door or door.startswith("http:"):
        return 0
    with contextlib.suppress(ValueError):
        return urlsplit(door).port or 443
    return 0
