"""A control client in Python: registers a node and follows its netmap, as a stock client does but for the packets.

For tests, for load (thousands in one process: one connection and one task each), and for programs that need a place on
the tailnet's map but no tunnel.

::

    async with ControlClient(url, machine=..., node=..., disco=..., clock=..., entropy=...) as client:
        await client.join(auth_key=key)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(client.follow())
            await client.report(home_derp=900)
            netmap = await client.until(lambda netmap: netmap.peers)
            following.cancel()

What it does as stock clients do (protocol note control.md, sections 10 to 13, 22, 24 and 30): one Noise connection,
dialled again when needed; a map stream that is opened again after an error with growing pauses, and after 120 s of
silence; a new session's netmap starts from nothing; pings and ``/echo`` are answered; each PingRequest.URL once.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, NoReturn, Self
from urllib.parse import urlsplit

import httpx2
import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from doorward.clock import Clock
from doorward.engine.controlconn import ANSWER_LIMIT, ControlConnection, one_request
from doorward.errors import (
    DoorwardError,
    LocalProtocolError,
    NotPermitted,
    RemoteProtocolError,
    Unavailable,
)
from doorward.protocol import c2n
from doorward.protocol.keys import DiscoPublic, MachinePrivate, MachinePublic, NodePrivate, NodePublic
from doorward.protocol.mapstream import MESSAGE_LIMIT, MapReader
from doorward.protocol.netmapstate import Netmap, NetmapState
from doorward.protocol.tailcfg.capability import OUR_CAPVER
from doorward.protocol.tailcfg.codec import decode_response, encode
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.protocol.tailcfg.map import ENDPOINT_LOCAL, MapRequest, PingRequest, PingResponse
from doorward.protocol.tailcfg.register import (
    LOGOUT_EXPIRY,
    RegisterAuth,
    RegisterRequest,
    RegisterResponse,
)
from doorward.telemetry import log
from doorward.transport.noise import Entropy

SILENCE_SECONDS: Final = 120.0  # section 12: a stream without any message for so long is dead
LONGEST_PAUSE: Final = 30.0  # section 24; half as much again or less, by chance
_PAUSE_STEP: Final = 0.01  # the n-th failure in a row waits n² times this, half as much again or less
_PING_SECONDS: Final = 15.0  # section 22
_LONGEST_SLEEP: Final = 300.0  # of Debug.SleepSeconds

_log = log("client")

OnPayload = Callable[[bytes], None]


class RegistrationRefused(NotPermitted):
    """Control said no, in its own words. Final: trying again changes nothing."""


class _Signs(msgspec.Struct):
    """What a client without a netmap looks at in a message."""

    PingRequest: "PingRequest | UnsetType" = UNSET


class ControlClient:
    """One node, as its control server sees it. An async context manager: leaving it closes the connection.

    Args:
        url: the control server, ``http://`` or ``https://``, no slash at the end.
        machine: the machine key.
        node: the node key; ``rotate`` replaces it.
        disco: the public disco key to report. Without a data plane nobody answers for it.
        clock: for netmaps (PeerSeenChange).
        entropy: gives that many random bytes.
        hostinfo: what to say about the host; RequestTags and RoutableIPs go here.
        ephemeral: ask to be forgotten soon after going offline.
        version: the capability version to claim.
        server_key: control's Noise key where it is known; fetched otherwise.
        ssl_context: for https.
        compress: ask for zstd; without it a client saves the time to unpack.
        keep_netmap: apply messages to a netmap. False for load: then only pings are looked at.
        on_payload: told of each message of the stream, as JSON text; must not block.
        silence_seconds: how long the stream may be silent.
        sleep: waits that many seconds; for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        machine: MachinePrivate,
        node: NodePrivate,
        disco: DiscoPublic,
        clock: Clock,
        entropy: Entropy,
        hostinfo: Hostinfo = Hostinfo(),  # noqa: B008 - frozen
        ephemeral: bool = False,
        version: int = OUR_CAPVER,
        server_key: MachinePublic | None = None,
        ssl_context: ssl.SSLContext | None = None,
        compress: bool = False,
        keep_netmap: bool = True,
        on_payload: OnPayload | None = None,
        silence_seconds: float = SILENCE_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.node = node
        self.hostinfo = hostinfo
        self.ephemeral = ephemeral
        self.endpoints: tuple[str, ...] = ()
        self.sessions = 0  # map streams that control has accepted so far
        self.last_error: DoorwardError | None = None  # why the last one ended; None once a message has come
        self._disco = disco
        self._clock = clock
        self._entropy = entropy
        self._version = version
        self._connection = ControlConnection(
            url, machine, version=version, entropy=entropy, server_key=server_key, ssl_context=ssl_context
        )
        self._ssl_context = ssl_context
        self._compress = compress
        self._on_payload = on_payload
        self._silence_seconds = silence_seconds
        self._sleep = sleep
        self._keep_netmap = keep_netmap
        self._state: NetmapState | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._last_ping_url = ""
        self._auth_key = ""
        self._failures = 0  # in a row

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. What runs on it ends with an error; a ``follow`` that still runs dials again."""
        self._connection.close()

    # Registration.

    async def join(
        self, *, auth_key: str = "", show: Callable[[str], None] | None = None
    ) -> RegisterResponse:
        """Log in: with ``auth_key``, as a node that is known already, or by a person.

        ``show`` is given the link that a person has to open; the call then waits for them. It asks again when the
        connection is lost meanwhile, and may be given a new link. If control wants a new node key, one is made. Raises
        RegistrationRefused for a refusal, and also where a person is needed but there is no ``show``; Unavailable and
        RemoteProtocolError when control cannot be talked to.
        """
        self._auth_key = auth_key
        response = await self._log_in(self.node, NodePublic.zero(), show)
        if response.NodeKeyExpired:
            response = await self.rotate(NodePrivate.from_entropy(self._entropy(32)), show=show)
        return response

    async def rotate(
        self, node: NodePrivate, *, auth_key: str = "", show: Callable[[str], None] | None = None
    ) -> RegisterResponse:
        """Replace the node key. ``self.node`` changes once control has agreed; a stream that runs goes on with the old.

        Raises as ``join`` does, and RegistrationRefused if control finds the new key expired at once.
        """
        self._auth_key = auth_key or self._auth_key
        response = await self._log_in(node, self.node.public(), show)
        if response.NodeKeyExpired:
            raise RegistrationRefused("control calls a node key expired that was made just now")
        self.node = node
        return response

    async def logout(self) -> RegisterResponse:
        """Give the node key up. The auth key goes along, as stock clients have it."""
        return await self.register(self._registration(self.node, expiry=LOGOUT_EXPIRY))

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """Exactly one registration request and its answer, however long that takes.

        Raises RegistrationRefused when the answer has an Error, TooMany for status 429, UnexpectedStatus for any other
        but 200, Unavailable or RemoteProtocolError when control cannot be talked to.
        """
        body = await self._connection.post("/machine/register", encode(request))
        response = decode_response(body, RegisterResponse, limit=ANSWER_LIMIT)
        if response.Error:
            raise RegistrationRefused(response.Error)
        return response

    def _registration(
        self,
        node: NodePrivate,
        *,
        old: NodePublic | None = None,
        followup: str = "",
        expiry: datetime | None = None,
    ) -> RegisterRequest:
        return RegisterRequest(
            Version=self._version,
            NodeKey=node.public(),
            OldNodeKey=old or NodePublic.zero(),
            Auth=RegisterAuth(AuthKey=self._auth_key) if self._auth_key else None,
            Expiry=expiry,
            Followup=followup,
            Hostinfo=self.hostinfo,
            Ephemeral=self.ephemeral,
        )

    async def _log_in(
        self, node: NodePrivate, old: NodePublic, show: Callable[[str], None] | None
    ) -> RegisterResponse:
        response = await self.register(self._registration(node, old=old))
        failures = 0
        shown = ""
        while response.AuthURL:
            if show is None:
                raise RegistrationRefused(
                    "control wants a person to approve this node", cure="Use an auth key."
                )
            if response.AuthURL == shown:
                failures += 1
                await self._pause(failures)
            else:
                shown = response.AuthURL
                show(shown)
            try:
                response = await self.register(self._registration(node, old=old, followup=shown))
            except RegistrationRefused:
                raise
            except (Unavailable, RemoteProtocolError) as error:  # the same link is asked about again
                _log.debug("waiting for approval was cut off", why=error.message)
        return response

    # The map.

    async def report(
        self,
        *,
        home_derp: int | None = None,
        endpoints: Sequence[str] | None = None,
        hostinfo: Hostinfo | None = None,
    ) -> None:
        """Tell control what changed (a lite update); what is not given stays as it was reported before.

        ``home_derp`` is a region; without one no peer can reach this node by relay. Raises as ``register`` does.
        """
        if hostinfo is not None:
            self.hostinfo = hostinfo
        if home_derp is not None:
            known = self.hostinfo.NetInfo or NetInfo()
            self.hostinfo = replace(self.hostinfo, NetInfo=replace(known, PreferredDERP=home_derp))
        if endpoints is not None:
            self.endpoints = tuple(endpoints)
        await self._connection.post("/machine/map", encode(self._map_request(stream=False)))

    async def follow(self) -> NoReturn:
        """Keep a map stream open until cancelled, whatever happens to the connection or to control.

        Nothing that a server does is raised: see ``last_error``.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._follow_session(group)
                    error: DoorwardError = Unavailable("control ended the map stream")
                except LocalProtocolError:
                    raise  # our own mistake: it would be made again
                except DoorwardError as caught:
                    error = caught
                self.last_error = error
                self._failures += 1
                _log.debug("map stream ended", why=error.message, failures=self._failures)
                await self._pause(self._failures)

    @property
    def netmap(self) -> Netmap:
        """The netmap as last told, kept while the stream is down. Raises LocalProtocolError when there is none."""
        if self._state is None:
            raise LocalProtocolError("no netmap has arrived yet")
        return self._state.netmap()

    async def until(self, condition: Callable[[Netmap], object], *, seconds: float = 30.0) -> Netmap:
        """Wait for a netmap of which ``condition`` is true, and return it.

        Raises Unavailable after ``seconds``, with what is wrong with the stream if something is.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if self._state is not None and condition(netmap := self._state.netmap()):
                        return netmap
                    waiter = loop.create_future()
                    self._waiting.append(waiter)
                    await waiter
        except TimeoutError:
            why = self.last_error.message if self.last_error else "the netmap did not become so"
            raise Unavailable(f"waited {seconds:g} s: {why}") from None

    def _map_request(self, *, stream: bool) -> MapRequest:
        """A stream carries no endpoints and a lite update wants no peers (section 11)."""
        endpoints = [] if stream else list(self.endpoints)
        return MapRequest(
            Version=self._version,
            NodeKey=self.node.public(),
            DiscoKey=self._disco,
            Compress="zstd" if self._compress else "",
            KeepAlive=True,
            Stream=stream,
            Hostinfo=self.hostinfo,
            Endpoints=endpoints,
            EndpointTypes=[ENDPOINT_LOCAL] * len(endpoints),
            OmitPeers=not stream,
        )

    async def _follow_session(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        state = NetmapState()
        reader = MapReader(compressed=self._compress)
        try:
            async with asyncio.timeout(self._silence_seconds) as watchdog:
                async with self._connection.request(
                    "/machine/map", encode(self._map_request(stream=True))
                ) as response:
                    self.sessions += 1
                    async for chunk in response:
                        for payload in reader.receive(chunk):
                            watchdog.reschedule(loop.time() + self._silence_seconds)
                            await self._take(payload, state, group)
        except TimeoutError:
            self.close()  # a connection this silent is dead, whatever TCP thinks of it
            raise Unavailable(f"no message from control for {self._silence_seconds:g} s") from None
        if reader.pending():
            raise RemoteProtocolError("the map stream ended in the middle of a message")

    async def _take(self, payload: bytes, state: NetmapState, group: asyncio.TaskGroup) -> None:
        ping: PingRequest | UnsetType = UNSET
        if self._keep_netmap:
            message = state.receive(payload, now=self._clock.now())
            ping = message.PingRequest
            if not message.KeepAlive:
                self._state = state
            if message.Debug is not UNSET and message.Debug.SleepSeconds > 0:
                await self._sleep(min(message.Debug.SleepSeconds, _LONGEST_SLEEP))
        elif b'"PingRequest"' in payload:
            ping = decode_response(payload, _Signs, limit=MESSAGE_LIMIT).PingRequest
        self._failures = 0
        self.last_error = None
        if self._on_payload is not None:
            self._on_payload(payload)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        if ping is not UNSET and ping.URL and self._last_ping_url != ping.URL:
            self._last_ping_url = ping.URL
            group.create_task(self._answer(ping))

    # Answers to control's questions.

    async def _answer(self, ping: PingRequest) -> None:
        try:
            async with asyncio.timeout(_PING_SECONDS):
                if not ping.Types:
                    await self._answer_head(ping)
                elif ping.Types == "c2n":
                    await self._connection.post(_target(ping.URL), _answer_c2n(ping.Payload))
                else:
                    for kind in ping.Types.split(","):
                        await self._answer_peer_ping(ping, kind)
        except (DoorwardError, httpx2.HTTPError, TimeoutError) as error:
            _log.debug("a ping of control could not be answered", types=ping.Types, why=str(error))

    async def _answer_head(self, ping: PingRequest) -> None:
        if ping.URLIsNoise:
            async with self._connection.request(_target(ping.URL), method="HEAD"):
                return
        async with one_request(ping.URL, self._ssl_context) as http:
            await http.head(ping.URL)

    async def _answer_peer_ping(self, ping: PingRequest, kind: str) -> None:
        """There is no data plane to ping with, and control is told so rather than left waiting."""
        body = encode(PingResponse(Type=kind, IP=ping.IP, Err="this client has no data plane"))
        if ping.URLIsNoise:
            await self._connection.post(_target(ping.URL), body)
            return
        async with one_request(ping.URL, self._ssl_context) as http:
            await http.post(ping.URL, content=body)

    async def _pause(self, failures: int) -> None:
        jitter = 0.5 + int.from_bytes(self._entropy(2)) / 2**16
        await self._sleep(min(_PAUSE_STEP * failures**2, LONGEST_PAUSE) * jitter)


def _answer_c2n(payload: bytes) -> bytes:
    request = c2n.parse_request(payload)
    if request.target.partition("?")[0] == "/echo":
        return c2n.encode_response(200, request.body)
    return c2n.encode_response(404, b"unknown c2n path\n")


def _target(url: str) -> str:
    """Path and query: inside Noise there is only one host, whatever the URL says. Raises RemoteProtocolError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise RemoteProtocolError("control asks for an answer at what is no address") from None
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
