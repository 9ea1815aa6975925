"""Apps are told that a session is over: OpenID Connect Back-Channel Logout 1.0.

::

    what ends a session ──▶ a notice, in the same transaction ──▶ taken for a minute ──▶ POST of a logout token ──▶ forgotten
                                  ▲                                                          │
                                  └───── put off: 5 s, 10 s, ... an hour, for a day ◀────────┘

A notice is a row (``store.logouts``), so it outlives a process that is killed, and of several processes one takes it. One that is
killed over it leaves it for another a minute later: an app may be told twice, which changes nothing, and is never forgotten.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from doorward.errors import DoorwardError
from doorward.issuer.desk import Desk
from doorward.issuer.fetch import Fetch, Reach, check_address
from doorward.issuer.keys import Ring
from doorward.issuer.tokens import sign
from doorward.login.apps import came_by_itself
from doorward.model import LogoutNotice
from doorward.store import Connection, audit, logouts
from doorward.telemetry import counter, log

EVENT = "http://schemas.openid.net/event/backchannel-logout"  # section 2.4: a name, and no address to ask
TYPE = "logout+jwt"
LOOK = 1.0  # seconds between two looks for what there is to deliver
LEASE = timedelta(seconds=60)  # an attempt takes five seconds
AT_ONCE = 16
AGAIN, AGAIN_MAX = timedelta(seconds=5), timedelta(hours=1)  # doubled each time
GIVEN_UP = timedelta(hours=24)  # whoever was away for longer asks for tokens anew anyway
_LIFETIME = timedelta(minutes=2)  # of a token (section 2.4 wants it short); each attempt has another one

_log = log("issuer")
_outcomes = counter(
    "app_logouts_total", "Attempts to tell an app that a session is over, by outcome", "outcome"
)


class Backchannel:
    """Delivers.

    Args:
        desk: the issuer's.
        fetch: how apps are asked.
    """

    def __init__(self, desk: Desk, fetch: Fetch) -> None:
        self._desk = desk
        self._fetch = fetch

    async def run(self) -> None:
        """Deliver until cancelled. Nothing that goes wrong ends it."""
        while True:
            wait = await self.step()
            await asyncio.sleep(wait)

    async def step(self) -> float:
        """Deliver what is due; how many seconds to wait until the next step."""
        desk = self._desk
        try:
            if not await desk.database.read(logouts.is_due, desk.now()):
                return LOOK
            ring = await desk.keys.ring()
            notices = await desk.database.run(logouts.take, desk.now(), LEASE, AT_ONCE)
        except DoorwardError as error:
            _log.info("no logouts to deliver now", reason=error.message)
            return LOOK
        async with asyncio.TaskGroup() as group:
            for notice in notices:
                group.create_task(self._deliver(ring, notice))
        return 0.0 if len(notices) == AT_ONCE else LOOK

    async def _deliver(self, ring: Ring, notice: LogoutNotice) -> None:
        token = logout_token(ring, self._desk.issuer, notice, self._desk.random(), self._desk.now())
        try:
            answer = await self._fetch.post(notice.url, {"logout_token": token}, reach=self._reach(notice))
            trouble = "" if answer.status in {200, 204} else f"it answered with status {answer.status}"
        except DoorwardError as error:
            trouble = error.message
        try:
            await self._settle(notice, trouble)
        except DoorwardError as error:  # it comes once more, when nobody has it any longer
            _log.info("not noted that a logout was delivered", app=notice.app, reason=error.message)

    def _reach(self, notice: LogoutNotice) -> Reach:
        """Whose word the address is. That the app may be deleted by now changes nothing: its name says how it came (login.apps)."""
        if not came_by_itself(notice.app):
            return Reach.GIVEN
        # A description is its host's word; where an administrator has named that host, the word is good for the host itself.
        described = notice.client_id.startswith("https:") and self._desk.trust.knows(notice.client_id)
        same = described and check_address(notice.client_id) == check_address(notice.url)
        return Reach.GIVEN if same else Reach.OPEN

    async def _settle(self, notice: LogoutNotice, trouble: str) -> None:
        desk, now = self._desk, self._desk.now()
        if not trouble:
            _outcomes.labels("delivered").inc()
            await desk.database.run(logouts.settle, notice.id)
        elif now - notice.created < GIVEN_UP:
            await desk.database.run(logouts.put_off, notice.id, now + again(notice.tries))
            _outcomes.labels("failed").inc()
            tries = notice.tries + 1
            _log.info("an app was not told of a logout", app=notice.app, reason=trouble, tries=tries)
        else:
            _outcomes.labels("given up").inc()
            _log.warning("an app was never told of a logout", app=notice.app, reason=trouble)
            await desk.database.run(_give_up, notice, trouble, now)


def again(tries: int) -> timedelta:
    """How long to wait after so many attempts before the last one."""
    return min(AGAIN * (1 << min(tries, 16)), AGAIN_MAX)


def logout_token(ring: Ring, issuer: str, notice: LogoutNotice, random: str, now: datetime) -> str:
    """A logout token (section 2.4): of a person and one session of theirs. It has no nonce, so it is no ID token."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": notice.client_id,
        "iat": issued,
        "exp": issued + int(_LIFETIME.total_seconds()),
        "jti": random,
        "sub": ring.subject(notice.user_id),
        "sid": notice.sid,
        "events": {EVENT: {}},
    }
    return sign(ring, notice.algorithm, TYPE, claims)


def _give_up(connection: Connection, notice: LogoutNotice, trouble: str, now: datetime) -> None:
    if logouts.settle(connection, notice.id):
        details = {"user": notice.user_id, "tries": notice.tries + 1, "why": trouble}
        audit.append(connection, "system", "app.logout.lost", f"app:{notice.app}", details, now)
