"""Browsers in which somebody has signed in, and who a request is from.

A session is a row and a cookie. The cookie is 160 random bits, of which only the SHA-256 is kept; it is made anew at every
proof, so that one that somebody planted before is worth nothing after. It is sent to this origin alone, to no script, and not
with what another site posts.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from doorward.errors import DoorwardError, NotPermitted, Unauthenticated
from doorward.login.doors import Doors, Place
from doorward.model import Node, Session, User
from doorward.store import signin
from doorward.tailnet import secrets
from doorward.tailnet.registry import Registry
from doorward.telemetry import log

LIFETIME = timedelta(days=30)
FRESH = timedelta(minutes=15)  # for so long a proof is good for what the console changes
_SEEN = timedelta(minutes=5)  # how exactly it is known when a session was last used
_AGENT = 200  # characters kept of what a browser calls itself

_log = log("login")


class NotLinked(Unauthenticated):
    """Somebody had signed in there by an outside provider, for which they are nobody here any more."""

    problem = "not-linked"

    def __init__(self, provider: str) -> None:
        super().__init__(
            f"your sign-in by {provider} is not linked to a user of this tailnet any more",
            cure=f"Ask an administrator to link you to {provider} again, or sign in another way.",
        )


class AccountSuspended(NotPermitted):
    """Somebody had signed in there who is suspended: to sign in again is of no use to them."""

    problem = "account-suspended"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is suspended", cure="An administrator can say why, and restore you.")


class SignedIn(NamedTuple):
    """A request of somebody who has signed in."""

    user: User
    session: Session

    def is_fresh(self, now: datetime) -> bool:
        """True while the last proof is good for what the console changes."""
        return timedelta(0) <= now - self.session.proven <= FRESH


class Visitor(NamedTuple):
    """Who a request is from, by all that is known without asking."""

    node: Node | None  # by the connection: the device at its other end, if that may be used
    owner: User | None  # whose device it is
    signed_in: SignedIn | None  # by the cookie
    # Nobody has: why whoever had is out, where there is more to say than that. Told to who has their cookie, and to nobody else.
    refusal: NotLinked | AccountSuspended | None = None

    @property
    def user(self) -> User | None:
        """The person: who signed in, for that was said on purpose; else whose device it is."""
        return self.owner if self.signed_in is None else self.signed_in.user


class Sessions:
    """What there is to know about them.

    Args:
        registry: the tailnet, and the store.
        doors: where cookies are taken.
    """

    def __init__(self, registry: Registry, doors: Doors) -> None:
        self._registry = registry
        self._doors = doors

    async def of(self, request: Request) -> SignedIn | None:
        """Who has signed in where this request comes from; None for nobody, and for who is suspended or gone.

        Raises Unavailable when the database cannot be asked.
        """
        session = await self._named(request)
        now = self._registry.writer.now()
        if session is None or not session.is_open(now):
            return None
        user = self._registry.snapshot.users.get(session.user_id)
        if user is None or user.suspended:
            return None
        if now - session.seen > _SEEN:
            try:
                await self._registry.writer.database.run(signin.session_seen, session.id, now)
            except DoorwardError as error:  # a database that takes no writes signs nobody out
                _log.info("not noted that a session is in use", reason=error.message)
        return SignedIn(user, session)

    async def visitor(self, request: Request) -> Visitor:
        """Who a request is from. The connection's word counts only where the listener gave it one."""
        snapshot = self._registry.snapshot
        node = self._node(request)
        if node is not None and (node.expired(self._registry.writer.now()) or snapshot.suspended(node)):
            node = None
        owner = None if node is None or node.tags else snapshot.owner(node)
        signed_in = await self.of(request)
        refusal = None if signed_in is not None else await self._why_out(request)
        return Visitor(node, owner, signed_in, refusal)

    async def _named(self, request: Request) -> Session | None:
        """The session that the cookie names, whether or not it is still good."""
        place = self._doors.of(request)
        secret = None if place is None else request.cookies.get(cookie_name(place))
        if place is None or not secret:
            return None
        session = await self._registry.writer.database.find(signin.sessions_by_hash, secrets.digest(secret))
        return None if session is None or session.origin != place.origin else session

    async def _why_out(self, request: Request) -> NotLinked | AccountSuspended | None:
        """What there is to say to somebody who had signed in there: that they are suspended, or nobody to their provider any more."""
        session = await self._named(request)
        if session is None or session.expires <= self._registry.writer.now():
            return None
        user = self._registry.snapshot.users.get(session.user_id)
        if user is not None and user.suspended:
            return AccountSuspended(user.name)
        kind, _, provider = session.method.partition(":")
        if session.ended is None or kind != "provider":
            return None
        linked = await self._registry.writer.database.read(signin.is_linked, session.user_id, provider)
        return None if linked else NotLinked(provider)

    def _node(self, request: Request) -> Node | None:
        """The device at the other end of the connection, whatever it may do."""
        identity = (request.scope.get("state") or {}).get("identity")
        return None if identity is None else self._registry.snapshot.node_by_stable_id(identity)

    def draft(
        self, request: Request, place: Place, user: User, method: str, proven: datetime
    ) -> tuple[Session, str]:
        """A session that is yet to be stored, and the secret for its cookie."""
        secret = secrets.base32(self._registry.writer.entropy(20))
        now = self._registry.writer.now()
        client, node = request.client, self._node(request)
        outside = "" if client is None else client.host
        return (
            Session(
                id=0,
                user_id=user.id,
                secret_hash=secrets.digest(secret),
                origin=place.origin,
                created=now,
                seen=now,
                expires=now + LIFETIME,
                proven=proven,
                method=method,
                address=outside if node is None else str(node.ipv4),
                agent=_printable(request.headers.get("user-agent", "")),
            ),
            secret,
        )


def cookie_name(place: Place) -> str:
    """The name of the session's cookie at a place; those of others begin with it.

    ``__Host-`` has browsers refuse one that was set for a whole domain or without https, and allows no path. Where the door has a
    path, it shares its name with others, who would be sent every cookie without one: there the path matters more. A neighbour
    who plants a cookie instead can have a browser signed in as themselves, and as nobody else.
    All of localhost shares its cookies whatever the port, so the port is in the name there.
    """
    if not place.secure:
        return f"doorward-{place.port}"
    return "__Secure-doorward" if place.path else "__Host-doorward"


def set_cookie(response: Response, place: Place, name: str, value: str, lifetime: timedelta) -> None:
    """Add a cookie for this place alone, that no script sees. An empty value removes it."""
    response.set_cookie(
        name,
        value,
        max_age=int(lifetime.total_seconds()) if value else 0,
        path=place.path or "/",
        secure=place.secure,
        httponly=True,
        samesite="lax",
    )


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:_AGENT])
