"""``/join/CODE``: what is behind the link that a client shows: which device waits, and yes or no.

It opens on a device that is not in the tailnet yet, so looking takes no sign-in: whoever has the link learns what the device said of
itself. At the door, or on doorward's own machine, a person takes the device in as theirs, by a proof that is not older than a
quarter of an hour. Under the control server's own name nothing is decided, because no cookie and no passkey is good there.
"""

import re
from datetime import datetime
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.api.access import ALLOWED, Permission, Principal
from doorward.asgi import RateExceeded, RateLimit
from doorward.clock import Clock
from doorward.errors import BadInput, NotFound, NotPermitted
from doorward.login import pages
from doorward.login.asking import Askings, Proven, Question, as_page, go_on
from doorward.login.doors import Doors, asker
from doorward.login.pages import Door
from doorward.login.sessions import Visitor
from doorward.model import Node, Registration, User
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet.snapshot import Snapshot

ACT = "join"  # what is asked for before a device is let in
REFRESH = 5  # seconds between two looks of a waiting page
# A waiting page takes 0.2 tokens a second. The code cannot be guessed (160 random bits): this spares the database, and
# leaves room for a whole office behind one address.
_RATE, _BURST = 10.0, 60.0

_CODE = re.compile(r"[a-z2-7]{32}")  # tailnet.secrets.make_code; anything else was never a link of ours
_TAGS_SHOWN = 8


class SpentLink(NotFound):
    """Nobody waits behind this link: it was never one, its time is over, or what it let in has been deleted."""

    problem = "spent-link"


class DeniedDevice(NotPermitted):
    """Somebody said no to the device behind this link."""

    problem = "denied-device"


class AskAdministrator(NotPermitted):
    """Whoever came here has a device that waits."""

    problem = "ask-administrator"


class JoinPage:
    """The page, and what its buttons do.

    Args:
        askings: who sits there.
        clock: for its rate limit.
    """

    def __init__(self, askings: Askings, clock: Clock) -> None:
        self._askings = askings
        self._registry = askings.registry
        self._limit = RateLimit(rate=_RATE, burst=_BURST, clock=clock)
        askings.acts[ACT] = self._decided

    def routes(self) -> list[Route]:
        """200 while the device waits and once it is in, 403 for a denied one, 404 for a spent link, 429 when asked too often."""
        return [
            Route("/join/{code}", self._show, methods=["GET"]),
            Route("/join/{code}", as_page(self._registry, self._answer), methods=["POST"]),
            Route("/admin", self._admin, methods=["GET"]),
        ]

    async def _admin(self, _: Request) -> Response:
        """Where clients send the person at a device that waits for an administrator: no setting of ours changes that."""
        settings = self._registry.snapshot.settings
        return pages.refusal(
            AskAdministrator("an administrator lets new devices in"),
            tailnet=settings.display_name or settings.domain,
            label="waits for an administrator",
            why="Your device is known and waits. It is in by itself as soon as an administrator has looked at it.",
            steps=(
                "Tell an administrator its name.",
                "They run `doorward nodes approve NAME` on doorward's machine.",
            ),
        )

    async def _found(self, code: str) -> Registration | None:
        return await self._registry.registration(code) if _CODE.fullmatch(code) else None

    async def _show(self, request: Request) -> Response:
        registry = self._registry
        snapshot = registry.snapshot
        tailnet = snapshot.settings.display_name or snapshot.settings.domain
        try:
            self._limit.take(asker(request))
        except RateExceeded as error:
            return pages.refusal(error, tailnet=tailnet, refresh=error.retry_after + REFRESH)
        code = request.path_params["code"]
        found = await self._found(code)
        visitor = await self._askings.sessions.visitor(request)
        snapshot = registry.snapshot  # again: an approval while the store was asked is in this one
        seen = _Seen(code, visitor, self._askings.doors, self._askings.doors.of(request) is not None)
        again = 0
        if found is not None and found.node_id is not None:
            node = snapshot.nodes.get(found.node_id)
            if node is not None:
                return _let_in(snapshot, tailnet, node, seen)
            # Deleted since; or so new that the store knows it a moment before the snapshot does.
            again = REFRESH
        elif found is not None and found.denied is not None:
            return pages.refusal(
                DeniedDevice("this device was denied"),
                tailnet=tailnet,
                door=Door.BARRED,
                label="denied",
                why="Somebody who may decide said no, and the link is spent.",
                steps=(
                    "If that was a mistake, run `tailscale up` again on the device, and have the new link approved.",
                ),
            )
        elif found is not None and found.expires > (now := registry.writer.now()):
            still = request.query_params.get("refresh") == "no"
            return _waits(snapshot, tailnet, found, seen, now, still=still)
        lifetime = pages.duration(snapshot.settings.registration_lifetime.total_seconds())
        return pages.refusal(
            _spent(),
            tailnet=tailnet,
            refresh=again,
            label="ended",
            why=f"A link lives for {lifetime}, and ends sooner when its device asks again.",
            steps=(
                "Run `tailscale up` again on the device. It shows a new link.",
                "Have that one approved in time.",
            ),
        )

    async def _answer(self, request: Request) -> Response:
        form = await self._askings.form(request)
        code = request.path_params["code"]
        found = await self._found(code)
        if found is None:
            raise _spent()
        wish = form.get("decision")
        if wish not in {"approve", "deny"}:
            raise BadInput("the form says neither yes nor no", cure="Load the page again.")
        visitor = await self._askings.sessions.visitor(request)
        known = visitor.signed_in
        if known is not None and known.is_fresh(self._registry.writer.now()):
            return await self._decide(code, known.user, approve=wish == "approve")
        yes, name = wish == "approve", found.hostinfo.Hostname or "this device"
        question = Question(
            f"{'Let' if yes else 'Turn'} {name} {'in' if yes else 'away'}",
            "Show who you are. The device becomes yours." if yes else "Show who you are.",
        )
        argument = {"code": code, "approve": yes}
        return await self._askings.begin(request, ACT, argument, question, user=visitor.user)

    async def _decided(self, request: Request, proven: Proven, argument: Any) -> Response:
        del request
        return await self._decide(str(argument["code"]), proven.user, approve=bool(argument["approve"]))

    async def _decide(self, code: str, user: User, *, approve: bool) -> Response:
        found = await self._found(code)
        if found is None:
            raise _spent()
        actor = f"user:{user.name}"
        if found.node_id is not None:
            # It is in already, as somebody's; where the administrator's word is still missing, this may be it.
            Principal(actor, user.role).require(Permission.NODES)
            if approve:
                await self._registry.access.approve_node(actor, found.node_id)
            else:
                await self._registry.access.suspend_node(actor, found.node_id, suspended=True)
        elif approve:
            may = Permission.NODES in ALLOWED[user.role]
            await self._registry.approve(actor, code, user=user.name, by_administrator=may)
        else:
            await self._registry.deny(actor, code)
        return go_on(f"/join/{code}")


