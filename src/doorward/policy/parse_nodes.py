"""Reads the sections about nodes themselves: ``autoApprovers``, ``nodeAttrs`` and ``derpMap``."""

from ipaddress import IPv4Network
from typing import Any

from doorward.model import EXIT_ROUTES, Prefix
from doorward.policy.document import AutoApprovers, Kind, NodeAttribute, Relays, Selector
from doorward.policy.parse_names import check_owner
from doorward.policy.reader import Reader, Scope, is_null
from doorward.policy.selectors import PEOPLE, parse_prefix
from doorward.policy.words import WordError
from doorward.protocol import hujson
from doorward.protocol.tailcfg.derpmap import DERPNode, DERPRegion

_CGNAT = IPv4Network("100.64.0.0/10")
# Parts of it that are not for nodes: the resolver's and its neighbours, the service's own, and ChromeOS's.
_RESERVED = tuple(map(IPv4Network, ("100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23")))

_REGION = (
    "RegionID",
    "RegionCode",
    "RegionName",
    "Latitude",
    "Longitude",
    "Avoid",
    "NoMeasureNoHome",
    "Nodes",
)
_RELAY = (
    "Name",
    "RegionID",
    "HostName",
    "CertName",
    "IPv4",
    "IPv6",
    "STUNPort",
    "STUNOnly",
    "DERPPort",
    "InsecureForTests",
    "STUNTestIP",
    "CanPort80",
)


def parse_auto_approvers(scope: Scope, value: hujson.Value | None) -> AutoApprovers:
    """Read ``autoApprovers``: whose routes need no administrator."""
    if value is None:
        return AutoApprovers()
    members = scope.reader.section(value, '"autoApprovers"', ("routes", "exitNode")).members
    routes: list[tuple[Prefix, tuple[Selector, ...]]] = []
    for name, item in scope.reader.members(members.get("routes"), '"routes" in "autoApprovers"'):
        prefix = scope.reader.attempt(scope.reader.place(item), parse_prefix, name.strip())
        approvers = scope.selectors(item, f'routes["{name}"]', check=check_owner)
        if prefix is not None:
            routes.append((prefix, approvers))
    exit_node = scope.selectors(members.get("exitNode"), '"exitNode" in "autoApprovers"', check=check_owner)
    return AutoApprovers(tuple(routes), exit_node)


def _check_attributed(selector: Selector) -> Selector:
    if selector.is_autogroup("self"):
        # The hosted service breaks on it; its answer is quoted for those who look for it.
        raise WordError(
            '"autogroup:self" cannot be a target (the hosted service answers "internal server error")',
            'Write "autogroup:member".',
        )
    if selector.kind is Kind.AUTOGROUP and selector.value not in PEOPLE | {"tagged"}:
        raise WordError(f'"{selector.text}" cannot be a target', "Name users, groups, tags, hosts or *.")
    if selector.prefix in EXIT_ROUTES:
        raise WordError(f'"{selector.text}" cannot be a target', 'Use "*" for every node.')
    return selector


def parse_node_attribute(scope: Scope, value: hujson.Value, origin: str) -> NodeAttribute:
    """Read one entry of ``nodeAttrs``."""
    reader = scope.reader
    members = reader.section(value, origin, ("target", "attr", "app", "ipPool")).members
    targets = scope.selectors(members.get("target"), f'"target" in {origin}', check=_check_attributed)
    names: list[str] = []
    for text in reader.texts(members.get("attr"), f'"attr" in {origin}'):
        if not text.value or not text.value.isprintable():
            reader.complain(text.place, f"an empty attribute in {origin}", "Remove it.")
            continue
        names.append(text.value)
    app: dict[str, list[Any]] = {}
    for name, item in reader.members(members.get("app"), f'"app" in {origin}'):
        values = hujson.plain(item)
        if not isinstance(values, list):
            reader.complain(
                reader.place(item),
                f'"{name}" in {origin} must be a list',
                "Write [{}] where it has no values.",
            )
            continue
        app[name] = values
    pools = (
        reader.attempt(text.place, _pool, text.value)
        for text in reader.texts(members.get("ipPool"), f'"ipPool" in {origin}')
    )
    return NodeAttribute(targets, tuple(names), app, tuple(one for one in pools if one is not None))


def _pool(text: str) -> IPv4Network:
    prefix = parse_prefix(text)
    cure = f"Name an IPv4 range inside {_CGNAT}."
    if not isinstance(prefix, IPv4Network) or not prefix.subnet_of(_CGNAT):
        raise WordError(f"IPPool({text}): network outside {_CGNAT}", cure)
    if any(prefix.subnet_of(one) for one in _RESERVED):
        raise WordError(f"IPPool({text}): network within reserved range", cure)
    return prefix


