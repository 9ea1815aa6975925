"""Lines to the other relays of the region: a connection of ours to each, kept up (protocol note derp.md, section 6).

::

    dial ──▶ prove the mesh key ──▶ WatchConns ──▶ PeerPresent, PeerGone: the hub learns who is behind this line
      ▲                                                    │
      └────── wait, longer after each quick end ◀── ended ─┘      then nobody is behind it any more

The other relay keeps such a line to us, on which its packets come; to us that is a connection like any other, but for
the mesh key. So each line carries packets one way and news the other.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from doorward.engine.derp import DERPClient, PeerGone, pinned_context
from doorward.engine.processes import Backoff
from doorward.errors import BadInput, DoorwardError, Unavailable
from doorward.protocol import derp
from doorward.protocol.keys import NodePrivate
from doorward.relay.server import Relay
from doorward.relay.session import MESH_STALL_SECONDS, tune
from doorward.telemetry import gauge, log

MESH_KEY_DIGITS: Final = 64
GREETING: Final = 5.0  # seconds in which a new line's news are of old

_LINES = gauge("relay_mesh_lines", "Lines that are up to other relays of the region.")
_HEX: Final = frozenset("0123456789abcdef")
_log = log("mesh")


@dataclass(frozen=True, slots=True)
class Peer:
    """Where another relay of the region is: over TLS, or behind a Unix socket of this machine."""

    host: str = "localhost"
    port: int = 443
    pin: str = ""  # as a DERP map's CertName; empty: the system's authorities vouch for it
    unix_socket: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``https://HOST[:PORT][#sha256-raw:HEX]`` or ``unix:PATH``. Raises BadInput.

        Without TLS anyone on the way could pretend to be the relay, and would be told the mesh key.
        """
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(unix_socket=Path(text.removeprefix("unix:")))
        try:
            split = urlsplit(text)
            host, port = split.hostname, split.port
        except ValueError:
            host = port = None
            split = urlsplit("")
        pin = split.fragment
        digits = pin.removeprefix(derp.PIN_PREFIX)
        if split.scheme != "https" or not host or split.path not in {"", "/", "/derp"} or split.username:
            raise _not_a_peer(text)
        if pin and (digits == pin or len(digits) != 64 or not _HEX.issuperset(digits)):
            raise _not_a_peer(text)
        return cls(host=host, port=port or 443, pin=pin)

    def __str__(self) -> str:
        return f"unix:{self.unix_socket}" if self.unix_socket else f"https://{self.host}:{self.port}"


def _not_a_peer(text: str) -> BadInput:
    return BadInput(
        f"{text!r} is not the address of a relay to mesh with",
        cure="Write https://HOST:PORT, and behind it #sha256-raw:... where its certificate is pinned.",
    )


def read_mesh_key(text: str) -> str:
    """The mesh key in a file's text: 64 hex digits, which all relays of a region share. Raises BadInput, not repeating it."""
    key = text.strip().lower()
    if len(key) != MESH_KEY_DIGITS or not _HEX.issuperset(key):
        raise BadInput(
            f"a mesh key is {MESH_KEY_DIGITS} hex digits", cure="Make one: openssl rand -hex 32 > mesh.key"
        )
    return key


