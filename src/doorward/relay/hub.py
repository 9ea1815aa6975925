"""Who is connected to the relay, and where each packet goes. PURE: bytes in, bytes out (protocol note derp.md, 5 and 6).

The shell feeds what a connection read to ``receive`` and writes what comes back: a list of ``(connection, bytes)``. All
packets of one read for one destination are one write, which is what makes the relay fast: the cost is the system call.

**Overload.** Nobody ever waits for a slow reader. While the shell's own write buffer for a connection is above its
mark, it says ``pause``; packets for that connection then queue here, disco and data apart, each bounded in packets and
in bytes. What does not fit pushes out the *oldest* of its kind: an old packet has most likely been sent again already,
and disco, which finds better paths, is not drowned by data. ``resume`` hands out all that is queued. So a connection
holds at most its two queues, the write buffer's mark and one read of a sender.

**Same key twice** is normal: a node that roams leaves a dead connection behind. All stay open; packets go to the one
that connected or sent something last (its *active* one).

**Mesh.** The relays of a region pass packets to each other. A connection that knows the mesh key may watch who is here,
forward packets of its own clients, and close a peer's connections. Towards each other relay we have a *line*, our own
connection there, and know from its news who is behind it. A packet goes to a connection here, else to the line behind
which its destination is, and never from one relay to a third: what came in forwarded is delivered here or dropped.
A node that roams may leave its dead connection here and come back at another relay: from that news on its packets go
there, until it is heard of here again.
"""

import hmac
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from doorward.errors import RemoteProtocolError
from doorward.protocol import derp
from doorward.protocol.disco import looks_like_disco
from doorward.protocol.keys import KEY_SIZE, NodePublic
from doorward.relay.connection import Address, Connection, Counts, Limits, Presence

Writes = list[tuple[Connection, bytes]]


