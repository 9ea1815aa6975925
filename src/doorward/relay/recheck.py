"""Asking again about nodes that are connected, for a relay without a store of its own.

Control is asked when a node comes. A node that is deleted, expires, or whose person is suspended afterwards would stay for as
long as its connection does, so each is asked about again every few minutes, and one that control refuses is thrown out. The
relay in ``doorward serve`` needs none of this: it sees the change itself.

Only a plain *no* ends a connection. Control that is away, or says something else than yes or no, changes nothing: whoever is
in stays in, with or without ``fail_open``, which is about those who come. Otherwise an outage of control would become one
of the relay.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from doorward.protocol.keys import NodePublic
from doorward.relay.server import Relay
from doorward.telemetry import counter, log

EVERY_SECONDS: Final = 300.0
# After no answer. Control that comes back is not met by everybody at once: see MOST.
AGAIN_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 5.0
# Questions in one look, those due longest first: 100 a second, or 30,000 nodes in five minutes.
MOST: Final = 500
# Questions at once: a quarter of what may run, so that those who come are not kept waiting.
AT_ONCE: Final = 8

_THROWN_OUT: Final = counter(
    "relay_thrown_out_total", "Nodes that control no longer admits, thrown out while connected."
)
_log = log("verify")

Still = Callable[[NodePublic, str], Awaitable[bool | None]]


class Recheck:
    """Keeps asking. ``run`` it beside the relay's own ``run``.

    Args:
        relay: whose nodes are asked about.
        still: whether a node, connected from an address, is still welcome; None when that cannot be said now.
        entropy: gives so many random bytes, which spread the questions.
        seconds: between two questions about one node, a tenth more or less.
    """

    def __init__(
        self,
        relay: Relay,
        still: Still,
        entropy: Callable[[int], bytes],
        *,
        seconds: float = EVERY_SECONDS,
    ) -> None:
        self._relay = relay
        self._still = still
        self._entropy = entropy
        self._seconds = seconds
        self._due: dict[NodePublic, float] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._seconds / 4))
            await self.look()

    async def look(self) -> None:
        """Ask about every node that is due, at most MOST of them, and throw out those that are refused."""
        now = self._relay.now()
        guests = self._relay.guests()
        due = {key: self._due.get(key) or self._next(now, self._seconds) for key in guests}
        self._due = due
        ripe = sorted((key for key, moment in due.items() if moment <= now), key=due.__getitem__)[:MOST]
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for key in ripe:
                await free.acquire()
                group.create_task(self._ask(key, guests[key])).add_done_callback(lambda _: free.release())

    async def _ask(self, key: NodePublic, source: str) -> None:
        try:
            welcome = await self._still(key, source)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            _log.warning("a node could not be asked about", node=key.short(), error=type(error).__name__)
            welcome = None
        if welcome is False:
            self._due.pop(key, None)
            if self._relay.disconnect(key):
                _THROWN_OUT.inc()
                _log.info(
                    "node thrown out of the relay: control no longer admits it",
                    node=key.short(),
                    source=source,
                )
            return
        later = self._seconds if welcome else min(AGAIN_SECONDS, self._seconds)
        self._due[key] = self._next(self._relay.now(), later)

    def _next(self, now: float, seconds: float) -> float:
        return now + seconds * (0.9 + 0.2 * self._entropy(1)[0] / 255)
