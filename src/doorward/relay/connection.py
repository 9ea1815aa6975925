"""What the relay keeps of one connection, and how much of it may wait. PURE.

A slow reader costs itself, never others: packets that its socket cannot take now wait in two queues, data and disco,
each bounded in packets and in bytes. A new packet that does not fit pushes out the *oldest*: that one has most likely
been sent again already.
"""

from collections import deque
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from doorward.protocol import derp
from doorward.protocol.keys import KEY_SIZE, NodePublic

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take. The defaults keep a slow reader's delay near that of its own link."""

    # Data: 128 KiB wait 0.1 s on a link of 10 Mbit/s, and hold the largest packet twice.
    data_packets: int = 128
    data_bytes: int = 128 * 1024
    # Disco: one packet is some 110 bytes; more than 32 waiting are repeats.
    disco_packets: int = 32
    disco_bytes: int = 16 * 1024
    # Frames of the relay itself: PeerGone above all. A reader this far behind is closed, since these are not dropped.
    control_bytes: int = 64 * 1024
    # A line to another relay of the region carries many clients: more of them may be behind at once.
    line_packets: int = 2048
    line_bytes: int = 2 * 1024 * 1024
    # A watcher is told of every connection at once: 56 bytes each.
    watcher_bytes: int = 4 * 1024 * 1024
    keep_alive: float = 60.0  # seconds; clients give a relay up after 120 without a frame
    keep_alive_jitter: float = 5.0  # seconds, so that connections made together do not wake together
    # Bytes per second that a connection may send, 0 for no limit. Mesh peers are exempt.
    bytes_per_second: int = 0
    bytes_burst: int = 1024 * 1024  # at least one largest frame

    def __post_init__(self) -> None:
        largest = derp.HEADER_SIZE + derp.MAX_CLIENT_PAYLOAD
        assert self.data_bytes >= largest, "a queue must hold the largest packet"
        assert self.bytes_burst >= largest, "a burst must hold the largest frame"


# PeerGone "not here", per connection: more would only storm a client that talks to many who are gone (section 5).
NOT_HERE_PER_SECOND = 1.0
NOT_HERE_BURST = 3.0


@dataclass(slots=True)
class Counts:
    """What the relay did since it started."""

    packets_received: int = 0  # from senders, delivered or not
    bytes_received: int = 0  # everything read, frames and all
    packets_sent: int = 0  # handed to a connection's write buffer, a client's or a line's
    packets_forwarded: int = 0  # of these, handed to a line: the client is at another relay of the region
    bytes_sent: int = 0
    dropped_unknown: int = 0  # nobody with that key is here
    dropped_data: int = 0  # pushed out of a full queue, or still queued when the connection ended
    dropped_disco: int = 0
    connections: int = 0  # ever made
    pings: int = 0

    def items(self) -> list[tuple[str, int]]:
        """Name and value of each count."""
        return [(entry.name, getattr(self, entry.name)) for entry in fields(self)]


class Allowance:
    """A token bucket: it fills by ``rate`` a second up to ``burst``, and starts full."""

    __slots__ = ("at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.at = now

    def _fill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self._fill(now)
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def charge(self, amount: float, now: float) -> float:
        """Take ``amount``, even below zero; return the seconds until the bucket is at zero again."""
        self._fill(now)
        self.tokens -= amount
        return max(0.0, -self.tokens / self.rate)


class Queue:
    """Frames that wait, bounded in number and bytes; a new one pushes out the oldest."""

    __slots__ = ("frames", "max_bytes", "max_packets", "size")

    def __init__(self, max_packets: int, max_bytes: int) -> None:
        self.frames: deque[bytes] = deque()
        self.size = 0
        self.max_packets = max_packets
        self.max_bytes = max_bytes

    def push(self, frame: bytes) -> int:
        """Add a frame; return how many were dropped for it (itself, if it alone is larger than the queue)."""
        frames = self.frames
        frames.append(frame)
        self.size += len(frame)
        dropped = 0
        while len(frames) > self.max_packets or self.size > self.max_bytes:
            self.size -= len(frames.popleft())
            dropped += 1
        return dropped

    def clear(self) -> None:
        """Forget everything that waits."""
        self.frames.clear()
        self.size = 0


@dataclass(slots=True, eq=False)
class Presence:
    """A key, all its connections here (the active one last), and the lines behind which it is (the newest last).

    It lives as long as there is one of either.
    """

    key: bytes
    connections: "list[Connection]" = field(default_factory=list)
    lines: "list[Connection]" = field(default_factory=list)
    # Those who received a packet from this key, and must hear when it is gone.
    reached: "set[Connection]" = field(default_factory=set)


class Connection:
    """One client's connection, as the hub sees it. The shell reads ``owner``, ``key`` and the queue sizes.

    With ``line`` it is our own connection to another relay of the region: packets leave on it as ForwardPacket, and its
    ``presence`` is of nobody.
    """

    __slots__ = (
        "address",
        "closed",
        "control",
        "control_size",
        "data",
        "disco",
        "flags",
        "heard",
        "home",
        "key",
        "line",
        "mesh",
        "mesh_keys",
        "not_here",
        "owner",
        "paused",
        "pong_waits",
        "port",
        "prefix",
        "presence",
        "raw",
        "reader",
        "reading",
        "watches",
    )

    def __init__(
        self,
        key: NodePublic,
        presence: Presence,
        limits: Limits,
        *,
        owner: Any,
        address: Address | None,
        port: int,
        flags: derp.PresenceFlag,
        now: float,
        line: bool = False,
    ) -> None:
        self.key = key
        self.raw = key.raw
        self.owner = owner  # the shell's own; not looked at here
        self.address = address
        self.port = port
        self.flags = flags
        self.mesh = derp.PresenceFlag.MESH_PEER in flags
        self.presence = presence
        self.reader = derp.FrameReader(derp.MAX_CLIENT_PAYLOAD)
        self.closed = False
        self.home = False  # this relay is the client's home; for statistics only
        self.paused = False
        self.pong_waits = False
        self.watches = False
        self.line = line
        # Bytes of a queued frame before the packet: the header and the keys.
        self.prefix = derp.HEADER_SIZE + (2 * KEY_SIZE if line else KEY_SIZE)
        self.mesh_keys: dict[bytes, Presence] = {}  # who is behind this line
        self.data = (
            Queue(limits.line_packets, limits.line_bytes)
            if line
            else Queue(limits.data_packets, limits.data_bytes)
        )
        self.disco = Queue(limits.disco_packets, limits.disco_bytes)
        self.control: list[bytes] = []
        self.control_size = 0
        self.heard: set[Presence] = set()  # those from whom it received a packet
        self.not_here = Allowance(NOT_HERE_PER_SECOND, NOT_HERE_BURST, now)
        self.reading = Allowance(limits.bytes_per_second, limits.bytes_burst, now)

    def queued(self) -> int:
        """Bytes that wait in the hub for this connection."""
        return self.data.size + self.disco.size + self.control_size

    def __repr__(self) -> str:
        return f"Connection({self.key.short()})"
