"""The one way in which the issuer asks other servers something: an app's keys, its description, and that a session is over.

Strangers choose many of these addresses, and doorward stands inside networks that they cannot reach. So it is https alone, to
an address that was checked and to no other, without redirects, within a time and a size, and what is read must say that it is
what was asked for. Two reaches there are: the open internet; and, for addresses that an administrator has named, also the nodes of
this tailnet by their own names, and the networks that the settings name.

What was read is kept as long as its server says, within bounds. What could not be read is never kept, and not asked for again
at once either: nobody can have us knock at somebody's door without end.
"""

import asyncio
import re
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from doorward.asgi import RateLimit
from doorward.clock import Clock
from doorward.errors import BadInput, DoorwardError, RemoteProtocolError, Unavailable
from doorward.model import Node
from doorward.tailnet.registry import Registry
from doorward.transport.fetch import Address, Also, Answer, Fetcher, Resolve, resolve

SECONDS = 5.0  # for one question, its connection included: a person may be waiting for it
AGAIN = 30.0  # seconds between two questions to one address, whatever became of the first
SHORTEST, USUAL, LONGEST = 60.0, 3600.0, 86400.0  # seconds for which what was read is kept
MOST = 512  # answers kept; the one not used for longest is forgotten
_LONGEST_ADDRESS = 2000  # characters
_AT_ONCE = 16  # questions under way for strangers
_PER_SECOND, _BURST = 1.0, 30.0  # questions to one host
_SAID = 4096  # bytes of what is answered to a form
_MAX_AGE = re.compile(r"(?:^|,)\s*max-age=([0-9]{1,9})\s*(?:,|$)", re.IGNORECASE)
_NOT_KEPT = re.compile(r"(?:^|,)\s*no-(?:store|cache)\b", re.IGNORECASE)

Network = IPv4Network | IPv6Network
T = TypeVar("T")


class Reach(Enum):
    """How far an address may lead."""

    OPEN = "open"  # a stranger's word: the open internet
    GIVEN = "given"  # an administrator's: nodes of this tailnet by their names, too, and the networks of the settings


class Rules(NamedTuple):
    """What a fetcher is made with: where names lead, and which addresses it may ask besides those of the open internet."""

    resolve: Resolve
    also: Also


OpenFetcher = Callable[[Rules], Fetcher]


@cache
def _authorities() -> ssl.SSLContext:
    return ssl.create_default_context()


def trusting(context: ssl.SSLContext | None = None) -> OpenFetcher:
    """The real one, which trusts the authorities of a context; those of the system by default."""

    def opened(rules: Rules) -> Fetcher:
        return Fetcher(
            also=rules.also,
            resolve=rules.resolve,
            seconds=SECONDS,
            redirects=0,
            ssl_context=context or _authorities(),
        )

    return opened


@dataclass
class _Kept:
    """What is known of one address. Times are those of the clock's ``monotonic``."""

    value: Any = None
    tag: str = ""  # its ETag
    until: float = float("-inf")
    asked: float = float("-inf")
    one: asyncio.Lock = field(default_factory=asyncio.Lock)


