"""What a person may do from a browser's tab: which nodes they reach over ssh, as whom, and by which rule.

A tab is no device: it has no owner's tags and meets no posture, so rules that ask for either are not for it, and neither are
rules for single addresses. What is left of the policy is what it says about the *person*: by name, group, domain, role, or
as one of everybody. From that follows what a tab of theirs would be let in to (`FromTab`), before there is any. A tab itself
gets less: what of it was asked for (`Entry`), which is a port of a node and accounts there.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec
from msgspec import UNSET

from doorward.policy.document import Document, Kind, Rule, Selector, SSHRule
from doorward.policy.ranges import TAILNET, Address, of_text, without
from doorward.policy.roster import Member, People, Roster, TabMember
from doorward.policy.services import TCP, USUAL
from doorward.policy.ssh import (
    SSHMatch,
    account_for,
    account_map,
    action_of,
    admission,
    is_plain,
    localpart_of,
)
from doorward.protocol.tailcfg.filter import FilterRule, NetPortRange, PortRange
from doorward.protocol.tailcfg.ssh import SSHPrincipal
from doorward.protocol.tailcfg.ssh import SSHRule as WireRule

SSH_PORT = 22

Admitting = tuple[SSHRule, Mapping[str, str]]  # a rule, and what it makes of the accounts that are asked for


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a person may ask for, and the rule that decides then."""

    name: str
    rule: SSHRule


@dataclass(frozen=True, slots=True)
class Passage:
    """What the policy says about a person at a node."""

    opening: Rule | None  # lets them reach its ssh port; None: nothing does
    addresses: tuple[Address, ...]  # of the node, at which it is open to them
    accounts: tuple[Account, ...]  # by the ssh rules, by name; what they say whether or not the port is open
    anybody: SSHRule | None  # the rule by which they may ask for any account but root
    denied: SSHRule | Rule | None = None  # a rule that is for them, but on devices that meet a posture

    def deciding(self, account: str) -> SSHRule | None:
        """The ssh rule by which they may log in as this; None where none lets them."""
        named = next((one.rule for one in self.accounts if one.name == account), None)
        return named or (self.anybody if is_plain(account) else None)

    @property
    def is_open(self) -> bool:
        """True where the port is open to them and some rule lets them log in."""
        return bool(self.addresses) and bool(self.accounts or self.anybody)


_SHUT = Passage(None, (), (), None)


def is_wide(selector: Selector) -> bool:
    """True for addresses that are all of a tailnet's, of one family: no device is meant by them."""
    return selector.is_addresses and any(
        all(
            any(own.first <= part.first and part.last <= own.last for own in selector.ranges)
            for part in TAILNET
            if part.version == version
        )
        for version in (4, 6)
        if any(own.version == version for own in selector.ranges)
    )


class _Named(Enum):
    """How the sources of a rule are about a person."""

    NO = "no"
    AS_ANYBODY = "as anybody"  # who has any address of the tailnet, or of the world
    BY_NAME = (
        "by name"  # as themselves, as one of a group or of all people: only then are devices "their own"
    )


def _named(people: People, selectors: Iterable[Selector], user_id: int) -> _Named:
    found = _Named.NO
    for selector in selectors:
        if user_id in people.named(selector):
            return _Named.BY_NAME
        if selector.is_autogroup("danger-all") or is_wide(selector):
            found = _Named.AS_ANYBODY
    return found


