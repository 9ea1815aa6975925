"""The SSH policy that one node gets as the destination (protocol note ssh.md, sections 1 and 3.3)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import UNSET

from doorward.model import User
from doorward.policy.document import Kind, Selector, SSHRule
from doorward.policy.roster import Member, Roster, address_of
from doorward.policy.sources import Sources
from doorward.protocol.tailcfg.ssh import SSHAction, SSHPrincipal, SSHRecorderFailure
from doorward.protocol.tailcfg.ssh import SSHRule as WireRule

# Where a node asks before it lets a session in that needs a check. The host is ignored: the request travels in the
# node's own control connection.
HOLD_URL = (
    "https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?ssh_user=$SSH_USER&local_user=$LOCAL_USER"
)

# Clients before the fix of July 2026 look "=" accounts up by getent, which takes numbers: all of these are uid 0
# there. Names of other uid-0 accounts cannot be known; "toor" is the one that systems ship with.
UID_0_SPELLINGS: tuple[str, ...] = tuple(
    sorted({"toor", *(sign + "0" * zeros for sign in ("", "+", "-", " ") for zeros in range(1, 7))})
)

# What "=" may make an account of. Anything else could be a number, which older clients take for the account with that id.
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]*\$?")
_LOCAL_NAME = re.compile(r"[a-z_][a-z0-9_.-]*")

_RECORDER_PORT = 80  # by convention (ssh.md, section 5.1)
_NO_RECORDER = "100.100.100.100:9"  # the client's own resolver, which never answers there

_MICROSECOND = timedelta(microseconds=1)


SourcesOf = Callable[[tuple[Selector, ...]], Sources]  # a rule's ``src``, resolved


@dataclass(frozen=True, slots=True)
class SSHMatch:
    """The rule that decides about an attempt."""

    rule: SSHRule
    account: (
        str  # the local account; empty where the rule lets the source in, but not as the user it asked for
    )
    action: SSHAction  # what lets it in


class SSHRules:
    """The rules for every node, each worked out when first asked for.

    Rules are shared between nodes: a thousand servers that let in the same people share one list of them.
    """

    def __init__(self, rules: Iterable[SSHRule], roster: Roster) -> None:
        # Those that ask for a check come first, so that no wider accept stands before them.
        self._rules = sorted(rules, key=lambda rule: not rule.check)
        self._roster = roster
        self._made: dict[tuple[str, frozenset[int]], list[WireRule]] = {}

    def of(self, member: Member, sources_of: SourcesOf) -> list[WireRule]:
        """The rules of a node."""
        return [
            wire for rule in self._rules for wire in self._wire(rule, self._sources(rule, member, sources_of))
        ]

    def match(self, source: Member, member: Member, ssh_user: str, sources_of: SourcesOf) -> SSHMatch | None:
        """The rule by which ``source`` gets in to ``member`` as ``ssh_user``, as the node itself would find it.

        Where none does, one that lets the source in as somebody else, without an account; None without any.
        """
        almost: SSHMatch | None = None
        for rule in self._rules:
            nodes = self._sources(rule, member, sources_of)
            if source.id not in nodes:
                continue
            for wire in self._wire(rule, nodes):
                if not any(principal.nodeIP in source.texts for principal in wire.principals):
                    continue
                account = account_for(wire.sshUsers, ssh_user)
                found = SSHMatch(rule, account, admission(rule, self._roster))
                if account:
                    return found
                almost = almost or found
        return almost

    def _sources(self, rule: SSHRule, member: Member, sources_of: SourcesOf) -> frozenset[int]:
        sources = sources_of(rule.who)
        return admitted_by(member, rule, self._roster, sources)

    def _wire(self, rule: SSHRule, nodes: frozenset[int]) -> list[WireRule]:
        if not nodes:
            return []
        key = (rule.origin, nodes)
        if key not in self._made:
            self._made[key] = list(_wire_rules(rule, nodes, self._roster))
        return self._made[key]


def account_for(users: Mapping[str, str], ssh_user: str) -> str:
    """The local account of somebody who asks for ``ssh_user`` (ssh.md, section 1.3); empty for none."""
    account = users.get(ssh_user, users.get("*", ""))
    if account != "=":
        return account
    return ssh_user if _PLAIN_NAME.fullmatch(ssh_user) else ""


def is_plain(account: str) -> bool:
    """True for a name that rules for any account but root are about."""
    return bool(account_for(account_map(("autogroup:nonroot",)), account))


def admitted_by(member: Member, rule: SSHRule, roster: Roster, sources: Sources) -> frozenset[int]:
    """The nodes whose people a rule lets log in on ``member``.

    Not those that it is kept apart from: a session ends because its rule is gone, or what runs in it would go on unseen.
    """
    if member.id in roster.blocked:
        return frozenset()
    found = _allowed_from(member, rule, roster, sources) or _itself(member, rule, roster, sources)
    kept = roster.kept_from(member.id)
    return found - kept if kept else found


def _allowed_from(member: Member, rule: SSHRule, roster: Roster, sources: Sources) -> frozenset[int]:
    """The nodes that the rule lets in to ``member``."""
    nodes: frozenset[int] = frozenset()
    for target in rule.targets:
        if target.is_autogroup("self"):
            nodes |= sources.own(roster, member.owner)
        elif target.kind is Kind.USER:
            # The parser made sure that this user is the only source.
            if member.owner in roster.people.named(target):
                nodes |= sources.own(roster, member.owner)
        elif roster.matches(target, member):
            nodes |= sources.nodes
    return nodes


def _itself(member: Member, rule: SSHRule, roster: Roster, sources: Sources) -> frozenset[int]:
    """With ``localpart:`` accounts, sources that are no target get the rule too, for their owner's own nodes.

    That is what the hosted service does, and its recorded rules show. It opens nothing by itself: the network rules
    decide whether a person's nodes reach each other.
    """
    if not rule.localparts or member.id not in sources.nodes:
        return frozenset()
    if all(target.is_autogroup("self") for target in rule.targets):
        return frozenset()
    return frozenset((member.id,)) if member.owner is None else sources.own(roster, member.owner)


def _wire_rules(rule: SSHRule, nodes: frozenset[int], roster: Roster) -> Iterator[WireRule]:
    accounts = account_map(rule.accounts)
    if not rule.localparts:
        yield _wire_rule(rule, nodes, roster, accounts)
        return
    domains = {localpart.domain for localpart in rule.localparts}
    owners: dict[int | None, set[int]] = {}
    for node_id in nodes:
        owners.setdefault(roster.members[node_id].owner, set()).add(node_id)
    for owner in sorted(owners, key=lambda one: (one is None, one)):
        yield _wire_rule(rule, owners[owner], roster, accounts)
        local = localpart_of(roster.people.by_id[owner], domains) if owner in roster.people.by_id else ""
        if local:
            yield _wire_rule(rule, owners[owner], roster, {local: local})


def without_guards(rules: Iterable[WireRule]) -> list[WireRule]:
    """The rules as the hosted service would write them: without the names that only keep older clients from root.

    Nothing else maps a name to no account but root itself, so nothing that the policy says is lost.
    """
    return [
        msgspec.structs.replace(
            rule,
            sshUsers={
                name: local for name, local in rule.sshUsers.items() if local or name not in UID_0_SPELLINGS
            },
        )
        for rule in rules
    ]


def localpart_of(user: User, domains: Iterable[str]) -> str:
    """The account that ``localpart:*@domain`` gives a user, or an empty string.

    Never one that is root under any name: an address must not be worth more than the policy says.
    """
    local, _, domain = address_of(user).partition("@")
    if domain not in domains or not _LOCAL_NAME.fullmatch(local):
        return ""
    return "" if local == "root" or local in UID_0_SPELLINGS else local


def account_map(accounts: Iterable[str]) -> dict[str, str]:
    """``sshUsers``: requested names to local accounts. Root stays out unless it is named."""
    names = set(accounts)
    found = {name: name for name in sorted(names - {"autogroup:nonroot"})}
    found.setdefault("root", "")
    if "autogroup:nonroot" in names:
        found["*"] = "="
        if "root" not in names:
            found |= {spelling: "" for spelling in UID_0_SPELLINGS if spelling not in names}
    return found


def _wire_rule(rule: SSHRule, nodes: Iterable[int], roster: Roster, accounts: dict[str, str]) -> WireRule:
    # The hosted service goes through the tags, and so names a node once for each tag it has.
    by_tag = any(source.is_autogroup("tagged") for source in rule.sources)
    members = [
        member
        for member in (roster.members[node_id] for node_id in sorted(nodes))
        for _ in range(max(1, len(member.tags)) if by_tag else 1)
    ]
    addresses = (*(member.texts[0] for member in members), *(member.texts[1] for member in members))
    return WireRule(
        principals=[SSHPrincipal(nodeIP=address) for address in addresses],
        sshUsers=accounts,
        action=action_of(rule, roster),
        acceptEnv=list(rule.accept_env) if rule.accept_env else UNSET,
    )


def action_of(rule: SSHRule, roster: Roster) -> SSHAction:
    """What the rule does. Of a check, what counts is what control answers the node that asks, except for the recorders."""
    if not rule.check:
        return admission(rule, roster)
    return SSHAction(holdAndDelegate=HOLD_URL, message=rule.message or UNSET, **_recording(rule, roster))


def admission(rule: SSHRule, roster: Roster) -> SSHAction:
    """What lets a session in by the rule. Where it asks for a check, its message was shown with the question."""
    recording = _recording(rule, roster)
    duration = rule.session_duration
    return SSHAction(
        accept=True,
        message=UNSET if rule.check else rule.message or UNSET,
        sessionDuration=UNSET if duration is None else duration // _MICROSECOND * 1000,
        allowAgentForwarding=rule.forwarding.agent or UNSET,
        allowLocalPortForwarding=rule.forwarding.local or UNSET,
        allowRemotePortForwarding=rule.forwarding.remote or UNSET,
        **recording,
    )


def _recording(rule: SSHRule, roster: Roster) -> dict[str, Any]:
    """Where sessions are recorded: all nodes with one of the tags, lowest address first.

    Where recording is enforced and there is no recorder, an address that cannot answer stands for it: without any, clients
    would let the session go on unrecorded.
    """
    if not rule.recorders:
        return {}
    ids = frozenset().union(*(roster.by_tag.get(tag, frozenset()) for tag in rule.recorders))
    addresses = [str(one) for one in sorted(roster.members[node_id].ipv4 for node_id in ids)]
    found: dict[str, Any] = {"recorders": [f"{one}:{_RECORDER_PORT}" for one in addresses]}
    if rule.enforce_recorder:
        found["recorders"] = found["recorders"] or [_NO_RECORDER]
        found["onRecordingFailure"] = SSHRecorderFailure(
            RejectSessionWithMessage="This session must be recorded, and no recorder can be reached.",
            TerminateSessionWithMessage="The recording of this session broke off, and it must be recorded.",
        )
    return found if found["recorders"] else {}
