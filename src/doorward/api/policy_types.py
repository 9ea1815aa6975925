"""What travels about the policy. Like ``types``: msgspec only, because the command line imports this."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from doorward.api.types import Answer, Count, Diagnostic, Number, Request

# Why a policy was changed, in its author's words.
Comment = Annotated[str, msgspec.Meta(max_length=500)]


class PolicyText(Answer, frozen=True, kw_only=True):
    """The policy in force."""

    text: str
    version: int
    actor: str  # who set it
    created: datetime
    comment: str
    owner: str | None  # the file that owns the policy, and is the only way to change it

    @property
    def etag(self) -> str:
        """What to send as If-Match with a change of this version."""
        return str(self.version)


class PolicyDraft(Request, frozen=True, kw_only=True):
    """A policy text: to check, to compare, to compile or to put in force."""

    text: str
    filename: str = "policy.hujson"  # what diagnostics call it
    comment: Comment = ""  # why, for the history; only with a change


class PolicyCheck(Answer, frozen=True, kw_only=True):
    """What a check found; nothing was changed."""

    ok: bool
    diagnostics: tuple[Diagnostic, ...] = ()  # why it would be refused
    warnings: tuple[Diagnostic, ...] = ()  # allowed, and perhaps a slip


class PolicyVersion(Answer, frozen=True, kw_only=True):
    """One version of the policy."""

    id: int
    actor: str  # who set it
    created: datetime
    comment: str
    added: int | None  # lines that the version before did not have; null where nobody counted
    removed: int | None  # lines of the version before that it does not have
    size: int  # characters of text
    current: bool

    @property
    def etag(self) -> str | None:
        """What to send as If-Match with a change of this version; only of the one in force."""
        return str(self.id) if self.current else None


class PolicyVersionText(PolicyVersion, frozen=True, kw_only=True):
    """One version of the policy, with its text."""

    text: str


class PolicyVersionFilter(Request, frozen=True, kw_only=True):
    """How much of the history to list."""

    limit: Count = 20
    before: Number | None = None  # only versions with a smaller number


class TextDiffFilter(Request, frozen=True, kw_only=True):
    """What to compare a version with."""

    against: Number | None = None  # an earlier version; left out, the one before it


class TextDiff(Answer, frozen=True, kw_only=True):
    """What changed in the text between two versions."""

    old: int | None  # null: it is the oldest that is kept, and all of it counts as new
    new: int
    added: int  # lines
    removed: int
    diff: str  # in the unified form


class Rollback(Request, frozen=True, kw_only=True):
    """Which version to go back to; left out, the one before the current."""

    version: Number | None = None
    comment: Comment = ""


class AddName(Request, frozen=True, kw_only=True, tag_field="do", tag="add-name"):
    """Put a name into a list: a person into a group, an owner to a tag. A list that is missing is made."""

    section: Literal["groups", "tagOwners"]
    key: str  # "group:ops", "tag:web"
    name: str


class RemoveName(Request, frozen=True, kw_only=True, tag_field="do", tag="remove-name"):
    """Take a name out of a list."""

    section: Literal["groups", "tagOwners"]
    key: str
    name: str


class SetHost(Request, frozen=True, kw_only=True, tag_field="do", tag="set-host"):
    """Name an address or a prefix; null takes the name away."""

    name: str
    address: str | None


class AddRule(Request, frozen=True, kw_only=True, tag_field="do", tag="add-rule"):
    """Put a rule at the end of its section."""

    section: Literal["grants", "acls", "ssh"]
    rule: dict[str, Any]


class RemoveRule(Request, frozen=True, kw_only=True, tag_field="do", tag="remove-rule"):
    """Take a rule away. Send If-Match with it: its number may be another's by now."""

    section: Literal["grants", "acls", "ssh"]
    number: Number  # the first is 0


PolicyEdit = AddName | RemoveName | SetHost | AddRule | RemoveRule


