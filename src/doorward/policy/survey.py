"""Who can reach a goal, and what somebody can reach: ``reach`` for all nodes at once.

Nothing here goes through pairs of nodes: a rule's sources are a set, which is resolved once, and so is each of its targets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from doorward.policy.compile import Policy
from doorward.policy.document import Flow, Kind, Rule, Selector, SSHRule
from doorward.policy.ranges import Address, Range, of_prefix, of_text
from doorward.policy.reach import Goal, Way, covers, opened
from doorward.policy.roster import Member, Roster
from doorward.policy.services import Service, services_of
from doorward.policy.sources import Sources
from doorward.policy.ssh import account_map, admitted_by, localpart_of

_NOBODY: frozenset[int] = frozenset()
INTERNET = "the internet"  # as a destination: whatever lies beyond an exit node


class Survey:
    """Answers about one policy. What is resolved for one answer serves the next; not for more than one thread."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._ranged: dict[tuple[tuple[str, ...], int], frozenset[int]] = {}

    # -- who can

    def who_can(self, goal: Goal) -> dict[int, list[Way]]:
        """The nodes that reach a goal, by id, each with the rules that let it and what they let it reach."""
        found: dict[int, list[Way]] = {}
        for rule in self.policy.document.rules:
            sums: dict[int, dict[Service, None]] = {}
            for flow in rule.flows:
                services = dict.fromkeys(goal.asked(services_of(flow.protocols, flow.ports)))
                if not services:
                    continue
                for node_id in self._admitted(rule, flow, goal):
                    sums.setdefault(node_id, {}).update(services)
            for node_id, each in sums.items():
                found.setdefault(node_id, []).append(Way(rule, tuple(each)))
        return dict(sorted(found.items()))

    def _admitted(self, rule: Rule, flow: Flow, goal: Goal) -> frozenset[int]:
        policy, nodes = self.policy, _NOBODY
        for gate in goal.gates:
            if gate.id in policy.roster.blocked:
                continue
            for address in goal.addresses:
                if covers(policy, gate, flow.target, rule.via, address):
                    found = self._sources(rule, flow, gate, address.version)
                    nodes |= found - policy.roster.kept_from(gate.id)
        return nodes

    def _sources(self, rule: Rule, flow: Flow, gate: Member, version: int) -> frozenset[int]:
        """The nodes whose packets of an address family the rule lets in to ``gate``."""
        sources = self.policy.sources(rule.who)
        if flow.target.is_autogroup("self"):
            return sources.own(self.policy.roster, gate.owner)
        return sources.identity[0] | self._in_ranges(sources, version)

    def _in_ranges(self, sources: Sources, version: int) -> frozenset[int]:
        """The nodes that come in because of their address alone."""
        if not sources.ranges:
            return _NOBODY
        key = (sources.ranges, version)
        found = self._ranged.get(key)
        if found is None:
            ranges = [one for one in map(_range, sources.ranges) if one.version == version]
            found = self._ranged[key] = frozenset(
                member.id
                for member in self.policy.roster.members.values()
                if any((member.ipv4 if version == 4 else member.ipv6) in one for one in ranges)
            )
        return found

    # -- what can

    def what_can(self, ids: frozenset[int]) -> list["Access"]:
        """All that at least one of these nodes reaches, by node and destination; their own addresses left out."""
        found: dict[tuple[int, str], Access] = {}
        for rule in self.policy.document.rules:
            for flow in rule.flows:
                services = tuple(services_of(flow.protocols, flow.ports))
                for gate, destination in self._reached(rule, flow, ids) if services else ():
                    known = found.setdefault((gate, destination), Access(gate, destination, {}, {}))
                    known.services.update(dict.fromkeys(services))
                    known.rules[rule.origin] = rule
        return [found[key] for key in sorted(found)]

    def _reached(self, rule: Rule, flow: Flow, ids: frozenset[int]) -> Iterator[tuple[int, str]]:
        roster = self.policy.roster
        if flow.target.is_autogroup("self"):
            sources = self.policy.sources(rule.who)
            owners = {roster.members[one].owner for one in ids if one in roster.members}
            for owner in owners:
                own = sources.own(roster, owner)
                if not own.isdisjoint(ids):
                    assert owner is not None  # nobody's nodes are nobody's own
                    for one in roster.by_owner[owner] - roster.blocked - _alone(own & ids):
                        if not (own & ids) <= roster.kept_from(one):
                            yield one, ""
            return
        sources = self.policy.sources(rule.who)
        families = self._families(sources, ids)
        if not families:
            return
        # A node does not ask its own filter about itself; of several, each may still be reached by another.
        itself = _alone(ids)
        for gate_id in roster.named(flow.target) - roster.blocked:
            gate, kept = roster.members[gate_id], roster.kept_from(gate_id)
            there = families if kept.isdisjoint(ids) else self._families(sources, ids - kept)
            for destination in _destinations(self.policy, gate, flow.target, rule.via, there):
                if destination or gate_id not in itself:
                    yield gate_id, destination

    def _families(self, sources: Sources, ids: frozenset[int]) -> tuple[int, ...]:
        """The address families of which packets of one of these nodes at least are among the sources."""
        return tuple(
            version
            for version in (4, 6)
            if not ids.isdisjoint(sources.identity[0] | self._in_ranges(sources, version))
        )

    # -- ssh

    def ssh(self, ids: frozenset[int], gate_id: int) -> list["Login"]:
        """As whom at least one of these nodes may log in on a node, in the order in which its client looks."""
        roster = self.policy.roster
        gate, found = roster.members[gate_id], []
        for rule in sorted(self.policy.document.ssh, key=lambda one: not one.check):
            nodes = admitted_by(gate, rule, roster, self.policy.sources(rule.who)) & ids
            if nodes - {gate_id}:
                found.append(Login(rule, _accounts(rule, roster, nodes), nodes))
        return found

    def ssh_as(self, gate_id: int, account: str) -> dict[int, SSHRule]:
        """The nodes that may log in on a node as this account, each with the rule that its client finds first."""
        found: dict[int, SSHRule] = {}
        roster, gate = self.policy.roster, self.policy.roster.members[gate_id]
        for rule in sorted(self.policy.document.ssh, key=lambda one: not one.check):
            for node_id in admitted_by(gate, rule, roster, self.policy.sources(rule.who)) - {gate_id}:
                accounts = _account_names(rule, roster, node_id)
                if node_id not in found and accounts.get(account, accounts.get("*", "")):
                    found[node_id] = rule
        return found