class Mesh:
    """Keeps the lines of one relay. ``run`` it beside the relay's own ``run``.

    Args:
        relay: ours; it must know the same mesh key, or the others' lines to it are not.
        mesh_key: as ``read_mesh_key`` gives it.
        peers: the other relays. One that turns out to be ourselves is left out, so that all may be given the same list.
        seconds: between the first attempts to reach one that is away, and at most between later ones.
    """

    def __init__(
        self,
        relay: Relay,
        mesh_key: str,
        peers: Sequence[Peer],
        *,
        seconds: tuple[float, float] = (0.1, 5.0),
    ) -> None:
        self._relay = relay
        self._mesh_key = mesh_key
        self._peers = tuple(peers)
        self._seconds = seconds
        # Its own at each start: the others tell their lines apart by it, and nothing else.
        self._key = NodePrivate.from_entropy(relay.entropy(32))

    async def run(self) -> None:
        """Keep every line up, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for peer in self._peers:
                group.create_task(self._keep(peer))

    async def _keep(self, peer: Peer) -> None:
        first, longest = self._seconds
        backoff = Backoff(first=first, longest=longest, steady=30.0)
        said = ""
        while True:
            started = self._relay.now()
            try:
                if not await self._live(peer):
                    _log.info("this mesh peer is ourselves", peer=str(peer))
                    return
            except DoorwardError as error:
                if error.message != said:  # once for each reason, or one relay that is away fills the log
                    said = error.message
                    _log.warning("no line to a relay of the region", peer=str(peer), reason=said)
            lived = self._relay.now() - started
            if lived >= longest:
                said = ""
            await asyncio.sleep(backoff.after(lived))

    async def _live(self, peer: Peer) -> bool:
        """One line, from dialling to its end, which is an error; False when it leads to ourselves."""
        context = None
        if peer.unix_socket is None:
            context = pinned_context() if peer.pin else ssl.create_default_context()
        client = await _Client.connect(
            peer.host,
            peer.port,
            self._key,
            entropy=self._relay.entropy,
            context=context,
            pin=peer.pin,
            mesh_key=self._mesh_key,
            on_packet=_ignore,
            unix_socket=peer.unix_socket,
        )
        # The shards of one machine share a relay key, and know by their sockets who is who.
        if peer.unix_socket is None and client.server_key == self._relay.key.public():
            client.close()
            return False
        line = Line(self._relay, client, self._key)
        try:
            client.send_raw(derp.frame(derp.WATCH_CONNS))
            _LINES.inc()
            _log.info("a line to a relay of the region is up", peer=str(peer))
            while True:
                line.news(await client.recv())
        finally:
            _LINES.dec()
            line.close()


class Line:
    """What the hub writes to: packets for nodes at the other relay."""

    patience = MESH_STALL_SECONDS

    def __init__(self, relay: Relay, client: "_Client", key: NodePrivate) -> None:
        self._relay = relay
        self._client = client
        self._opened = relay.now()
        self._connection = relay.hub.open_line(key.public(), self._opened, owner=self)
        client.line = self

    def news(self, event: object) -> None:
        """Who is there, and who is no longer."""
        hub = self._relay.hub
        match event:
            case derp.PeerPresent(peer=peer, flags=flags) if derp.PresenceFlag.MESH_PEER not in flags:
                # First it says who has long been there.
                newly = self._relay.now() - self._opened > GREETING
                hub.learn(self._connection, peer, newly=newly)
            case PeerGone(peer=peer, reason=derp.GONE_DISCONNECTED):
                self._relay.apply(hub.unlearn(self._connection, peer))
            case _:
                pass

    def stalled(self, is_stalled: bool) -> None:
        """The connection takes no more for now, or takes more again."""
        self._relay.stalled(self, is_stalled)
        if is_stalled:
            self._relay.hub.pause(self._connection)
        else:
            self._relay.apply(self._relay.hub.resume(self._connection))

    def close(self) -> None:
        """The end of the line, whoever ended it."""
        self._client.line = None
        self._client.cut()
        self._relay.stalled(self, is_stalled=False)
        self._relay.apply(self._relay.hub.close_line(self._connection))

    # --- For the relay

    def write(self, data: bytes) -> None:
        """Send, unless the connection has ended and nobody has heard of it yet."""
        if self._client.is_open:
            self._client.send_raw(data)

    def unsent(self) -> int:
        """Bytes in the write buffer."""
        return self._client.unsent()

    def end(self, why: str) -> None:
        """Close now; it will be dialled again."""
        _log.warning("a line to a relay of the region is cut", why=why)
        self._client.cut()


class _Client(DERPClient):
    """A relay client that says when it takes no more."""

    line: Line | None = None

    def connection_made(self, transport: Any) -> None:
        """Buffers as small as a client's of ours: all of it is delay."""
        tune(transport, MESH_STALL_SECONDS)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.line is not None:
            self.line.stalled(is_stalled=True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.line is not None:
            self.line.stalled(is_stalled=False)

    def unsent(self) -> int:
        """Bytes in the write buffer."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def cut(self) -> None:
        """Close now, whatever was not sent; harmless when it has ended already."""
        self._fail(Unavailable("the line was cut"))


def _ignore(_source: bytes, _packet: bytes) -> None:
    """Packets for the mesh key itself: nobody is there."""
