"""The daemon's LocalAPI: HTTP over its Unix socket (control.md section 26).

Permission comes from who we are: reading is open to every local user, writing to root and the configured operator; a
daemon that we started ourselves obeys us.

Requests are HTTP/1.0, each on a connection of its own: the daemon answers without chunks, an answer ends where the
connection does, and a caller that is cancelled leaves nothing half read. A library's pool over a Unix socket was tried
first; cancelling a read that was about to succeed made the event loop report errors.
"""

import asyncio
from collections.abc import AsyncGenerator
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

import msgspec

from doorward.config.settings import TAILNET_V4, TAILNET_V6
from doorward.engine.base import EngineError, Ping, Status, Stream, WhoIs

DEFAULT_SOCKET = Path("/var/run/tailscale/tailscaled.sock")
# The daemon refuses requests whose Host a browser could have sent.
_HOST = "local-tailscaled.sock"
_BASE = "/localapi/v0/"
_HEAD_LIMIT = 16 * 1024
# A network map of ten thousand nodes takes some 20 MB.
_BODY_LIMIT = 256 * 1024 * 1024
# A line of the bus can hold a whole network map too.
_LINE_LIMIT = 64 * 1024 * 1024
_OK, _FORBIDDEN, _NOT_FOUND, _SWITCHING = 200, 403, 404, 101

_T = TypeVar("_T")

# Bits of watch-ipn-bus that every supported daemon knows: state, preferences, network map at the start.
WATCH_STATE, WATCH_PREFS, WATCH_NETMAP = 2, 4, 8
WATCH_CALMLY = 256  # of maps, only one every few seconds


