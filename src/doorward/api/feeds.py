"""Pages that are told of what changes while somebody looks at them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from doorward.api import console_types as types
from doorward.api import tabs
from doorward.api.access import ALLOWED, Permission
from doorward.api.machines import Board, Stream, View
from doorward.asgi import RateLimit
from doorward.clock import Clock
from doorward.errors import DoorwardError, TooMany
from doorward.model import Node, Session
from doorward.store import signin
from doorward.tailnet.registry import Registry
from doorward.tailnet.snapshot import Snapshot

COALESCE = 0.25  # seconds between two events about machines at least
KEEP_ALIVE = 15.0  # seconds until a comment is sent: proxies close what is silent for a minute
OPENS_PER_SECOND, OPENS = 1.0, 60.0  # terminals that a person opens; each is written down for good
MOST_STREAMS = 40  # of one person; a page has one
KEPT = 60.0  # seconds for which what a person was shown is kept up to date for their next question, while nobody listens
MOST_KEPT = 8  # people of whom it is: at 10,000 machines each takes some megabytes


class Feeds:
    """The streams of events that are open in this process, by person; and what those see who have just asked.

    Args:
        registry: the tailnet.
        clock: for rate limits, and for how long ago somebody asked.
    """

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._boards: dict[int, Board] = {}
        self._asked: dict[int, float] = {}  # when these boards were last wanted; the latest is last
        self._closed = False
        self._opens = RateLimit(rate=OPENS_PER_SECOND, burst=OPENS, clock=clock)
        registry.writer.watch(self._changed)

    def _changed(self, before: Snapshot, after: Snapshot, touched: frozenset[int] | None) -> None:
        self._forget()
        if not self._boards:
            return
        # Once for all who look: there may be as many of them as there are tabs.
        owners = (
            None if touched is None else _owners_of_tabs(before, touched) | _owners_of_tabs(after, touched)
        )
        for user_id, board in self._boards.items():
            # Whom a person sees depends on what of theirs there is; what they may do, on nobody's devices.
            roster, known = after.policy.roster, before.policy.roster
            moved = roster.by_owner.get(user_id) != known.by_owner.get(user_id)
            mine = roster.by_owner.get(user_id, frozenset())
            moved = moved or (
                touched is not None and not mine.isdisjoint(touched) and after.policy is not before.policy
            )
            if owners is None or user_id in owners:
                for stream in board.streams:
                    stream.looks_at_tabs = True
            board.note(touched, wide=moved)

    def end_all(self) -> None:
        """The process stops: pages connect again by themselves."""
        self._closed = True
        for board in self._boards.values():
            for stream in board.streams:
                stream.over = True
                stream.wake.set()

    def board(self, user_id: int) -> Board:
        """The board of a person, which all that they ask shares: what it has, only changes cost anything to keep true."""
        found = self._boards.get(user_id)
        if found is None:
            found = self._boards[user_id] = Board(
                lambda: view_of(self._registry.snapshot, user_id), self._expired
            )
        self._asked.pop(user_id, None)
        self._asked[user_id] = self._clock.monotonic()
        self._forget()
        return found

    def _forget(self) -> None:
        """Drop the boards that nobody listens to and that were not asked for in a while, or by too many others since."""
        since = self._clock.monotonic() - KEPT
        idle = [user_id for user_id in self._asked if not self._boards[user_id].streams]
        for place, user_id in enumerate(reversed(idle)):
            if place >= MOST_KEPT or self._asked[user_id] < since:
                del self._boards[user_id], self._asked[user_id]

    def _expired(self, node: Node) -> bool:
        return node.expired(self._registry.writer.now())

    async def listen(self, user_id: int, session: Session | None) -> AsyncIterator[bytes]:
        """The events for one page, until it goes or nobody is signed in there any more.

        ``session`` is the one by which somebody is; None where the page is known by its device.
        """
        stream = Stream()
        board = self.board(user_id)
        if len(board.streams) >= MOST_STREAMS:  # many began at the same moment, when there was room
            return
        board.streams.add(stream)
        loop = asyncio.get_running_loop()
        beat = loop.time() + KEEP_ALIVE
        try:
            await board.refresh()
            await self._tab_news(user_id, session, stream)
            stream.different.clear()  # the page asks for everything once it hears us
            yield b": listening\n\n"
            while not (stream.over or self._closed):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(beat):
                        await stream.wake.wait()
                stream.wake.clear()
                beats = loop.time() >= beat
                if (end := await self._end(user_id, session if beats else None)) is not None:
                    yield _event("session", end)
                    return
                if beats:
                    beat = loop.time() + KEEP_ALIVE
                    yield b": still here\n\n"
                for news in await self._tab_news(user_id, session, stream):
                    yield _event("tab", news)
                await board.refresh()
                if stream.different:
                    ids, stream.different = stream.different, set()
                    yield b"event: machines\ndata: " + board.told(ids) + b"\n\n"
                    await asyncio.sleep(COALESCE)
        finally:
            board.streams.discard(stream)
            self._forget()

    async def _tab_news(self, user_id: int, session: Session | None, stream: Stream) -> list[types.TabEvent]:
        """What is new about the tabs of a page's session. One that has just been made is known to its page."""
        if session is None or not stream.looks_at_tabs:
            return []
        stream.looks_at_tabs = False
        registry = self._registry
        snapshot, news, there = registry.snapshot, list[types.TabEvent](), set[int]()
        for tab_id in sorted(snapshot.tabs):
            node = registry.tabs.find(user_id, session.id, tab_id)
            if node is None:
                continue
            there.add(tab_id)
            try:
                now = tabs.event(await tabs.targets(registry, node), tab_id)
            except DoorwardError:  # the store is away: looked at again
                stream.looks_at_tabs = True
                continue
            encoded = msgspec.json.encode(now)
            if stream.tabs.get(tab_id, encoded) != encoded:
                news.append(now)
            stream.tabs[tab_id] = encoded
        for tab_id in sorted(stream.tabs.keys() - there):
            try:
                ended = await registry.tabs.ended(user_id, session.id, tab_id)
            except DoorwardError:
                stream.looks_at_tabs = True
                continue
            del stream.tabs[tab_id]
            if ended is not None:
                news.append(tabs.ended_event(ended))
        return news

    async def _end(self, user_id: int, session: Session | None) -> types.SessionEvent | None:
        """What ends a stream, if something does; ``session`` is the one to look at, None for none."""
        user = self._registry.snapshot.users.get(user_id)
        if user is not None and user.suspended:
            return types.SessionEvent(state="suspended")
        is_over = user is None or not await self._is_signed_in(session)
        return types.SessionEvent(state="over") if is_over else None

    async def _is_signed_in(self, session: Session | None) -> bool:
        """Whether the session still is; a store that cannot be asked ends none."""
        if session is None:
            return True
        writer = self._registry.writer
        try:
            found = await writer.database.read(signin.session_by_id, session.id)
        except DoorwardError:
            return True
        return found is not None and found.is_open(writer.now())

    def require_room(self, user_id: int) -> None:
        """Raise TooManyStreams where a person listens at too many pages."""
        board = self._boards.get(user_id)
        if board is not None and len(board.streams) >= MOST_STREAMS:
            raise TooManyStreams

    def takes(self, user_id: int) -> None:
        """Count one more terminal of a person's. Raises RateExceeded for one who opens them in a loop."""
        self._opens.take(str(user_id))

    def sees(self, user_id: int, node: Node) -> bool:
        """True if a person sees a machine."""
        view = view_of(self._registry.snapshot, user_id)
        return view is not None and view.machine(node, expired=self._expired(node)) is not None


class TooManyStreams(TooMany):
    """A person has more pages of the console open than are told of changes."""

    problem = "too-many-streams"

    def __init__(self) -> None:
        super().__init__(
            f"{MOST_STREAMS} pages of yours are told of changes already", cure="Close some of them."
        )


def view_of(snapshot: Snapshot, user_id: int) -> View | None:
    """What a person sees now; None for one who is suspended or gone."""
    user = snapshot.users.get(user_id)
    if user is None or user.suspended:
        return None
    return View(snapshot, user, everything=Permission.READ in ALLOWED[user.role])


def _owners_of_tabs(snapshot: Snapshot, touched: frozenset[int]) -> set[int]:
    """Of whom one of these nodes is a tab, or what one is for."""
    found: set[int] = set()
    for tab_id in snapshot.tabs:
        node = snapshot.nodes[tab_id]
        if node.user_id is None or node.user_id in found or node.tab is None:
            continue
        if tab_id in touched or any(target.node_id in touched for target in node.tab.targets):
            found.add(node.user_id)
    return found


def _event(name: str, data: types.SessionEvent | types.TabEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))
