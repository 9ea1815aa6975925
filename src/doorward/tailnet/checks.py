"""Asking somebody before an ssh goes on: the writer of checks, and of the record of every attempt.

::

    attempt ──▶ ask ──▶ a check waits ──▶ decide: approved ──▶ counts for its period
                 ▲          │    └──────▶ decide: denied
                 └ retries ─┘    └──────▶ nobody decides: over after LIFETIME

Whether an attempt needs one is the service's to judge (``doorward.ssh``); what is written here is true for all processes, and
outlives them.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from doorward.errors import Conflict, NotFound, TooMany
from doorward.model import Check, CheckState
from doorward.policy.ssh import SSHMatch
from doorward.store import Connection, audit, tabs
from doorward.store import checks as stored
from doorward.tailnet import secrets
from doorward.tailnet.settings import Decide
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.sshrules import Attempt
from doorward.tailnet.unseen import Unseen
from doorward.tailnet.writer import Effect, Writer

LIFETIME = timedelta(
    minutes=10
)  # a person who is there has answered by then; below the 15 minutes of ssh.md, section 2.7
DEFAULT_PERIOD = timedelta(hours=12)  # of a rule without "checkPeriod", as the hosted service has it
MOST_OF_SOURCE = 20  # checks that may wait at once for one source: a list that nobody reads protects nothing
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O
_DIGITS = "23456789"


class Checks:
    """The checks of a tailnet, and what there is to write about ssh.

    Attributes:
        unseen: what the record lacks.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.unseen = Unseen(writer)

    def waiting(self) -> list[Check]:
        """Those that somebody can decide now, oldest first."""
        now = self._writer.now()
        found = self._writer.snapshot.checks.by_id.values()
        return sorted((check for check in found if check.is_waiting(now)), key=lambda check: check.id)

    def by_link(self, link: str) -> Check | None:
        """The one whose page has this link; None when there is none."""
        found = self._writer.snapshot.checks.by_id.values()
        return next((check for check in found if check.link == link), None)

    async def ask(self, attempt: Attempt, match: SSHMatch, details: Mapping[str, Any]) -> Check:
        """The check for an attempt: the one that waits for the same already, or a new one. It is on record then.

        Raises TooMany when the source has too many that wait.
        """
        writer = self._writer
        snapshot, now = writer.snapshot, writer.now()
        source = snapshot.nodes[attempt.source_id]
        period = DEFAULT_PERIOD if match.rule.check_period is None else match.rule.check_period
        random = writer.entropy(6)
        draft = Check(
            id=0,
            link=secrets.base32(writer.entropy(20)),
            code=_short_code(random),
            source_id=source.id,
            target_id=attempt.target_id,
            user_id=None if source.tags else source.user_id,
            ssh_user=attempt.ssh_user,
            account=match.account,
            rule=match.rule.origin,
            rule_digest=match.rule.digest(),
            period=int(period.total_seconds()),
            approvers=tuple(selector.text for selector in match.rule.approvers),
            created=now,
            expires=now + LIFETIME,
            session_id=None if source.tab is None else source.tab.session_id,
        )
        return await writer.apply(
            _ask, actor_of(snapshot, attempt), target_of(snapshot, attempt), draft, details, now
        )

    async def record(self, attempt: Attempt, verdict: str, details: Mapping[str, Any]) -> None:
        """Put an attempt and what became of it on record. It returns when that is written."""
        writer = self._writer
        now = writer.now()
        actor = actor_of(writer.snapshot, attempt)
        target = target_of(writer.snapshot, attempt)
        event = {"verdict": verdict, **details}
        if attempt.source_id not in writer.snapshot.nodes:
            # A browser's tab that was closed while its host still asked: whose it was is known for a day.
            ended = await writer.database.read(tabs.by_id, attempt.source_id)
            owner = None if ended is None else writer.snapshot.users.get(ended.user_id)
            if owner is not None:
                actor, event = f"user:{owner.name}", event | {"browser": True}
        await writer.apply(_record, actor, target, event, now)

    async def decide(self, actor: str, check_id: int, *, approve: bool) -> Check:
        """Approve or deny. Raises NotFound when there is none, and Conflict when it is decided or over."""
        state = CheckState.APPROVED if approve else CheckState.DENIED
        return await self._writer.apply(_decide, actor, check_id, state, self._writer.now())

    def look_at_clock(self, now: datetime) -> None:
        """Move the moment on at which nodes fall back, when half of the time to it is over."""
        settings, until = self._writer.snapshot.settings, self._writer.snapshot.checks.until
        if settings.ssh_decide is not Decide.FALLBACK:
            return
        left = timedelta(0) if until is None else until - now
        # More than all of it is left after the clock was set back.
        if not settings.ssh_fallback / 2 < left <= settings.ssh_fallback:
            self._writer.fall_back_at(now + settings.ssh_fallback)


