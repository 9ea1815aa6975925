"""What travels between a page of the console and the API. msgspec only, as ``types``; ``web/src/api/types.ts`` is made from it."""

from datetime import datetime
from typing import Literal

from doorward.api.types import Answer, RoleName

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


# Of /console/events, whose answer is a stream -----------------------------------------------------------------------


class MachinesEvent(Answer, frozen=True, kw_only=True):
    """Event ``machines``: those that are new or others than before, and the ids of those that the person sees no more."""

    changed: tuple[Machine, ...]
    removed: tuple[int, ...]


class SessionEvent(Answer, frozen=True, kw_only=True):
    """Event ``session``: nobody is signed in here any more."""

    state: Literal["over"]


EVENTS = (MachinesEvent, SessionEvent)