class PolicyEdits(Request, frozen=True, kw_only=True):
    """Changes of parts of the policy: all of them or none."""

    edits: Annotated[tuple[PolicyEdit, ...], msgspec.Meta(min_length=1, max_length=100)]
    comment: Comment = ""  # left out: what the edits do
    dry_run: bool = False  # only say what would change, and whether it would be accepted


class PolicyEdited(Answer, frozen=True, kw_only=True):
    """What edits changed."""

    version: int  # in force now
    changed: bool  # false: it was so already, and there is no new version
    diff: str  # of the text, in the unified form

    @property
    def etag(self) -> str:
        """What to send as If-Match with the next change."""
        return str(self.version)


class CompileFilter(Request, frozen=True, kw_only=True):
    """What of a compiled policy to show."""

    node: str | None = None  # only this node


class CompiledNode(Answer, frozen=True, kw_only=True):
    """What one node enforces under a policy: exactly what its client would be sent."""

    node: str
    filter: Any  # list of packet filter rules
    ssh: Any  # SSH policy


class NodeDiff(Answer, frozen=True, kw_only=True):
    """What would change for one node under a draft, as lines for people to read."""

    node: str
    lost: tuple[str, ...]  # what it lets in now and would refuse
    gained: tuple[str, ...]  # what it refuses now and would let in


class ReachFilter(Request, frozen=True, kw_only=True):
    """A question about access."""

    source: str  # a node, a person's login name, or a tag or group
    destination: str  # a node or an address, perhaps with ":PORT"
    protocol: str = "tcp"  # tcp, udp, icmp or a number


class WhoCanFilter(Request, frozen=True, kw_only=True):
    """A question about everybody's access."""

    destination: str  # a node or an address, perhaps with ":PORT"
    protocol: str = "tcp"  # tcp, udp, icmp or a number
    account: str | None = (
        None  # only who may also ssh there as this account; the port is then 22 unless given
    )


class RuleName(Answer, frozen=True, kw_only=True):
    """A rule of the policy in force."""

    name: str  # "grants[0]", "acls[2]", "ssh[1]": the first is 0
    line: int  # where it stands
    column: int


class Way(Answer, frozen=True, kw_only=True):
    """One node that reaches the destination."""

    source: str  # the node's name
    owner: str  # its owner, or its tags
    ports: str  # those it reaches: "22,80-90", "all"
    rules: tuple[RuleName, ...]  # by which
    ssh: RuleName | None = None  # where an account was asked for: the rule that lets it log in
    check: bool = False  # and its person is asked again who they are


class Closest(Answer, frozen=True, kw_only=True):
    """The rule that nearly lets a source in."""

    source: str  # the node it is about
    rule: RuleName
    missing: str  # what it lets in, and what is missing


class Reach(Answer, frozen=True, kw_only=True):
    """Who reaches a destination."""

    allowed: bool
    ways: tuple[Way, ...]
    closest: Closest | None = None  # where nobody does
    notes: tuple[str, ...] = ()  # what else stands in the way, such as a key that has expired


class WhatCanFilter(Request, frozen=True, kw_only=True):
    """A question about all that somebody may do."""

    source: str  # a node, a person's login name, or a tag or group


class Reachable(Answer, frozen=True, kw_only=True):
    """Something that is reached."""

    destination: str  # a node's name, a range of addresses, or "the internet"
    router: str | None  # the node that leads there, for what is no node
    owner: str  # whose it is, or its tags; of a router, for what lies behind it
    services: str  # "all ports", "tcp 22, udp 53"; empty where there is ssh alone
    ssh: tuple[str, ...]  # as which accounts, "after a check" where that is asked for
    rules: tuple[RuleName, ...]


class Entitlement(Reachable, frozen=True, kw_only=True):
    """One line of an access review."""

    who: str  # a person's login name, or the tags of nodes that are nobody's
    person: bool
    nodes: tuple[str, ...]  # the nodes they have, whose access this is


class ReviewFilter(Request, frozen=True, kw_only=True):
    """Of what to make a review."""

    source: str | None = None  # only of this person, tag or node
