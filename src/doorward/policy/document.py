"""What a policy file says, checked for form and freed of syntax; who it applies to is `compile`'s business.

`parse.parse_policy` makes a `Document`. Everything in it is a value: frozen, hashable where it serves as a key, and
with the line and column it came from where a person may have to be told.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Any, Self

from doorward.errors import BadInput
from doorward.model import Prefix
from doorward.policy.posture import AttributeValue, Posture
from doorward.policy.ranges import Range
from doorward.policy.ranges import of_prefix as range_of
from doorward.protocol.hujson import Value
from doorward.protocol.tailcfg.derpmap import DERPRegion
from doorward.protocol.tailcfg.filter import PortRange


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column in the policy file, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong, and what to do about it. ``str`` is ``FILE:line:column: message``."""

    filename: str
    line: int
    column: int
    message: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}:{self.column}: {self.message}"


class PolicyError(BadInput):
    """The policy is refused. ``diagnostics`` holds everything that was found, in the order of the file.

    ``str`` has one ``FILE:line:column: message`` line for each.
    """

    problem = "bad-policy"

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        found = tuple(sorted(diagnostics, key=lambda one: (one.line, one.column)))
        assert found  # an error without a reason helps nobody
        super().__init__(
            "\n".join(str(one) for one in found),
            cure=next((one.cure for one in found if one.cure), ""),
            place=f"{found[0].filename}:{found[0].line}:{found[0].column}",
        )
        self.diagnostics = found

    def public(self) -> dict[str, Any]:
        """The problem answer, with every diagnostic as an object of its own."""
        return super().public() | {
            "diagnostics": [
                {"line": one.line, "column": one.column, "message": one.message, "cure": one.cure}
                for one in self.diagnostics
            ]
        }


# The origin of the one rule of a file that has neither "acls" nor "grants": everything is allowed.
NO_RULES = "no acls and no grants"


class Kind(StrEnum):
    """What a selector names."""

    EVERYONE = "everyone"  # "*"
    USER = "user"  # a login name or e-mail address
    DOMAIN = "domain"  # "user:*@example.com": every user with an address there
    GROUP = "group"  # "group:...": one of the file, or "group:NAME@DOMAIN" as an outside provider says
    TAG = "tag"  # "tag:..."
    AUTOGROUP = "autogroup"  # "autogroup:...": value is what follows the colon
    PREFIX = "prefix"  # an address, a prefix, or a name from "hosts"
    IPSET = "ipset"  # "ipset:...", or a range of addresses
    POSTURE = (
        "posture"  # "posture:...": the nodes that meet it; a condition on sources, never a name for them
    )


