"""``GET /whoami``: who is asking, read off the tailnet connection that the request came by.

The identity listener finds out once per connection which node is at the other end, and keeps its stable id in
``scope["state"]["identity"]``. Whose node that is, and whether its key has ended or its owner is suspended, is read from
the snapshot at each request: a connection that was opened before a suspension is worth nothing after it. Headers are not
looked at: no header ever says who somebody is.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import json_answer, problem
from doorward.clock import Clock, SystemClock
from doorward.errors import NotPermitted
from doorward.login import pages
from doorward.login.pages import Door
from doorward.model import Node, Role
from doorward.protocol.tailcfg.filter import FilterRule
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot

_clock = SystemClock()


class NotInTailnet(NotPermitted):
    """The request did not come through the tailnet, or from no node that is known now."""

    problem = "not-in-tailnet"


class KeyEnded(NotPermitted):
    """The node's key has expired."""

    problem = "key-expired"


class Suspended(NotPermitted):
    """The node, or the person whose it is, may use nothing."""

    problem = "suspended"


class Waiting(NotPermitted):
    """An administrator has not let the node in yet."""

    problem = "waiting"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whose node it is."""

    login_name: str
    display_name: str
    role: Role


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """The node at the other end."""

    name: str
    fqdn: str  # without a dot at its end
    stable_id: str
    addresses: tuple[str, ...]  # IPv4 first
    tags: tuple[str, ...]
    os: str  # as the node gave it


class WhoAmI(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    user: Person | None  # null for a tagged node, which belongs to nobody
    node: Device
    capabilities: dict[str, list[Any]]  # what the policy lets the node do at doorward's own node, with values
    known_by: str = "tailnet-connection"  # how we know: nothing that the request itself says
    listener: str  # the listener that the connection came by


def who_am_i(snapshot: Snapshot, identity: str | None, listener: str, clock: Clock) -> WhoAmI:
    """Who is at the other end of a connection, as of now.

    Args:
        snapshot: the truth at this moment.
        identity: the stable id that the connection carries.
        listener: the name of the listener it came by.
        clock: for expiry.

    Raises:
        NotInTailnet: without identity, or for one that is no node's any more.
        KeyEnded: the node's key has expired.
        Suspended: it is suspended, or its owner is.
        Waiting: it waits for an administrator.
    """
    if identity is None:
        raise NotInTailnet(
            "this request did not come through the tailnet",
            cure=f"Open it from a device inside the tailnet: {_address(snapshot.settings)}",
        )
    node = snapshot.node_by_stable_id(identity)
    if node is None:
        raise NotInTailnet(
            "the device that asks is not in this tailnet any more",
            cure="Sign in again on that device: `tailscale up`.",
        )
    if snapshot.suspended(node):
        raise Suspended(snapshot.who_is_suspended(node), cure="Ask an administrator.")
    if not node.approved:
        raise Waiting(f"the device {node.name} waits for approval", cure="Ask an administrator.")
    if node.expired(clock.now()):
        raise KeyEnded(
            f"the key of {node.name} has expired", cure="Sign in again on that device: `tailscale up`."
        )
    owner = snapshot.owner(node)
    own = min(snapshot.system, default=None)
    return WhoAmI(
        user=None
        if owner is None
        else Person(login_name=owner.name, display_name=owner.display_name, role=owner.role),
        node=Device(
            name=node.name,
            fqdn=snapshot.fqdn(node),
            stable_id=node.stable_id,
            addresses=tuple(str(address) for address in node.addresses),
            tags=node.tags,
            os=node.observed.hostinfo.OS,
        ),
        capabilities={}
        if own is None
        else peer_capabilities(snapshot.policy.filter_rules(own), node, snapshot),
        listener=listener,
    )


def whoami_route(snapshot: Callable[[], Snapshot], clock: Clock = _clock) -> Route:
    """The route, for the identity listener. ``snapshot`` is called at each request.

    Answers JSON, or HTML to a browser. Status 403 where there is no identity, or one that may do nothing.
    """

    async def whoami(request: Request) -> Response:
        now = snapshot()
        state = request.scope.get("state") or {}
        html = pages.wants_html(request)
        try:
            found = who_am_i(now, state.get("identity"), str(state.get("listener", "")), clock)
        except NotPermitted as error:
            response = _refused(now, error) if html else problem(error)
        else:
            response = _page(now, found) if html else json_answer(found)
        response.headers["Vary"] = "Accept"
        return response

    return Route("/whoami", whoami, methods=["GET"])


def peer_capabilities(rules: Iterable[FilterRule], source: Node, snapshot: Snapshot) -> dict[str, list[Any]]:
    """What a destination's filter rules let ``source`` do there: capability to its values, those of all rules together.

    A capability without values has an empty list.
    """
    found: dict[str, list[Any]] = {}
    for rule in rules:
        if rule.CapGrant is UNSET or not any(_names(text, source, snapshot) for text in rule.SrcIPs):
            continue
        for grant in rule.CapGrant:
            for name, values in ({} if grant.CapMap is UNSET else grant.CapMap).items():
                found.setdefault(name, []).extend(values or ())
    return found


def _names(text: str, node: Node, snapshot: Snapshot) -> bool:
    """True if a rule's source (control.md section 16: address, prefix, range, ``*``, ``cap:NAME``) is this node."""
    if text == "*":
        return True
    if text.startswith("cap:"):
        return text[4:] in snapshot.policy.node_attributes(node.id)
    first, dash, last = text.partition("-")
    if dash:
        low, high = ip_address(first), ip_address(last)
        return any(_between(low, address, high) for address in node.addresses)
    network = ip_network(text)
    return any(address in network for address in node.addresses)


