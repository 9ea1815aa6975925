"""Arithmetic on ranges of addresses, for the few places where prefixes are not enough.

A range is a first and a last address of one family, both included. The wire writes it ``a-b``, or as the prefix or
the address that it happens to be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from doorward.model import Prefix

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The addresses from ``first`` to ``last``, as integers of IP version ``version``."""

    version: int
    first: int
    last: int

    def __contains__(self, address: Address) -> bool:
        return address.version == self.version and self.first <= int(address) <= self.last

    def meets(self, prefix: Prefix) -> bool:
        """True if they have an address in common."""
        return (
            prefix.version == self.version
            and int(prefix.network_address) <= self.last
            and self.first <= int(prefix.broadcast_address)
        )

    def __str__(self) -> str:
        make = IPv4Address if self.version == 4 else IPv6Address
        first, last = make(self.first), make(self.last)
        if first == last:
            return str(first)
        size = self.last - self.first + 1
        if size & (size - 1) == 0 and self.first % size == 0:
            return f"{first}/{first.max_prefixlen - size.bit_length() + 1}"
        return f"{first}-{last}"


def of_prefix(prefix: Prefix) -> Range:
    """The addresses of a prefix."""
    return Range(prefix.version, int(prefix.network_address), int(prefix.broadcast_address))


def of_text(text: str) -> Range:
    """Read an address, a prefix or ``a-b``; for constants. Raises ValueError for anything else."""
    first, dash, last = text.partition("-")
    if not dash:
        return of_prefix(ip_network(text))
    low, high = ip_address(first), ip_address(last)
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{text} is no range")
    return Range(low.version, int(low), int(high))


def without(ranges: Iterable[Range], holes: Sequence[Address]) -> list[Range]:
    """What is left of the ranges when these single addresses are taken out, in the order of the ranges."""
    cuts = sorted({(hole.version, int(hole)) for hole in holes})
    left: list[Range] = []
    for whole in ranges:
        first = whole.first
        for version, cut in cuts:
            if version != whole.version or not first <= cut <= whole.last:
                continue
            if first < cut:
                left.append(Range(version, first, cut - 1))
            first = cut + 1
        if first <= whole.last:
            left.append(Range(whole.version, first, whole.last))
    return left


def add(ranges: Sequence[Range], more: Iterable[Range]) -> tuple[Range, ...]:
    """All addresses of both, as few ranges as will do, IPv4 first, in order."""
    merged: list[Range] = []
    for one in sorted((*ranges, *more)):
        last = merged[-1] if merged else None
        if last is not None and last.version == one.version and one.first <= last.last + 1:
            merged[-1] = Range(last.version, last.first, max(last.last, one.last))
        else:
            merged.append(one)
    return tuple(merged)


def remove(ranges: Iterable[Range], holes: Iterable[Range]) -> tuple[Range, ...]:
    """The addresses of the ranges that are in none of the holes."""
    left = list(ranges)
    for hole in holes:
        cut: list[Range] = []
        for one in left:
            if one.version != hole.version or hole.last < one.first or one.last < hole.first:
                cut.append(one)
                continue
            if one.first < hole.first:
                cut.append(Range(one.version, one.first, hole.first - 1))
            if hole.last < one.last:
                cut.append(Range(one.version, hole.last + 1, one.last))
        left = cut
    return tuple(left)


# Where tailnet addresses come from (control.md, section 17): 100.64.0.0/10 less ChromeOS's 100.115.92.0/23.
TAILNET: tuple[Range, ...] = tuple(
    of_text(text)
    for text in ("100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255", "fd7a:115c:a1e0::/48")
)

# The world as exit nodes carry it, without private, carrier-grade and link-local addresses. Written as the hosted
# service writes it.
INTERNET: tuple[str, ...] = (
    "0.0.0.0-9.255.255.255",
    "11.0.0.0-100.63.255.255",
    "100.128.0.0-169.253.255.255",
    "169.255.0.0-172.15.255.255",
    "172.32.0.0-192.167.255.255",
    "192.169.0.0-255.255.255.255",
    "2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)