class _Seen(NamedTuple):
    """Who looks at which link, and where."""

    code: str
    visitor: Visitor
    doors: Doors
    here: bool  # at a door, where something can be decided

    @property
    def user(self) -> User | None:
        return self.visitor.user


def _spent() -> SpentLink:
    return SpentLink("this link is spent", cure="Run `tailscale up` again on the device: it shows a new one.")


def _let_in(snapshot: Snapshot, tailnet: str, node: Node, seen: _Seen) -> Response:
    owner, user = snapshot.owner(node), seen.user
    waits = not node.approved
    return pages.page(
        "join.html",
        tailnet=tailnet,
        door=Door.AJAR if waits else Door.OPEN,
        label="waits for an administrator" if waits else "let in",
        before=pages.device_side(node.name, node.observed.hostinfo.OS, "outside" if waits else "inside"),
        behind=pages.tailnet_side(tailnet),
        node=node,
        fqdn=snapshot.fqdn(node),
        owner=f"{owner.name}'s" if owner is not None else " ".join(node.tags) or "doorward's own",
        user=user,
        arch="" if user is None else pages.arch(user.name, user.id),
        asks=waits and seen.here and user is not None and Permission.NODES in ALLOWED[user.role],
    )


def _waits(
    snapshot: Snapshot, tailnet: str, found: Registration, seen: _Seen, now: datetime, *, still: bool
) -> Response:
    host, user = found.hostinfo, seen.user
    digits = found.node_key.raw.hex()
    tags = host.RequestTags or []
    # Named to people of the tailnet only: a stranger with the link learns what the device said, and nothing of us.
    others = {
        owner.name: node.name
        for node in (() if user is None else snapshot.nodes_of_machine(found.machine_key))
        if (owner := snapshot.owner(node)) is not None and user is not None and owner.id != user.id
    }
    return pages.page(
        "join.html",
        tailnet=tailnet,
        door=Door.AJAR,
        label="waits for approval",
        # Nobody's page changes under their hands: only one that has nothing to press looks again by itself.
        refresh=0 if seen.here or still else REFRESH,
        before=pages.device_side(host.Hostname or "a device", host.OS, "outside"),
        behind=pages.tailnet_side(tailnet),
        node=None,
        host=host,
        system=_system(host),
        version=host.IPNVersion.partition("-")[0],  # what follows names the build
        key=[digits[start : start + 4] for start in range(0, len(digits), 4)],
        short_key=found.node_key.short(),
        tags=tags[:_TAGS_SHOWN],
        more_tags=max(0, len(tags) - _TAGS_SHOWN),
        asked=pages.ago(found.created, now),
        created=found.created,
        left=pages.duration((found.expires - now).total_seconds()),
        expires=found.expires,
        came_from="" if found.came_from is None else str(found.came_from),
        others=sorted(others.items()),
        link=f"{snapshot.settings.url}/join/{seen.code}",
        path=f"/join/{seen.code}",
        here=seen.here,
        user=user,
        arch="" if user is None else pages.arch(user.name, user.id),
        doors=[place.base for place in (seen.doors.main, seen.doors.local) if place is not None],
        name_needed=len(snapshot.users) != 1,  # with one person only, the command knows whose it is
    )


def _system(host: Hostinfo) -> str:
    """The operating system as the device gave it: ``Linux, debian 13``, ``Android 16``."""
    name = pages.system_name(host.OS)
    if host.Distro:
        return f"{name}, {host.Distro} {host.DistroVersion}".strip()
    return f"{name} {host.OSVersion}".strip()
