"""Postures: conditions on what is known about a node (protocol note ssh.md, section 7).

A posture is a list of assertions such as ``node:os == 'macos'``; all of them have to hold. An attribute that is not set
satisfies no comparison, not even ``!=`` or ``NOT IN``: only ``NOT SET`` is true of it. So whatever is unknown about a
node closes doors and never opens one.

Pure functions: attributes in, yes or no out. Where attributes come from, and when they end, is the caller's business.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from doorward.policy.words import WordError, did_you_mean
from doorward.protocol.tailcfg.hostinfo import Hostinfo

AttributeValue = str | int | float | bool
CountryOf = Callable[[IPv4Address | IPv6Address], str | None]  # ISO 3166-1, two capital letters

ADDRESS, COUNTRY = "ip:address", "ip:country"

_NAMESPACES = frozenset(
    (
        "node",
        "ip",
        "custom",
        "falcon",
        "intune",
        "jamfpro",
        "kandji",
        "kolide",
        "sentinelone",
        "fleet",
        "huntress",
    )
)
# What is known about every node that says it, as people write it, by its name in lower case. Other namespaces are open.
SHOWN = {
    name.lower(): name
    for name in (
        "node:os",
        "node:osVersion",
        "node:tsVersion",
        "node:tsReleaseTrack",
        "node:tsAutoUpdate",
        "node:tsStateEncrypted",
        ADDRESS,
        COUNTRY,
    )
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*:[A-Za-z0-9_:.-]{1,128}")
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'[^'\\]*'|"[^"\\]*")|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?![\w.]))
    |(?P<operator>==|!=|<=|>=|<|>|\[|\]|,)|(?P<word>[A-Za-z][A-Za-z0-9_:.-]*))""",
    re.VERBOSE,
)
_COUNTRY = re.compile(r"[A-Za-z]{2}")
_VERSION_PART = re.compile(r"[0-9]+|[A-Za-z]+")
_DIGITS = 18  # of one part of a version; longer ones are cut, as no version has them

MAX_ASSERTIONS = 100  # in one posture
MAX_VALUES = 1000  # in one list


