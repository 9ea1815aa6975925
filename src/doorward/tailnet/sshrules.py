"""Who decides about an ssh: what nodes are told of the SSH rules, once the policy is compiled. Pure.

A stock node decides by itself and tells nobody. So that every attempt is decided, and seen, by us, an accept is sent as a
*hold*: the node asks control, which answers at once (ssh.md, section 2.7). What that costs while control is away is chosen
by ``Decide``::

    always     hold                          nobody gets in while control is away
    fallback   hold until a moment, accept   the node decides by itself once that moment has passed
    policy     accept                        the node decides; control hears of checks only

The moment lies ahead by ``Settings.ssh_fallback`` and is moved on when half of that is over. A check is a hold under each,
and never falls back. Under ``policy`` an approved check becomes an accept that ends with its period.

The last hold is for attempts that no rule lets in, so that they are seen, too. It maps everybody to ``nobody``: a node keeps a
session whose access was revoked for as long as some hold maps to the same account.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import msgspec
from immutables import Map
from msgspec import UNSET

from doorward.model import Check
from doorward.policy import Policy
from doorward.policy.ssh import HOLD_URL
from doorward.protocol.tailcfg.ssh import SSHAction, SSHPolicy, SSHPrincipal, SSHRule
from doorward.tailnet.settings import Decide

_NONE: tuple[Check, ...] = ()
_HOLD = SSHAction(holdAndDelegate=HOLD_URL)
NOBODY = "nobody"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's ssh, as the target's node tells it."""

    source_id: int
    target_id: int
    ssh_user: str  # as typed
    account: str  # what the node has made of it


@dataclass(frozen=True, slots=True)
class KeptChecks:
    """The checks that are kept. Never changed: ``updated`` makes the next one."""

    by_id: Map[int, Check] = Map()  # noqa: RUF009 - immutable
    by_target: Map[int, tuple[Check, ...]] = Map()  # noqa: RUF009 - immutable
    until: datetime | None = None  # when nodes fall back

    @classmethod
    def of(cls, checks: Iterable[Check], until: datetime | None = None) -> Self:
        """From what the store holds."""
        return cls(until=until).updated(checks)

    def updated(self, checks: Iterable[Check] = (), gone: Iterable[int] = ()) -> Self:
        """With these added or replaced, and those ids gone."""
        by_id, by_target = self.by_id, self.by_target
        for check in checks:
            others = (each for each in by_target.get(check.target_id, _NONE) if each.id != check.id)
            by_id, by_target = by_id.set(check.id, check), by_target.set(check.target_id, (*others, check))
        for number in gone:
            if number not in by_id:
                continue
            check = by_id[number]
            left = tuple(each for each in by_target[check.target_id] if each.id != number)
            by_id = by_id.delete(number)
            by_target = by_target.set(check.target_id, left) if left else by_target.delete(check.target_id)
        return replace(self, by_id=by_id, by_target=by_target)

    def falling_back(self, until: datetime | None) -> Self:
        """With another moment at which nodes fall back."""
        return replace(self, until=until)

    def of_target(self, node_id: int) -> tuple[Check, ...]:
        """Those about ssh to a node, oldest change first."""
        return self.by_target.get(node_id, _NONE)


def rules_for(
    policy: Policy, checks: KeptChecks, node_id: int, *, decide: Decide, serves_ssh: bool
) -> SSHPolicy:
    """The SSH policy of a node as it is sent. Without ``serves_ssh`` it is not running the SSH server now."""
    compiled = policy.ssh_policy(node_id)
    if decide is Decide.POLICY:
        allowed = _approved(policy, checks.of_target(node_id))
        return SSHPolicy([*allowed, *compiled.rules]) if allowed else compiled
    # While no server runs the holds would only have to be renewed all the time. Under ALWAYS not even the moment in which it
    # has just been started may go unseen.
    if decide is Decide.FALLBACK and (checks.until is None or not serves_ssh):
        return compiled
    if not compiled.rules and not serves_ssh:
        return compiled
    expires = UNSET if decide is Decide.ALWAYS or checks.until is None else checks.until
    rules: list[SSHRule] = []
    for rule in compiled.rules:
        if rule.action.accept is not True:
            rules.append(rule)
            continue
        rules.append(msgspec.structs.replace(rule, action=_HOLD, ruleExpires=expires))
        if decide is Decide.FALLBACK:
            rules.append(rule)
    rules.append(
        SSHRule(
            principals=[SSHPrincipal(any=True)],
            sshUsers={"*": NOBODY},
            action=_HOLD,
            ruleExpires=expires,
        )
    )
    return SSHPolicy(rules)


def _approved(policy: Policy, checks: Iterable[Check]) -> list[SSHRule]:
    """Accepts for approved checks that the policy still says the same about; each ends with its period."""
    found: list[SSHRule] = []
    for check in checks:
        if check.until is None:
            continue
        source = policy.roster.members.get(check.source_id)
        match = policy.ssh_match(check.source_id, check.target_id, check.ssh_user)
        if source is None or match is None or source.owner != check.user_id:
            continue
        if match.rule.check and (match.account, match.rule.digest()) == (check.account, check.rule_digest):
            found.append(
                SSHRule(
                    principals=[SSHPrincipal(nodeIP=text) for text in source.texts],
                    sshUsers={check.ssh_user: check.account},
                    action=match.action,
                    ruleExpires=check.until,
                    acceptEnv=list(match.rule.accept_env) if match.rule.accept_env else UNSET,
                )
            )
    return found
