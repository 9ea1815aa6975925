"""Taking connections from a listening socket: a few at a time, and never in a loop that spins; and what holds for each.

The event loops' own servers take whatever comes. Here somebody is asked first whether more should come (``gate``), and
where the process has no descriptor left it waits a moment, in which the connections wait in the socket's queue: nobody is
refused, and the loop has the time to close others.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any, cast

from doorward.telemetry import counter, log

AT_ONCE = 32  # connections taken in one step of the event loop
PAUSE = 0.1  # seconds without descriptors until the next try
CLOSED = 0.01  # seconds until the gate is asked again
BACKLOG = 4096  # connections that wait; the kernel cuts it to net.core.somaxconn

# A laptop that was closed is offline to others after this, a map stream's keep-alive and its grace: in under three minutes.
# Three probes fit in, so that no single lost packet ends a good connection.
GONE_AFTER = 90.0

# No descriptor, here or in the whole system; no memory for one.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log = log("listener")
_exhausted = counter(
    "accept_exhausted_total", "Times that a connection could not be taken for want of descriptors."
)


class Acceptor:
    """One listening socket. ``start`` it once; ``stop`` leaves the socket open, ``close`` does not.

    Args:
        bound: TCP or Unix, not blocking.
        take: is handed each connection, not blocking, and its peer's address.
        gate: whether more should come now.
        exhausted: called when there is no descriptor left; should free some.
    """

    def __init__(
        self,
        bound: socket.socket,
        take: Callable[[socket.socket, Any], None],
        *,
        gate: Callable[[], bool] = lambda: True,
        exhausted: Callable[[], object] = lambda: None,
    ) -> None:
        self._bound = bound
        self._take = take
        self._gate = gate
        self._exhausted = exhausted
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._said = False

    def start(self) -> None:
        """Take connections from now on."""
        self._bound.setblocking(False)
        self._bound.listen(BACKLOG)
        self._loop.add_reader(self._bound.fileno(), self._readable)

    def stop(self) -> None:
        """Take no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._bound.fileno() >= 0:
            self._loop.remove_reader(self._bound.fileno())

    def close(self) -> None:
        """Take no more, and refuse those who come."""
        self.stop()
        self._bound.close()

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._bound.fileno())
        self._timer = self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        self._timer = None
        if self._gate():
            self._loop.add_reader(self._bound.fileno(), self._readable)
        else:
            self._timer = self._loop.call_later(CLOSED, self._again)

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            if not self._gate():
                self._pause(CLOSED)
                return
            try:
                accepted, peer = self._bound.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:  # it left while it waited
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    _log.warning("a connection could not be taken", error=str(error))
                    self._pause(PAUSE)
                    return
                _exhausted.inc()
                if not self._said:
                    self._said = True
                    _log.warning("no descriptor is left for a connection", error=error.strerror)
                self._exhausted()
                self._pause(PAUSE)
                return
            accepted.setblocking(False)
            self._take(accepted, peer)


def keep_tcp_alive(sock: socket.socket, seconds: float = GONE_AFTER) -> None:
    """Let the kernel end a connection whose peer has acknowledged nothing for ``seconds``, whether or not we send.

    Probes alone would not do: none is sent while data waits to be acknowledged, and a map stream's own keep-alive always
    does. Without the second limit (RFC 5482) the kernel repeats that data for a quarter of an hour.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle, interval = max(1, int(seconds * 2 / 3)), max(1, int(seconds / 6))
    for option, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", 2),  # where the next line's option exists, it decides
        ("TCP_USER_TIMEOUT", int(seconds * 1000)),
    ):
        if hasattr(socket, option):  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def abort(transport: asyncio.BaseTransport) -> None:
    """Cut a connection, whatever state it is in."""
    with contextlib.suppress(RuntimeError):  # uvloop raises for one that is gone already
        cast("asyncio.WriteTransport", transport).abort()
