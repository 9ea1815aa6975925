"""The relays that clients are told of: our own region, and those of other people's DERP maps (derp.md, section 13)."""

import asyncio
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from doorward.config import Settings
from doorward.errors import BadInput, DoorwardError
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.telemetry import log

MAX_MAP = 1 << 20  # bytes; the largest public map has some tens of thousand
REGION = 900  # our own relay's region where the settings say nothing; only there "home" is unique

_log = log("relays")


def own_region(settings: Settings, pin: str, *, shared: bool) -> DERPRegion:
    """Our own relay, as clients are told of it.

    ``none`` for an address family that it does not have saves every joining client 3 seconds (derp.md, section 13).

    Args:
        settings: with the ports that are bound.
        pin: of the relay's own certificate, see ``tls.ServerCertificate``.
        shared: the relay is where the control address is, behind a certificate that clients trust; else it has its own port,
            with the pinned certificate.
    """
    host = relay_host(settings)
    address = address_of(host)
    ipv4 = ipv6 = ""  # a name's addresses are looked up by the client
    if address is not None:
        ipv4, ipv6 = (host, "none") if address.version == 4 else ("none", host)
    region = settings.relay.region
    node = DERPNode(
        Name=f"{region}a",
        RegionID=region,
        HostName=host,
        CertName="" if shared else pin,
        STUNPort=settings.ports.stun,
        DERPPort=(urlsplit(settings.url).port or 443) if shared else settings.ports.relay,
        IPv4=ipv4,
        IPv6=ipv6,
    )
    suffix = "" if region == REGION else f"-{region}"
    return DERPRegion(
        RegionID=region, RegionCode=f"home{suffix}", RegionName=f"doorward{suffix}", Nodes=[node]
    )


def relay_host(settings: Settings) -> str:
    """The host at which our relay is: several processes may share control's address, but each has a relay of its own."""
    return settings.relay.host or host_of(settings.url)


def host_of(url: str) -> str:
    """The host that clients connect to; localhost as an address, since it may be either family's."""
    host = urlsplit(url).hostname or ""
    return "127.0.0.1" if host == "localhost" else host


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The host as an IP address; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


class OtherRelays:
    """The regions of other people's DERP maps, as they were last read.

    A file that cannot be used is refused: whoever wrote it is there to see it. A server that does not answer, or answers
    nonsense, must not keep us from starting years later: its regions stay as they were, ``missing`` says why, and
    ``read`` may be called again.

    Args:
        sources: files and https addresses.
        own: our own region, whose number and names no other map may use; None where we run no relay.
    """

    def __init__(self, sources: Sequence[str], own: DERPRegion | None) -> None:
        self._sources = tuple(sources)
        self._own = own
        self._read: dict[str, list[DERPRegion]] = {}
        self.missing: dict[str, str] = {}  # source to what is wrong with it

    @property
    def regions(self) -> dict[int, DERPRegion]:
        """Every region by its id."""
        return {region.RegionID: region for regions in self._read.values() for region in regions}

    async def read(self) -> None:
        """Read every source again. Raises BadInput, with the source, for what clients could not use; nothing changes then."""
        found, missing = dict(self._read), {}
        for source in self._sources:
            if "://" not in source:
                found[source] = parse(await _from_file(source), source)
                continue
            try:
                found[source] = parse(await _from_server(source), source)
            except DoorwardError as error:
                _log.warning("a DERP map is not to be had", source=source, reason=error.message)
                missing[source] = error.message
        _check_together([*([("doorward", [self._own])] if self._own else []), *found.items()])
        self._read, self.missing = found, missing


def parse(content: bytes, source: str) -> list[DERPRegion]:
    """The regions of one map (derp.md, section 13), checked for what would end a client's map poll.

    Raises BadInput, with the source.
    """
    try:
        found = msgspec.json.decode(content, type=DERPMap)
    except (ValueError, RecursionError) as error:  # msgspec and UTF-8 say the first, depth the second
        raise BadInput(
            f"this is no DERP map: {error}", place=source, cure="Correct it, or remove it from relay.maps."
        ) from None
    for key, region in found.Regions.items():
        if key != region.RegionID or key <= 0:
            raise _refused(f"region {key} calls itself {region.RegionID}", source)
        for node in region.Nodes:
            if node.RegionID != key:
                raise _refused(f"relay {node.Name!r} of region {key} says it is in {node.RegionID}", source)
            if not node.Name or not node.HostName:
                raise _refused(f"a relay of region {key} has no Name or no HostName", source)
            if node.InsecureForTests:
                raise _refused(f"relay {node.Name!r} asks clients not to verify it", source)
    return list(found.Regions.values())


def _check_together(maps: Iterable[tuple[str, list[DERPRegion]]]) -> None:
    """Clients know a region by its id and a relay by its name, wherever it was read."""
    regions: dict[int, str] = {}
    names: dict[str, str] = {}
    for source, found in maps:
        for region in found:
            if (other := regions.setdefault(region.RegionID, source)) is not source:
                raise _refused(f"region {region.RegionID} is that of {other}, too", source)
            for node in region.Nodes:
                if node.Name in names:
                    raise _refused(f"a relay of {names[node.Name]} is called {node.Name!r}, too", source)
                names[node.Name] = source


def _refused(message: str, source: str) -> BadInput:
    return BadInput(message, place=source, cure="Correct the map, or remove it from relay.maps.")


async def _from_server(source: str) -> bytes:
    from doorward.transport.fetch import Fetcher  # noqa: PLC0415 - slow to load, and few have maps elsewhere

    # Whoever writes the settings owns this machine, so an address on its own network is as good as any.
    async with Fetcher(allow_private=True) as fetcher:
        return await fetcher.get(source, limit=MAX_MAP)


async def _from_file(source: str) -> bytes:
    try:
        return await asyncio.to_thread(Path(source).read_bytes)
    except OSError as error:
        raise BadInput(
            f"the DERP map cannot be read: {error.strerror}", place=source, cure="Correct relay.maps."
        ) from None
