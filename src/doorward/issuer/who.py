"""Who a request is from: by the connection or the session, and by no header."""

from datetime import datetime
from typing import NamedTuple

from starlette.requests import Request

from doorward.issuer.claims import routes_for_others
from doorward.issuer.decision import Known, Level
from doorward.issuer.desk import Desk
from doorward.login.asking import Proven
from doorward.login.sessions import Visitor
from doorward.model import User
from doorward.store import apps


class Who(NamedTuple):
    """Who a request is from, as far as apps may know."""

    known: Known
    user: User | None
    node_id: int | None  # the device that vouches, or from which they act
    key: str  # of their session with apps
    level: Level
    amr: tuple[str, ...]
    since: datetime | None  # when they signed in, where they did

    @property
    def vouching(self) -> int | None:
        """The device that has to stay theirs; None where a browser vouches."""
        return self.node_id if self.known is Known.DEVICE else None

    def level_now(self, *, clicked: bool) -> Level:
        """How well they are known; a yes is more than a device."""
        return Level.CLICK if clicked and self.level is Level.NETWORK else self.level

    def amr_now(self, *, clicked: bool) -> tuple[str, ...]:
        """By what (RFC 8176)."""
        return self.amr if not clicked or "user" in self.amr else (*self.amr, "user")


async def who_is(desk: Desk, request: Request, proven: Proven | None = None) -> Who:
    """Who it is. Who has signed in said so on purpose, and comes first; ``proven``: they did a moment ago."""
    visitor = await desk.askings.sessions.visitor(request)
    if visitor.node is not None and visitor.node.tags:
        return Who(Known.TAGGED, None, None, "", Level.NETWORK, (), None)
    if proven is not None:
        session, user = proven.session, proven.user
    elif visitor.signed_in is not None:
        session, user = visitor.signed_in.session, visitor.signed_in.user
    else:
        return _by_device(desk, visitor)
    by_passkey = session.method.startswith("passkey")
    node = visitor.node if visitor.owner is not None and visitor.owner.id == user.id else None
    if node is not None and routes_for_others(desk.registry.snapshot, node.id):
        node = None  # it may be another's traffic: the session alone says who it is
    return Who(
        Known.SESSION,
        user,
        None if node is None else node.id,
        apps.browser_key(session.id),
        Level.PASSKEY if by_passkey else Level.SESSION,
        ("pop", "user") if by_passkey else (session.method.partition(":")[0],),
        session.proven,
    )


def _by_device(desk: Desk, visitor: Visitor) -> Who:
    node, owner = visitor.node, visitor.owner
    if node is None or owner is None:
        return Who(Known.NOBODY, None, None, "", Level.NETWORK, (), None)
    if routes_for_others(desk.registry.snapshot, node.id):
        return Who(Known.ROUTER, None, None, "", Level.NETWORK, (), None)
    key = apps.device_key(node.id, owner.id)
    return Who(Known.DEVICE, owner, node.id, key, Level.NETWORK, ("network",), None)