class FromTab:
    """The answers for one person, under one policy. Nodes of one owner and tags are worked out once where that can be.

    Args:
        document: the policy's text, read.
        roster: who is there.
        user_id: the person; one who is not known, or suspended, may nothing.
    """

    def __init__(self, document: Document, roster: Roster, user_id: int) -> None:
        self._roster = roster
        self._user_id = user_id
        people = roster.people
        self._known = user_id in people.by_id and user_id not in people.suspended
        # Each rule that is for this person, whether it names them, and where to it opens the port. Of a long policy
        # few are, and all of these are looked at for every node.
        self._openings = [
            (rule, named, ends)
            for rule in document.rules
            if not rule.via
            and (ends := [flow.target for flow in rule.flows if _is_ssh(flow.protocols, flow.ports)])
            and (named := _named(people, rule.sources, user_id)) is not _Named.NO
        ]
        ordered = sorted(document.ssh, key=lambda rule: not rule.check)  # as nodes are told them
        self._rules = [
            (rule, named)
            for rule in ordered
            if (named := _named(people, rule.sources, user_id)) is not _Named.NO
        ]
        targets = [target for _, _, opened in self._openings for target in opened]
        targets += [target for rule, _ in self._rules for target in rule.targets]
        self._alike = not any(target.is_addresses for target in targets)
        self._made: dict[object, Passage] = {}

    def at(self, member: Member) -> Passage:
        """What they may do at a node."""
        if not self._known or member.id in self._roster.blocked:
            return _SHUT
        # Of nodes that differ in no more than their addresses the same holds, but where they may be reached.
        key = (member.owner, member.tags)
        if not self._alike:
            return self._find(member)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._find(member)
        own = (member.ipv4, member.ipv6)
        if not found.addresses or found.addresses == own:
            return found
        return Passage(found.opening, own, found.accounts, found.anybody, found.denied)

    def _find(self, member: Member) -> Passage:
        opening, addresses, denied = self._open(member)
        admitting = self.admitting(member)
        names = sorted({name for _, users in admitting for name, local in users.items() if local} - {"*"})
        accounts = [Account(name, rule) for name in names if (rule := _deciding(admitting, name)) is not None]
        anybody = next((rule for rule, users in admitting if users.get("*")), None)
        withheld: Rule | SSHRule | None = denied
        if withheld is None and not admitting:
            withheld = next(
                (rule for rule, named in self._rules if rule.postures and self._admits(rule, member, named)),
                None,
            )
        return Passage(opening, addresses, tuple(accounts), anybody, withheld)

    def _open(self, member: Member) -> tuple[Rule | None, tuple[Address, ...], Rule | None]:
        first: Rule | None = None
        denied: Rule | None = None
        opened: dict[Address, None] = {}
        for rule, named, targets in self._openings:
            for target in targets:
                found = self._covered(target, member, named)
                if found and rule.postures:
                    denied = denied or rule
                elif found:
                    first = first or rule
                    opened.update(dict.fromkeys(found))
        own = tuple(address for address in (member.ipv4, member.ipv6) if address in opened)
        return first, own, None if first is not None else denied

    def _covered(self, target: Selector, member: Member, named: _Named) -> tuple[Address, ...]:
        """The node's addresses that a rule with this target opens to the person."""
        own = (member.ipv4, member.ipv6)
        if target.is_autogroup("self"):
            return own if named is _Named.BY_NAME and member.owner == self._user_id else ()
        if target.is_addresses:
            return tuple(address for address in own if any(address in one for one in target.ranges))
        if target.is_autogroup("internet"):
            return ()
        return own if self._roster.matches(target, member) else ()

    def admitting(self, member: Member) -> list[Admitting]:
        """The ssh rules by which the person may log in to a node, in the order in which it would try them."""
        found: list[Admitting] = []
        if not self._known or member.id in self._roster.blocked:
            return found
        for rule, named in self._rules:
            if rule.postures or not self._admits(rule, member, named):
                continue
            found.append((rule, account_map(rule.accounts)))
            domains = {localpart.domain for localpart in rule.localparts}
            local = localpart_of(self._roster.people.by_id[self._user_id], domains) if domains else ""
            if local:
                found.append((rule, {local: local}))
        return found

    def _admits(self, rule: SSHRule, member: Member, named: _Named) -> bool:
        """As ``ssh.admitted_by`` has it for devices of the person's."""
        mine = member.owner == self._user_id and named is _Named.BY_NAME
        for target in rule.targets:
            if target.is_autogroup("self"):
                admitted = mine
            elif target.kind is Kind.USER:
                # The parser made sure that this user is the only source.
                admitted = mine and self._user_id in self._roster.people.named(target)
            else:
                admitted = self._roster.matches(target, member)
            if admitted:
                return True
        # With ``localpart:`` accounts, sources that are no target get the rule too, for their owner's own nodes.
        others = any(not target.is_autogroup("self") for target in rule.targets)
        return bool(rule.localparts) and mine and others


