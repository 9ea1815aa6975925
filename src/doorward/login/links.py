"""One-time links that sign in, for whoever sits at doorward's own machine and may do everything there anyway.

::

    doorward users sign-in NAME ──▶ open ──▶ "Come in as NAME" ──▶ spent: this browser is signed in
                                  └─────▶ over after an hour; worth nothing once another is made, or NAME is suspended or deleted

The link is an asking that its maker holds in place of a browser: made for one person and one door, answered once, in a transaction,
and on record as every sign-in is. The door is ``http://localhost:PORT``, and the connection has to come from this machine, too, and not
through the tailnet: so a link that got around opens nothing elsewhere. Only the socket in the data directory makes one. Looking uses nothing up; only a POST does.
"""

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import RateLimit
from doorward.clock import Clock
from doorward.errors import Conflict, NotFound
from doorward.login import pages
from doorward.login.asking import LINK, Answer, Askings, Proven, Question, Waiting, as_page, go_on
from doorward.login.doors import Place, asker, safe_path
from doorward.login.pages import Door
from doorward.model import Asking, User
from doorward.store import Connection, audit, signin, users
from doorward.tailnet import secrets
from doorward.tailnet.registry import Registry

LIFETIME = timedelta(hours=1)
PATH = "/signin/link/"
_CODE_LENGTH = 32  # characters that 160 bits take


async def make_link(
    registry: Registry, actor: str, user: User, place: Place, *, path: str = "/machines"
) -> tuple[Asking, str]:
    """Make a link for a person at a door, and return it with its code, which is shown this once.

    Args:
        registry: the tailnet.
        actor: who makes it, for the audit log.
        user: who is signed in by it.
        place: the door on doorward's own machine.
        path: where the browser goes then.

    Raises:
        NotFound: the person was deleted.
        Conflict: they are suspended.
    """
    writer = registry.writer
    now = writer.now()
    code = secrets.base32(writer.entropy(20))
    question = Question(f"Come in as {user.name}", "")
    draft = Asking(
        id=0,
        secret_hash=_digest(code),
        act=LINK,
        argument=msgspec.json.encode(Waiting({"next": path}, *question)).decode(),
        user_id=user.id,
        origin=place.origin,
        challenge=writer.entropy(32),
        created=now,
        expires=now + LIFETIME,
    )
    return await writer.database.run(_make, actor, draft), code


def _digest(code: str) -> bytes:
    """What is kept of a code. No cookie of a browser that is asked something has the same, whatever is put into a link."""
    return secrets.digest(f"link:{code}")


def _make(connection: Connection, actor: str, draft: Asking) -> Asking:
    user = users.by_id(connection, draft.user_id or 0)
    if user is None:
        raise NotFound("this user was deleted", cure="`doorward users list` shows the users there are.")
    if user.suspended:
        raise Conflict(
            f"{user.name} is suspended",
            cure=f"Let them in again first: `doorward users restore {user.name}`.",
        )
    signin.forget_askings(connection, LINK, user.id)
    made = signin.insert_asking(connection, draft)
    details = {"at": made.origin, "expires": made.expires.isoformat()}
    audit.append(connection, actor, "user.link", f"user:{user.name}", details, made.created)
    return made


class SignInLinks:
    """The pages behind such links.

    Args:
        askings: the flow that they end.
        clock: for rate limits.
    """

    def __init__(self, askings: Askings, clock: Clock) -> None:
        self._askings = askings
        self._registry = askings.registry
        self._looks = RateLimit(rate=2.0, burst=60.0, clock=clock)
        askings.acts[LINK] = _come_in

    def routes(self) -> list[Route]:
        """Where they are."""
        table = ((self._show, "GET"), (self._take, "POST"))
        return [
            Route(f"{PATH}{{code}}", as_page(self._registry, endpoint), methods=[method])
            for endpoint, method in table
        ]

    async def _look(self, request: Request) -> tuple[Asking, User]:
        """The link that was opened, and whose it is. Raises NotFound for one that is not good here."""
        place = self._askings.doors.require(request)
        self._looks.take(asker(request))
        code = request.path_params["code"]
        if not _is_here(request) or len(code) != _CODE_LENGTH or not code.isascii():
            raise _not_good()
        writer = self._registry.writer
        found = await writer.database.read(signin.asking_by_hash, _digest(code), writer.now())
        user = None if found is None else self._registry.snapshot.users.get(found.user_id or 0)
        if (
            found is None
            or found.act != LINK
            or found.origin != place.origin
            or user is None
            or user.suspended
        ):
            raise _not_good()
        return found, user

    async def _show(self, request: Request) -> Response:
        asking, user = await self._look(request)
        snapshot = self._registry.snapshot
        tailnet = snapshot.settings.display_name or snapshot.settings.domain
        return pages.page(
            "link.html",
            tailnet=tailnet,
            door=Door.AJAR,
            label="one step away",
            before=pages.person_side(user.name, user.id, user.role.value),
            behind=pages.tailnet_side(tailnet),
            user=user,
            left=pages.duration((asking.expires - self._registry.writer.now()).total_seconds()),
        )

    async def _take(self, request: Request) -> Response:
        await self._askings.form(request)
        asking, user = await self._look(request)
        return await self._askings.answer(request, asking, Answer(user, LINK, self._registry.writer.now()))


def _is_here(request: Request) -> bool:
    """True for a connection from this machine. A Host can be written by anybody; where a connection comes from cannot.

    What our own node passes on comes from loopback as well, and has the identity of whoever is at its other end.
    """
    if (request.scope.get("state") or {}).get("identity") is not None or request.client is None:
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _come_in(request: Request, proven: Proven, argument: Any) -> Response:
    del request, proven
    return go_on(safe_path(str(argument["next"])))


def _not_good() -> NotFound:
    return NotFound(
        "this link is not good any more",
        cure="It works once, for an hour, on doorward's own machine. `doorward users sign-in NAME` makes another.",
    )
