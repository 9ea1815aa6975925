"""The SSH policy that one node gets as the destination (protocol note ssh.md, sections 1 and 3.3)."""

import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping
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

_LOCAL_NAME = re.compile(r"[a-z_][a-z0-9_.-]*")

_RECORDER_PORT = 80  # by convention (ssh.md, section 5.1)
_NO_RECORDER = "100.100.100.100:9"  # the client's own resolver, which never answers there

_MICROSECOND = timedelta(microseconds=1)


def ssh_rules_for(
    member: Member,
    rules: Iterable[SSHRule],
    roster: Roster,
    sources_of: Callable[[tuple[Selector, ...]], Sources],
    made: MutableMapping[tuple[str, frozenset[int]], list[WireRule]],
) -> list[WireRule]:
    """The rules of one node: those that ask for a check first, so that no wider accept stands before them.

    ``made`` remembers rules between nodes: a thousand servers that let in the same people share one list of them.
    """
    found: tuple[list[WireRule], list[WireRule]] = ([], [])
    for rule in rules:
        sources = sources_of(rule.who)
        nodes = admitted_by(member, rule, roster, sources)
        if nodes:
            key = (rule.origin, nodes)
            if key not in made:
                made[key] = list(_wire_rules(rule, nodes, roster))
            found[0 if rule.check else 1].extend(made[key])
    return found[0] + found[1]


def admitted_by(member: Member, rule: SSHRule, roster: Roster, sources: Sources) -> frozenset[int]:
    """The nodes whose people a rule lets log in on ``member``."""
    return _allowed_from(member, rule, roster, sources) or _itself(member, rule, roster, sources)


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
        action=_action(rule, roster),
        acceptEnv=list(rule.accept_env) if rule.accept_env else UNSET,
    )


def _action(rule: SSHRule, roster: Roster) -> SSHAction:
    """What the rule does. Of a check, what counts is what control answers the node that asks, except for the recorders."""
    recording = _recording(rule, roster)
    message = rule.message or UNSET
    if rule.check:
        return SSHAction(holdAndDelegate=HOLD_URL, message=message, **recording)
    duration = rule.session_duration
    return SSHAction(
        accept=True,
        message=message,
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
