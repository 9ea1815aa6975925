"""What a client says of itself, made fit to be told to others (control.md, section 28.12). Pure.

A single value that a peer's decoder refuses ends that peer's whole map poll, and whoever reads ``tailscale status``
has a terminal. So everything is brought into shape as it comes in: what has no shape is left out, what is too long is
cut, and nothing is refused, because an honest client with one odd value must still get its endpoints through.
"""

import re
import sys
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TypeVar

import msgspec

from doorward.protocol.tailcfg.hostinfo import Hostinfo, Location, NetInfo, Service

T = TypeVar("T", bound=msgspec.Struct)

MAX_ENDPOINTS = 64
MAX_ROUTES = 4096  # an app connector has thousands; peers are told the approved ones only
_MAX_TEXT = 256  # characters of any word; the longest honest one is a push token of some 160
_MAX_SERVICES = 64  # stock clients report the three of their peerapi
_MAX_TAGS = 64
_MAX_HOST_KEYS = 16
_MAX_LATENCIES = 512  # two for each region

# An authorized_keys line without options (sshd(8)). 8192 characters hold an RSA key of 16384 bits three times over.
_HOST_KEY = re.compile(r"([a-z0-9][a-z0-9@.-]{0,63})[ \t]+([A-Za-z0-9+/]{1,8192}={0,2})(?=[ \t\r\n]|$)")


def merged(before: Hostinfo, after: Hostinfo) -> Hostinfo:
    """The newer description; its NetInfo is absent while unchanged (control.md, section 28.4)."""
    if after.NetInfo is None and before.NetInfo is not None:
        return msgspec.structs.replace(after, NetInfo=before.NetInfo)
    return after


def relay_of(hostinfo: Hostinfo, before: int) -> int:
    """The region of a node's home relay, which was ``before``.

    0 says that none is chosen now: peers go on trying the last one, and could not be told "none" anyway.
    """
    home = hostinfo.NetInfo.PreferredDERP if hostinfo.NetInfo is not None else 0
    return home if 0 < home < 2**31 else before


def usable_endpoints(endpoints: Iterable[str]) -> tuple[str, ...]:
    """Those that may be given to peers: whole addresses with a port, none of a single link, each once.

    Peers send packets to every one of them, so neither groups nor "any address" may pass.
    """
    found: dict[str, None] = {}
    for text in endpoints:
        host, _, port = text.rpartition(":")
        try:
            address = ip_address(host.removeprefix("[").removesuffix("]"))
            number = int(port)
        except ValueError:
            continue
        if isinstance(address, IPv6Address):
            if address.scope_id is not None:
                continue
            address = address.ipv4_mapped or address
        if not 0 < number < 65536 or address.is_link_local or address.is_unspecified or address.is_multicast:
            continue
        if str(address) == "255.255.255.255":
            continue
        found[f"[{address}]:{number}" if address.version == 6 else f"{address}:{number}"] = None
        if len(found) == MAX_ENDPOINTS:
            break
    return tuple(found)


def usable_hostinfo(hostinfo: Hostinfo) -> Hostinfo:
    """The same description with every value in a form that any client can read; equal if it was so already."""
    clean = _with_clean_words(hostinfo)
    return msgspec.structs.replace(
        clean,
        RoutableIPs=_routes(clean.RoutableIPs),
        RequestTags=_words(clean.RequestTags, _MAX_TAGS),
        WoLMACs=_words(clean.WoLMACs, _MAX_TAGS),
        Services=_services(clean.Services),
        sshHostKeys=_host_keys(clean.sshHostKeys),
        NetInfo=_net_info(clean.NetInfo),
        Location=_location(clean.Location),
    )


def _with_clean_words(value: T) -> T:
    """A struct with its texts cut and without control characters, structs in it likewise."""
    changes: dict[str, object] = {}
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if type(item) is str:
            # Interned, because a fleet says the same words ten thousand times.
            if (word := sys.intern(_word(item))) is not item:
                changes[name] = word
        elif isinstance(item, msgspec.Struct) and (inner := _with_clean_words(item)) is not item:
            changes[name] = inner
    return msgspec.structs.replace(value, **changes) if changes else value


def _word(text: str) -> str:
    kept = text[: 4 * _MAX_TEXT]
    if not kept.isprintable():
        kept = "".join(character for character in kept if character.isprintable())
    return kept[:_MAX_TEXT]


def _words(texts: list[str] | None, limit: int) -> list[str] | None:
    return None if texts is None else [_word(text) for text in texts[:limit]]


def _routes(texts: list[str] | None) -> list[str] | None:
    """Prefixes in their one form, each once; none with host bits, a zone, or IPv4 dressed as IPv6."""
    if texts is None:
        return None
    found: dict[str, None] = {}
    for text in texts[:MAX_ROUTES]:
        try:
            prefix = ip_network(text)
        except ValueError:
            continue
        first = prefix.network_address
        if isinstance(first, IPv6Address) and (first.scope_id is not None or first.ipv4_mapped is not None):
            continue
        found[str(prefix)] = None
    return list(found)


def _services(services: list[Service] | None) -> list[Service] | None:
    return None if services is None else [_with_clean_words(service) for service in services[:_MAX_SERVICES]]


def _host_keys(lines: list[str] | None) -> list[str] | None:
    """Type and key alone: a line break would let one host write lines into others' known_hosts."""
    if lines is None:
        return None
    matches = (_HOST_KEY.match(line.strip()) for line in lines[:_MAX_HOST_KEYS])
    return [f"{match[1]} {match[2]}" for match in matches if match is not None]


def _net_info(info: NetInfo | None) -> NetInfo | None:
    if info is None or info.DERPLatency is None:
        return info
    latencies = list(info.DERPLatency.items())[:_MAX_LATENCIES]
    return msgspec.structs.replace(info, DERPLatency={_word(region): value for region, value in latencies})


def _location(location: Location | None) -> Location | None:
    if location is None or abs(location.Priority) < 2**31:
        return location
    return msgspec.structs.replace(location, Priority=0)
