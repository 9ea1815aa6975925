"""Relays of others: DERP maps from files and addresses, beside our own region."""

import asyncio
from pathlib import Path

import msgspec

from doorward.errors import BadInput
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion

MAX_MAP = 1 << 20  # bytes; the largest public map has some tens of thousand


async def load(sources: tuple[str, ...]) -> dict[int, DERPRegion]:
    """The regions of every map, by id. Raises BadInput, with the source, for one that clients could not use."""
    regions: dict[int, DERPRegion] = {}
    for source in sources:
        for region in parse(await _read(source), source):
            if region.RegionID in regions:
                raise BadInput(f"region {region.RegionID} is in two DERP maps", place=source)
            regions[region.RegionID] = region
    return regions


def parse(content: bytes, source: str) -> list[DERPRegion]:
    """The regions of one map (derp.md, section 13), checked for what would end a client's map poll."""
    try:
        found = msgspec.json.decode(content, type=DERPMap)
    except msgspec.MsgspecError as error:
        raise BadInput(
            f"this is no DERP map: {error}", place=source, cure="Correct it, or remove it from relay.maps."
        ) from None
    names: set[str] = set()
    for key, region in found.Regions.items():
        if key != region.RegionID or key <= 0:
            raise BadInput(f"region {key} calls itself {region.RegionID}", place=source)
        for node in region.Nodes:
            if node.RegionID != key or not node.HostName or node.Name in names:
                raise BadInput(
                    f"relay {node.Name!r} of region {key} has another RegionID, no HostName, or a name used twice",
                    place=source,
                )
            if node.InsecureForTests:
                raise BadInput(f"relay {node.Name!r} asks clients not to verify it", place=source)
            names.add(node.Name)
    return list(found.Regions.values())


async def _read(source: str) -> bytes:
    if "://" in source:
        from doorward.transport.fetch import Fetcher  # noqa: PLC0415 - slow to load, and few have maps elsewhere

        async with Fetcher() as fetcher:
            return await fetcher.get(source, limit=MAX_MAP)
    try:
        return await asyncio.to_thread(Path(source).read_bytes)
    except OSError as error:
        raise BadInput(
            f"the DERP map cannot be read: {error.strerror}", place=source, cure="Correct relay.maps."
        ) from None
