"""What is over and no longer of use is forgotten, so that the database grows with the tailnet and not with its age.

=====================  ============================================================================
auth keys, tokens      ``KEPT`` after they ended; the audit log keeps who made them and when
sessions, invitations  the same
what apps were given   the same; refresh tokens and consents at once
registrations          when their link ends (15 minutes), at the next one or the next hour
checks of ssh          when they count no longer, at the next one
why tabs ended         after a day, when no page asks any more
policy versions        by number and size (``store.policies``), when one is added
the feed               all but ten thousand lines (``store.feed``), while several processes serve
observations           one row a node
the audit log          for good: half a kilobyte to one for each change; what nodes report is not in it
its checkpoints        for good: 200 bytes for a thousand events, or a quarter of an hour with any
=====================  ============================================================================
"""

import asyncio
from datetime import datetime, timedelta

from doorward.errors import DoorwardError
from doorward.store import Connection, apps, comers, keys, registrations, signin, tabs
from doorward.tailnet.writer import Writer
from doorward.telemetry import log

KEPT = timedelta(days=90)  # long enough to see in a list why a device did not get in
TABS_KEPT = timedelta(days=1)
FIRST = 60.0  # seconds after the start, when everybody is back
EVERY = 3600.0

_log = log("tailnet")


def tidy(connection: Connection, now: datetime) -> int:
    """Forget what ended; returns how many rows. Run by several processes it does no more than by one."""
    return (
        keys.delete_ended(connection, now - KEPT)
        + signin.delete_over(connection, now - KEPT)
        + registrations.delete_expired(connection, now)
        + apps.delete_over(connection, now, now - KEPT)
        + comers.delete_over(connection, now, now - KEPT)
        + tabs.forget_ends(connection, now - TABS_KEPT)
    )


async def keep_tidy(writer: Writer) -> None:
    """Do it once an hour, until cancelled."""
    await asyncio.sleep(FIRST)
    while True:
        try:
            count = await writer.database.run(tidy, writer.now())
        except DoorwardError as error:
            _log.info("not tidied", reason=error.message)
        else:
            if count:
                _log.info("forgot what ended long ago", rows=count)
        await asyncio.sleep(EVERY)
