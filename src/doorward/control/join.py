"""``GET /join/CODE``: what is behind the link that a client shows: which device waits, and how it is let in.

The page needs no sign-in, because it opens on a device that is not in the tailnet yet. So it changes nothing: whoever has
the link learns what the device said of itself, and an administrator approves it on doorward's own machine.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import RateExceeded, RateLimit
from doorward.clock import Clock, SystemClock
from doorward.errors import NotFound, NotPermitted
from doorward.login import pages
from doorward.login.pages import Door
from doorward.model import Node, Registration
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet.registry import Registry
from doorward.tailnet.snapshot import Snapshot
from doorward.transport.sources import address_key

REFRESH = 5  # seconds between two looks of a waiting page
# A waiting page takes 0.2 tokens a second. The code cannot be guessed (160 random bits): this spares the database, and
# leaves room for a whole office behind one address.
_RATE, _BURST = 10.0, 60.0

_CODE = re.compile(r"[a-z2-7]{32}")  # tailnet.secrets.make_code; anything else was never a link of ours
_TAGS_SHOWN = 8

_clock = SystemClock()


class SpentLink(NotFound):
    """Nobody waits behind this link: it was never one, its time is over, or what it let in has been deleted."""

    problem = "spent-link"


class DeniedDevice(NotPermitted):
    """Somebody said no to the device behind this link."""

    problem = "denied-device"


def page(registry: Registry, clock: Clock = _clock) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint; ``clock`` is for its rate limit.

    It answers 200 while the device waits and once it is in, 404 for a spent link, 429 when asked too often.
    """
    limit = RateLimit(rate=_RATE, burst=_BURST, clock=clock)

    async def join(request: Request) -> Response:
        snapshot = registry.snapshot
        tailnet = snapshot.settings.display_name or snapshot.settings.domain
        try:
            limit.take(address_key(request.client))
        except RateExceeded as error:
            return pages.refusal(error, tailnet=tailnet, refresh=error.retry_after + REFRESH)
        code = request.path_params["code"]
        found = await registry.registration(code) if _CODE.fullmatch(code) else None
        snapshot = registry.snapshot  # again: an approval while the store was asked is in this one
        again = 0
        if found is not None and found.node_id is not None:
            node = snapshot.nodes.get(found.node_id)
            if node is not None:
                return _let_in(snapshot, tailnet, node)
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
            refresh = 0 if request.query_params.get("refresh") == "no" else REFRESH
            return _waits(snapshot, tailnet, found, code, now, refresh)
        lifetime = pages.duration(snapshot.settings.registration_lifetime.total_seconds())
        return pages.refusal(
            SpentLink("this link is spent"),
            tailnet=tailnet,
            refresh=again,
            label="ended",
            why=f"A link lives for {lifetime}, and ends sooner when its device asks again.",
            steps=(
                "Run `tailscale up` again on the device. It shows a new link.",
                "Have that one approved in time.",
            ),
        )

    return join


def _let_in(snapshot: Snapshot, tailnet: str, node: Node) -> Response:
    owner = snapshot.owner(node)
    return pages.page(
        "join.html",
        tailnet=tailnet,
        door=Door.OPEN if node.approved else Door.AJAR,
        label="let in" if node.approved else "waits for an administrator",
        before=pages.device_side(
            node.name, node.observed.hostinfo.OS, "inside" if node.approved else "outside"
        ),
        behind=pages.tailnet_side(tailnet),
        node=node,
        fqdn=snapshot.fqdn(node),
        owner=f"{owner.name}'s" if owner is not None else " ".join(node.tags) or "doorward's own",
    )


def _waits(
    snapshot: Snapshot, tailnet: str, found: Registration, code: str, now: datetime, refresh: int
) -> Response:
    host = found.hostinfo
    digits = found.node_key.raw.hex()
    tags = host.RequestTags or []
    return pages.page(
        "join.html",
        tailnet=tailnet,
        door=Door.AJAR,
        label="waits for approval",
        refresh=refresh,
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
        link=f"{snapshot.settings.url}/join/{code}",
        name_needed=len(snapshot.users) != 1,  # with one person only, the command knows whose it is
    )


def _system(host: Hostinfo) -> str:
    """The operating system as the device gave it: ``Linux, debian 13``, ``Android 16``."""
    name = pages.system_name(host.OS)
    if host.Distro:
        return f"{name}, {host.Distro} {host.DistroVersion}".strip()
    return f"{name} {host.OSVersion}".strip()
