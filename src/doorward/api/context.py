"""What the API is given, and what each of its operations gets."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from starlette.requests import Request

from doorward.api.access import Principal
from doorward.api.feeds import Feeds
from doorward.api.types import Finding, Pong, Status
from doorward.clock import Clock
from doorward.login.apps import Apps
from doorward.login.doors import Place
from doorward.login.invitations import Invitations, Way
from doorward.login.means import Means
from doorward.login.sessions import SignedIn, Visitor
from doorward.login.upstream import Upstream
from doorward.model import Node, User
from doorward.protocol.auditlog import AuditPublic, Verdict
from doorward.tailnet.registry import Registry
from doorward.tailnet.snapshot import Snapshot


async def _stranger(_: Request) -> Visitor:
    return Visitor(None, None, None)


@dataclass(frozen=True, kw_only=True)
class ApiContext:
    """What the wiring hands to ``app.create``.

    Args:
        registry: the tailnet's writer.
        clock: for what is "expired" in an answer, and for rate limits.
        status: the server at a glance.
        doctor: what works and what does not, each with its cure.
        verify_audit: looks at the whole audit log, with every checkpoint that there is.
        audit_key: what our checkpoints of it are checked with.
        ping: asks a node whether it is there, or has another node (the second argument) ping it.
        invitations: one-time links for people.
        means: by what people sign in, and where they have.
        ways: where people come in, the best first.
        apps: the apps in which people sign in.
        issuer: what these know us by; empty where none could.
        upstream: asks outside providers.
        feeds: the pages of the console that are told of changes.
        origins: those whose pages may use the console's operations, besides the door's.
        visitor: who a request is from, by its connection and its cookie; without it everybody is a stranger.
    """

    registry: Registry
    clock: Clock
    status: Callable[[], Awaitable[Status]]
    doctor: Callable[[], Awaitable[list[Finding]]]
    verify_audit: Callable[[], Awaitable[Verdict]]
    audit_key: AuditPublic
    ping: Callable[[Node, Node | None], Awaitable[Pong]]
    invitations: Invitations
    means: Means
    ways: Sequence[Way]
    apps: Apps
    issuer: str
    upstream: Upstream
    feeds: Feeds
    origins: frozenset[str] = frozenset()
    visitor: Callable[[Request], Awaitable[Visitor]] = _stranger


class Browser(NamedTuple):
    """A browser, or another program, of a person."""

    user: User
    door: Place  # of whose pages it may come
    signed_in: SignedIn | None  # None: it is known by its device alone
    device: Node | None  # which it comes from, where the connection says so


@dataclass(frozen=True)
class Call:
    """One request to the API: the context, who is asking, and from which browser, if it comes from one."""

    context: ApiContext
    principal: Principal
    browser: Browser | None = None
    accepts: str = ""  # the header Accept

    @property
    def registry(self) -> Registry:
        """The tailnet's writer."""
        return self.context.registry

    @property
    def snapshot(self) -> Snapshot:
        """The tailnet as it is now. Ask once an operation: the next ask may see another one."""
        return self.context.registry.snapshot

    @property
    def actor(self) -> str:
        """Who is asking, for the audit log."""
        return self.principal.actor
