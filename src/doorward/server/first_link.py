"""The link by which the first administrator comes in, and how they get to know it.

While nobody can sign in and administer, each start of ``serve`` makes one, good for an hour. It is a secret: it is shown
on a terminal, where somebody reads it now, and on nothing that keeps what is written there. Otherwise it is in a file of
mode 0600 in the data directory, and only where that is gets said. Either way it never goes through the log.
"""

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from doorward.config import Settings, save_private, split_listen
from doorward.errors import DoorwardError
from doorward.login.invitations import FIRST_LIFETIME, Invitations, Way, link
from doorward.telemetry import log

FILE = "first-administrator.txt"

# Where a listener answers to the name "localhost".
_HERE = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on

_log = log("server")


def ways(settings: Settings) -> tuple[Way, ...]:
    """Where people come in, the one that works for most first.

    Args:
        settings: settled, with the ports that are bound.
    """
    name = urlsplit(settings.door).hostname or ""
    inside = name == settings.domain or name.endswith(f".{settings.domain}")
    where = "on a device in the tailnet" if inside else f"wherever {name} can be reached"
    door = Way(settings.door.rstrip("/"), where)
    host, port = split_listen(settings.listen)
    if host not in _HERE or settings.tls.url.cert is not None or name == "localhost":
        return (door,)
    here = Way(f"http://localhost:{port}", "in a browser on doorward's own machine", is_here=True)
    # Into a tailnet that nobody is in yet, nobody comes through a door that is inside.
    return (here, door) if inside else (door, here)


class FirstLink:
    """Makes the link and shows it.

    Args:
        invitations: of the tailnet.
        ways: where the link works.
        folder: the data directory.
        started: when this ``serve`` did; its workers that are started again make no other link.
        terminal: where it is shown, if that is one.
    """

    def __init__(
        self,
        invitations: Invitations,
        ways: Sequence[Way],
        folder: Path,
        started: datetime,
        *,
        terminal: TextIO | None = None,
    ) -> None:
        self._invitations = invitations
        self._ways = ways
        self._file = folder / FILE
        self._started = started
        self._terminal = sys.stderr if terminal is None else terminal

    async def run(self) -> None:
        """Show the link where one is needed, and remove the file when its time is over."""
        try:
            await self._show()
        except (DoorwardError, OSError) as error:
            _log.error(
                "no link for the first administrator",
                reason=str(error),
                cure="`doorward users invite --first-owner` makes one.",
            )
        await asyncio.sleep(FIRST_LIFETIME.total_seconds())
        self._file.unlink(missing_ok=True)

    async def _show(self) -> None:
        made = await self._invitations.invite_first("system", unless_since=self._started)
        if made is None:
            if await self._invitations.somebody_administers():
                self._file.unlink(missing_ok=True)
            return
        links = [(link(way.address, made[1]), way.where) for way in self._ways]
        if self._terminal.isatty():
            shown = "".join(f"\n    {address}\n      {where}\n" for address, where in links)
            self._terminal.write(
                "\nNobody can sign in and administer yet. Whoever opens this link is the owner; it works once, for an hour:\n"
                f"{shown}\n"
            )
            self._terminal.flush()
            return
        save_private(self._file, "".join(f"{address}\n" for address, _ in links))
        self._terminal.write(
            "doorward: nobody can sign in and administer yet. "
            f"The link for the first owner, good once and for an hour, is in {self._file}\n"
        )
        self._terminal.flush()
