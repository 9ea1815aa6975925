"""When the store cannot be written: everybody is told, and told again when it can.

Nothing else has to be done. The snapshot serves as before, units are refused with the store's own words, observations stay in
memory (one for each node, however often it reports) until they can be written.
"""

import asyncio

import msgspec

from doorward.errors import DoorwardError
from doorward.tailnet.writer import Effect, Writer
from doorward.telemetry import log

LOOK = 1.0  # seconds between two looks
TELL_AFTER = 2.0  # seconds of trouble before nodes are told: a lock or a quick restart is no news
CALM = 4.0  # seconds without trouble before they are told that it is over: a disk with room for one row is still full

_log = log("tailnet")


class Troubles:
    """Watches the store. ``run`` it beside the rest."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._since: float | None = None
        self._last = 0.0

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Tell what is new, and try whether it is over."""
        database, now = self._writer.database, self._writer.monotonic()
        trouble = database.trouble
        if trouble is None:
            if self._since is not None and now - self._last >= CALM:
                self._since = None
                self._tell("")
            return
        self._last = now
        if self._since is None:
            self._since = now
        if now - self._since >= TELL_AFTER:
            self._tell(trouble.message)
        try:
            await database.probe()
        except DoorwardError as error:
            _log.debug("the store is still in trouble", reason=error.message)

    def _tell(self, text: str) -> None:
        known = self._writer.snapshot.settings
        if known.trouble != text:
            self._writer.publish(Effect(result=None, settings=msgspec.structs.replace(known, trouble=text)))
