"""Room for connections: everyone is a guest until they have shown who they are, and a full lobby sends the idlest away.

::

    enter ─▶ guest ──settle──▶ settled (a node's map stream, an admitted relay client)
               │  ◀──unsettle──
               └─ sent away when there are too many guests: of the source with most of them, the one idle for longest

A limit for each address would have to be large enough for an office behind one address, and then is none. Here a flood
makes room by its own oldest connections, whoever comes from elsewhere stays, and who proves to be a node is not touched.
Nobody is sent away while they wait for us.
"""

from collections.abc import Callable

from doorward.telemetry import counter, gauge

_SENT_AWAY = counter("connections_sent_away_total", "Idle strangers' connections closed to make room.", "why")
_GUESTS = gauge("connections_guests", "Connections that have not shown yet whose they are.", "lobby")
_SETTLED = gauge("connections_settled", "Connections of nodes, and of proxies that are trusted.", "lobby")


def _nothing() -> None:
    """For a guest that has nothing to close."""


class Guest:
    """One connection's place. Made by ``Lobby.enter``; one without a lobby takes no room and is never sent away."""

    __slots__ = ("__weakref__", "_close", "_lobby", "_waits_for_us", "is_settled", "source")

    def __init__(self, source: str = "", lobby: "Lobby | None" = None) -> None:
        self.source = source
        self.is_settled = False
        self._lobby = lobby
        self._close: Callable[[], object] = _nothing
        self._waits_for_us = False

    def closes_by(self, close: Callable[[], object]) -> None:
        """Say how to cut the connection now."""
        self._close = close

    def touch(self) -> None:
        """It did something: others are idler."""
        if self._lobby is not None and not self.is_settled:
            self._lobby.move_to_end(self)

    def wait(self) -> None:
        """It waits for us, and is not to be sent away for that, until ``go_on``."""
        if self._lobby is not None and not self._waits_for_us and not self.is_settled:
            self._waits_for_us = True
            self._lobby.take_out(self)

    def go_on(self) -> None:
        """It is its turn again; harmless where it did not wait."""
        if self._lobby is not None and self._waits_for_us:
            self._waits_for_us = False
            self._lobby.put_in(self)

    def settle(self) -> None:
        """It is a node's: it stays for as long as it likes."""
        if self._lobby is not None and not self.is_settled:
            self.go_on()
            self._lobby.take_out(self)
            self.is_settled = True
            self._lobby.count(settled=1)

    def unsettle(self) -> None:
        """What made it a node's is over."""
        if self._lobby is not None and self.is_settled:
            self.is_settled = False
            self._lobby.count(settled=-1)
            self._lobby.put_in(self)

    def leave(self) -> None:
        """The connection is gone. Harmless a second time."""
        lobby = self._lobby
        if lobby is None:
            return
        if self.is_settled:
            lobby.count(settled=-1)
        elif not self._waits_for_us:
            lobby.take_out(self)
        self._lobby = None
        self._close = _nothing
        lobby.count(connections=-1)

    def send_away(self, why: str) -> None:
        """Cut it."""
        _SENT_AWAY.labels(why).inc()
        close = self._close
        self.leave()
        close()


class Lobby:
    """All connections that share one process's descriptors.

    Args:
        guests: how many may be strangers at the same time; beyond it the idlest is sent away.
        room: how many there may be in all; beyond it a stranger is sent away, and where there is none nobody else gets in.
        name: what metrics call it.
    """

    def __init__(self, *, guests: int, room: int, name: str = "network") -> None:
        self._guests_shown = _GUESTS.labels(name)
        self._settled_shown = _SETTLED.labels(name)
        self._most_guests = max(1, guests)
        self._room = max(1, room)
        self._connections = 0
        self._settled = 0
        # By source, the longest idle first; and the sources by how many guests they have.
        self._by_source: dict[str, dict[Guest, None]] = {}
        self._ranks: dict[int, dict[str, None]] = {}
        self._top = 0

    def __len__(self) -> int:
        return self._connections

    @property
    def idle(self) -> int:
        """Guests that could be sent away."""
        return sum(rank * len(sources) for rank, sources in self._ranks.items())

    def enter(self, source: str) -> Guest | None:
        """A place for a new connection; None where there is no room and nobody who could make some."""
        if self._connections - self._settled >= self._most_guests and not self.make_room("guests"):
            return None
        if self._connections >= self._room and not self.make_room("room"):
            return None
        guest = Guest(source, self)
        self.count(connections=1)
        self.put_in(guest)
        return guest

    def make_room(self, why: str) -> bool:
        """Send one guest away; False where all wait for us or are nodes."""
        if not self._top:
            return False
        source = next(iter(self._ranks[self._top]))
        next(iter(self._by_source[source])).send_away(why)
        return True

    # For guests.

    def count(self, *, connections: int = 0, settled: int = 0) -> None:
        """Connections came or went."""
        self._connections += connections
        self._settled += settled
        self._guests_shown.set(self._connections - self._settled)
        self._settled_shown.set(self._settled)

    def put_in(self, guest: Guest) -> None:
        """From now on it may be sent away."""
        there = self._by_source.setdefault(guest.source, {})
        there[guest] = None
        self._rank(guest.source, len(there) - 1, len(there))

    def take_out(self, guest: Guest) -> None:
        """It may not be sent away, or is gone."""
        there = self._by_source.get(guest.source)
        if there is None or guest not in there:
            return
        del there[guest]
        self._rank(guest.source, len(there) + 1, len(there))
        if not there:
            del self._by_source[guest.source]

    def move_to_end(self, guest: Guest) -> None:
        """The others of its source are idler."""
        there = self._by_source.get(guest.source)
        if there is not None and guest in there:
            del there[guest]
            there[guest] = None

    def _rank(self, source: str, before: int, now: int) -> None:
        """Each step is by one, so the top moves by one at most."""
        if before:
            sources = self._ranks[before]
            del sources[source]
            if not sources:
                del self._ranks[before]
        if now:
            self._ranks.setdefault(now, {})[source] = None
        if now > self._top:
            self._top = now
        elif self._top not in self._ranks:
            self._top = now if now in self._ranks else 0
