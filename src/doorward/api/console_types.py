"""What travels between a page of the console and the API. msgspec only, as ``types``; ``web/src/api/types.ts`` is made from it."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from doorward.api.types import Answer, Number, Request, RoleName

# How ssh is served on a machine, as far as is known: by its client; by something else, whose host key is known here.
SSHKind = Literal["tailscale", "other", "unknown"]


class Me(Answer, frozen=True, kw_only=True):
    """The person before the page."""

    id: int
    name: str
    display_name: str
    role: RoleName


class Counts(Answer, frozen=True, kw_only=True):
    """How many machines the person sees, has online, and gets in to."""

    machines: int
    online: int
    ways: int


class Console(Answer, frozen=True, kw_only=True):
    """Who sits where: the first thing that a page asks."""

    tailnet: str
    version: str
    user: Me
    signed_in: bool  # false: known by the device alone, which may look and open nothing
    method: str  # by what they signed in: "passkey:ID", "provider:NAME", "recovery"; empty where they did not
    proven: datetime | None  # when they last showed who they are
    device: str | None  # the node that the page is open on, where the connection says so
    counts: Counts


class RulePlace(Answer, frozen=True, kw_only=True):
    """A rule of the policy."""

    name: str  # "ssh[0]"
    line: int  # in the policy's text, from 1


class AccountWay(Answer, frozen=True, kw_only=True):
    """An account that the person may ask for on a machine."""

    account: str
    check: bool  # they have to show first that it is they who sit there
    rule: RulePlace | None


class Machine(Answer, frozen=True, kw_only=True):
    """A machine as the person sees it."""

    id: int
    name: str
    user: str  # whose it is
    user_id: int | None  # null for a tagged machine, which is nobody's
    tags: tuple[str, ...]
    addresses: tuple[str, ...]  # IPv4 first
    os: str
    version: str
    online: bool
    last_seen: datetime | None
    expired: bool
    yours: bool
    system: bool  # doorward's own
    ssh: SSHKind
    ways: tuple[AccountWay, ...]
    any_account: bool  # the person may type a name
    any_check: bool  # and is then asked to show who they are
    why: str  # where there is no way in: what is missing


class Machines(Answer, frozen=True, kw_only=True):
    """The machines that the person sees, by name."""

    machines: tuple[Machine, ...]


# Tabs that are nodes ------------------------------------------------------------------------------------------------

AccountName = Annotated[
    str,
    msgspec.Meta(
        # A dollar alone would let a line end after it pass.
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x20\x7f]+$(?!\n)",
        description="as ssh is asked for it",
    ),
]
KeysFrom = Literal["node", "pinned", "you", "none"]  # who says what a host's keys are


class NewTab(Request, frozen=True, kw_only=True):
    """A tab that is to be a node, and the machine that it is opened for."""

    node_key: Annotated[str, msgspec.Meta(pattern="^nodekey:[0-9a-f]{64}$")]
    machine: Number
    account: AccountName


class NewTarget(Request, frozen=True, kw_only=True):
    """One account more, on a machine, that a tab is to reach."""

    machine: Number
    account: AccountName


class HostKeyAnswer(Request, frozen=True, kw_only=True):
    """That a person takes a key for a machine's own."""

    key: Annotated[str, msgspec.Meta(max_length=8192)]
    replaces: Annotated[str, msgspec.Meta(max_length=8192)] | None = (
        None  # the one that they have said so of before
    )


class Target(Answer, frozen=True, kw_only=True):
    """A machine that a tab may reach at TCP port 22, and all that it needs to know for it."""

    machine: int
    name: str
    dns_name: str
    node_key: str
    addresses: tuple[str, ...]  # at which it is open to the tab
    home_region: int
    online: bool
    ssh: SSHKind
    host_keys: tuple[str, ...]
    host_keys_from: KeysFrom
    accounts: tuple[str, ...]  # that were asked for
    account: str  # the one that was asked for last
    check: bool  # its rule asks first that the person show who they are


class RelayRegion(Answer, frozen=True, kw_only=True):
    """Relays in one place."""

    name: str
    urls: tuple[str, ...]  # of their WebSockets, the best first


class Relays(Answer, frozen=True, kw_only=True):
    """By what a tab is connected."""

    home: int  # the region where its peers look for it
    regions: dict[str, RelayRegion]  # by number


class Tab(Answer, frozen=True, kw_only=True):
    """A browser's tab that is a node, or was one."""

    id: int
    state: Literal["on", "over"]
    over: (
        str  # why, in a word: "left", "lost", "session-over", "policy-ended", "removed"; empty while it is on
    )
    reason: str
    cure: str
    addresses: tuple[str, ...]  # its own, IPv4 first
    grace: int  # seconds for which it may be away
    relays: Relays
    targets: tuple[Target, ...]


# Of /console/events, whose answer is a stream -----------------------------------------------------------------------


class MachinesEvent(Answer, frozen=True, kw_only=True):
    """Event ``machines``: those that are new or others than before, and the ids of those that the person sees no more."""

    changed: tuple[Machine, ...]
    removed: tuple[int, ...]


class TabEvent(Answer, frozen=True, kw_only=True):
    """Event ``tab``: one of this session's is over, or what it may reach is not as before."""

    id: int
    state: Literal["on", "over"]
    over: str
    reason: str
    cure: str
    target_changed: tuple[Target, ...]  # all that it may reach now


class SessionEvent(Answer, frozen=True, kw_only=True):
    """Event ``session``: nobody is signed in here any more; ``suspended`` where that is why, and signing in is of no use."""

    state: Literal["over", "suspended"]


EVENTS = (MachinesEvent, TabEvent, SessionEvent)
