"""Who a connection comes from: for limits, and as an address."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

LOCAL = "local"

Networks = Sequence[IPv4Network | IPv6Network]


def address_key(client: tuple[Any, ...] | None) -> str:
    """Who is asking, for a limit: an IPv4 address, or the /64 of an IPv6 one, since a host owns all of it."""
    return LOCAL if client is None else _key_of(client[0])


@lru_cache(maxsize=4096)  # an app asks again and again, and several limits count it each time
def _key_of(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
    return str(address)


def source_address(client: tuple[Any, ...] | None) -> IPv4Address | IPv6Address | None:
    """The address that somebody comes from, in one spelling; None for a Unix socket and for anything unreadable."""
    if client is None:
        return None
    try:
        address = ip_address(str(client[0]).partition("%")[0])  # a link's own name says nothing elsewhere
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_among(client: tuple[Any, ...] | None, networks: Networks) -> bool:
    """Whether an address lies in one of the networks; False for a Unix socket and for anything unreadable."""
    if client is None or not networks:
        return False
    try:
        address = ip_address(client[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return any(address.ipv4_mapped in network for network in networks)
    return any(address in network for network in networks)


def forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, int] | None:
    """What the nearest proxy says of whom it speaks for: the last address of X-Forwarded-For, or None.

    Only to be asked where the connection comes from a proxy that is trusted: everybody else writes there what they like.
    What is no address counts as nothing said.
    """
    last = b""
    for name, value in headers:
        if name == b"x-forwarded-for":
            last = value
    text = last.rpartition(b",")[2].strip().decode("latin-1")
    try:
        return str(ip_address(text)), 0
    except ValueError:
        return None