class Fetch:
    """One for each process.

    Args:
        registry: the tailnet, for its nodes' names.
        clock: for how long things are kept.
        networks: private ones whose servers may be asked where an administrator has named the address.
        open_fetcher: makes the HTTP client, one for each question.
        resolve: names to addresses, for all but nodes.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        networks: Sequence[Network] = (),
        open_fetcher: OpenFetcher | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._networks = tuple(networks)
        self._open = open_fetcher or trusting()
        self._names = resolve
        self._kept: OrderedDict[tuple[str, Reach, Callable[[bytes], Any]], _Kept] = OrderedDict()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._hosts = RateLimit(rate=_PER_SECOND, burst=_BURST, clock=clock)

    async def get(
        self,
        url: str,
        read: Callable[[bytes], T],
        *,
        limit: int,
        reach: Reach = Reach.OPEN,
        types: Sequence[str] = ("application/json",),
        anew: bool = False,
    ) -> T:
        """What ``read`` makes of the JSON behind ``url``.

        Args:
            url: checked here, whoever has written it.
            read: raises DoorwardError for what it cannot read, which then is not kept. The same function each time: what is
                kept is kept for it.
            limit: bytes.
            reach: whose word the address is.
            types: what the answer may be; ``application/json`` stands for every ``application/...+json``.
            anew: ask although the last answer is still good. If that fails, that answer counts.

        Raises BadInput for what is no https address, NotPermitted for one that may not be asked, RemoteProtocolError for an
        answer that cannot be taken, Unavailable for none, or for one that was asked in vain a moment ago, and RateExceeded.
        """
        host = check_address(url)
        known = self._find(url, reach, read)
        async with known.one:  # who comes meanwhile waits for the same answer
            now = self._clock.monotonic()
            good = now < known.until
            if good and (not anew or now - known.asked < AGAIN):
                return known.value  # type: ignore[no-any-return] # of the same ``read``
            if now - known.asked < AGAIN:
                raise Unavailable(f"{host} was asked a moment ago, and gave no answer that can be used")
            self._hosts.take(host)
            known.asked = now
            try:
                answer = await self._ask(
                    "GET", url, reach, limit, _if_changed(known) | {"accept": ", ".join(types)}
                )
                if answer.status != 304 or not known.tag:
                    _check(host, answer, types)
                    known.value, known.tag = read(answer.body), answer.headers.get("etag", "")
            except DoorwardError:
                if good:
                    return known.value  # type: ignore[no-any-return] # of the same ``read``
                raise
            known.until = now + _lifetime(answer.headers)
            return known.value  # type: ignore[no-any-return] # of the same ``read``

    async def post(self, url: str, form: Mapping[str, str], *, reach: Reach = Reach.OPEN) -> Answer:
        """Send a form; what is answered to it, of which a few kilobytes are read. A redirect is an answer like another.

        Raises as ``get`` does.
        """
        check_address(url)
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        return await self._ask("POST", url, reach, _SAID, headers, urlencode(form).encode())

    # What is asked --------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        url: str,
        reach: Reach,
        limit: int,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Answer:
        if reach is Reach.GIVEN:
            async with self._open(self._rules(reach)) as fetcher:
                return await fetcher.request(method, url, limit=limit, headers=headers, body=body)
        if self._room.locked():
            raise Unavailable("too many servers are being asked at this moment", cure="Try again.")
        async with self._room, self._open(self._rules(reach)) as fetcher:
            return await fetcher.request(method, url, limit=limit, headers=headers, body=body)

    def _find(self, url: str, reach: Reach, read: Callable[[bytes], Any]) -> _Kept:
        # By reach, too: what was read inside must not be told to who may ask outside alone.
        key = (url, reach, read)
        known = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return known

    # Where names lead -----------------------------------------------------------------------------------------------

    def _rules(self, reach: Reach) -> Rules:
        if reach is Reach.OPEN:
            return Rules(self._names, lambda _host, _address: False)
        return Rules(self._resolve, self._may)

    def _node(self, host: str) -> Node | None:
        """The node of this tailnet with this full name; none of doorward's own, and none that is shut out."""
        snapshot = self._registry.snapshot
        label, _, rest = host.lower().removesuffix(".").partition(".")
        node = snapshot.node_by_name(label) if rest == snapshot.settings.domain.lower() else None
        if node is None or node.system or node.expired(self._registry.writer.now()):
            return None
        return None if node.id in snapshot.policy.roster.blocked else node

    async def _resolve(self, host: str, port: int) -> list[Address]:
        """A node's name leads to the node, whatever any name server says of it."""
        node = self._node(host)
        return await self._names(host, port) if node is None else [*node.addresses]

    def _may(self, host: str, address: Address) -> bool:
        node = self._node(host)
        if node is not None:
            return address in node.addresses
        return any(address in network for network in self._networks)


def check_address(url: str) -> str:
    """The host of an address that may be asked for, in lower case. Raises BadInput for any that is not https, or holds a name."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        _ = parts.port
    except ValueError:
        raise BadInput("this is no address that can be fetched") from None
    if len(url) > _LONGEST_ADDRESS or not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput("this is no address that can be fetched")
    if parts.scheme != "https" or not host or "@" in parts.netloc or "#" in url or "\\" in url:
        raise BadInput("only https addresses are fetched, without a user's name and without a fragment")
    return host


def _if_changed(known: _Kept) -> dict[str, str]:
    return {"if-none-match": known.tag} if known.tag else {}


def _check(host: str, answer: Answer, types: Sequence[str]) -> None:
    if answer.status != 200:
        raise RemoteProtocolError(f"{host} answered with status {answer.status}, expected 200")
    said = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    as_json = said.startswith("application/") and said.endswith("+json") and "application/json" in types
    if said not in types and not as_json:
        raise RemoteProtocolError(f"{host} answered with {said[:60]!r}, expected {' or '.join(types)}")


def _lifetime(headers: Mapping[str, str]) -> float:
    """How long an answer is kept (RFC 9111), within our own bounds."""
    said = headers.get("cache-control", "")
    if _NOT_KEPT.search(said):
        return SHORTEST
    found = _MAX_AGE.search(said)
    return USUAL if found is None else min(max(float(found[1]), SHORTEST), LONGEST)