@dataclass(frozen=True, slots=True)
class Access:
    """What is reached at one destination."""

    node: int  # the node there, or the router that leads there
    destination: str  # empty: the node itself; else a range of addresses behind it, or `INTERNET`
    services: dict[Service, None]
    rules: dict[str, Rule]  # by their names, in the order of the document


class Login(NamedTuple):
    """What an SSH rule allows."""

    rule: SSHRule
    accounts: tuple[str, ...]  # for people: names, "any account but root"
    nodes: frozenset[int]  # from which


@cache
def _range(text: str) -> Range:
    return of_text(text)


def _alone(ids: frozenset[int]) -> frozenset[int]:
    """The node itself where there is but one."""
    return ids if len(ids) == 1 else _NOBODY


def _destinations(
    policy: Policy, gate: Member, target: Selector, via: tuple[str, ...], families: Iterable[int]
) -> Iterator[str]:
    """What a rule with this target opens at a node for sources of these address families."""
    ranges = [one for one in opened(policy, gate, target, via) if one.version in families]
    own: list[Address] = [gate.ipv4, gate.ipv6]
    if any(address in one for one in ranges for address in own):
        yield ""
    for route in gate.routes:
        whole = of_prefix(route)
        for one in ranges:
            if one.meets(route):
                yield str(Range(one.version, max(one.first, whole.first), min(one.last, whole.last)))
    if gate.exits and ranges and (target.kind is Kind.EVERYONE or target.is_autogroup("internet")):
        yield INTERNET


def _accounts(rule: SSHRule, roster: Roster, nodes: Iterable[int]) -> tuple[str, ...]:
    """The accounts of a rule for people to read."""
    names: dict[str, None] = {}
    for node_id in sorted(nodes):
        accounts = _account_names(rule, roster, node_id)
        names.update((name, None) for name, local in accounts.items() if local)
    words = [
        "any account but root" if name == "*" and "root" not in names else name for name in sorted(names)
    ]
    return tuple("any account" if word == "*" else word for word in words)


def _account_names(rule: SSHRule, roster: Roster, node_id: int) -> dict[str, str]:
    """What a rule lets a node's person ask for, and which account that is; an empty one: not by this rule."""
    accounts = account_map(rule.accounts)
    owner = roster.people.by_id.get(roster.members[node_id].owner or 0)
    local = "" if owner is None else localpart_of(owner, {one.domain for one in rule.localparts})
    if local and not accounts.get(local):
        accounts = accounts | {local: local}
    return accounts
