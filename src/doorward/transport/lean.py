"""The h2 library's connection in a third of its memory: ten thousand of them wait in one process, and most say nothing.

The library keeps each of a connection's settings, and each header table, in a deque, whose first block alone has 600
bytes, how its last 65,536 streams ended in an ordered dictionary, and a table with a bound method for every kind of frame.
Here they are lists and tuples, and a method is bound when its frame comes. That changes nothing of what the connection does. It leans on names that the library does not promise: its version
is pinned, and ``tests/transport/test_lean.py`` fails when one of them changes.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import ChangedSetting, SettingCodes, Settings
from h2.stream import StreamClosedBy
from hpack.hpack import Encoder
from hpack.table import HeaderTable

T = TypeVar("T")

# Streams whose end is remembered, for frames that were under way: more than may be open at once, twice over.
_MOST_CLOSED = 256
_MOST_TABLES = 64  # of settings that are kept for sharing; there are a handful of kinds of clients


_HUFFMAN = Encoder().huffman_coder  # it holds nothing of any connection


class LeanConnection(H2Connection):
    """An ``H2Connection`` that takes less memory."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.local_settings = _Settings(self.local_settings, client=config.client_side)
        self.remote_settings = _Settings(self.remote_settings, client=not config.client_side)
        self._closed_streams = cast("Any", _Closed())
        self.encoder.huffman_coder = _HUFFMAN
        _slim_table(self.encoder.header_table)
        _slim_table(self.decoder.header_table)
        self._frame_dispatch_table = cast("Any", _Dispatch(self))


class _Settings(Settings):
    """One number for each setting, in a table that equal connections share, and a queue only for what is not in force yet."""

    def __init__(self, given: Settings, *, client: bool) -> None:
        super().__init__(client)
        self._settings: Any = _shared(dict(given))
        self._waiting: list[tuple[int, int]] | None = None

    def __getitem__(self, key: int) -> int:
        value: int = self._settings[key]
        return value

    def __setitem__(self, key: int, value: int) -> None:
        self.validate_received_setting(key, value)
        self._waiting = [*(self._waiting or ()), (key, value)]

    def acknowledge(self) -> dict[SettingCodes | int, ChangedSetting]:
        """The oldest value that waits, of each setting, is in force."""
        changed: dict[SettingCodes | int, ChangedSetting] = {}
        later: list[tuple[int, int]] = []
        for key, value in self._waiting or ():
            if key in changed:
                later.append((key, value))
            else:
                changed[key] = ChangedSetting(key, self._settings.get(key), value)
        if changed:
            values = {key: change.new_value for key, change in changed.items()}
            self._settings = _shared({**self._settings, **values})
        self._waiting = later or None
        return changed


_tables: dict[frozenset[tuple[int, int]], dict[int, int]] = {}


def _shared(table: dict[int, int]) -> dict[int, int]:
    """One table for all that are equal, and never changed. Clients of one kind set the same; a hostile one gets its own."""
    if len(_tables) >= _MOST_TABLES:
        return _tables.get(frozenset(table.items()), table)
    return _tables.setdefault(frozenset(table.items()), table)


class _Closed:
    """How the last streams ended: the part of a dictionary's interface that the library uses."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: tuple[tuple[int, StreamClosedBy | None], ...] = ()

    def __setitem__(self, stream_id: int, how: StreamClosedBy | None) -> None:
        self._ends = (*self._ends[1 - _MOST_CLOSED :], (stream_id, how))

    def __contains__(self, stream_id: int) -> bool:
        return any(known == stream_id for known, _ in self._ends)

    def __getitem__(self, stream_id: int) -> StreamClosedBy | None:
        return next(how for known, how in self._ends if known == stream_id)


class _Queue(list[T]):
    """A short queue: the part of a deque's interface that the library uses."""

    __slots__ = ()

    def appendleft(self, item: T) -> None:
        self.insert(0, item)


class _Dispatch:
    """What takes a frame of each kind, bound to its connection when it is asked for."""

    __slots__ = ("_connection",)

    names: ClassVar = {
        kind: method.__name__
        for kind, method in H2Connection()._frame_dispatch_table.items()  # noqa: SLF001 - see the top
    }

    def __init__(self, connection: H2Connection) -> None:
        self._connection = connection

    def __getitem__(self, kind: type) -> Callable[..., Any]:
        return getattr(self._connection, self.names[kind])  # type: ignore[no-any-return]


def _slim_table(table: HeaderTable) -> None:
    table.dynamic_entries = cast("Any", _Queue(table.dynamic_entries))