class Hub:
    """The relay's core. Times are seconds of one monotonic clock.

    Args:
        limits: see Limits.
        entropy: gives so many random bytes.
        mesh_key: 64 hex digits that prove a mesh peer, or empty: nobody is one.
    """

    def __init__(self, limits: Limits, entropy: Callable[[int], bytes], *, mesh_key: str = "") -> None:
        self.limits = limits
        self.counts = Counts()
        self.doomed: set[Connection] = set()  # the shell must close these, then say ``disconnect``
        self._entropy = entropy
        self._mesh_key = mesh_key
        self._active: dict[bytes, Connection] = {}
        self._elsewhere: dict[bytes, Presence] = {}  # keys behind lines, whether or not they are here too
        self._watchers: set[Connection] = set()
        self._keep_alives: list[tuple[float, int, Connection]] = []
        self._order = count()

    # --- Who is here

    def knows_mesh_key(self, offered: str) -> bool:
        """Whether a client that offers this key is a mesh peer."""
        return bool(self._mesh_key) and hmac.compare_digest(offered.encode(), self._mesh_key.encode())

    def connect(
        self,
        key: NodePublic,
        now: float,
        *,
        owner: Any = None,
        address: Address | None = None,
        port: int = 0,
        flags: derp.PresenceFlag = derp.PresenceFlag.REGULAR,
    ) -> tuple[Connection, Writes]:
        """Take in a client whose key is proven and admitted; it becomes its key's active connection."""
        presence = self._presence(key.raw) or Presence(key.raw)
        connection = Connection(
            key, presence, self.limits, owner=owner, address=address, port=port, flags=flags, now=now
        )
        presence.connections.append(connection)
        self._active[key.raw] = connection
        self.counts.connections += 1
        self._schedule_keep_alive(connection, now)
        writes: Writes = []
        if self._watchers:
            frame = derp.peer_present(_describe(connection))
            for watcher in self._watchers:
                self._control(watcher, frame, writes)
        return connection, writes

    def disconnect(self, connection: Connection) -> Writes:
        """Forget a connection. When it was its key's last, those who heard from the key are told."""
        writes: Writes = []
        if connection.closed:
            return writes
        connection.closed = True
        self.doomed.discard(connection)
        self._watchers.discard(connection)
        self._drop_queues(connection)
        for source in connection.heard:
            source.reached.discard(connection)
        connection.heard.clear()
        presence = connection.presence
        presence.connections.remove(connection)
        if presence.connections:
            if presence.key in self._active:
                self._active[presence.key] = presence.connections[-1]
            return writes
        self._active.pop(presence.key, None)
        gone = derp.peer_gone(presence.key, derp.GONE_DISCONNECTED)
        for watcher in self._watchers:  # they ask who is *here*
            self._control(watcher, gone, writes)
        if not presence.lines:
            self._tell_gone(presence, writes)
        return writes

    def _drop_queues(self, connection: Connection) -> None:
        self.counts.dropped_data += len(connection.data.frames)
        self.counts.dropped_disco += len(connection.disco.frames)
        connection.data.clear()
        connection.disco.clear()
        connection.control.clear()
        connection.control_size = 0

    def _presence(self, key: bytes) -> Presence | None:
        """What is known of a key, here or behind a line."""
        active = self._active.get(key)
        return active.presence if active is not None else self._elsewhere.get(key)

    def _tell_gone(self, presence: Presence, writes: Writes) -> None:
        """A key is nowhere in the region any more: tell those who heard from it. Watchers know already."""
        gone = derp.peer_gone(presence.key, derp.GONE_DISCONNECTED)
        for listener in presence.reached:
            listener.heard.discard(presence)
            if not listener.watches:
                self._control(listener, gone, writes)
        presence.reached.clear()

    # --- Lines to the other relays of the region

    def open_line(self, key: NodePublic, now: float, *, owner: Any = None) -> Connection:
        """Take in our own connection to another relay, proven there by ``key``. It is told of no one: it carries packets."""
        flags = derp.PresenceFlag.MESH_PEER
        return Connection(
            key,
            Presence(key.raw),
            self.limits,
            owner=owner,
            address=None,
            port=0,
            flags=flags,
            now=now,
            line=True,
        )

    def learn(self, line: Connection, key: NodePublic, *, newly: bool = False) -> None:
        """The relay behind the line says that a node is there; ``newly``: that it has connected there just now."""
        if line.closed:
            return
        if key.raw not in line.mesh_keys:
            presence = self._presence(key.raw) or Presence(key.raw)
            presence.lines.append(line)
            self._elsewhere[key.raw] = line.mesh_keys[key.raw] = presence
        elif newly:
            lines = line.mesh_keys[key.raw].lines
            lines.remove(line)
            lines.append(line)
        if newly:
            # A connection that it has here, too, is older, and most likely dead. It is active again once it sends.
            self._active.pop(key.raw, None)

    def unlearn(self, line: Connection, key: NodePublic) -> Writes:
        """The relay behind the line says that a node has left it. Those here who heard from it are told, if it was its last place."""
        writes: Writes = []
        presence = line.mesh_keys.pop(key.raw, None)
        if presence is not None:
            self._leave(line, presence, writes)
        return writes

    def close_line(self, line: Connection) -> Writes:
        """The line has ended, and with it all that was known through it."""
        writes: Writes = []
        if line.closed:
            return writes
        line.closed = True
        self.doomed.discard(line)
        self._drop_queues(line)
        for presence in line.mesh_keys.values():
            self._leave(line, presence, writes)
        line.mesh_keys.clear()
        return writes

    def elsewhere(self) -> int:
        """How many keys are behind lines."""
        return len(self._elsewhere)

    def _leave(self, line: Connection, presence: Presence, writes: Writes) -> None:
        presence.lines.remove(line)
        if presence.lines:
            return
        del self._elsewhere[presence.key]
        if presence.connections:
            self._active.setdefault(presence.key, presence.connections[-1])
        else:
            self._tell_gone(presence, writes)

    def connections_of(self, key: NodePublic) -> tuple[Connection, ...]:
        """All connections of a key, the active one last."""
        presence = self._presence(key.raw)
        return tuple(presence.connections) if presence else ()

    def clients(self) -> int:
        """How many keys are connected here, and nowhere else since."""
        return len(self._active)

    # --- Packets

    def receive(self, connection: Connection, data: bytes, now: float) -> Writes:
        """Take what a connection sent and route it. Raises RemoteProtocolError: then close the connection."""
        if connection.closed:
            return []
        counts = self.counts
        counts.bytes_received += len(data)
        buffer, spans = connection.reader.spans(data)
        if not spans:
            return []
        if self._active.get(connection.raw) is not connection:
            self._make_active(connection)
        active, source, send = self._active, connection.raw, derp.SEND_PACKET
        groups: dict[Connection, list[bytes]] = {}
        forwarded: dict[Connection, list[bytes]] = {}
        writes: Writes = []
        length, prefix = -1, b""
        for kind, start, end in spans:
            if kind != send:
                if kind == derp.FORWARD_PACKET and connection.mesh:
                    self._forwarded(buffer[start:end], forwarded)
                    continue
                self._other(connection, kind, buffer[start:end], writes)
                continue
            body = start + KEY_SIZE
            if body > end or end - body > derp.MAX_PACKET:
                raise RemoteProtocolError(f"a SendPacket of {end - start} bytes")
            target = active.get(buffer[start:body])
            if target is None:
                self._not_here(connection, buffer[start:end], now, groups, writes)
                continue
            if end - start != length:  # packets of one read are mostly of one length
                length = end - start
                prefix = derp.HEADER.pack(derp.RECV_PACKET, length) + source
            pieces = groups.get(target)
            if pieces is None:
                groups[target] = [prefix + buffer[body:end]]
            else:
                pieces.append(prefix + buffer[body:end])
        if groups:
            self._deliver(connection.presence, groups, writes)
        for target, pieces in forwarded.items():
            self._hand(target, pieces, writes)
        return writes

    def _deliver(self, source: Presence, groups: dict[Connection, list[bytes]], writes: Writes) -> None:
        """Hand each destination its packets, all from ``source``: as one write, or into its queues."""
        for target, pieces in groups.items():
            if target not in source.reached and not target.line:
                source.reached.add(target)
                target.heard.add(source)
            self._hand(target, pieces, writes)

    def _hand(self, target: Connection, pieces: list[bytes], writes: Writes) -> None:
        counts = self.counts
        counts.packets_received += len(pieces)
        if target.paused:
            self._queue(target, pieces)
            return
        joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        counts.packets_sent += len(pieces)
        counts.bytes_sent += len(joined)
        if target.line:
            counts.packets_forwarded += len(pieces)
        writes.append((target, joined))

    def _queue(self, target: Connection, pieces: list[bytes]) -> None:
        for piece in pieces:
            if looks_like_disco(piece[target.prefix :]):
                self.counts.dropped_disco += target.disco.push(piece)
            else:
                self.counts.dropped_data += target.data.push(piece)

    def _not_here(
        self,
        connection: Connection,
        payload: bytes,
        now: float,
        groups: dict[Connection, list[bytes]],
        writes: Writes,
    ) -> None:
        """The destination is not here: behind a line, or nowhere."""
        presence = self._elsewhere.get(payload[:KEY_SIZE])
        if presence is None:
            self._unknown(connection, payload, now, writes)
            return
        # Behind several, any one would do. A node that moved is still said to be where it came from; the newest is right.
        line = presence.lines[-1]
        header = derp.HEADER.pack(derp.FORWARD_PACKET, KEY_SIZE + len(payload))
        groups.setdefault(line, []).append(header + connection.raw + payload)

    def _unknown(self, connection: Connection, payload: bytes, now: float, writes: Writes) -> None:
        """Nobody is there. Only disco, which asks for an answer, gets one, and not too often."""
        self.counts.packets_received += 1
        self.counts.dropped_unknown += 1
        if looks_like_disco(payload[KEY_SIZE:]) and connection.not_here.take(now):
            self._control(connection, derp.peer_gone(payload[:KEY_SIZE], derp.GONE_NOT_HERE), writes)

    def _forwarded(self, payload: bytes, groups: dict[Connection, list[bytes]]) -> None:
        """A packet that another relay of the region took in. It is delivered here or dropped, and never goes on."""
        if len(payload) < 2 * KEY_SIZE:
            raise RemoteProtocolError(f"a ForwardPacket of {len(payload)} bytes, less than two keys")
        source, packet = payload[:KEY_SIZE], payload[2 * KEY_SIZE :]
        target = self._here(payload[KEY_SIZE : 2 * KEY_SIZE])
        if target is None:  # it left just now, and the news of it is on the way to the other relay
            self.counts.packets_received += 1
            self.counts.dropped_unknown += 1
            return
        presence = self._presence(source)
        # Of a source that nobody told us of, nobody will tell us the end either: it leaves no trace.
        if presence is not None and target not in presence.reached:
            presence.reached.add(target)
            target.heard.add(presence)
        frame = derp.HEADER.pack(derp.RECV_PACKET, KEY_SIZE + len(packet)) + source + packet
        groups.setdefault(target, []).append(frame)

    def _here(self, key: bytes) -> Connection | None:
        """A key's connection here, whether or not it has a newer one elsewhere."""
        active = self._active.get(key)
        if active is not None:
            return active
        presence = self._elsewhere.get(key)
        return presence.connections[-1] if presence is not None and presence.connections else None

    def _make_active(self, connection: Connection) -> None:
        connections = connection.presence.connections
        connections.remove(connection)
        connections.append(connection)
        self._active[connection.raw] = connection

    # --- Everything else a client may send

    def _other(self, connection: Connection, kind: int, payload: bytes, writes: Writes) -> None:
        match kind:
            case derp.PING:
                pong = derp.pong_for(payload)
                self.counts.pings += 1
                if not connection.pong_waits:  # one pong waits at most; further pings are dropped
                    connection.pong_waits = connection.paused
                    self._control(connection, pong, writes)
            case derp.NOTE_PREFERRED:
                connection.home = derp.read_note_preferred(payload)
            case derp.FORWARD_PACKET:
                self._must_be_mesh(connection, "ForwardPacket")  # those of mesh peers do not come here
            case derp.WATCH_CONNS:
                self._must_be_mesh(connection, "WatchConns")
                self._watch(connection, writes)
            case derp.CLOSE_PEER:
                self._must_be_mesh(connection, "ClosePeer")
                self.doomed.update(self.connections_of(NodePublic(derp.read_key(payload, "ClosePeer"))))
            case derp.CLIENT_INFO:
                raise RemoteProtocolError("a second ClientInfo")
            case _:  # KeepAlive, Pong, and what later versions bring
                pass

    def _must_be_mesh(self, connection: Connection, what: str) -> None:
        if not connection.mesh:
            raise RemoteProtocolError(f"{what} from a client that is no mesh peer")

    def _watch(self, connection: Connection, writes: Writes) -> None:
        if connection.watches:
            return
        connection.watches = True
        self._watchers.add(connection)
        for present in self._active.values():
            self._control(connection, derp.peer_present(_describe(present)), writes)

    # --- What a connection can take

    def _control(self, connection: Connection, frame: bytes, writes: Writes) -> None:
        """Send a frame of the relay's own. These are never dropped: too many of them end the connection."""
        if not connection.paused:
            writes.append((connection, frame))
            return
        connection.control.append(frame)
        connection.control_size += len(frame)
        limit = self.limits.watcher_bytes if connection.watches else self.limits.control_bytes
        if connection.control_size > limit:
            self.doomed.add(connection)

    def pause(self, connection: Connection) -> None:
        """The connection's write buffer is above its mark: queue from now on."""
        connection.paused = True

    def resume(self, connection: Connection) -> Writes:
        """The write buffer has room again: everything that waits, the relay's own frames and disco first."""
        connection.paused = False
        connection.pong_waits = False
        if connection.closed or not connection.queued():
            return []
        packets = len(connection.disco.frames) + len(connection.data.frames)
        size = connection.disco.size + connection.data.size
        joined = b"".join((*connection.control, *connection.disco.frames, *connection.data.frames))
        self.counts.packets_sent += packets
        self.counts.bytes_sent += size
        if connection.line:
            self.counts.packets_forwarded += packets
        connection.control.clear()
        connection.control_size = 0
        connection.disco.clear()
        connection.data.clear()
        return [(connection, joined)]

    def charge(self, connection: Connection, size: int, now: float) -> float:
        """Take ``size`` bytes off a sender's allowance; return for how many seconds not to read from it (0: none)."""
        if not self.limits.bytes_per_second or connection.mesh:
            return 0.0
        return connection.reading.charge(size, now)

    # --- Time

    def _schedule_keep_alive(self, connection: Connection, now: float) -> None:
        jitter = self.limits.keep_alive_jitter * self._entropy(1)[0] / 255
        # The middle number only orders equal times, so that connections are never compared.
        heappush(self._keep_alives, (now + self.limits.keep_alive + jitter, next(self._order), connection))

    def tick(self, now: float) -> Writes:
        """Send the keep-alives that are due. Call it about once a second."""
        writes: Writes = []
        due = self._keep_alives
        while due and due[0][0] <= now:
            connection = heappop(due)[2]
            if connection.closed:
                continue
            if not connection.paused:  # one that is paused has enough to read
                writes.append((connection, _KEEP_ALIVE))
            self._schedule_keep_alive(connection, now)
        return writes


_KEEP_ALIVE: Final = derp.frame(derp.KEEP_ALIVE)


def _describe(connection: Connection) -> derp.PeerPresent:
    return derp.PeerPresent(connection.key, connection.address, connection.port, connection.flags)