@dataclass(frozen=True, slots=True)
class Selector:
    """A name for nodes. Two spellings of one thing compare equal: the spelling is kept for messages only."""

    kind: Kind
    value: (
        str  # user, domain, "group:x", "tag:x", "posture:x", autogroup without its prefix; "" for the others
    )
    prefix: Prefix | None = None  # of a PREFIX
    ranges: tuple[Range, ...] = ()  # of a PREFIX or an IPSET: what it stands for
    text: str = field(default="", compare=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Selectors are keys wherever a policy is applied, and prefixes are slow to hash.
        object.__setattr__(self, "_hash", hash((self.kind.value, self.value, self.ranges)))

    def __hash__(self) -> int:
        return self._hash

    def is_autogroup(self, name: str) -> bool:
        """True for ``autogroup:name``."""
        return self.kind is Kind.AUTOGROUP and self.value == name

    @property
    def is_addresses(self) -> bool:
        """True where it names addresses, whoever has them."""
        return self.kind in {Kind.PREFIX, Kind.IPSET}

    @classmethod
    def of_prefix(cls, prefix: Prefix, text: str = "") -> Self:
        """The addresses of a prefix."""
        return cls(Kind.PREFIX, "", prefix, (range_of(prefix),), text=text)


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic to ``target``: its ports for these IP protocols; no protocols means TCP, UDP, ICMP and ICMPv6."""

    target: Selector
    ports: tuple[PortRange, ...]
    protocols: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``acls`` or ``grants``. Rules only ever add access."""

    origin: str  # "acls[0]", "grants[3]", or NO_RULES
    place: Place
    sources: tuple[Selector, ...]
    flows: tuple[Flow, ...]
    app: dict[str, list[Any]] = field(default_factory=dict)  # capability name to its JSON values
    app_targets: tuple[Selector, ...] = ()  # who holds them out; empty without ``app``
    via: tuple[str, ...] = ()  # only routers with one of these tags carry the traffic
    postures: tuple[Selector, ...] = ()  # source nodes have to meet one of them; none: no condition

    @property
    def who(self) -> tuple[Selector, ...]:
        """Sources and conditions on them: all that says who may start the traffic."""
        return self.sources + self.postures


@dataclass(frozen=True, slots=True)
class Localpart:
    """``localpart:*@domain``: the part before the @ of the source user's own address there."""

    domain: str


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What a session may forward, beside being one."""

    agent: bool = True
    local: bool = True  # ssh -L
    remote: bool = True  # ssh -R


@dataclass(frozen=True, slots=True)
class SSHRule:
    """One entry of ``ssh``."""

    origin: str  # "ssh[0]"
    place: Place
    check: bool  # the person must prove who they are again
    sources: tuple[Selector, ...]
    targets: tuple[Selector, ...]
    accounts: tuple[str, ...]  # local names; "autogroup:nonroot" and "root" among them
    localparts: tuple[Localpart, ...] = ()
    check_period: timedelta | None = None  # None: the default; zero: every connection
    accept_env: tuple[str, ...] = ()
    recorders: tuple[str, ...] = ()  # tags of the nodes that record its sessions
    enforce_recorder: bool = False  # no session without a recording
    postures: tuple[Selector, ...] = ()  # as in `Rule`
    message: str = ""  # shown before a session begins
    session_duration: timedelta | None = None  # after it a session ends
    forwarding: Forwarding = Forwarding()
    approvers: tuple[Selector, ...] = ()  # who may approve its checks; none: the person at the source

    @property
    def who(self) -> tuple[Selector, ...]:
        """As in `Rule`."""
        return self.sources + self.postures

    def digest(self) -> str:
        """What the rule lets in and under which conditions, wherever it stands in the file: 32 hexadecimal digits.

        An approved check counts for the rule with this digest: moved about in the file it stays the same rule.
        """
        names = (self.sources, self.targets, self.postures, self.approvers)
        said = (
            self.check,
            *(tuple(sorted(selector.text for selector in group)) for group in names),
            tuple(sorted(self.accounts)),
            tuple(sorted(localpart.domain for localpart in self.localparts)),
            self.check_period,
            tuple(sorted(self.recorders)),
            self.enforce_recorder,
        )
        return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class AutoApprovers:
    """Who may have routes approved without an administrator."""

    routes: tuple[tuple[Prefix, tuple[Selector, ...]], ...] = ()
    exit_node: tuple[Selector, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeAttribute:
    """Capabilities that nodes get in their own map, and where their addresses come from."""

    targets: tuple[Selector, ...]
    names: tuple[str, ...] = ()
    app: dict[str, list[Any]] = field(default_factory=dict)  # capability name to its JSON values
    pools: tuple[IPv4Network, ...] = ()  # new nodes get their IPv4 address here


@dataclass(frozen=True, slots=True)
class Text:
    """A string and where it stands; for parts that are judged later."""

    value: str
    place: Place


@dataclass(frozen=True, slots=True)
class NamedDomain:
    """A domain in ``user:*@domain`` or ``localpart:*@domain``, and where it stands."""

    domain: str
    place: Place
    section: str = ""  # whose name the hosted service puts before its complaint


@dataclass(frozen=True, slots=True)
class AccessTest:
    """One entry of ``tests``: what ``source`` must and must not reach."""

    origin: str
    place: Place
    source: Text | None
    accept: tuple[Text, ...]
    deny: tuple[Text, ...]
    protocol: Text | None
    attributes: Mapping[str, AttributeValue] | None = None  # the source's posture; None: that of its nodes


@dataclass(frozen=True, slots=True)
class SSHTest:
    """One entry of ``sshTests``: as whom ``source`` must and must not log in."""

    origin: str
    place: Place
    source: Text | None
    targets: tuple[Text, ...]
    accept: tuple[Text, ...]
    deny: tuple[Text, ...]
    check: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Relays:
    """``derpMap``: changes to the relays that the server offers."""

    omit_default: bool = False  # only these regions
    regions: dict[int, DERPRegion | None] = field(default_factory=dict)  # None takes a region away


@dataclass(frozen=True, slots=True)
class Document:
    """A policy file that is sound in itself."""

    text: str
    filename: str
    syntax: Value
    groups: dict[str, tuple[Selector, ...]] = field(default_factory=dict)
    hosts: dict[str, Prefix] = field(default_factory=dict)
    ipsets: dict[str, tuple[Range, ...]] = field(default_factory=dict)
    postures: dict[str, Posture] = field(default_factory=dict)
    tag_owners: dict[str, tuple[Selector, ...]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()  # grants before acls: the order in which clients receive them
    ssh: tuple[SSHRule, ...] = ()
    auto_approvers: AutoApprovers = AutoApprovers()
    node_attributes: tuple[NodeAttribute, ...] = ()
    asks_country: Place | None = None  # where a posture first does
    tests: tuple[AccessTest, ...] = ()
    ssh_tests: tuple[SSHTest, ...] = ()
    randomize_client_port: bool = False
    disable_ipv4: bool = False  # nodes have their IPv6 address only
    one_cgnat_route: bool | None = None  # macOS: one route for all of the tailnet; None: the client decides
    relays: Relays | None = None  # changes to the DERP map
    remarks: tuple[Diagnostic, ...] = ()  # allowed, and yet probably not meant
    domains: tuple[NamedDomain, ...] = ()  # those whose people are named as a whole
    names: tuple[
        tuple[Selector, Place], ...
    ] = ()  # every user and outside group named anywhere, for warnings
