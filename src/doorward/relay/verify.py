"""Asking control whom to admit, for a relay without a store of its own (protocol note derp.md, section 7).

It fails closed: no answer is a no. An operator may choose that nodes which control admitted before stay welcome while it
is away (``fail_open``); strangers are refused even then, or whoever can keep control from answering would let them in.

What is remembered:

- a *yes* for 60 s: after a cut of the network every node comes back at once, and again while its clients try paths;
  so long may a node that was deleted meanwhile come in, and nobody talks to it there, since no netmap names it any more
  (nodes that are connected already are asked about again by ``recheck``);
- a *no* for 3 s, less than a client's longest wait between attempts: a node that is approved gets in at the next one,
  and one that hammers does not hammer control;
- who was ever admitted, for a day, and used only while control is away.
"""

import asyncio
import ssl
from collections import OrderedDict
from enum import Enum, auto
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import msgspec

from doorward.clock import Clock
from doorward.errors import DoorwardError, Unavailable
from doorward.protocol.keys import NodePublic
from doorward.relay.routes import VerifyRequest
from doorward.telemetry import counter, log
from doorward.transport.fetch import Fetcher

YES_SECONDS: Final = 60.0
NO_SECONDS: Final = 3.0
KNOWN_SECONDS: Final = 24 * 3600.0
ASK_SECONDS: Final = 5.0  # half of what a client's handshake may take
# Entries in each memory, some 300 bytes each. A tailnet of more nodes asks more often, nothing else.
MOST: Final = 20_000
# Questions at once, so that a storm of reconnects leaves descriptors for the clients themselves.
AT_ONCE: Final = 32
MAX_ANSWER: Final = 4096
# After a question that nobody answered, others are not asked for so long: each would wait its full time.
AWAY_SECONDS: Final = 2.0

# What a reverse proxy says when control behind it is away (RFC 9110 sections 15.6.3 to 15.6.5).
_AWAY: Final = frozenset((502, 503, 504))
_ASKED: Final = counter(
    "relay_verify_total", "Whether to admit a node: control's answers, by what was made of them.", "outcome"
)
_log = log("verify")


K = TypeVar("K")


class _Doubt(Enum):
    """Why there is neither a yes nor a no."""

    AWAY = auto()
    NONSENSE = auto()


class _Answer(msgspec.Struct, frozen=True):
    allow: bool = msgspec.field(name="Allow")


class Verifier:
    """Asks ``url`` about each node; an async context manager. ``admit`` is what a Relay wants.

    Args:
        url: control's ``/verify``.
        clock: tells how old an answer is.
        fail_open: while control is away, admit whom it admitted within a day.
        ssl_context: whom to trust for https; the system's authorities by default.
    """

    def __init__(
        self, url: str, clock: Clock, *, fail_open: bool = False, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._url = url
        self._clock = clock
        self._fail_open = fail_open
        # The operator names the address, and control may well be on the same private network.
        self._fetcher = Fetcher(allow_private=True, seconds=ASK_SECONDS, redirects=0, ssl_context=ssl_context)
        self._at_once = asyncio.Semaphore(AT_ONCE)
        # Answers by key and address, because control is told both; who was admitted by key, because nodes move.
        self._answers = _Memory[tuple[NodePublic, str]](clock)
        self._known = _Memory[NodePublic](clock)
        self._away = False
        self._ask_again = float("-inf")  # no question before this moment

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._fetcher.__aexit__(kind, error, trace)

    async def admit(self, key: NodePublic, source: str) -> bool:
        """Whether control lets this node in, from this address. Never raises a DoorwardError: doubt is a no."""
        found = await self._find_out(key, source)
        return self._without_control(key) if found is _Doubt.AWAY else found is True

    async def still(self, key: NodePublic, source: str) -> bool | None:
        """Whether control would let a node in again that is connected; None when it does not say. Raises nothing.

        A yes that is remembered does not count: it is what is in question.
        """
        if self._answers.get((key, source)) is False:
            return False
        async with self._at_once:
            found = await self._find_out_now(key, source)
        return found if isinstance(found, bool) else None

    async def _find_out(self, key: NodePublic, source: str) -> bool | _Doubt:
        if (remembered := self._answers.get((key, source))) is not None:
            return remembered
        async with self._at_once:
            # Another connection of the same node may have asked while this one waited.
            if (remembered := self._answers.get((key, source))) is not None:
                return remembered
            return await self._find_out_now(key, source)

    async def _find_out_now(self, key: NodePublic, source: str) -> bool | _Doubt:
        if self._clock.monotonic() < self._ask_again:
            return _Doubt.AWAY
        try:
            allowed = await self._ask(key, source)
        except Unavailable as error:
            self._ask_again = self._clock.monotonic() + AWAY_SECONDS
            if not self._away:  # once, not for every node that comes
                self._away = True
                _log.error("control does not answer", reason=error.message, fail_open=self._fail_open)
            return _Doubt.AWAY
        except DoorwardError as error:
            _log.warning("control's answer about a node is none", reason=error.message)
            _ASKED.labels("nonsense").inc()
            return _Doubt.NONSENSE
        if self._away:
            self._away = False
            _log.info("control answers again")
        _ASKED.labels("yes" if allowed else "no").inc()
        self._answers.put((key, source), allowed, YES_SECONDS if allowed else NO_SECONDS)
        if allowed:
            self._known.put(key, True, KNOWN_SECONDS)
        else:
            self._known.forget(key)
        return allowed

    async def _ask(self, key: NodePublic, source: str) -> bool:
        answer = await self._fetcher.request(
            "POST",
            self._url,
            limit=MAX_ANSWER,
            headers={"content-type": "application/json"},
            body=msgspec.json.encode(VerifyRequest(node_public=str(key), source=source)),
        )
        if answer.status in _AWAY:
            raise Unavailable(f"control is away: status {answer.status}")
        if answer.status != 200:
            raise DoorwardError(f"control answered with status {answer.status}, expected 200")
        try:
            return msgspec.json.decode(answer.body, type=_Answer).allow
        except (ValueError, RecursionError):
            raise DoorwardError(
                'control answered with something else than {"Allow": true} or false'
            ) from None

    def _without_control(self, key: NodePublic) -> bool:
        welcome = self._fail_open and self._known.get(key) is True
        _ASKED.labels("away, known" if welcome else "away, refused").inc()
        return welcome


class _Memory(Generic[K]):
    """Answers that end, at most MOST of them; the oldest goes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[K, tuple[bool, float]] = OrderedDict()

    def get(self, key: K) -> bool | None:
        found = self._entries.get(key)
        if found is None:
            return None
        answer, until = found
        if self._clock.monotonic() >= until:
            del self._entries[key]
            return None
        return answer

    def put(self, key: K, answer: bool, seconds: float) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (answer, self._clock.monotonic() + seconds)
        if len(self._entries) > MOST:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)
