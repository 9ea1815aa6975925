"""What an administrator may tell nodes about DNS (control.md, section 17). Pure.

A client drops what it cannot use without a word, or ends its map stream over it. So everything is checked here, and refused
with its place.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from doorward.config.settings import TAILNET_V4, TAILNET_V6
from doorward.errors import BadInput
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.tailnet.settings import DNS, Settings

NAME_MAX = 253  # characters of a name, RFC 1035 section 2.3.4
# With "_", which is in no host's name and in many a domain's (RFC 8552).
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_WITH_PORT = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")
# Where each client answers itself: asking there for what it does not know would ask for ever.
_CLIENTS_OWN = frozenset((IPv4Address("100.100.100.100"), IPv6Address("fd7a:115c:a1e0::53")))
_NAMESERVER_CURE = (
    "Write an address, ADDRESS:PORT, or https://HOST/dns-query of a provider that clients know."
)


def checked(dns: DNS, settings: Settings) -> DNS:
    """The settings as they are stored: names in lower case, without a dot at the end.

    Raises BadInput, whose ``place`` is the field's path, for what clients could not use or would use against themselves.
    """
    domain = settings.domain.lower()
    search: list[str] = []
    for index, text in enumerate(dns.search):
        place = f"$.search[{index}]"
        name = _name(text, place)
        if name == domain or name in search:
            why = "is the tailnet's own domain" if name == domain else "is there twice"
            raise BadInput(
                f"{name} {why}", place=place, cure="Leave it out: the own domain always comes first."
            )
        search.append(name)
    split: dict[str, tuple[str, ...]] = {}
    for suffix, servers in dns.split.items():
        place = f"$.split[{suffix!r}]"
        name = _name(suffix, place)
        if name == domain or name in split:
            why = "is answered by the nodes themselves" if name == domain else "is there twice"
            raise BadInput(f"{name} {why}", place=place, cure="Leave it out.")
        split[name] = _nameservers(servers, place)
    return DNS(
        magic_dns=dns.magic_dns,
        search=tuple(search),
        nameservers=_nameservers(dns.nameservers, "$.nameservers"),
        split=split,
        records=_records(dns.records, settings),
    )


def _records(records: tuple[DNSRecord, ...], settings: Settings) -> tuple[DNSRecord, ...]:
    found: list[DNSRecord] = []
    for index, record in enumerate(records):
        place = f"$.records[{index}]"
        name = _name(record.Name, f"{place}.name")
        if name == settings.door_host.lower():
            raise BadInput(
                f"{name} is the door, which inside the tailnet is doorward's own node",
                place=f"{place}.name",
                cure="Choose another name, or change `door` in the settings.",
            )
        address = _address(record.Value)
        if address is None:
            raise BadInput(
                f"{record.Value!r} is not an address",
                place=f"{place}.address",
                cure="Write one IPv4 or IPv6 address: clients know no other records.",
            )
        made = DNSRecord(Name=name, Value=str(address))
        if made in found:
            raise BadInput(f"{name} with {address} is there twice", place=place, cure="Leave one out.")
        found.append(made)
    return tuple(found)


def _name(text: str, place: str) -> str:
    name = text.strip().lower().removesuffix(".")
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise BadInput(
            f"{text!r} is not a domain name",
            place=place,
            cure="Write it as corp.example, in ASCII (xn--... for other scripts), without * and without a scheme.",
        )
    return name


def _nameservers(texts: tuple[str, ...], place: str) -> tuple[str, ...]:
    return tuple(_nameserver(text.strip(), f"{place}[{index}]") for index, text in enumerate(texts))


def _nameserver(text: str, place: str) -> str:
    """A resolver as clients take one: an address, an address and a port, or a DNS-over-HTTPS address."""
    if "://" in text:
        return _over_http(text, place)
    address = _address(text)
    if address is None and (found := _WITH_PORT.fullmatch(text.lower())) and 0 < int(found["port"]) < 65536:
        address = _address(found["six"] or found["four"])
    if address is None:
        raise BadInput(f"{text!r} is not a nameserver", place=place, cure=_NAMESERVER_CURE)
    if address in _CLIENTS_OWN:
        raise BadInput(
            f"{address} is every client's own resolver",
            place=place,
            cure="Name the resolver that clients are to ask when they do not know a name.",
        )
    return text


def _over_http(text: str, place: str) -> str:
    try:
        split = urlsplit(text)
        host = split.hostname or ""
        split.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        split, host = urlsplit(""), ""
    address = _address(host)
    inside = address is not None and address in (TAILNET_V4 if address.version == 4 else TAILNET_V6)
    # Without TLS only inside the tailnet, which encrypts by itself; clients refuse it elsewhere.
    if not host or split.scheme not in {"https", "http"} or (split.scheme == "http" and not inside):
        raise BadInput(f"{text!r} is not a nameserver", place=place, cure=_NAMESERVER_CURE)
    return text


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """None for what is no address, or has a zone, which means something on one machine only."""
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None
