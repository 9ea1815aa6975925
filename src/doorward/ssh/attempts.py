"""Answers what nodes ask about ssh: at once where that can be, else when somebody has decided."""

import asyncio
from collections import Counter
from typing import Any

from doorward.asgi import RateExceeded, RateLimit
from doorward.clock import Clock
from doorward.errors import TooMany, Unavailable
from doorward.model import Check, Node
from doorward.policy.ssh import HOLD_URL, SSHMatch
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.map import MapResponse
from doorward.protocol.tailcfg.ssh import SSHAction
from doorward.ssh.check import Allow, Ask, Refuse, admission, announced, judge, question, refusal
from doorward.tailnet.registry import Registry
from doorward.tailnet.settings import Decide
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.sshrules import Attempt
from doorward.telemetry import counter, log

POLL = 45.0  # seconds until a node that waits is sent round again: proxies close what is silent for a minute
MOST_WAITING = (
    60  # requests of one node that wait; its connection carries a hundred, and its map stream is one of them
)
_RATE, _BURST = 20.0, 200.0  # new attempts at one node; each is written down for good

_log = log("ssh")
_answers = counter("ssh_attempts_total", "Answers to nodes that asked about an ssh.", "verdict")


class Attempts:
    """The service.

    Args:
        registry: the tailnet.
        clock: for rate limits.
        door: the people's address; links lead there.
        poll: seconds that a request waits at most.
    """

    def __init__(self, registry: Registry, clock: Clock, door: str, *, poll: float = POLL) -> None:
        self._registry = registry
        self._door = door.rstrip("/")
        self._poll = poll
        self._limit = RateLimit(rate=_RATE, burst=_BURST, clock=clock)
        self._waiting: dict[asyncio.Event, Attempt] = {}
        self._at_target: Counter[int] = Counter()
        registry.writer.watch(self._changed)

    def _changed(self, before: Snapshot, after: Snapshot, touched: frozenset[int] | None) -> None:
        for check in announced(before, after, self._registry.writer.now()):
            # Whichever process has the source's stream takes in the check, too, and tells it.
            self._registry.writer.changes.send(check.source_id, _pop(self._link(check)))
        rules = touched is None or before.policy is not after.policy
        for event, attempt in self._waiting.items():
            target = attempt.target_id
            if (
                rules
                or not touched.isdisjoint((attempt.source_id, target))  # type: ignore[union-attr]
                or before.checks.of_target(target) != after.checks.of_target(target)
            ):
                event.set()

    async def answer(self, attempt: Attempt, shown: int | None) -> SSHAction:
        """What a node is to do about an attempt; ``shown`` is the check that it has told the person of already.

        It may take as long as ``poll``. What cannot be written down is refused, but for what nodes would let in by themselves
        without us (``Decide.FALLBACK``).
        """
        if shown is None:
            try:
                self._limit.take(str(attempt.target_id))
            except RateExceeded as error:
                return refusal(Refuse(f"Too many ssh to this node at once. {error.cure}"))
        elif shown not in self._registry.snapshot.checks.by_id and self._registry.writer.catch_up:
            await self._registry.writer.catch_up()  # another process may have asked
        deadline = asyncio.get_running_loop().time() + self._poll
        while True:
            writer = self._registry.writer
            now = writer.now()
            verdict = judge(writer.snapshot, attempt, now, shown)
            if isinstance(verdict, Allow):
                return await self._allow(attempt, verdict, shown)
            if isinstance(verdict, Ask):
                return await self._ask(attempt, verdict.match)
            if isinstance(verdict, Refuse):
                return await self._refuse(attempt, verdict, shown)
            if self._at_target[attempt.target_id] >= MOST_WAITING:
                return await self._refuse(
                    attempt, Refuse("Too many ssh to this node wait for approval.", None), shown
                )
            left = (verdict.check.expires - now).total_seconds()
            if not await self._wait(attempt, deadline, left):
                return SSHAction(holdAndDelegate=_asked(verdict.check.id))

    async def _wait(self, attempt: Attempt, deadline: float, left: float) -> bool:
        """Wait until something changed that may matter, or the check's time is over; false at the deadline."""
        event = asyncio.Event()
        self._waiting[event] = attempt
        self._at_target[attempt.target_id] += 1
        over = asyncio.get_running_loop().time() + left
        try:
            async with asyncio.timeout_at(min(deadline, over)):
                await event.wait()
        except TimeoutError:
            return over <= deadline
        finally:
            del self._waiting[event]
            self._at_target[attempt.target_id] -= 1
            if not self._at_target[attempt.target_id]:
                del self._at_target[attempt.target_id]
        return True

    async def _ask(self, attempt: Attempt, match: SSHMatch) -> SSHAction:
        registry = self._registry
        try:
            check = await registry.checks.ask(attempt, match, self._details(attempt, match))
        except TooMany as error:
            return await self._refuse(attempt, Refuse(error.sentence(), match), None)
        except Unavailable as error:
            _log.warning("nobody can be asked about an ssh", reason=error.message)
            self._missed()
            return self._refuse_for_now()
        _answers.labels("asked").inc()
        text = question(check, self._link(check), registry.writer.now())
        return SSHAction(message=text, holdAndDelegate=_asked(check.id))

    def _link(self, check: Check) -> str:
        return f"{self._door}/check/{check.link}"

    async def _allow(self, attempt: Attempt, verdict: Allow, shown: int | None) -> SSHAction:
        # Nodes let it in by themselves while we are away, and a store that takes no writes is no more use to them.
        fallback = self._registry.snapshot.settings.ssh_decide is Decide.FALLBACK
        falls_back = fallback and not verdict.match.rule.check
        if falls_back and self._registry.writer.database.trouble is not None:
            self._missed()
            return admission(verdict, shown)
        number = None if verdict.check is None else verdict.check.id
        if await self._record(attempt, "allowed", verdict.match, check=number) or falls_back:
            return admission(verdict, shown)
        return self._refuse_for_now()

    async def _refuse(self, attempt: Attempt, verdict: Refuse, shown: int | None) -> SSHAction:
        await self._record(attempt, "refused", verdict.match, why=verdict.sentence, check=shown)
        return refusal(verdict)

    def _missed(self) -> None:
        """It is answered off the record, which the record will say once it can be written again."""
        _answers.labels("unrecorded").inc()
        self._registry.checks.unseen.missed()

    def _refuse_for_now(self) -> SSHAction:
        return refusal(
            Refuse("doorward cannot write anything down now, so it lets nobody in. Try again later.")
        )

    async def _record(
        self, attempt: Attempt, verdict: str, match: SSHMatch | None, **more: str | int | None
    ) -> bool:
        """Whether it is on record."""
        said = {name: value for name, value in more.items() if value is not None}
        try:
            await self._registry.checks.record(attempt, verdict, self._details(attempt, match) | said)
        except Unavailable as error:
            _log.warning("an ssh is not on record", verdict=verdict, reason=error.message)
            self._missed()
            return False
        _answers.labels(verdict).inc()
        return True

    def _details(self, attempt: Attempt, match: SSHMatch | None) -> dict[str, Any]:
        """Who is in the event itself; this is from where, to what, as whom and by which rule."""
        nodes = self._registry.snapshot.nodes
        source, target = nodes.get(attempt.source_id), nodes.get(attempt.target_id)
        browser = {} if source is None or source.tab is None else {"browser": True}
        return browser | {
            "source": _named(source, attempt.source_id),
            "address": "" if source is None else str(source.ipv4),
            "target": _named(target, attempt.target_id),
            "ssh_user": attempt.ssh_user,
            "account": match.account if match is not None else "",
            "rule": match.rule.origin if match is not None and match.account else "",
        }


def _named(node: Node | None, number: int) -> str:
    return str(number) if node is None else node.name


def _pop(link: str) -> bytes:
    # As a keep-alive, in which clients look at this and at little else (control.md, section 12).
    return encode(MapResponse(KeepAlive=True, PopBrowserURL=link))


def _asked(check_id: int) -> str:
    return f"{HOLD_URL}&check={check_id}"