def _between(
    low: IPv4Address | IPv6Address, address: IPv4Address | IPv6Address, high: IPv4Address | IPv6Address
) -> bool:
    return low.version == address.version and int(low) <= int(address) <= int(high)


def _address(settings: Settings) -> str:
    """Where this page is, for people inside the tailnet."""
    port = 443 if 443 in settings.door_ports else next(iter(settings.door_ports), 443)
    host = settings.door_host or "DOOR"
    return f"https://{host}{'' if port == 443 else f':{port}'}/whoami"


def _tailnet(snapshot: Snapshot) -> str:
    return snapshot.settings.display_name or snapshot.settings.domain


_WHY: dict[type[NotPermitted], str] = {
    NotInTailnet: "Only a connection through the tailnet says who you are: no password, cookie or header does.",
    KeyEnded: "Devices of people have to sign in again from time to time.",
    Suspended: "Until that ends, nothing of the tailnet may be used from here.",
    Waiting: "New devices are looked at before they are let in.",
}


def _refused(snapshot: Snapshot, error: NotPermitted) -> Response:
    door = Door.BARRED if isinstance(error, Suspended) else Door.SHUT
    return pages.refusal(error, tailnet=_tailnet(snapshot), door=door, why=_WHY.get(type(error), ""))


def _page(snapshot: Snapshot, found: WhoAmI) -> Response:
    node, user = found.node, found.user
    owner = None if user is None else snapshot.user_by_name(user.login_name)
    before = (
        pages.device_side(node.name, node.os, "tagged" if node.tags else "doorward's own")
        if user is None or owner is None
        else pages.person_side(user.login_name, owner.id, f"on {node.name}")
    )
    return pages.page(
        "whoami.html",
        tailnet=_tailnet(snapshot),
        door=Door.OPEN,
        label="inside",
        before=before,
        behind=pages.tailnet_side(_tailnet(snapshot)),
        arch="" if user is None or owner is None else pages.arch(user.login_name, owner.id),
        user=user,
        node=node,
        system=pages.system_name(node.os),
        capabilities=sorted(found.capabilities),
    )
