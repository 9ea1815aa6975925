"""The relay as a whole: who may come in, what runs beside the packets, and its HTTP routes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from starlette.routing import BaseRoute

from doorward.clock import Clock
from doorward.errors import LocalProtocolError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePublic
from doorward.relay.connection import Limits
from doorward.relay.hub import Hub, Writes
from doorward.relay.routes import relay_routes
from doorward.relay.session import Admit, End, Session, Stage
from doorward.relay.websocket import websocket_route
from doorward.telemetry import counter, gauge, log
from doorward.transport.listener import Refusal, UpgradeRequest

TICK_SECONDS: Final = 1.0

_EVENTS = counter("relay_events_total", "What the relay counted: packets, bytes, drops by reason.", "what")
_CLIENTS = gauge("relay_clients", "Node keys connected to the relay.")
_ELSEWHERE = gauge("relay_clients_elsewhere", "Node keys known to be at other relays of the region.")
_log = log("relay")


class Relay:
    """A DERP relay. Make it, give its takeover and routes to a listener, and keep ``run`` running.

    Args:
        key: the relay's own key pair, kept across restarts.
        admit: whether a node key, proven, from an address as text, may come in. May be awaitable.
        clock: where the time comes from.
        entropy: gives so many random bytes.
        limits: what one connection may take.
        mesh_key: 64 hex digits that other relays of the region prove themselves by; empty: there are none.
        origins: whose pages may come by WebSocket, as browsers write them; None for any page's.
    """

    def __init__(
        self,
        key: DERPPrivate,
        admit: Admit,
        clock: Clock,
        entropy: Callable[[int], bytes],
        limits: Limits | None = None,
        *,
        mesh_key: str = "",
        origins: Collection[str] | None = None,
    ) -> None:
        self.key = key
        self.admit = admit
        self.entropy = entropy
        self.hub = Hub(limits or Limits(), entropy, mesh_key=mesh_key)
        self.now = clock.monotonic
        self._origins = origins
        self._sessions: set[Session] = set()
        self._greeting: set[Session] = set()
        # A stalled connection, the bytes unsent when it last moved, and when that was.
        self._stalled: dict[End, tuple[int, float]] = {}
        self._told = dict(self.hub.counts.items())
        self._group: asyncio.TaskGroup | None = None
        # Told of each node that comes, with where from, and of each that is gone, with whether it said so.
        self.arrived: Callable[[NodePublic, str], None] = _nothing
        self.went: Callable[[NodePublic, bool], None] = _nothing

    # --- For the listener

    def takeover(self, request: UpgradeRequest) -> asyncio.Protocol | Refusal:
        """The protocol for a request with ``Upgrade: DERP``; the listener hands it the connection."""
        if request.path != "/derp":
            return Refusal(404, "DERP is at /derp.\n")
        if request.method != "GET":
            return Refusal(405, "DERP starts with a GET request.\n", (("allow", "GET"),))
        headers = list(request.headers)
        if not derp.wants_derp(headers):
            return Refusal(426, "This is a DERP relay.\n", (("upgrade", "DERP"),))
        if self._group is None:
            return Refusal(503, "The relay is not running.\n")
        source, port = request.client or request.peer or ("", None)
        return Session(
            self,
            source=source,
            port=port or 0,
            greeting=b"" if derp.wants_fast_start(headers) else derp.upgrade_response(self.key.public()),
            not_ideal=derp.is_not_ideal(headers),
            settle=request.guest.settle,
        )

    def routes(self, *, verify: bool = True) -> list[BaseRoute]:
        """Everything over ordinary HTTP: probes, the WebSocket, and ``/verify`` for other relays if wanted."""
        return [websocket_route(self, self._origins), *relay_routes(self.admit if verify else None)]

    def running(self) -> bool:
        """Whether ``run`` runs."""
        return self._group is not None

    # --- For the rest of doorward

    async def run(self) -> None:
        """Send keep-alives, keep deadlines and run admissions, until cancelled; then every connection is closed."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                while True:
                    self.tick()
                    await asyncio.sleep(TICK_SECONDS)
        finally:
            self._group = None
            self.close()

    def tick(self) -> None:
        """What is due now. ``run`` calls it every second."""
        now = self.now()
        self.apply(self.hub.tick(now))
        self._greeting = {session for session in self._greeting if session.stage is not Stage.OPEN}
        for session in [session for session in self._greeting if now >= session.deadline]:
            session.end("the handshake took too long")
        for end, (unsent, since) in list(self._stalled.items()):
            left = end.unsent()
            if left < unsent:
                self._stalled[end] = (left, now)
            elif now - since >= end.patience:
                end.end("it reads nothing")
        self._publish()

    def disconnect(self, node: NodePublic) -> int:
        """Throw a node out, which was deleted or has another key now; return how many connections it had."""
        connections = self.hub.connections_of(node)
        for connection in connections:
            connection.owner.end("its node is gone")
        return len(connections)

    def guests(self) -> dict[NodePublic, str]:
        """The nodes that are connected, each with an address that it has come from; other relays are none."""
        return {
            session.connection.key: session.source
            for session in self._sessions
            if session.connection is not None and not session.connection.mesh
        }

    def close(self) -> None:
        """Close every connection. New ones are refused once ``run`` has ended."""
        for session in list(self._sessions):
            session.shutdown()

    # --- For sessions

    def spawn(self, work: Awaitable[None]) -> None:
        """Run an admission. Sessions exist only while ``run`` runs, or are being closed by its end."""
        if self._group is None:
            raise LocalProtocolError("the relay is not running")

        async def admission() -> None:
            await work

        self._group.create_task(admission())

    def opened(self, session: Session) -> None:
        """A connection is there; watch its handshake."""
        self._sessions.add(session)
        self._greeting.add(session)

    def entered(self, session: Session) -> None:
        """It was admitted."""
        connection = session.connection
        if connection is not None and not connection.mesh:
            self.arrived(connection.key, session.source)

    def stalled(self, end: End, is_stalled: bool) -> None:
        """Its write buffer is, or is no longer, above the mark."""
        if is_stalled:
            self._stalled[end] = (end.unsent(), self.now())
        else:
            self._stalled.pop(end, None)

    def ended(self, session: Session) -> None:
        """It is gone."""
        self._sessions.discard(session)
        self._greeting.discard(session)
        self._stalled.pop(session, None)
        connection = session.connection
        if connection is None or connection.mesh:
            return
        others = [one for one in self.hub.connections_of(connection.key) if one is not connection]
        if session.left or not others:
            self.went(connection.key, session.left)

    def apply(self, writes: Writes) -> None:
        """Write what the hub decided, and close what it gave up."""
        for connection, data in writes:
            connection.owner.write(data)
        while self.hub.doomed:
            self.hub.doomed.pop().owner.end("closed by the hub")

    def _publish(self) -> None:
        for name, value in self.hub.counts.items():
            if value != self._told[name]:
                _EVENTS.labels(name).inc(value - self._told[name])
                self._told[name] = value
        _CLIENTS.set(self.hub.clients())
        _ELSEWHERE.set(self.hub.elsewhere())


def _nothing(_key: NodePublic, _said: object) -> None:
    """Nobody wants to know."""
