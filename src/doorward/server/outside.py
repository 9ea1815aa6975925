"""What clients and browsers meet at the addresses that they are told, seen from outside: for ``doorward doctor``.

Between them and us may be proxies, firewalls and other people's servers, of which nothing is to be seen from inside. So doorward
goes the way that they go: it resolves the names, trusts whom they trust, and asks for what they ask for.

::

    control's address   is it /key, with our key?  ──▶ does /ts2021 upgrade?  ──▶ is the relay there, and is it ours?
    the door            is it our issuer?  ──▶ does a WebSocket get through?  ──▶ is an answer without an end kept back?
    other origins       (``console.origins``)  may their pages open the WebSocket, and ask the API?

A question is asked only where the one before it was answered well: each finding is a cause, and none its consequence. All of it
is over in half a minute, whoever does not answer. What nobody can go wrong with is not asked: a door in the tailnet's own domain is
not to be found from outside, on purpose.
"""

import asyncio
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from doorward.api.types import Finding
from doorward.clock import Clock
from doorward.config import Settings
from doorward.engine.derp import pinned_context
from doorward.errors import DoorwardError, RemoteProtocolError, Unavailable
from doorward.login.doors import Place, place_of
from doorward.protocol.keys import DERPPublic, MachinePrivate
from doorward.protocol.tailcfg.capability import OUR_CAPVER
from doorward.protocol.tailcfg.codec import decode_response
from doorward.protocol.tailcfg.derpmap import DERPRegion
from doorward.protocol.tailcfg.requests import ServerKeys
from doorward.server.knocking import (
    MOST,
    SECONDS,
    Bad,
    client_for,
    get,
    pin_of,
    relay_key,
    unanswered,
    upgraded,
)
from doorward.server.relays import address_of
from doorward.transport.noise import dial

STREAM = "/_doorward/stream"
HELD = timedelta(
    seconds=9
)  # for so long our own endless answer is open: longer than a question is waited for
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "ZG9vcndhcmQgZG9jdG9yLg==",  # nothing depends on it: what comes back is the relay's key
    "Sec-WebSocket-Protocol": "derp",
}

_GUIDE = "The guide about proxies has whole settings for nginx and Caddy."
_UPGRADES = (
    "In nginx: `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $doorward_connection;`. "
    f"Caddy passes upgrades on by itself, unless it is told otherwise. {_GUIDE}"
)
_PROTOCOLS = (
    "Take away what clears that header: in nginx `proxy_set_header Sec-WebSocket-Protocol`, in Caddy `header_up -Sec-WebSocket-Protocol`. "
    f"{_GUIDE}"
)
_HOSTS = f"In nginx: `proxy_set_header Host $http_host;`. In Caddy take `header_up Host` away. {_GUIDE}"
_BUFFERS = (
    "In nginx: `proxy_buffering off;`, and no `proxy_ignore_headers X-Accel-Buffering`. In Caddy: `flush_interval -1`. "
    f"{_GUIDE}"
)


class Keys(NamedTuple):
    """By what we know ourselves again."""

    noise: MachinePrivate
    relay: DERPPublic


