"""``GET /check/LINK``: what is behind the link that a terminal shows: who wants to ssh where, and who can say yes.

The page decides nothing: an approval needs a fresh proof of who somebody is, and a link alone is none. Whoever has it reads
names of devices and accounts, and its 160 random bits cannot be guessed.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import RateExceeded, RateLimit
from doorward.clock import Clock
from doorward.errors import NotFound
from doorward.login import pages
from doorward.login.pages import Door
from doorward.model import Check, CheckState, Node
from doorward.tailnet.registry import Registry
from doorward.tailnet.snapshot import Snapshot
from doorward.transport.sources import address_key

REFRESH = 5  # seconds between two looks of a waiting page
_RATE, _BURST = 10.0, 60.0  # as for join links: a whole office behind one address


class SpentCheck(NotFound):
    """Nobody waits behind this link any more, or ever did."""

    problem = "spent-check"


def page(registry: Registry, clock: Clock) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint: 200 while it can be decided and once it is, 404 for a spent link, 429 when asked too often."""
    limit = RateLimit(rate=_RATE, burst=_BURST, clock=clock)

    async def check(request: Request) -> Response:
        snapshot, now = registry.snapshot, registry.writer.now()
        tailnet = snapshot.settings.display_name or snapshot.settings.domain
        try:
            limit.take(address_key(request.client))
        except RateExceeded as error:
            return pages.refusal(error, tailnet=tailnet, refresh=error.retry_after + REFRESH)
        found = registry.checks.by_link(request.path_params["link"])
        source, target = _nodes(snapshot, found)
        if found is None or source is None or target is None or now >= found.expires:
            return pages.refusal(
                SpentCheck("this link is spent"),
                tailnet=tailnet,
                label="ended",
                why="An ssh waits for ten minutes to be approved.",
                steps=("Start the ssh again. Its terminal shows a new link.",),
            )
        waits = found.state is CheckState.WAITING
        owner = snapshot.owner(source)
        door = Door.AJAR if waits else Door.OPEN if found.state is CheckState.APPROVED else Door.BARRED
        return pages.page(
            "check.html",
            tailnet=tailnet,
            door=door,
            label="waits for approval" if waits else found.state.value,
            refresh=REFRESH if waits and request.query_params.get("refresh") != "no" else 0,
            before=pages.device_side(source.name, source.observed.hostinfo.OS, "asks"),
            behind=pages.device_side(target.name, target.observed.hostinfo.OS, f"as {found.account}"),
            check=found,
            waits=waits,
            approved=found.state is CheckState.APPROVED,
            source=source,
            target=target,
            owner=snapshot.owner_name(source) if owner is None else owner.name,
            approvers=found.approvers,
            asked=pages.ago(found.created, now),
            left=pages.duration((found.expires - now).total_seconds()),
        )

    return check


def _nodes(snapshot: Snapshot, check: Check | None) -> tuple[Node | None, Node | None]:
    if check is None:
        return None, None
    return snapshot.nodes.get(check.source_id), snapshot.nodes.get(check.target_id)
