"""``/check/LINK``: what is behind the link that a terminal shows: who wants to ssh where, and yes or no.

To look at it the link is enough: it has 160 random bits, and says names of devices and accounts. To say yes takes a proof that was
made for this very check: whoever sits at somebody's open laptop has their ssh, their browser and their session, and must not have
this. To say no takes being known: it lets nobody in.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import RateExceeded, RateLimit
from doorward.clock import Clock
from doorward.errors import BadInput, NotFound, NotPermitted
from doorward.login import pages
from doorward.login.asking import Askings, Proven, Question, as_page, go_on
from doorward.login.doors import asker
from doorward.login.pages import Door
from doorward.model import Check, CheckState, Node, User
from doorward.ssh.check import may_decide
from doorward.tailnet.snapshot import Snapshot

ACT = "check"  # what is asked for before a check is decided
REFRESH = 5  # seconds between two looks of a waiting page
_RATE, _BURST = 10.0, 60.0  # as for join links: a whole office behind one address


class SpentCheck(NotFound):
    """Nobody waits behind this link any more, or ever did."""

    problem = "spent-check"


class CheckPage:
    """The page, and what its two buttons do.

    Args:
        askings: who sits there; a yes is asked for every time.
        clock: for its rate limit.
    """

    def __init__(self, askings: Askings, clock: Clock) -> None:
        self._askings = askings
        self._registry = askings.registry
        self._limit = RateLimit(rate=_RATE, burst=_BURST, clock=clock)
        askings.acts[ACT] = self._decided

    def routes(self) -> list[Route]:
        """200 while it can be decided and once it is, 404 for a spent link, 429 when asked too often."""
        return [
            Route("/check/{link}", self._show, methods=["GET"]),
            Route("/check/{link}", as_page(self._registry, self._answer), methods=["POST"]),
        ]

    def _waiting(self, link: str) -> Check:
        """The check that waits behind a link. Raises SpentCheck."""
        found = self._registry.checks.by_link(link)
        if found is None or not found.is_waiting(self._registry.writer.now()):
            raise _spent()
        return found

    async def _answer(self, request: Request) -> Response:
        form = await self._askings.form(request)
        link = request.path_params["link"]
        check = self._waiting(link)
        wish = form.get("decision")
        if wish not in {"approve", "deny"}:
            raise BadInput("the form says neither yes nor no", cure="Load the page again.")
        visitor = await self._askings.sessions.visitor(request)
        user = visitor.user
        if user is not None and not may_decide(self._registry.snapshot, check, user):
            user = None
        if wish == "deny" and user is not None:
            await self._registry.checks.decide(f"user:{user.name}", check.id, approve=False)
            return go_on(f"/check/{link}")
        source, target = _nodes(self._registry.snapshot, check)
        if source is None or target is None:
            raise _spent()
        yes = wish == "approve"
        question = Question(
            f"{'Yes' if yes else 'No'}, {source.name} {'may' if yes else 'may not'} enter {target.name}",
            f"As {check.account}, code {check.code}. Show who you are.",
        )
        return await self._askings.begin(request, ACT, {"link": link, "approve": yes}, question, user=user)

    async def _decided(self, request: Request, proven: Proven, argument: Any) -> Response:
        del request
        check = self._waiting(str(argument["link"]))
        if not may_decide(self._registry.snapshot, check, proven.user):
            raise NotPermitted(
                f"{proven.user.name} may not decide this",
                cure=f"It is for {' or '.join(check.approvers) or 'the person at the device that asks'}.",
            )
        approve = bool(argument["approve"])
        await self._registry.checks.decide(f"user:{proven.user.name}", check.id, approve=approve)
        return go_on(f"/check/{check.link}")

    async def _show(self, request: Request) -> Response:
        registry = self._registry
        tailnet = registry.snapshot.settings.display_name or registry.snapshot.settings.domain
        try:
            self._limit.take(asker(request))
        except RateExceeded as error:
            return pages.refusal(error, tailnet=tailnet, refresh=error.retry_after + REFRESH)
        visitor = await self._askings.sessions.visitor(request)
        snapshot, now = registry.snapshot, registry.writer.now()
        found = registry.checks.by_link(request.path_params["link"])
        source, target = _nodes(snapshot, found)
        if found is None or source is None or target is None or now >= found.expires:
            return pages.refusal(
                _spent(),
                tailnet=tailnet,
                label="ended",
                why="An ssh waits for ten minutes to be approved.",
                steps=("Start the ssh again. Its terminal shows a new link.",),
            )
        waits = found.state is CheckState.WAITING
        owner = snapshot.owner(source)
        user = visitor.user
        here = self._askings.doors.of(request) is not None
        may = user is not None and may_decide(snapshot, found, user)
        # Nobody's page changes under their hands: only one that has nothing to press looks again by itself.
        asks = waits and here and (may or user is None)
        door = Door.AJAR if waits else Door.OPEN if found.state is CheckState.APPROVED else Door.BARRED
        return pages.page(
            "check.html",
            tailnet=tailnet,
            door=door,
            label="waits for approval" if waits else found.state.value,
            refresh=REFRESH if waits and not asks and request.query_params.get("refresh") != "no" else 0,
            before=pages.device_side(source.name, source.observed.hostinfo.OS, "asks")
            if owner is None
            else pages.person_side(owner.name, owner.id, f"on {source.name}"),
            behind=pages.device_side(target.name, target.observed.hostinfo.OS, f"as {found.account}"),
            check=found,
            waits=waits,
            asks=asks,
            here=here,
            may=may,
            user=user,
            arch="" if user is None else pages.arch(user.name, user.id),
            mine=_is_own(user, owner),
            approved=found.state is CheckState.APPROVED,
            source=source,
            target=target,
            owner=snapshot.owner_name(source) if owner is None else owner.name,
            approvers=found.approvers,
            quiet=pages.duration(found.period) if found.period else "",
            asked=pages.ago(found.created, now),
            left=pages.duration((found.expires - now).total_seconds()),
            door_address=self._askings.doors.main.base,
        )


def _is_own(user: User | None, owner: User | None) -> bool:
    return user is not None and owner is not None and user.id == owner.id


def _spent() -> SpentCheck:
    return SpentCheck("this link is spent", cure="Start the ssh again. Its terminal shows a new link.")


def _nodes(snapshot: Snapshot, check: Check | None) -> tuple[Node | None, Node | None]:
    if check is None:
        return None, None
    return snapshot.nodes.get(check.source_id), snapshot.nodes.get(check.target_id)