class Operator(StrEnum):
    """How an attribute is judged."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    MORE = ">"
    MORE_OR_EQUAL = ">="
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_SET = "IS SET"
    NOT_SET = "NOT SET"


@dataclass(frozen=True, slots=True)
class Assertion:
    """One condition. ``text`` is how it is written."""

    attribute: str  # in lower case: letter case is not looked at
    operator: Operator
    values: tuple[AttributeValue, ...]  # one, or those of a list; none for IS SET and NOT SET
    text: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()  # the values, where it is about an address

    def holds(self, attributes: Mapping[str, AttributeValue]) -> bool:
        """True if a node with these attributes (names in lower case) fulfils it."""
        actual = attributes.get(self.attribute)
        if self.operator is Operator.NOT_SET:
            return actual is None
        if actual is None:
            return False
        if self.operator is Operator.IS_SET:
            return True
        if self.attribute == ADDRESS:
            return self._fits(str(actual))
        match self.operator:
            case Operator.EQUAL | Operator.IN:
                return any(_equal(actual, value) for value in self.values)
            case Operator.UNEQUAL | Operator.NOT_IN:
                return not any(_equal(actual, value) for value in self.values)
            case _:
                order = _compare(actual, self.values[0])
                return order is not None and _ORDERS[self.operator](order)

    def _fits(self, text: str) -> bool:
        """True where an address is, or (``!=``, ``NOT IN``) is not, in one of the networks."""
        try:
            address = ip_address(text)
        except ValueError:
            return False  # from a test of the policy: what is no address is in no place, and not elsewhere either
        inside = any(address in network for network in self.networks)
        return inside is (self.operator in {Operator.EQUAL, Operator.IN})


_ORDERS: dict[Operator, Callable[[int], bool]] = {
    Operator.LESS: lambda order: order < 0,
    Operator.LESS_OR_EQUAL: lambda order: order <= 0,
    Operator.MORE: lambda order: order > 0,
    Operator.MORE_OR_EQUAL: lambda order: order >= 0,
}


@dataclass(frozen=True, slots=True)
class Posture:
    """What a node has to be like: every assertion holds. One without assertions is never met."""

    assertions: tuple[Assertion, ...]

    def met_by(self, attributes: Mapping[str, AttributeValue]) -> bool:
        """True if a node with these attributes (names in lower case) meets it."""
        return bool(self.assertions) and all(one.holds(attributes) for one in self.assertions)

    def asks(self, *attributes: str) -> bool:
        """True if an assertion is about one of these (in lower case)."""
        return any(one.attribute in attributes for one in self.assertions)

    def failing(self, attributes: Mapping[str, AttributeValue]) -> tuple[str, ...]:
        """The assertions that do not hold, as written."""
        return tuple(one.text for one in self.assertions if not one.holds(attributes))


def parse_assertion(text: str) -> Assertion:
    """Read one assertion. Raises WordError."""
    found = _assertion(text)
    return _about_place(found) if found.attribute in {ADDRESS, COUNTRY} else found


_PLACES = frozenset((Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.NOT_IN))


def _about_place(found: Assertion) -> Assertion:
    """The assertion with its values read as what they stand for. Raises WordError."""
    if found.values and found.operator not in _PLACES:
        raise WordError(
            f'"{found.text}": places are not larger or smaller',
            "Use ==, !=, IN, NOT IN, IS SET or NOT SET.",
        )
    if found.attribute == ADDRESS:
        return replace(found, networks=tuple(_network(value) for value in found.values))
    for value in found.values:
        if not isinstance(value, str) or not _COUNTRY.fullmatch(value):
            raise WordError(
                f'"{value}" is not a country', "Write the two letters of ISO 3166-1 in quotes: 'DE', 'US'."
            )
    return replace(found, values=tuple(str(value).upper() for value in found.values))


def _network(value: AttributeValue) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value) if isinstance(value, str) else "")
    except ValueError:
        raise WordError(
            f'"{value}" is not an address or a prefix',
            "Write it in quotes: '192.0.2.7', or '192.0.2.0/24' with no bits set after the prefix.",
        ) from None


def _assertion(text: str) -> Assertion:
    tokens = _tokens(text)
    if not tokens or tokens[0][0] != "word":
        raise _misread(text)
    name = tokens[0][1]
    _check_name(name)
    rest = tokens[1:]
    words = " ".join(token.upper() for kind, token in rest if kind == "word")
    if [kind for kind, _ in rest] == ["word", "word"] and words in {"IS SET", "NOT SET"}:
        return Assertion(name.lower(), Operator(words), (), text)
    if rest and rest[0][0] == "operator" and rest[0][1] in _COMPARISONS:
        if len(rest) != 2:
            raise _misread(text)
        return Assertion(name.lower(), Operator(rest[0][1]), (_value(rest[1], text),), text)
    for operator, length in ((Operator.IN, 1), (Operator.NOT_IN, 2)):
        written = " ".join(token.upper() for _, token in rest[:length])
        if written == operator.value and all(kind == "word" for kind, _ in rest[:length]):
            return Assertion(name.lower(), operator, _list(rest[length:], text), text)
    raise _misread(text)


_COMPARISONS = frozenset(("==", "!=", "<", "<=", ">", ">="))


def _misread(text: str) -> WordError:
    return WordError(
        f'"{text}" is not a posture assertion',
        "Write it like \"node:os == 'macos'\", \"node:tsVersion >= '1.60'\", \"custom:tier IN ['a', 'b']\" or "
        '"custom:owner IS SET".',
    )


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _misread(text)
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    return found


def _value(token: tuple[str, str], text: str) -> AttributeValue:
    kind, written = token
    if kind == "string":
        return written[1:-1]
    if kind == "number":
        return float(written) if "." in written else int(written[:_DIGITS])
    if kind == "word" and written.lower() in {"true", "false"}:
        return written.lower() == "true"
    raise _misread(text)


def _list(tokens: list[tuple[str, str]], text: str) -> tuple[AttributeValue, ...]:
    written = [token for _, token in tokens]
    if written[:1] != ["["] or written[-1:] != ["]"] or len(tokens) < 3:
        raise _misread(text)
    inner = tokens[1:-1]
    if any(mark != "," for _, mark in inner[1::2]) or len(inner) % 2 == 0:
        raise _misread(text)
    if len(inner) > 2 * MAX_VALUES:
        raise WordError(f"a list of more than {MAX_VALUES} values", "Make several postures of it.")
    return tuple(_value(token, text) for token in inner[::2])


def _check_name(name: str) -> None:
    namespace, colon, _ = name.partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise WordError(
            f'"{name}" is not a posture attribute',
            did_you_mean(name, SHOWN.values(), 'Write it like "node:os" or "custom:tier".'),
        )
    closed = namespace.lower() in {"node", "ip"}
    if namespace.lower() not in _NAMESPACES or (closed and name.lower() not in SHOWN):
        raise WordError(
            f'unknown posture attribute "{name}"',
            did_you_mean(name, SHOWN.values(), f"Known are {', '.join(SHOWN.values())} and custom: ones."),
        )


def _equal(actual: AttributeValue, wanted: AttributeValue) -> bool:
    """Equal and of one kind: true is not 1, and "1" is not 1."""
    if isinstance(actual, bool) or isinstance(wanted, bool):
        return actual is wanted
    if isinstance(actual, str) != isinstance(wanted, str):
        return False
    return actual == wanted


def _compare(actual: AttributeValue, wanted: AttributeValue) -> int | None:
    """Below 0, 0 or above 0; None where the two cannot be compared."""
    if isinstance(actual, bool) or isinstance(wanted, bool):
        return None
    if isinstance(actual, str) or isinstance(wanted, str):
        left, right = version_key(str(actual)), version_key(str(wanted))
        if not left or not right:
            return None
        return (left > right) - (left < right)
    return (actual > wanted) - (actual < wanted)


def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A version in the order of versions: piece by piece, numbers as numbers, so that ``1.10`` comes after ``1.9``.

    What follows a dash or a plus sign is the build's name and counts for nothing, as do trailing zeros.
    """
    released = re.split(r"[-+]", text.strip().lstrip("vV"), maxsplit=1)[0]
    parts = [
        (1, int(part[:_DIGITS]), "") if part.isdigit() else (0, 0, part.lower())
        for part in _VERSION_PART.findall(released)[:32]
    ]
    while parts and parts[-1] == (1, 0, "") and len(parts) > 1:
        parts.pop()
    return tuple(parts)