# -- tabs that there are


@dataclass(frozen=True, slots=True)
class Entry:
    """How a tab gets in to a node."""

    addresses: tuple[Address, ...]  # of the node, at which its ssh port is open to the tab
    rules: tuple[Admitting, ...]  # ssh rules, with nothing but the accounts that were asked for
    accounts: frozenset[str]  # those of them that some rule lets in


def entry(tab: TabMember, member: Member, ways: FromTab) -> Entry | None:
    """What a tab that was opened for a node gets of it now; None for nothing, or if it was not."""
    asked = [target for target in tab.targets if target.node_id == member.id]
    passage = ways.at(member) if asked else _SHUT
    if not passage.addresses:
        return None
    names = {target.account for target in asked}
    found: list[Admitting] = []
    for rule, users in ways.admitting(member):
        # Whom a rule makes nobody is left to the next one, as of a device.
        known = {name: account_for(users, name) for name in sorted(names)}
        if any(known.values()):
            found.append((rule, {name: local for name, local in known.items() if local}))
    admitted = frozenset(name for _, users in found for name in users)
    if not admitted and all(target.ssh for target in asked):
        return None
    return Entry(passage.addresses, tuple(found), admitted)


def narrowed(rules: Iterable[FilterRule], tabs: Iterable[TabMember]) -> list[FilterRule]:
    """A node's packet filter, whose ranges of sources let none of these tabs in."""
    every = list(tabs)
    holes = [address for tab in every for address in (tab.ipv4, tab.ipv6)]
    single = {text for tab in every for text in tab.texts}
    found: list[FilterRule] = []
    for rule in rules:
        sources: list[str] = []
        for text in rule.SrcIPs:
            if text in single:
                continue
            if "/" in text or "-" in text:
                sources += map(str, without([of_text(text)], holes))
            else:
                sources.append(text)
        found.append(rule if sources == rule.SrcIPs else msgspec.structs.replace(rule, SrcIPs=sources))
    return [rule for rule in found if rule.SrcIPs]


def port_rule(tab: TabMember, way: Entry) -> FilterRule:
    """The one filter rule that lets a tab in."""
    ports = [NetPortRange(str(address), PortRange(SSH_PORT, SSH_PORT)) for address in way.addresses]
    return FilterRule(SrcIPs=list(tab.texts), DstPorts=ports, IPProto=[TCP])


def ssh_rules(tab: TabMember, way: Entry, roster: Roster) -> Iterator[WireRule]:
    """The ssh rules for a tab."""
    for rule, users in way.rules:
        yield WireRule(
            principals=[SSHPrincipal(nodeIP=text) for text in tab.texts],
            sshUsers=dict(users),
            action=action_of(rule, roster),
            acceptEnv=list(rule.accept_env) if rule.accept_env else UNSET,
        )


def match_of(way: Entry, ssh_user: str, roster: Roster) -> SSHMatch | None:
    """The rule that decides when a tab asks for ``ssh_user``; one without an account where none lets it in as that."""
    for rule, users in way.rules:
        if account := users.get(ssh_user):
            return SSHMatch(rule, account, admission(rule, roster))
    if not way.rules:
        return None
    first = way.rules[0][0]
    return SSHMatch(first, "", admission(first, roster))


def _is_ssh(protocols: tuple[int, ...], ports: Iterable[PortRange]) -> bool:
    return TCP in (protocols or USUAL) and any(one.First <= SSH_PORT <= one.Last for one in ports)


def _deciding(admitting: Iterable[Admitting], name: str) -> SSHRule | None:
    """The rule that decides about an account: the first that makes a local one of it."""
    return next((rule for rule, users in admitting if account_for(users, name)), None)
