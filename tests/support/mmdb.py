"""A writer of MaxMind DB files (MaxMind DB format specification 2.0), for small ones: records are not shared or sorted."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR = bytes(16)


def encoded(value: Any) -> bytes:
    """A value as the data section has it."""
    match value:
        case bool():
            return _control(14, int(value))
        case int():
            data = value.to_bytes((value.bit_length() + 7) // 8)
            return _control(9, len(data)) + data
        case str():
            data = value.encode()
            return _control(2, len(data)) + data
        case list():
            return _control(11, len(value)) + b"".join(map(encoded, value))
        case _:
            return _control(7, len(value)) + b"".join(encoded(k) + encoded(v) for k, v in value.items())


def _control(kind: int, size: int) -> bytes:
    assert size < 285
    short, rest = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return (bytes([kind << 5 | short]) if kind < 8 else bytes([short, kind - 7])) + rest


def mmdb(records: Mapping[str, Any], *, kind: str = "Test-Country", version: int = 6) -> bytes:
    """A file with these records by prefix, which do not overlap. IPv4 prefixes are in the tree of IPv6 as ``::a.b.c.d``."""
    tree: list[list[Any]] = [[None, None]]
    data = b""
    for text, record in records.items():
        network = ip_network(text)
        bits = format(int(network.network_address), f"0{network.max_prefixlen}b")[: network.prefixlen]
        if version == 6 and network.version == 4:
            bits = "0" * 96 + bits
        at = 0
        for bit in map(int, bits[:-1]):
            if tree[at][bit] is None:
                tree.append([None, None])
                tree[at][bit] = len(tree) - 1
            at = tree[at][bit]
        tree[at][int(bits[-1])] = -1 - len(data)
        data += encoded(record)
    found = b"".join(_record(side, len(tree)).to_bytes(4) for pair in tree for side in pair)
    metadata = {
        "node_count": len(tree),
        "record_size": 32,
        "ip_version": version,
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1700000000,
        "description": {"en": "made by a test"},
    }
    return found + _SEPARATOR + data + _MARKER + encoded(metadata)


def _record(side: int | None, count: int) -> int:
    if side is None:
        return count
    return side if side >= 0 else count + len(_SEPARATOR) - 1 - side


def countries(by_prefix: Mapping[str, str]) -> bytes:
    """A file of countries, with records like those of GeoLite2."""
    return mmdb({text: {"country": {"iso_code": code}} for text, code in by_prefix.items()})
