"""Costly beginnings take turns: a flood of handshakes costs a part of one core, and delays those of its own source most.

A handshake is the most that a stranger can make us do for a few bytes: 0.6 ms for Noise with the request before and the
HTTP/2 behind it, about twice that for TLS. While they come slower than ``RATE`` each is done at once. Beyond it they wait, in one queue for each source,
and the queues are served one after the other: a source that sends a thousand waits for a thousand, another that sends one
is next. Nothing is refused, so a whole fleet behind one address still gets in as fast as the process can let it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from doorward.telemetry import counter, gauge

RATE = 800.0  # a second, of what costs as much as a Noise handshake: half of one core
BURST = 100.0  # at once, before anybody waits: some 60 ms
AT_ONCE = 16  # in one step of the event loop: some 10 ms, so that others have theirs
STEP = 0.004  # seconds between two steps
CROWD = 1024  # so many waiting, and no more connections are accepted: they wait in the sockets' queues

_waited = counter("handshakes_delayed_total", "Handshakes that had to wait for their turn.")
_waiting = gauge("handshakes_waiting", "Handshakes that wait for their turn.")


class Turn:
    """A place in a queue."""

    __slots__ = ("act", "cost")

    def __init__(self, act: Callable[[], None] | None, cost: float) -> None:
        self.act = act
        self.cost = cost

    def cancel(self) -> None:
        """Nobody waits any more."""
        self.act = None


class Turns:
    """One for each process: what it spends on strangers is one sum."""

    def __init__(self, *, rate: float = RATE, burst: float = BURST, crowd: int = CROWD) -> None:
        self._rate = rate
        self._burst = burst
        self._crowd = crowd
        self._tokens = burst
        self._counted = 0.0  # when, by the loop's clock
        self._queues: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._length = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait; those who left meanwhile count until their turn comes."""
        return self._length

    @property
    def crowded(self) -> bool:
        """True when so many wait that no more should be let in."""
        return self._length >= self._crowd

    def ask(self, source: str, act: Callable[[], None], cost: float = 1.0) -> Turn:
        """Have ``act`` called: now if nobody waits and it is not too much, else in its turn. It must not raise."""
        turn = Turn(act, cost)
        if not self._length and self._take(cost):
            turn.act = None
            act()
            return turn
        self._queues.setdefault(source, deque()).append(turn)
        self._length += 1
        _waited.inc()
        self._arm()
        return turn

    def _take(self, cost: float) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._burst, self._tokens + (now - self._counted) * self._rate)
        self._counted = now
        # One is enough: what costs more borrows, and that is paid back before the next.
        if self._tokens < 1:
            return False
        self._tokens -= cost
        return True

    def _arm(self) -> None:
        _waiting.set(self._length)
        if self._timer is None and self._length:
            self._timer = asyncio.get_running_loop().call_later(STEP, self._step)

    def _step(self) -> None:
        self._timer = None
        for _ in range(AT_ONCE):
            turn = self._next()
            if turn is None:
                break
            assert turn.act is not None
            if not self._take(turn.cost):
                break
            self._remove_first()
            turn.act()
        self._arm()

    def _next(self) -> Turn | None:
        """Whose turn it is; those who left are passed over."""
        while self._queues:
            turn = next(iter(self._queues.values()))[0]
            if turn.act is not None:
                return turn
            self._remove_first()
        return None

    def _remove_first(self) -> None:
        """The first of the first queue; its source is then the last in line."""
        source, queue = next(iter(self._queues.items()))
        queue.popleft()
        self._length -= 1
        if queue:
            self._queues.move_to_end(source)
        else:
            del self._queues[source]
