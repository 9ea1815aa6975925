"""The nouns of a browser's tab that is a node. Values, as in ``nouns``."""

from datetime import datetime
from enum import StrEnum

import msgspec


class TabTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What a tab was opened for: one account on one node, and nothing else there."""

    node_id: int
    account: str  # as it is asked for
    ssh: bool  # the node's own client serves ssh, so the policy has to name the account; else its port is all there is


class Tab(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a node a tab. It is its person's only as long as the session is open that it was made in."""

    session_id: int
    targets: tuple[TabTarget, ...]  # in the order in which they were asked for
    grace: int  # seconds for which it may be away before it is removed


class TabOver(StrEnum):
    """Why a tab is no more."""

    LEFT = "left"  # its page said so
    LOST = "lost"  # it was away for longer than its grace
    SESSION = "session-over"  # signed out, or its person is suspended or gone
    POLICY = "policy-ended"  # nothing is left that it may reach
    REMOVED = "removed"  # an administrator did it


class TabEnd(msgspec.Struct, frozen=True, kw_only=True):
    """That a tab is over, for its page to ask about. Kept for a day."""

    id: int  # of the node that it was
    user_id: int
    session_id: int
    over: TabOver
    reason: str  # a sentence
    at: datetime


class HostKey(msgspec.Struct, frozen=True, kw_only=True):
    """A host key of a node that publishes none: as an administrator pinned it for all, or as one person has answered."""

    id: int
    node_id: int
    user_id: int | None  # None: pinned, for everybody
    key: str  # "ssh-ed25519 AAAA..."
    actor: str
    created: datetime