def parse_relays(scope: Scope, value: hujson.Value | None) -> Relays | None:
    """Read ``derpMap``."""
    if value is None:
        return None
    reader = scope.reader
    section = reader.section(value, '"derpMap"', ("OmitDefaultRegions", "Regions"))
    regions: dict[int, DERPRegion | None] = {}
    item = section.members.get("Regions")
    for member in item.members if isinstance(item, hujson.Object) else ():
        name = str(member.name.data).strip()
        if not (name.isascii() and name.isdigit() and 0 < len(name) <= 6):
            reader.complain(
                reader.place(member.name), f'"{name}" is not the number of a region', 'Write it like "900".'
            )
            continue
        number = int(name)
        regions[number] = None if is_null(member.value) else _region(reader, number, member.value)
    omit = reader.flag(section.members.get("OmitDefaultRegions"), '"OmitDefaultRegions" in "derpMap"')
    if omit and not any(region is not None and region.Nodes for region in regions.values()):
        reader.complain(
            section.place,
            '"derpMap" leaves no relay at all, and without one clients never start',
            'Name a region with a node, or remove "OmitDefaultRegions".',
        )
    return Relays(omit, regions)


def _region(reader: Reader, number: int, value: hujson.Value) -> DERPRegion:
    origin = f'region {number} in "derpMap"'
    section = reader.section(value, origin, _REGION)
    members = section.members
    if reader.number(members.get("RegionID"), f'"RegionID" in {origin}') not in {None, number}:
        reader.complain(section.place, f'"RegionID" in {origin} is another number', f"Write {number}.")
    nodes = tuple(reader.items(members.get("Nodes"), f'"Nodes" in {origin}'))
    return DERPRegion(
        RegionID=number,
        RegionCode=_text(reader, members, "RegionCode", origin) or str(number),
        RegionName=_text(reader, members, "RegionName", origin) or f"Region {number}",
        Latitude=_degrees(reader, members, "Latitude", origin),
        Longitude=_degrees(reader, members, "Longitude", origin),
        Avoid=reader.flag(members.get("Avoid"), f'"Avoid" in {origin}'),
        NoMeasureNoHome=reader.flag(members.get("NoMeasureNoHome"), f'"NoMeasureNoHome" in {origin}'),
        Nodes=[_relay(reader, number, index, node) for index, node in enumerate(nodes)],
    )


def _relay(reader: Reader, number: int, index: int, value: hujson.Value) -> DERPNode:
    origin = f'node {index} of region {number} in "derpMap"'
    section = reader.section(value, origin, _RELAY)
    members = section.members
    if reader.flag(members.get("InsecureForTests"), f'"InsecureForTests" in {origin}'):
        reader.complain(
            section.place,
            f"{origin} would not be verified",
            'Remove "InsecureForTests"; "CertName": "sha256-raw:..." pins a certificate.',
        )
    host = _text(reader, members, "HostName", origin)
    if not host:
        reader.complain(section.place, f'{origin} has no "HostName"', 'Add "HostName".')
    if reader.number(members.get("RegionID"), f'"RegionID" in {origin}') not in {None, number}:
        reader.complain(section.place, f'"RegionID" in {origin} is another number', f"Write {number}.")
    return DERPNode(
        Name=_text(reader, members, "Name", origin) or f"{number}{chr(ord('a') + index % 26)}",
        RegionID=number,
        HostName=host,
        CertName=_text(reader, members, "CertName", origin),
        IPv4=_text(reader, members, "IPv4", origin),
        IPv6=_text(reader, members, "IPv6", origin),
        STUNPort=_port(reader, members, "STUNPort", origin, lowest=-1),
        STUNOnly=reader.flag(members.get("STUNOnly"), f'"STUNOnly" in {origin}'),
        DERPPort=_port(reader, members, "DERPPort", origin, lowest=0),
        STUNTestIP=_text(reader, members, "STUNTestIP", origin),
        CanPort80=reader.flag(members.get("CanPort80"), f'"CanPort80" in {origin}'),
    )


def _text(reader: Reader, members: dict[str, hujson.Value], key: str, origin: str) -> str:
    text = reader.text(members.get(key), f'"{key}" in {origin}')
    return "" if text is None else text.value


def _port(reader: Reader, members: dict[str, hujson.Value], key: str, origin: str, *, lowest: int) -> int:
    port = reader.number(members.get(key), f'"{key}" in {origin}')
    if port is None:
        return 0
    if not lowest <= port <= 65535:
        reader.complain(
            reader.place(members[key]), f'"{key}" in {origin} is no port', f"Write {lowest} to 65535."
        )
        return 0
    return port


def _degrees(reader: Reader, members: dict[str, hujson.Value], key: str, origin: str) -> float:
    value = members.get(key)
    if value is None:
        return 0.0
    data = value.data if isinstance(value, hujson.Literal) else None
    if isinstance(data, bool) or not isinstance(data, int | float) or not -180 <= data <= 180:
        reader.complain(
            reader.place(value), f'"{key}" in {origin} is no number of degrees', "Write it like 52.5."
        )
        return 0.0
    return float(data)
