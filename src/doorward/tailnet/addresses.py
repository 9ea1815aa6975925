"""Which addresses nodes get: pure rules over one index for both families.

A node's two addresses come from one number, its *index*: the IPv4 address is the pool's base plus the index, and the IPv6
address likewise. One allocation therefore settles both, and a free IPv4 address implies a free IPv6 one.

Clients recognise as a tailnet's only 100.64.0.0/10 without 100.115.92.0/23 (ChromeOS uses it), and
fd7a:115c:a1e0::/48; the resolver's addresses are never given out (control.md, section 17).
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from doorward.errors import BadInput, Conflict

CGNAT = IPv4Network("100.64.0.0/10")
ULA = IPv6Network("fd7a:115c:a1e0::/48")
CHROMEOS = IPv4Network("100.115.92.0/23")
RESOLVER4 = IPv4Address("100.100.100.100")
RESOLVER6 = IPv6Address("fd7a:115c:a1e0::53")


class Pool(msgspec.Struct, frozen=True):
    """The ranges that nodes' addresses come from."""

    ipv4: IPv4Network = CGNAT
    ipv6: IPv6Network = ULA

    def check(self) -> None:
        """Raises BadInput unless clients treat every address of the pool as a tailnet address."""
        if not self.ipv4.subnet_of(CGNAT):
            raise BadInput(
                f"{self.ipv4} is outside {CGNAT}, and clients treat only addresses inside it as a tailnet's",
                cure=f"Choose a range inside {CGNAT}",
            )
        if not self.ipv6.subnet_of(ULA):
            raise BadInput(
                f"{self.ipv6} is outside {ULA}, and clients treat only addresses inside it as a tailnet's",
                cure=f"Choose a range inside {ULA}",
            )

    @property
    def size(self) -> int:
        """How many indexes there are, usable or not."""
        return min(self.ipv4.num_addresses, self.ipv6.num_addresses)

    def at(self, index: int) -> tuple[IPv4Address, IPv6Address]:
        """The two addresses of an index, ``0 <= index < size``."""
        return self.ipv4.network_address + index, self.ipv6.network_address + index

    def usable(self, index: int) -> bool:
        """False for the first and last of the range, and for the reserved addresses."""
        if not 0 < index < self.size - 1:
            return False
        ipv4, ipv6 = self.at(index)
        return ipv4 not in CHROMEOS and ipv4 != RESOLVER4 and ipv6 != RESOLVER6


def indexes_in(pool: Pool, part: IPv4Network) -> range:
    """The indexes of the pool whose IPv4 address is in ``part``; none where the two have nothing in common."""
    base = int(pool.ipv4.network_address)
    first = max(int(part.network_address), base) - base
    last = min(int(part.broadcast_address), base + pool.size - 1) - base
    return range(first, last + 1)


def allocate(pool: Pool, start: int, taken: Callable[[IPv4Address, IPv6Address], bool]) -> int:
    """The first free index at or after ``start``, going round once.

    ``start`` is the last given index plus one (sequential), or a random number (random): any integer will do. ``taken``
    is asked for each candidate, so its cost is what a full pool costs. Raises Conflict when every address is given.
    """
    size = pool.size
    for step in range(size):
        index = (start + step) % size
        if pool.usable(index) and not taken(*pool.at(index)):
            return index
    raise Conflict(
        f"every address of {pool.ipv4} is in use, so no further node can join",
        cure="Ask an administrator to delete nodes that are no longer needed, or to widen the address pool.",
    )
