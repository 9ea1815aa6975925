"""From the words of the policy file to selectors, ports and protocols.

Everything here reads one string and either answers or raises `WordError`; the caller knows the place. The texts of
refusals follow the hosted service where it has one, so that what people find about them elsewhere helps here too.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from doorward.model import EXIT_ROUTES, Prefix, Role
from doorward.policy.document import Kind, Selector
from doorward.policy.ranges import Range, of_text
from doorward.policy.words import WordError, did_you_mean
from doorward.protocol.tailcfg.filter import ALL_PORTS, PortRange

_TAG_REST = re.compile(r"[A-Za-z0-9-]*")
_LOGIN = re.compile(r"[^\s:/\[\]*%@]+@?|[^\s:/\[\]*%@]+@[^\s:/\[\]*%@]+")
_RANGE = re.compile(r"[0-9a-fA-F.:]+-[0-9a-fA-F.:]+")
_DOMAIN = re.compile(r"[A-Za-z0-9.-]+")
# What an outside provider calls a group is the provider's own affair; the domain is what follows the last "@".
_OUTSIDE_GROUP = re.compile(r"(group:[^\x00-\x1f]{1,200}@)([A-Za-z0-9.-]{1,253})")

ROLES: dict[str, Role] = {role.value: role for role in Role if role is not Role.MEMBER}
PEOPLE = frozenset((*ROLES, "member"))  # autogroups that are users
# "shared" is people of other tailnets with whom a node is shared: there are none here.
AUTOGROUPS = PEOPLE | {"tagged", "self", "internet", "danger-all", "shared"}

# IANA protocol numbers under the names that policies use.
PROTOCOLS: dict[str, int] = {
    "icmp": 1,
    "igmp": 2,
    "ipv4": 4,
    "ip-in-ip": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "sctp": 132,
    "fc": 133,
}
WITH_PORTS = frozenset((6, 17, 132))


@dataclass(frozen=True, slots=True)
class Names:
    """The names a policy defines itself."""

    groups: Collection[str]
    tags: Collection[str]
    hosts: Mapping[str, Prefix]
    ipsets: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    postures: Collection[str] = ()


def check_tag_name(tag: str) -> None:
    """Raises WordError unless ``tag`` is ``tag:`` and a name that may be used."""
    name = tag.removeprefix("tag:")
    if not tag.startswith("tag:"):
        raise WordError(f'"{tag}" is not a tag', f'Write "tag:{tag}".')
    if not (name[:1].isascii() and name[:1].isalpha()):
        raise WordError("tag names must start with a letter, after 'tag:'", "Use one of a to z.")
    if not _TAG_REST.fullmatch(name):
        raise WordError(
            "tag names can only contain numbers, letters, or dashes",
            "Replace the other characters by dashes.",
        )


def parse_selector(text: str, names: Names, *, role: str = "") -> Selector:
    """Read one name for nodes. ``role`` (``src=``, ``dst=``) goes in front of complaints about tags.

    Raises WordError for a group, tag or autogroup that does not exist and for what is no name at all.
    """
    word = text.strip()
    if word == "*":
        return Selector(Kind.EVERYONE, "", text=word)
    kind, colon, rest = word.partition(":")
    read = _BY_KIND.get(kind) if colon else None
    if read is not None:
        return read(word, rest, names, role)
    if word.startswith("user:*@"):
        domain = word.removeprefix("user:*@")
        if not _DOMAIN.fullmatch(domain):
            raise WordError(f'"{word}": "{domain}" is not a domain', 'Write it like "user:*@example.com".')
        return Selector(Kind.DOMAIN, domain.lower(), text=word)
    if word in names.hosts:
        return Selector.of_prefix(names.hosts[word], word)
    return _address_or_user(word, names)


def _tag(word: str, _: str, names: Names, role: str) -> Selector:
    if word not in names.tags:
        cure = did_you_mean(word, names.tags, f'Add "{word}" to "tagOwners".')
        raise WordError(f'{role}tag not found: "{word}"', cure)
    return Selector(Kind.TAG, word, text=word)


def _group(word: str, _: str, names: Names, role: str) -> Selector:
    if word not in names.groups and (outside := _OUTSIDE_GROUP.fullmatch(word)):
        # Not of this file: a group of an outside provider, who may be asked about it only tomorrow.
        return Selector(Kind.GROUP, outside[1] + outside[2].lower(), text=word)
    if word not in names.groups:
        cure = did_you_mean(word, names.groups, f'Add "{word}" to "groups".')
        raise WordError(f'{role}group not found: "{word}"', cure)
    return Selector(Kind.GROUP, word, text=word)


def _autogroup(word: str, rest: str, _: Names, __: str) -> Selector:
    if rest not in AUTOGROUPS:
        known = sorted(f"autogroup:{one}" for one in AUTOGROUPS)
        raise WordError(
            f'"{word}" is not a known autogroup', did_you_mean(word, known, f"Known are {', '.join(known)}.")
        )
    return Selector(Kind.AUTOGROUP, rest, text=word)


def _ipset(word: str, _: str, names: Names, role: str) -> Selector:
    if word not in names.ipsets:
        cure = did_you_mean(word, names.ipsets, f'Add "{word}" to "ipsets".')
        raise WordError(f'{role}ipset not found: "{word}"', cure)
    return Selector(Kind.IPSET, word, ranges=names.ipsets[word], text=word)


def _host(word: str, rest: str, names: Names, _: str) -> Selector:
    if rest not in names.hosts:
        raise WordError(f'host not found: "{rest}"', did_you_mean(rest, names.hosts, 'Add it to "hosts".'))
    return Selector.of_prefix(names.hosts[rest], word)


def _posture(word: str, _: str, __: Names, ___: str) -> Selector:
    raise WordError(
        f'"{word}" is a condition, not a name for nodes', 'Write it under "srcPosture" of the rule.'
    )


def _service(word: str, _: str, __: Names, ___: str) -> Selector:
    raise WordError(f'"{word}": services are not supported yet', "Name the nodes that offer it, by a tag.")


_BY_KIND: dict[str, Callable[[str, str, Names, str], Selector]] = {
    "tag": _tag,
    "group": _group,
    "autogroup": _autogroup,
    "ipset": _ipset,
    "host": _host,
    "posture": _posture,
    "svc": _service,
}


def _address_or_user(word: str, names: Names) -> Selector:
    if re.fullmatch(r"[0-9a-fA-F.:]+(?:/[0-9]+)?", word) and (":" in word or word[:1].isdigit()):
        return Selector.of_prefix(parse_prefix(word), word)
    if _RANGE.fullmatch(word):
        return Selector(Kind.IPSET, "", ranges=(parse_range(word),), text=word)
    if not _LOGIN.fullmatch(word):
        cure = did_you_mean(
            word, (*names.hosts, *names.groups, *names.tags), "Name a user, a group or a tag."
        )
        raise WordError(f'"{word}": invalid address', cure)
    return Selector(Kind.USER, word.lower(), text=word)


def parse_prefix(text: str) -> Prefix:
    """Read an address or a prefix without host bits. Raises WordError for anything else."""
    try:
        if "/" not in text:
            address = ip_address(text)
            return (
                ip_network((int(address), address.max_prefixlen))
                if address.version == 4
                else IPv6Network(address)
            )
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        raise WordError(
            f'"{text}": invalid address', "Write it like 100.64.0.1, 10.0.0.0/8 or fd00::/64."
        ) from None
    if str(network.network_address) != str(ip_address(text.partition("/")[0])):
        raise WordError(f'"{text}" has bits set after its prefix length', f'Write "{network}".')
    return network


def parse_range(text: str) -> Range:
    """Read ``a-b``, an address or a prefix. Raises WordError for anything else."""
    try:
        return of_text(text)
    except ValueError:
        raise WordError(
            f'"{text}": invalid address', "Write it like 100.64.0.1, 10.0.0.0/8 or 10.0.0.1-10.0.0.9."
        ) from None


def check_source(selector: Selector) -> Selector:
    """The selector, if it may stand for who starts the traffic; raises WordError otherwise."""
    if selector.is_autogroup("self") or selector.is_autogroup("internet"):
        raise WordError(
            f'"{selector.text}" not valid on the src side of a rule',
            'Use "autogroup:member" for people\'s own devices.',
        )
    return selector


def check_target(selector: Selector) -> Selector:
    """The selector, if it may stand for what is reached; raises WordError otherwise."""
    if selector.is_autogroup("danger-all"):
        raise WordError("cannot use autogroup:danger-all as a dst", 'Use "*".')
    if selector.prefix in EXIT_ROUTES:
        raise WordError(
            f'dst "{selector.text}": to allow all IP addresses, use "*" or "autogroup:internet"',
            '"autogroup:internet" allows the use of exit nodes.',
        )
    return selector


def parse_ports(text: str) -> tuple[PortRange, ...]:
    """Read ``*``, ``22``, ``80-443`` or a list of them with commas. Raises WordError for anything else."""
    if text.strip() == "*":
        return (ALL_PORTS,)
    return tuple(_parse_port_range(part.strip()) for part in text.split(","))


def _parse_port_range(text: str) -> PortRange:
    first, dash, last = text.partition("-")
    cure = 'Write a port like "22", a range like "80-443", or "*".'
    low = _port(first)
    if low is None:
        raise WordError(f'port range "{text}": invalid first integer', cure)
    high = _port(last) if dash else low
    if high is None:
        raise WordError(f'port range "{text}": invalid last integer', cure)
    if low == 0:
        raise WordError(f"port range \"{text}\": first port must be >0, or use '*' for wildcard", cure)
    if low > high or high > ALL_PORTS.Last:
        raise WordError(f'port range "{text}": ports go from 1 to 65535, the smaller one first', cure)
    return PortRange(low, high)


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def parse_protocol(text: str) -> int:
    """Read a protocol's name or number (0 to 255). Raises WordError for anything else."""
    word = text.strip().lower()
    if word in PROTOCOLS:
        return PROTOCOLS[word]
    if word.isascii() and word.isdigit() and len(word) <= 3 and int(word) <= 255:
        return int(word)
    raise WordError(
        f'unknown protocol "{text}"', did_you_mean(word, PROTOCOLS, "Use a name such as tcp, or a number.")
    )