class Outside:
    """Looks at ourselves from outside.

    Args:
        settings: complete.
        keys: ours.
        region: our own relay as clients are told of it; None where there is none.
        authority: doorward's own, in PEM, which people may trust for the door.
        clock: for the tickets of the endless answer.
        entropy: random bytes.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        region: Callable[[], DERPRegion | None],
        authority: str,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._region = region
        self._authority = authority
        self._clock = clock
        self._entropy = entropy
        self._ticket_key = hmac.digest(keys.noise.raw, b"doorward doctor: an answer without an end", "sha256")
        self._looking = asyncio.Lock()
        self._looks = 0  # that were begun
        self._seen: tuple[int, list[Finding]] | None = None  # by the last one

    # Looking --------------------------------------------------------------------------------------------------------

    async def findings(self) -> list[Finding]:
        """What is wrong, and what is well. All who ask while somebody looks are told what the next look finds: there is one at a time."""
        asked = self._looks
        async with self._looking:
            if self._seen is None or self._seen[0] <= asked:
                self._looks += 1
                self._seen = (self._looks, await self._look())
            return list(self._seen[1])

    async def _look(self) -> list[Finding]:
        found = _settings_findings(self._settings, self._region())
        questions = [self._control, self._relay, self._door]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(question)) for question in questions]
        for task in tasks:
            found += task.result()
        return found

    async def _control(self) -> list[Finding]:
        url, subject = self._settings.url, "control address"
        async with client_for(None) as client:
            answer = await get(client, f"{url}/key?v={OUR_CAPVER}", subject, self._wrong_url())
        if 300 <= answer.status_code < 400:
            to = answer.headers.get("location", "elsewhere")[:200]
            raise Bad(
                subject,
                f"{url} leads on to {to}, and clients do not follow",
                "Set `url` to the address that it leads to, or take the redirect away.",
            )
        try:
            key = decode_response(answer.content[:MOST], ServerKeys, limit=MOST).publicKey
        except DoorwardError:
            key = None
        if answer.status_code != 200 or key is None:
            raise Bad(
                subject,
                f"at {url} somebody else answers: {answer.status_code} for /key, and no key",
                self._wrong_url(),
            )
        ours = self._keys.noise.public()
        if key != ours:
            raise Bad(
                subject,
                f"at {url} another control server answers, with the key {key.short()}",
                self._wrong_url(),
            )
        machine = MachinePrivate.from_entropy(self._entropy(32))
        try:
            connection = await dial(
                url, machine, ours, version=OUR_CAPVER, entropy=self._entropy, seconds=SECONDS
            )
        except (RemoteProtocolError, Unavailable) as error:
            raise Bad(
                subject,
                f"{url} answers, but no node can log in: the upgrade of /ts2021 does not get through ({error.message})",
                _UPGRADES,
            ) from None
        connection.close()
        return [_well(subject, f"{url} is ours, and nodes get through")]

    def _wrong_url(self) -> str:
        return (
            f"Correct `url`, its port above all: doorward itself listens on {self._settings.listen}. Where a proxy stands before it, "
            f"have it pass this name on to there. {_GUIDE}"
        )

    async def _relay(self) -> list[Finding]:
        region = self._region()
        if region is None or not region.Nodes:
            return []
        node = region.Nodes[0]
        where, subject = f"{node.HostName}:{node.DERPPort}", "relay"
        pinned = bool(node.CertName)
        cure = (
            f"Open TCP port {node.DERPPort} to it. Behind a proxy set relay.proxied instead, and the relay is at `url`."
            if pinned
            else self._wrong_url()
        )
        context = pinned_context() if pinned else None
        address = f"https://{_bracketed(node.HostName)}:{node.DERPPort}/derp"
        headers = {"Connection": "Upgrade", "Upgrade": "DERP", "Derp-Version": "2"}
        async with client_for(context) as client, upgraded(client, address, headers, subject, cure) as answer:
            if answer.status_code != 101:
                raise Bad(
                    subject,
                    f"at {where} the upgrade of /derp does not get through: the answer is {answer.status_code}",
                    _UPGRADES,
                )
            if pinned and pin_of(answer) != node.CertName:
                raise Bad(
                    subject,
                    f"at {where} is another certificate than clients are told of",
                    "Let nothing end TLS before the relay's own port, or set relay.proxied.",
                )
            key = await relay_key(answer, message=False)
        if key != self._keys.relay:
            raise Bad(subject, f"at {where} another relay answers", cure)
        return [_well(subject, f"{where} is ours, and nodes get through")]

    async def _door(self) -> list[Finding]:
        door, domain, subject = place_of(self._settings.door), self._settings.domain, "door"
        if door.host == domain or door.host.endswith(f".{domain}"):
            return []  # inside the tailnet alone
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self._authority)
        wrong = f"Correct `door`, or have the proxy pass {door.base} on to {self._settings.listen}. {_GUIDE}"
        async with client_for(context) as client:
            answer = await get(client, f"{door.base}/.well-known/openid-configuration", subject, wrong)
            if answer.status_code == 421:
                raise Bad(
                    subject,
                    f"{door.base} is asked for under another name: a proxy replaces Host",
                    _HOSTS,
                )
            if issuer_of(answer.content) != door.base:
                raise Bad(
                    subject,
                    f"at {door.base} somebody else answers: {answer.status_code}, and no issuer",
                    wrong,
                )
            asks = [self._socket(client, door, door.origin), self._endless(client, door)]
            for origin in self._settings.console.origins:
                asks += [self._socket(client, door, origin), self._page(client, door, origin)]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_wrong_with(ask)) for ask in asks]
        found = [finding for task in tasks for finding in task.result()]
        return found or [_well(subject, f"{door.base} is ours, and pages get through")]

    async def _socket(self, client: httpx2.AsyncClient, door: Place, origin: str) -> None:
        """A page of an origin opens its WebSocket."""
        subject = "terminals"
        if not self._settings.relay.enabled:
            return
        headers = {**_WEBSOCKET, "Origin": origin}
        async with upgraded(client, f"{door.origin}/derp", headers, subject, _UPGRADES) as answer:
            text = answer.text[:200] if answer.status_code != 101 else ""
            if answer.status_code == 403 and "Sec-WebSocket-Protocol" in text:
                raise Bad(
                    subject, f"at {door.origin}/derp a proxy leaves Sec-WebSocket-Protocol out", _PROTOCOLS
                )
            if answer.status_code == 403 and "console.origins" in text:
                raise Bad(
                    subject,
                    f"at {door.origin}/derp the Origin {origin} is refused: a proxy writes another",
                    f"Take away what sets or clears Origin (`proxy_set_header Origin`, `header_up Origin`). {_GUIDE}",
                )
            if answer.status_code != 101:
                raise Bad(
                    subject,
                    f"at {door.origin}/derp no WebSocket gets through: the answer is {answer.status_code}",
                    f"{_UPGRADES} /derp is at the root of the door's name, whatever its path is.",
                )
            if answer.headers.get("sec-websocket-protocol") != "derp":
                raise Bad(
                    subject,
                    f"at {door.origin}/derp a proxy leaves Sec-WebSocket-Protocol out of the answer",
                    _PROTOCOLS,
                )
            key = await relay_key(answer, message=True)
        if key != self._keys.relay:
            raise Bad(subject, f"at {door.origin}/derp another relay answers", _UPGRADES)

    async def _endless(self, client: httpx2.AsyncClient, door: Place) -> None:
        """Our own answer without an end is heard before it is over."""
        subject = "live pages"
        late = Bad(subject, f"at {door.base} answers are kept back until they are over", _BUFFERS)
        try:
            async with (
                asyncio.timeout(SECONDS),
                client.stream("GET", f"{door.base}{STREAM}/{self._ticket()}") as answer,
            ):
                if answer.status_code != 200:
                    raise Bad(subject, f"{door.base}{STREAM} answers {answer.status_code}", _GUIDE)
                async for _ in answer.aiter_raw():
                    return
        except (TimeoutError, httpx2.HTTPError):
            raise late from None
        raise late

    async def _page(self, client: httpx2.AsyncClient, door: Place, origin: str) -> None:
        """A page of another origin may ask the API: browsers ask for leave first (CORS)."""
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        try:
            # What it allows is in its headers: nothing else is read of it.
            async with (
                asyncio.timeout(SECONDS),
                client.stream("OPTIONS", f"{door.base}/api/v1/console", headers=asked) as answer,
            ):
                headers = answer.headers
        except (httpx2.HTTPError, TimeoutError) as error:
            raise unanswered(error, door.base, "origins", _GUIDE) from None
        allowed = headers.get("access-control-allow-origin", "")
        if allowed == origin and headers.get("access-control-allow-credentials") == "true":
            return
        raise Bad(
            "origins",
            f"a page of {origin} may not ask {door.base}: the answer allows {allowed or 'no origin'}",
            "Have the proxy pass OPTIONS on, and neither answer it nor add Access-Control headers of its own: doorward sends them.",
        )

    # Being looked at ------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """An answer without an end, for whoever holds a ticket: which we give to nobody but ourselves."""
        return [Route(f"{STREAM}/{{ticket}}", self._stream, methods=["GET"])]

    def _ticket(self) -> str:
        """Good for a minute, in every process of ours."""
        until = int((self._clock.now() + timedelta(minutes=1)).timestamp())
        return f"{until}.{self._signed(until)}"

    def _signed(self, until: int) -> str:
        return hmac.new(self._ticket_key, str(until).encode(), "sha256").hexdigest()

    def is_ticket(self, text: str) -> bool:
        """Whether it is one of ours, and still good."""
        until, _, signed = text.partition(".")
        if not (until.isdecimal() and text.isascii() and len(until) <= 12):
            return False
        if not hmac.compare_digest(self._signed(int(until)), signed):
            return False
        now = self._clock.now()
        return now <= datetime.fromtimestamp(int(until), UTC) <= now + timedelta(minutes=2)

    async def _stream(self, request: Request) -> Response:
        if not self.is_ticket(request.path_params["ticket"]):
            return Response("Nothing is here.\n", 404)

        async def said() -> AsyncIterator[bytes]:
            yield b": heard\n\n"
            await asyncio.sleep(HELD.total_seconds())

        # As the console's own events are sent.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(said(), headers=headers, media_type="text/event-stream")


async def _one(question: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        return await question()
    except Bad as bad:
        return [bad.finding]


async def _wrong_with(ask: Coroutine[None, None, None]) -> list[Finding]:
    try:
        await ask
    except Bad as bad:
        return [bad.finding]
    return []


def _well(subject: str, message: str) -> Finding:
    return Finding(level="ok", subject=subject, message=message)


# What the settings alone tell ---------------------------------------------------------------------------------------


def _settings_findings(settings: Settings, region: DERPRegion | None) -> list[Finding]:
    found = []
    if (
        settings.url.startswith("https:")
        and not settings.url_has_certificate()
        and not settings.trusted_proxies
    ):
        found.append(
            Finding(
                level="warning",
                subject="proxies",
                message="a proxy ends TLS before doorward, and everybody who comes by it counts as that proxy",
                cure="Set trusted_proxies to its address, and have it send X-Forwarded-For.",
            )
        )
    listens = address_of(settings.relay_listens_on())
    told = region.Nodes[0].HostName if region is not None and region.Nodes else ""
    at = address_of(told)
    if told and not (at is not None and at.is_loopback) and listens is not None and listens.is_loopback:
        what = "STUN" if settings.relay_is_at_url() else "the relay"
        found.append(
            Finding(
                level="warning",
                subject="relay",
                message=f"clients are told that {what} is at {told}, and it listens on {listens} alone",
                cure="Set relay.listen to an address that they reach, such as 0.0.0.0, and open its ports.",
            )
        )
    return found


def issuer_of(content: bytes) -> str:
    """Whose metadata these are; empty where they are none."""
    try:
        return str(msgspec.json.decode(content, type=_About).issuer)
    except (ValueError, RecursionError):
        return ""


class _About(msgspec.Struct):
    issuer: str


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