_SYSTEMS = {"macos": "macos", "darwin": "macos"}


def attributes_of(
    hostinfo: Hostinfo,
    custom: Mapping[str, AttributeValue] | None = None,
    came_from: IPv4Address | IPv6Address | None = None,
    country_of: CountryOf | None = None,
) -> dict[str, AttributeValue]:
    """What is known about a node, by the attribute's name in lower case.

    ``node:`` attributes are the client's own word: a node that lies about itself can claim any. ``custom`` are those that
    an administrator gave it, with their prefix; nothing but ``custom:`` names is taken from there. ``ip:`` attributes are
    what control sees: ``came_from``, where the node's map stream comes from, and what ``country_of`` says of that.
    """
    found: dict[str, AttributeValue] = {}
    if hostinfo.OS:
        found["node:os"] = _SYSTEMS.get(hostinfo.OS.lower(), hostinfo.OS.lower())
    if hostinfo.OSVersion:
        found["node:osversion"] = hostinfo.OSVersion
    if hostinfo.IPNVersion:
        release = hostinfo.IPNVersion.partition("-")[0]
        found["node:tsversion"] = release
        minor = release.split(".")[1:2]
        if minor and minor[0].isdecimal() and minor[0].isascii():
            found["node:tsreleasetrack"] = "unstable" if int(minor[0][-1]) % 2 else "stable"
    if hostinfo.OS or hostinfo.IPNVersion:
        found["node:tsautoupdate"] = hostinfo.AllowsUpdate
    if hostinfo.StateEncrypted is not None:
        found["node:tsstateencrypted"] = hostinfo.StateEncrypted
    if came_from is not None:
        found[ADDRESS] = str(came_from)
        country = None if country_of is None else country_of(came_from)
        if country is not None:
            found[COUNTRY] = country
    for name, value in (custom or {}).items():
        if name.lower().startswith("custom:"):
            found[name.lower()] = value
    return found