def check_ports_of(protocols: tuple[int, ...], ports: tuple[PortRange, ...]) -> None:
    """Raises WordError where a protocol without ports is given some."""
    if protocols and ports != (ALL_PORTS,) and not WITH_PORTS.issuperset(protocols):
        raise WordError(f"IP protocol {protocols[0]} has no ports", 'Use "*" for its ports.')


def split_target(text: str) -> tuple[str, str]:
    """Cut ``DST:PORTS`` of an acl in two. An IPv6 address may stand in brackets."""
    target, colon, ports = text.strip().rpartition(":")
    if not colon or not target:
        raise WordError(f'dst "{text}" has no ports', f'Write "{text.strip()}:*" for all of them.')
    if target.startswith("[") and target.endswith("]"):
        target = target[1:-1]
    elif target.startswith("[") and "]/" in target:
        target = target[1:].replace("]", "", 1)
    return target, ports


def parse_service(text: str) -> tuple[tuple[int, ...], tuple[PortRange, ...]]:
    """Read one entry of a grant's ``ip``: ``*``, ``PORTS`` or ``PROTOCOL:PORTS``. No protocols means the usual four."""
    protocol, colon, ports = text.strip().partition(":")
    if not colon:
        return (), parse_ports(protocol)
    protocols = () if protocol == "*" else (parse_protocol(protocol),)
    parsed = parse_ports(ports)
    check_ports_of(protocols, parsed)
    return protocols, parsed
