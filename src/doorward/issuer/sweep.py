"""Whoever loses an app loses its tokens at once, and for good.

Every use of a token looks at the person, the device and the policy anyway. Between two uses access may be taken away and given back,
and what was taken away should stay so: after each change of people, devices or policy all grants are looked at once.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime

from doorward.errors import DoorwardError
from doorward.issuer.claims import grant_standing
from doorward.issuer.desk import Desk
from doorward.model import App, AppGrant
from doorward.store import Connection, apps, audit
from doorward.tailnet.snapshot import Snapshot
from doorward.telemetry import log

QUIET = 1.0  # seconds: many changes in a row are one look
PAGE = 500  # grants that are looked at without a pause: some milliseconds
_LONGEST_WAIT = 3600.0  # seconds: the clock may be set meanwhile

_log = log("issuer")


class Sweep:
    """Ends what no longer stands.

    Args:
        desk: the issuer's.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._due = asyncio.Event()
        self._due.set()  # who was here before us may have been killed between a change and its look
        self._next: datetime | None = None  # when the next device's key ends that vouches for somebody
        desk.registry.writer.watch(self._changed)

    def _changed(self, before: Snapshot, after: Snapshot, touched: frozenset[int] | None) -> None:
        # What nodes report all the time is no reason, unless one comes to be another's or to route for others.
        if (
            before.users is not after.users
            or before.document is not after.document
            or any(_standing_of(before, one) != _standing_of(after, one) for one in touched or ())
            or (touched is None and before.nodes is not after.nodes)
        ):
            self._due.set()

    async def run(self) -> None:
        """Look whenever there is a reason, until cancelled."""
        while True:
            await self._wait()
            await asyncio.sleep(QUIET)
            self._due.clear()
            try:
                await self.look()
            except DoorwardError as error:
                _log.warning("not looked for tokens that are over", reason=error.message)

    async def _wait(self) -> None:
        """Until there is a reason. That a key ends is nobody's change, so its time is one."""
        seconds = None
        if self._next is not None:
            seconds = min(max(0.0, (self._next - self._desk.now()).total_seconds()), _LONGEST_WAIT)
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            return

    async def look(self) -> int:
        """Look now; returns how many grants ended."""
        desk, now = self._desk, self._desk.now()
        known = {app.id: app for app in await desk.database.read(apps.load_all)}
        vouching: set[int] = set()
        standing = _Standings(known, now)
        count, last = 0, 0
        # Page by page: of a hundred thousand sessions neither the loop nor the store's writer may be busy with all at once.
        while live := await desk.database.read(apps.live_grants_after, now, last, PAGE):
            last = live[-1].id
            snapshot = desk.registry.snapshot  # newer than what was read
            vouching |= {grant.node_id for grant in live if grant.node_id is not None}
            over = [
                (known[grant.app_id], grant)
                for grant in live
                if grant.app_id in known and not standing.holds(snapshot, grant)
            ]
            if over:
                await desk.database.run(_end, over, now)
                count += len(over)
        nodes = desk.registry.snapshot.nodes
        ends = (nodes[one].key_expiry for one in vouching if one in nodes)
        self._next = min((one for one in ends if one is not None and one > now), default=None)
        return count


class _Standings:
    """Whether people stand with apps: what is the same for many grants is found out once for each snapshot."""

    def __init__(self, known: Mapping[int, App], now: datetime) -> None:
        self._known = known
        self._now = now
        self._snapshot: Snapshot | None = None
        self._found: dict[tuple[int, int, int | None], bool] = {}

    def holds(self, snapshot: Snapshot, grant: AppGrant) -> bool:
        if snapshot is not self._snapshot:
            self._snapshot, self._found = snapshot, {}
        key = (grant.app_id, grant.user_id, grant.node_id)
        if key not in self._found:
            found = grant_standing(snapshot, self._known[grant.app_id], grant, self._now)
            self._found[key] = found is not None
        return self._found[key]


def _standing_of(snapshot: Snapshot, number: int) -> tuple[object, ...] | None:
    """What of a device counts for apps."""
    node = snapshot.nodes.get(number)
    if node is None:
        return None
    return node.user_id, node.tags, node.suspended, node.key_expiry, node.approved_routes, node.attributes


def _end(connection: Connection, over: Iterable[tuple[App, AppGrant]], now: datetime) -> None:
    for app, grant in over:
        if apps.end_grants(connection, now, grant_id=grant.id):
            details = {"grant": grant.id, "user": grant.user_id, "why": "no longer allowed"}
            audit.append(connection, "system", "app.end", f"app:{app.name}", details, now)