class RefusedError(EngineError):
    """The daemon answered, and the answer is no; ``code`` is the HTTP status."""

    def __init__(self, message: str, code: int, *, cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.code = code


class _Node(msgspec.Struct, rename="pascal"):
    stable_id: str = msgspec.field(name="StableID")
    name: str = ""
    addresses: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None


class _Profile(msgspec.Struct, rename="pascal"):
    login_name: str = ""


class _WhoIsAnswer(msgspec.Struct, rename="pascal"):
    node: _Node
    user_profile: _Profile
    cap_map: dict[str, Any] | None = None


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the packet filter: what somebody may connect to."""

    address: str  # an address, a prefix, a range ``a-b`` or ``*``
    first: int  # port
    last: int


class _Ports(msgspec.Struct, rename="pascal"):
    first: int = 0
    last: int = 0xFFFF


class _Destination(msgspec.Struct):
    address: str = msgspec.field(default="*", name="IP")
    ports: _Ports = msgspec.field(default_factory=_Ports, name="Ports")


class _Rule(msgspec.Struct):
    destinations: tuple[_Destination, ...] | None = msgspec.field(default=None, name="DstPorts")


class _FilterMap(msgspec.Struct):
    rules: tuple[_Rule, ...] | None = msgspec.field(name="PacketFilterRules")


class _FilterNotify(msgspec.Struct):
    map: _FilterMap | None = msgspec.field(default=None, name="NetMap")


class Notify(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One message of the daemon's bus; fields that did not change are None."""

    err_message: str | None = None
    login_finished: Any = None
    state: int | None = None  # control.md section 24: 2 NeedsLogin, 3 NeedsMachineAuth, 5 Starting, 6 Running
    browse_to_url: str | None = msgspec.field(default=None, name="BrowseToURL")


class _Answer(NamedTuple):
    status: int
    head: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class LocalApi:
    """A client of one daemon. ``async with`` it, or call ``close``.

    Every method raises EngineError when the daemon is not there, refuses, or answers nonsense.
    """

    def __init__(self, socket: Path, *, timeout: float = 10.0) -> None:
        self.socket = socket
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the daemon. Connections end with their calls, so there is nothing else to close."""

    async def whois(self, address: str, protocol: str = "tcp") -> WhoIs | None:
        """Whose ``address`` (``IP:PORT``) is; None when the daemon does not know."""
        try:
            content = await self._call("GET", f"whois?proto={quote(protocol)}&addr={quote(address, safe='')}")
        except RefusedError as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        answer = _decode(content, _WhoIsAnswer)
        return WhoIs(
            stable_id=answer.node.stable_id,
            name=answer.node.name,
            addresses=answer.node.addresses or (),
            tags=answer.node.tags or (),
            login=answer.user_profile.login_name,
            capabilities=answer.cap_map or {},
        )

    async def status(self, *, peers: bool = True) -> Status:
        """The daemon's state, with or without its peers."""
        return _decode(await self._call("GET", "status" if peers else "status?peers=false"), Status)

    async def prefs(self) -> dict[str, Any]:
        """The daemon's preferences."""
        return _decode(await self._call("GET", "prefs"), dict[str, Any])

    async def set_prefs(self, **changes: Any) -> dict[str, Any]:
        """Change some preferences, named as the daemon names them (``WantRunning=True``); the new ones."""
        body = changes | {f"{name}Set": True for name in changes}
        return _decode(await self._call("PATCH", "prefs", body), dict[str, Any])

    async def start(self, *, prefs: dict[str, Any], auth_key: str = "") -> None:
        """Start the daemon's backend with whole new preferences, and an auth key to log in with."""
        await self._call("POST", "start", {"UpdatePrefs": prefs, "AuthKey": auth_key})

    async def login_interactive(self) -> None:
        """Begin to log in: with the auth key given to ``start``, else by a link that ``watch`` announces."""
        await self._call("POST", "login-interactive")

    async def logout(self) -> None:
        """Log out: the node's key ends at the control server."""
        await self._call("POST", "logout")

    async def packet_filter(self) -> tuple[Opening, ...]:
        """What control lets others connect to here, whatever the preference ShieldsUp says.

        Out of the first message of a new watch. Daemons of 1.102 tell no watcher of a change of the filter alone, and what
        they answer when they are asked for it (``debug-packet-filter-rules``) stays as it was at the login.
        """
        answer = await self._open("GET", f"watch-ipn-bus?mask={WATCH_NETMAP}", limit=_LINE_LIMIT)
        try:
            async with asyncio.timeout(self._timeout):
                line = await answer.reader.readline()
        except (OSError, ValueError, TimeoutError) as error:
            raise self._gone(error) from None
        finally:
            answer.writer.close()
        if answer.status != _OK:
            raise _refusal(answer.status, line)
        said = _decode(line, _FilterNotify).map
        if said is None:
            raise EngineError("tailscaled has no network map yet", cure="Wait until it is logged in.")
        return tuple(
            Opening(address=each.address, first=each.ports.first, last=each.ports.last)
            for rule in said.rules or ()
            for each in rule.destinations or ()
        )

    async def certificate(self, name: str) -> bytes:
        """A key and the chain of its certificate, PEM, for one of the status' ``cert_domains``. Made when there is none."""
        return await self._call("GET", f"cert/{quote(name, safe='')}?type=pair")

    async def ping(self, address: str, kind: str = "disco") -> Ping:
        """Ping a tailnet address; ``kind`` is disco, TSMP, ICMP or peerapi."""
        return _decode(
            await self._call("POST", f"ping?ip={quote(address, safe='')}&type={quote(kind)}"), Ping
        )

    async def watch(self, mask: int) -> AsyncGenerator[Notify]:
        """The daemon's bus: what ``mask`` asks for at once, then every change, until the daemon ends or the caller does."""
        answer = await self._open("GET", f"watch-ipn-bus?mask={mask}", limit=_LINE_LIMIT)
        try:
            if answer.status != _OK:
                raise _refusal(answer.status, await self._body(answer))
            while line := await answer.reader.readline():
                if line.strip():
                    yield _decode(line, Notify)
        except (OSError, ValueError) as error:
            raise self._gone(error) from None
        finally:
            answer.writer.close()

    async def dial(self, host: str, port: int) -> Stream:
        """Connect to a tailnet name or address over TCP.

        An address outside the tailnet's ranges is refused here, because daemons of 1.80 would dial it themselves. So they
        would a name that is not the tailnet's: give them names from the snapshot, never from outside.
        """
        if not _is_host(host):
            raise EngineError(f"{host!r} is not a name or an address", cure="Give a name of the tailnet.")
        if _is_outside(host):
            raise EngineError(f"cannot connect to {host} port {port}: it is not in the tailnet")
        headers = f"Connection: upgrade\r\nUpgrade: ts-dial\r\nDial-Host: {host}\r\nDial-Port: {port:d}\r\n"
        answer = await self._open("POST", "dial", headers=headers, version="1.1")
        if answer.status != _SWITCHING:
            answer.writer.close()
            outside = "dial-self:" in answer.head.lower()
            why = "it is not in the tailnet" if outside else f"the daemon answered {answer.status}"
            raise EngineError(
                f"cannot connect to {host} port {port}: {why}", cure="Is it there, and allowed?"
            )
        return Stream(answer.reader, answer.writer)

    async def _call(self, method: str, path: str, body: object = None) -> bytes:
        content = b"" if body is None else msgspec.json.encode(body)
        answer = await self._open(method, path, content)
        try:
            async with asyncio.timeout(self._timeout):
                said = await self._body(answer)
        except (OSError, TimeoutError) as error:
            raise self._gone(error) from None
        finally:
            answer.writer.close()
        if not 200 <= answer.status < 300:
            raise _refusal(answer.status, said)
        return said

    async def _open(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        *,
        headers: str = "",
        version: str = "1.0",
        limit: int = _HEAD_LIMIT,
    ) -> _Answer:
        """Ask, and read the head of the answer; the caller closes the writer."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=limit)
                request = f"{method} {_BASE}{path} HTTP/{version}\r\nHost: {_HOST}\r\n{headers}"
                writer.write(f"{request}Content-Length: {len(content)}\r\n\r\n".encode() + content)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            return _Answer(int(head.split(" ", 2)[1]), head, reader, writer)
        except BaseException as error:
            if writer is not None:
                writer.close()
            if isinstance(error, OSError | EOFError | ValueError | IndexError | asyncio.LimitOverrunError):
                raise self._gone(error) from None
            raise

    @staticmethod
    async def _body(answer: _Answer) -> bytes:
        parts = bytearray()
        while part := await answer.reader.read(256 * 1024):
            parts += part
            if len(parts) > _BODY_LIMIT:
                raise EngineError(f"tailscaled answered more than {_BODY_LIMIT} bytes")
        return bytes(parts)

    def _gone(self, error: Exception) -> EngineError:
        return EngineError(
            f"tailscaled does not answer at {self.socket}",
            cure="Is it running, and may this user reach it?",
            detail=repr(error),
        )


def _refusal(status: int, said: bytes) -> RefusedError:
    # The body is the daemon's own sentence; it never repeats keys.
    cure = "Run as root or as the daemon's operator." if status == _FORBIDDEN else ""
    return RefusedError(
        f"tailscaled refused: {said[:300].decode('utf-8', 'replace').strip()}", status, cure=cure
    )


def _decode(content: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec and UTF-8 say the first, depth the second
        raise EngineError("tailscaled answered something unexpected", detail=str(error)) from None


def _is_outside(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not any(
        address in network for network in (TAILNET_V4, TAILNET_V6) if network.version == address.version
    )


def _is_host(text: str) -> bool:
    """A header value must not be able to end its line."""
    return 0 < len(text) <= 255 and all(
        letter.isascii() and (letter.isalnum() or letter in ".-:_%") for letter in text
    )