def actor_of(snapshot: Snapshot, attempt: Attempt) -> str:
    """Who attempts it, for the audit log: the source's owner, or the source where it is nobody's."""
    node = snapshot.nodes.get(attempt.source_id)
    if node is None:
        return f"node:{attempt.source_id}"
    owner = snapshot.owner(node)
    return f"node:{node.stable_id}" if owner is None else f"user:{owner.name}"


def target_of(snapshot: Snapshot, attempt: Attempt) -> str:
    """What they want into, for the audit log."""
    node = snapshot.nodes.get(attempt.target_id)
    return f"node:{attempt.target_id if node is None else node.stable_id}"


def _short_code(random: bytes) -> str:
    """``KX7-Q4M``: enough to tell two requests apart, and short enough to be compared."""
    sets = (_LETTERS, _LETTERS, _DIGITS)
    picked = [each[random[index] % len(each)] for index, each in enumerate(sets * 2)]
    return f"{''.join(picked[:3])}-{''.join(picked[3:])}"


def _ask(
    connection: Connection,
    actor: str,
    target: str,
    draft: Check,
    details: Mapping[str, Any],
    now: datetime,
) -> Effect[Check]:
    """Find the check that waits for the same, or store the draft."""
    gone = tuple(stored.delete_over(connection, now))
    others = stored.of_source(connection, draft.source_id, now)
    found = next((each for each in others if each.binding == draft.binding), None)
    if found is None and len(others) >= MOST_OF_SOURCE:
        raise TooMany(
            f"{len(others)} other ssh from this device wait for approval",
            cure="Have some of them approved or denied first.",
        )
    check = found or stored.insert(connection, draft)
    event = {"verdict": "asked", "check": check.id, **details}
    audit.append(connection, actor, "ssh.attempt", target, event, now)
    # One that waited already is said again: where another process made it, the caller may not know it yet.
    return Effect(result=check, checks=(check,), checks_gone=gone)


def _record(
    connection: Connection, actor: str, target: str, details: dict[str, Any], now: datetime
) -> Effect[None]:
    audit.append(connection, actor, "ssh.attempt", target, details, now)
    return Effect(result=None)


def _decide(
    connection: Connection, actor: str, check_id: int, state: CheckState, now: datetime
) -> Effect[Check]:
    check = stored.by_id(connection, check_id)
    if check is None:
        raise NotFound(
            f"there is no check {check_id}", cure="`doorward ssh checks list` shows those that wait."
        )
    approved = state is CheckState.APPROVED
    until = now + timedelta(seconds=check.period) if approved and check.period else None
    if not stored.decide(connection, check_id, state, actor, now, until):
        if check.state is CheckState.WAITING:
            raise Conflict(f"nobody waits for check {check_id} any more", cure="Start the ssh again.")
        raise Conflict(f"check {check_id} is {check.state.value} already, by {check.decided_by}")
    changed = msgspec.structs.replace(check, state=state, decided=now, decided_by=actor, until=until)
    details = {
        "source": check.source_id,
        "target": check.target_id,
        "account": check.account,
        "rule": check.rule,
        "waited": int((now - check.created).total_seconds()),
        "until": None if until is None else until.isoformat(),
        "state": state,
        "before": {"state": check.state},
    }
    action = "ssh.check.approve" if approved else "ssh.check.deny"
    audit.append(connection, actor, action, f"check:{check_id}", details, now)
    return Effect(result=changed, checks=(changed,))
