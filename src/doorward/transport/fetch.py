"""The one way in which doorward asks another server something over HTTP.

Addresses to fetch come from settings, policies and people, so a URL is treated as hostile: no private address unless the
caller allows it, no other scheme behind a redirect, a size and a time for everything, no proxy or password from the
environment. The name is resolved once, and the connection goes to the address that was checked: a second answer of the
DNS cannot lead it elsewhere.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from doorward.errors import BadInput, NotPermitted, RemoteProtocolError, Unavailable

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]
Also = Callable[[str, Address], bool]

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: a gateway turns its last 32 bits into an IPv4 address
_UNICAST = IPv6Network(
    "2000::/3"
)  # all that is given to anybody; beside it are forms that no list of ranges names
_MAX_ADDRESSES = 4  # tried one after the other, within the one time limit


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name, as the system knows them. Raises OSError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def is_public(address: Address) -> bool:
    """True for an address of the open internet, also inside an IPv6 form that carries an IPv4 address."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast


class Fetcher:
    """An HTTP client; an async context manager. Every request has a connection of its own.

    Args:
        allow_private: let addresses that are not of the open internet be asked.
        also: or only these, each for the host of the URL that it is an address of.
        seconds: for one request, its redirects and the whole body included.
        redirects: how many are followed.
        ssl_context: whom to trust for https; the system's authorities by default.
        unix_socket: ask the server behind this socket, whatever host the URL names.
        resolve: names to addresses.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        also: Also = lambda _host, _address: False,
        seconds: float = 10.0,
        redirects: int = 3,
        ssl_context: ssl.SSLContext | None = None,
        unix_socket: Path | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._allow_private = allow_private
        self._also = also
        self._seconds = seconds
        self._redirects = redirects
        self._unix_socket = unix_socket
        self._resolve = resolve
        transport = httpx2.AsyncHTTPTransport(
            verify=ssl_context or ssl.create_default_context(),
            trust_env=False,
            # The pool knows connections by address. One kept for a host must not serve another behind the same address:
            # its certificate was verified for the first.
            limits=httpx2.Limits(max_keepalive_connections=0),
            uds=str(unix_socket) if unix_socket else None,
        )
        self._client = httpx2.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, timeout=seconds
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End what is under way. What ``async with`` does at its end."""
        await self._client.aclose()

    async def get(self, url: str, *, limit: int, headers: Mapping[str, str] | None = None) -> bytes:
        """The body behind ``url``. As ``request``; RemoteProtocolError also for a status other than 200."""
        answer = await self.request("GET", url, limit=limit, headers=headers)
        if answer.status != 200:
            raise RemoteProtocolError(f"{_host(url)} answered with status {answer.status}, expected 200")
        return answer.body

    async def request(
        self,
        method: str,
        url: str,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request and read at most ``limit`` bytes of its answer's body.

        Redirects are followed for GET and HEAD, and ``headers`` go only to the origin they were meant for; for other
        methods the redirect is the answer. Raises BadInput for a URL that cannot be asked, NotPermitted for a private
        address, Unavailable when there is no answer in time, and RemoteProtocolError for one that is too large, is
        compressed, or redirects too often or to another scheme.
        """
        target = _parse(url)
        try:
            async with asyncio.timeout(self._seconds):
                for _ in range(self._redirects + 1):
                    answer = await self._once(method, target, headers or {}, body, limit)
                    location = answer.headers.get("location")
                    if answer.status not in _REDIRECTS or not location or method not in {"GET", "HEAD"}:
                        return answer
                    following = _follow(target, location)
                    if _origin(following) != _origin(target):
                        headers = None
                    target = following
        except TimeoutError:
            raise Unavailable(f"{_host(url)} did not answer within {self._seconds:g} seconds") from None
        raise RemoteProtocolError(f"{_host(url)} redirects more than {self._redirects} times")

    async def _once(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], body: bytes | None, limit: int
    ) -> Answer:
        failure = "no address"
        for address in await self._addresses(url):
            place = url if address is None else url.copy_with(host=str(address))
            request = self._client.build_request(
                method,
                place,
                # identity: a body of a few kilobytes must not become gigabytes here.
                headers={**headers, "host": url.netloc.decode("ascii"), "accept-encoding": "identity"},
                content=body,
                extensions={**_timeouts(self._seconds), "sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                response = await self._client.send(request, stream=True)
            except httpx2.ConnectError as error:
                failure = str(error) or "refused"
                continue
            except httpx2.HTTPError as error:
                raise Unavailable(
                    f"{url.host} gave no answer: {str(error) or type(error).__name__}"
                ) from None
            except (httpx2.InvalidURL, ValueError):  # it looks at where a redirect leads, followed or not
                raise RemoteProtocolError(f"{url.host} redirects to what cannot be fetched") from None
            try:
                return await _read(response, url.host, limit)
            except httpx2.HTTPError as error:
                raise Unavailable(f"{url.host} broke off: {str(error) or type(error).__name__}") from None
            finally:
                await response.aclose()
        raise Unavailable(f"{url.host} cannot be reached: {failure}")

    async def _addresses(self, url: httpx2.URL) -> list[Address | None]:
        """Where to connect, checked; None for the Unix socket."""
        if self._unix_socket is not None:
            return [None]
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            # A literal in any of the forms that getaddrinfo knows goes through it too, so nothing slips by as a name.
            found = await self._resolve(url.host, port)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the name {url.host} has no address: {error}") from None
        allowed: list[Address | None] = [
            address
            for address in dict.fromkeys(found)
            if self._allow_private or is_public(address) or self._also(url.host, address)
        ]
        if found and not allowed:
            raise NotPermitted(
                f"{url.host} is at an address that is not of the open internet",
                cure="Use a public address, or one that the settings allow.",
            )
        return allowed[:_MAX_ADDRESSES]


async def _read(response: httpx2.Response, host: str, limit: int) -> Answer:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise RemoteProtocolError(f"{host} answered with a body in {encoding[:20]!r}, expected it plain")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise RemoteProtocolError(f"{host} answered with more than {limit} bytes")
    return Answer(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, bytes(body)
    )


def _parse(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
        host = url.host  # decoded only here, and not every one can be
    except (httpx2.InvalidURL, UnicodeError):
        raise BadInput("this is not an address that can be fetched") from None
    if url.scheme not in {"http", "https"} or not host or "%" in host:
        raise BadInput("only http and https addresses with a host can be fetched")
    if url.userinfo:
        raise BadInput(
            f"the address of {url.host} holds a user name or password",
            cure="Take it out: it would be shown and logged with the address.",
        )
    return url


def _follow(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        target = _parse(str(url.join(location)))
    except (BadInput, httpx2.InvalidURL):
        raise RemoteProtocolError(f"{url.host} redirects to what cannot be fetched") from None
    if target.scheme != url.scheme:
        raise RemoteProtocolError(f"{url.host} redirects from {url.scheme} to {target.scheme}")
    return target


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _host(url: str) -> str:
    return _parse(url).host


def _timeouts(seconds: float) -> dict[str, dict[str, float | None]]:
    return {"timeout": httpx2.Timeout(seconds).as_dict()}
