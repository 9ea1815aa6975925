"""What becomes of an attempt, from the tailnet as it is now. Pure.

It is judged anew each time something changed, and never by what the node says of the policy: the node gives names, the rule is
found here. So an approval lets nobody in whom the policy, an expired key or a suspension keeps out by then.
"""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from doorward.model import Check, CheckState, Node, User
from doorward.policy.ssh import SSHMatch
from doorward.protocol.tailcfg.ssh import SSHAction
from doorward.tailnet import netmap
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.sshrules import Attempt

CHANGED = "The policy has just changed. Connect again."


@dataclass(frozen=True, slots=True)
class Allow:
    """The session begins."""

    action: SSHAction
    match: SSHMatch
    check: Check | None = None  # whose approval lets it in


@dataclass(frozen=True, slots=True)
class Refuse:
    """It ends, and the person reads why."""

    sentence: str
    match: SSHMatch | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody has to be asked."""

    match: SSHMatch


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody was asked, and has not answered."""

    check: Check


def judge(
    snapshot: Snapshot, attempt: Attempt, now: datetime, shown: int | None = None
) -> Allow | Refuse | Ask | Wait:
    """Decide about an attempt; ``shown`` is the check whose code the person has in the terminal already."""
    source, target = snapshot.nodes.get(attempt.source_id), snapshot.nodes.get(attempt.target_id)
    if source is None or target is None or not netmap.sees(snapshot, target, source):
        return Refuse("tailnet policy does not permit you to SSH to this node")
    if source.expired(now):
        return Refuse(f"The key of {source.name} has ended. Sign in on it again.")
    match = snapshot.policy.ssh_match(source.id, target.id, attempt.ssh_user)
    if match is None:
        return Refuse("tailnet policy does not permit you to SSH to this node")
    if not match.account:
        return Refuse(f'tailnet policy does not permit you to SSH as user "{attempt.ssh_user}"', match)
    if match.account != attempt.account:
        # The node has an older policy, or a newer one: what it would do with our answer is not what we decide about.
        return Refuse(CHANGED, match)
    if not match.rule.check:
        return Allow(match.action, match)
    return _check(snapshot, source, attempt, match, now, shown)


def _check(
    snapshot: Snapshot, source: Node, attempt: Attempt, match: SSHMatch, now: datetime, shown: int | None
) -> Allow | Refuse | Ask | Wait:
    owner = None if source.tags else source.user_id
    come_from = ("device", source.id) if source.tab is None else ("session", source.tab.session_id)
    binding = (come_from, owner, attempt.target_id, attempt.ssh_user, match.account, match.rule.digest())
    for check in snapshot.checks.of_target(attempt.target_id):
        if check.binding == binding and check.covers(now):
            return Allow(match.action, match, check)
    if shown is None:
        return Ask(match)
    mine = snapshot.checks.by_id.get(shown)
    if mine is not None and mine.binding != binding:
        return Refuse(CHANGED, match)
    if mine is None or mine.expires <= now:
        return Refuse("Nobody approved this in time. Connect again to ask once more.", match)
    if mine.state is CheckState.DENIED:
        return Refuse("This was denied.", match)
    if mine.state is CheckState.WAITING:
        return Wait(mine)
    return Allow(match.action, match, mine)


def may_decide(snapshot: Snapshot, check: Check, user: User) -> bool:
    """True if this person may approve or deny a check, by the policy as it is now.

    Where the rule names approvers it is for them, and for the person at the source only if they are among them; else for
    that person alone. Nobody may where the rule has changed or is gone, because the ssh that waits will be refused anyway.
    Administrators decide on the server, whatever the rule says.
    """
    source = snapshot.nodes.get(check.source_id)
    known = snapshot.users.get(user.id)
    if source is None or known is None or known.suspended:
        return False
    match = snapshot.policy.ssh_match(check.source_id, check.target_id, check.ssh_user)
    if match is None or match.rule.digest() != check.rule_digest:
        return False
    if match.rule.approvers:
        people = snapshot.policy.roster.people
        return any(known.id in people.named(selector) for selector in match.rule.approvers)
    owner = snapshot.owner(source)
    return owner is not None and owner.id == known.id == check.user_id


def question(check: Check, link: str, now: datetime) -> str:
    """What the terminal shows while somebody is asked."""
    minutes = max(1, round((check.expires - now).total_seconds() / 60))
    unit = "minute" if minutes == 1 else "minutes"
    who = f" by {' or '.join(check.approvers)}" if check.approvers else ""
    return terminal(
        f"# This ssh has to be approved{who} within {minutes} {unit}. Its code is {check.code}",
        f"# {link}",
        f"# On the server: doorward ssh checks approve {check.id}",
    )


def thanks(check: Check) -> str:
    """What the terminal shows when it was approved while it waited."""
    if not check.period:
        return terminal("# Approved.")
    minutes = check.period // 60
    span = f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min" if minutes else f"{check.period} s"
    return terminal(f"# Approved. Nothing more will be asked for {span}.")


def announced(before: Snapshot, after: Snapshot, now: datetime) -> list[Check]:
    """The checks that are new between two snapshots and that the person at their source can decide.

    Their page is opened in that device's browser. Retries join a check that is there already, so it is opened once. Where only
    others decide, or nobody is behind the source, there is nothing to do on it there.
    """
    if before.checks.by_id is after.checks.by_id:
        return []
    found: list[Check] = []
    for check in after.checks.by_id.values():
        source = after.nodes.get(check.source_id)
        if check.id in before.checks.by_id or source is None or not check.is_waiting(now):
            continue
        owner = after.owner(source)
        if owner is not None and owner.id == check.user_id and may_decide(after, check, owner):
            found.append(check)
    return found


def terminal(*lines: str) -> str:
    """Lines for a terminal, without anything that it would obey."""
    return "".join("".join(c if " " <= c <= "~" else "?" for c in line) + "\r\n" for line in lines)


def refusal(verdict: Refuse) -> SSHAction:
    """The only way to refuse: any other answer makes the node ask again for half an hour (ssh.md, section 2.3)."""
    return SSHAction(reject=True, message=terminal(verdict.sentence))


def admission(verdict: Allow, shown: int | None) -> SSHAction:
    """The rule's own answer, and a word to the person who has waited."""
    if verdict.check is None or shown != verdict.check.id:
        return verdict.action
    return msgspec.structs.replace(verdict.action, message=thanks(verdict.check))
