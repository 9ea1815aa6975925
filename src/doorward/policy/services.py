"""Ports and protocols in people's words: ``22,443``, ``tcp 22, udp 53``, ``all ports``."""

from collections.abc import Iterable, Iterator

from doorward.policy.selectors import PROTOCOLS, WITH_PORTS
from doorward.protocol.tailcfg.filter import ALL_PORTS, PortRange

TCP = 6
USUAL: tuple[int, ...] = (6, 17, 1, 58)  # what a rule without protocols lets through: TCP, UDP and both ICMPs

Service = tuple[int, PortRange]  # an IP protocol and ports of it; of a protocol without ports, all

_NAMES = {number: name for name, number in reversed(PROTOCOLS.items())} | {58: "icmpv6"}


def services_of(protocols: Iterable[int], ports: Iterable[PortRange]) -> Iterator[Service]:
    """What a rule with these protocols (none: the usual four) and ports lets through, by protocol."""
    each = tuple(ports)
    for protocol in tuple(protocols) or USUAL:
        if protocol in WITH_PORTS:
            yield from ((protocol, one) for one in each)
        elif each:
            yield protocol, ALL_PORTS


def protocol_name(number: int) -> str:
    """``tcp``; a protocol without a name is called by its number."""
    return _NAMES.get(number, f"protocol {number}")


def joined(ports: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports in as few ranges as will do, in order."""
    found: list[PortRange] = []
    for one in sorted(ports, key=lambda one: (one.First, one.Last)):
        if found and one.First <= found[-1].Last + 1:
            found[-1] = PortRange(found[-1].First, max(found[-1].Last, one.Last))
        else:
            found.append(one)
    return tuple(found)


def ports_text(ports: Iterable[PortRange]) -> str:
    """``22,80-90``, or ``all``."""
    return ",".join(_range_text(one) for one in joined(ports))


def _range_text(ports: PortRange) -> str:
    first = max(ports.First, 1)  # there is no port 0; ranges that mean "from the first on" start with it
    if (first, ports.Last) == (1, ALL_PORTS.Last):
        return "all"
    return str(ports.Last) if first >= ports.Last else f"{first}-{ports.Last}"


def services_text(services: Iterable[Service]) -> str:
    """``all ports``, ``ports 22,443``, ``tcp 22, udp 53``, ``tcp/udp 53``: the usual four protocols need no name where they are alike."""
    by_protocol: dict[int, list[PortRange]] = {}
    for protocol, ports in services:
        by_protocol.setdefault(protocol, []).append(ports)
    texts = {protocol: ports_text(ports) for protocol, ports in by_protocol.items()}
    parts: list[str] = []
    usual = {texts.get(protocol) for protocol in USUAL if protocol in WITH_PORTS}
    if set(USUAL) <= texts.keys() and len(usual) == 1:
        (text,) = usual
        parts.append("all ports" if text == "all" else f"port{'s' * (not str(text).isdigit())} {text}")
        texts = {protocol: text for protocol, text in texts.items() if protocol not in USUAL}
    alike: dict[str, list[str]] = {}
    for protocol in sorted(texts):
        alike.setdefault(texts[protocol] if protocol in WITH_PORTS else "", []).append(
            protocol_name(protocol)
        )
    return ", ".join([*parts, *(f"{'/'.join(names)} {text}".rstrip() for text, names in alike.items())])
