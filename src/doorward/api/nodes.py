"""Nodes, and the registrations that wait to become nodes."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_network

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.users import find_user
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound, Unavailable
from doorward.model import Attribute, Node, Prefix, Registration, Tab
from doorward.policy.posture import SHOWN
from doorward.policy.roster import node_attributes
from doorward.tailnet.snapshot import Snapshot, advertised


def _routes(snapshot: Snapshot, node: Node) -> tuple[types.Route, ...]:
    offered, approved = advertised(node), frozenset(node.approved_routes)
    ordered: Iterable[Prefix] = sorted(
        offered | approved,
        key=lambda prefix: (prefix.version, prefix.network_address.packed, prefix.prefixlen),
    )
    return tuple(
        types.Route(
            prefix=str(prefix),
            advertised=prefix in offered,
            approved=prefix in approved,
            primary=snapshot.primary.get(prefix) == node.id,
        )
        for prefix in ordered
    )


def _relay(snapshot: Snapshot, region_id: int) -> str:
    if not region_id:
        return ""
    region = (snapshot.settings.derp_map.Regions or {}).get(region_id)
    return f"{region_id} {region.RegionName}" if region is not None else str(region_id)


def _answer(snapshot: Snapshot, node: Node, now: datetime) -> types.Node:
    seen = node.observed
    return types.Node(
        id=node.id,
        stable_id=node.stable_id,
        name=node.name,
        fqdn=snapshot.fqdn(node),
        user=snapshot.owner_name(node),
        tags=node.tags,
        addresses=(str(node.ipv4), str(node.ipv6)),
        online=seen.online,
        last_seen=None if seen.online else seen.last_seen,
        routes=_routes(snapshot, node),
        expiry=node.key_expiry,
        expired=node.expired(now),
        ephemeral=node.ephemeral,
        created=node.created,
        hostname=seen.hostinfo.Hostname,
        os=seen.hostinfo.OS,
        client_version=seen.hostinfo.IPNVersion,
        cap_version=seen.cap_version,
        endpoints=seen.endpoints,
        came_from="" if seen.came_from is None else str(seen.came_from),
        relay=_relay(snapshot, seen.home_derp),
        ssh=bool(seen.hostinfo.sshHostKeys),
        ssh_host_keys=tuple(seen.hostinfo.sshHostKeys or ()),
        system=node.system,
        suspended=node.suspended,
        approved=node.approved,
        tab=node.tab is not None,
        tab_for=() if node.tab is None else tuple(_entries(snapshot, node.tab)),
    )


def _entries(snapshot: Snapshot, tab: Tab) -> Iterable[types.TabEntry]:
    for target in tab.targets:
        if (machine := snapshot.nodes.get(target.node_id)) is not None:
            yield types.TabEntry(machine=machine.name, account=target.account)


def _changed(call: Call, node: Node) -> types.Node:
    return _answer(call.snapshot, node, call.context.clock.now())


def find_node(call: Call, text: str) -> Node:
    """The node that a person means, if they may change it at all: doorward's own node is nobody's to change."""
    node = call.snapshot.find_node(text)
    if node.system:
        raise Conflict(f"{node.name} is doorward's own node, which doorward itself looks after")
    return node


def find_device(call: Call, text: str) -> Node:
    """The same, and no browser's tab, of which there is nothing to change: it is what its page asked for, until it goes."""
    node = find_node(call, text)
    if node.tab is not None:
        raise Conflict(
            f"{node.name} is a browser's tab",
            cure="It can be deleted: `doorward nodes delete NODE`. Its person can open another.",
        )
    return node


def _prefixes(texts: Iterable[str], place: str) -> list[Prefix]:
    """Prefixes as people write them: an address is a route to itself."""
    found: list[Prefix] = []
    for index, text in enumerate(texts):
        try:
            found.append(ip_network(text.strip()))
        except ValueError:
            raise BadInput(
                f"{text!r} is not a prefix",
                cure="Write it as 192.0.2.0/24 or 2001:db8::/32, with no bits set after the prefix.",
                place=f"$.{place}[{index}]",
            ) from None
    return found


@operation("GET", "/nodes", needs=Permission.READ)
async def list_nodes(call: Call, query: types.NodeFilter) -> list[types.Node]:
    """List the nodes, by name."""
    snapshot, now = call.snapshot, call.context.clock.now()
    nodes = sorted(snapshot.nodes.values(), key=lambda node: node.name)
    return [_answer(snapshot, node, now) for node in nodes if query.all or not node.system]


@operation("GET", "/nodes/{node}", needs=Permission.READ, raises=[NotFound])
async def get_node(call: Call, node: str) -> types.Node:
    """Show a node, found by its name, full name, address, stable id or number."""
    return _changed(call, call.snapshot.find_node(node))


@operation("PATCH", "/nodes/{node}", needs=Permission.NODES, raises=[BadInput, NotFound, Conflict])
async def change_node(call: Call, node: str, body: types.NodeChange) -> types.Node:
    """Rename a node, or give it other tags."""
    found = find_device(call, node)
    if body.name is None and body.tags is None:
        raise BadInput("nothing is to be changed", cure="Send a name, or tags, or both.")
    if body.tags is not None:
        found = await call.registry.set_tags(call.actor, found.id, body.tags)
    if body.name is not None:
        found = await call.registry.rename_node(call.actor, found.id, body.name)
    return _changed(call, found)


@operation("DELETE", "/nodes/{node}", needs=Permission.NODES, status=204, raises=[NotFound])
async def delete_node(call: Call, node: str) -> None:
    """Delete a node. Its client is signed out; it may register again."""
    await call.registry.delete_node(call.actor, find_node(call, node).id)


@operation("POST", "/nodes/{node}/expire", needs=Permission.NODES, raises=[NotFound])
async def expire_node(call: Call, node: str) -> types.Node:
    """Expire a node's key now: it is cut off until somebody signs in on it again."""
    return _changed(call, await call.registry.expire_node(call.actor, find_node(call, node).id))


@operation("POST", "/nodes/{node}/suspend", needs=Permission.CUT, raises=[NotFound, Conflict])
async def suspend_node(call: Call, node: str) -> types.Node:
    """Shut a node out at once, with all that is open from and to it, until it is restored. Nothing is deleted."""
    found = call.registry.access.suspend_node(call.actor, find_node(call, node).id, suspended=True)
    return _changed(call, await found)


@operation("POST", "/nodes/{node}/restore", needs=Permission.CUT, raises=[NotFound, Conflict])
async def restore_node(call: Call, node: str) -> types.Node:
    """Let a suspended node in again."""
    found = call.registry.access.suspend_node(call.actor, find_device(call, node).id, suspended=False)
    return _changed(call, await found)


@operation("POST", "/nodes/{node}/approve", needs=Permission.APPROVE, raises=[NotFound, Conflict])
async def approve_node(call: Call, node: str) -> types.Node:
    """Let a node in that waits for an administrator."""
    return _changed(call, await call.registry.access.approve_node(call.actor, find_device(call, node).id))


@operation("POST", "/nodes/{node}/routes", needs=Permission.NODES, raises=[BadInput, NotFound])
async def change_routes(call: Call, node: str, body: types.RouteChange) -> types.Node:
    """Approve or reject routes of a node."""
    found = find_device(call, node)
    approve, reject = _prefixes(body.approve, "approve"), _prefixes(body.reject, "reject")
    for prefix in approve:
        if prefix in reject:
            raise BadInput(f"{prefix} is to be approved and rejected at once")
    changed = await call.registry.set_routes(
        call.actor,
        found.id,
        approve=[str(prefix) for prefix in approve],
        reject=[str(prefix) for prefix in reject],
    )
    return _changed(call, changed)


def _attributes(call: Call, node: Node) -> types.NodeAttributes:
    snapshot = call.snapshot
    current = snapshot.nodes.get(node.id, node)
    custom = {one.key.lower(): one for one in current.attributes}
    known = node_attributes(current, snapshot.settings.country_of)
    return types.NodeAttributes(
        node=current.name,
        attributes=tuple(
            types.NodeAttribute(
                key=custom[key].key if key in custom else SHOWN.get(key, key),
                value=known[key],
                custom=key in custom,
                expires=custom[key].expires if key in custom else None,
            )
            for key in sorted(known)
        ),
        postures=tuple(
            types.PostureVerdict(name=name, met=posture.met_by(known), failing=posture.failing(known))
            for name, posture in snapshot.document.postures.items()
        ),
    )


@operation("GET", "/nodes/{node}/attributes", needs=Permission.READ, raises=[NotFound])
async def get_attributes(call: Call, node: str) -> types.NodeAttributes:
    """Show what postures judge a node by, and which of them it meets."""
    return _attributes(call, call.snapshot.find_node(node))


@operation(
    "PUT", "/nodes/{node}/attributes/{key}", needs=Permission.NODES, raises=[BadInput, NotFound, Conflict]
)
async def set_attribute(call: Call, node: str, key: str, body: types.AttributeChange) -> types.NodeAttributes:
    """Say something about a node. Rules with a posture that looks at it follow at once."""
    ends = None if body.expires_in is None else call.context.clock.now() + timedelta(seconds=body.expires_in)
    said = Attribute(key=key, value=body.value, expires=ends)
    changed = await call.registry.set_attributes(
        call.actor, find_device(call, node).id, [said], comment=body.comment
    )
    return _attributes(call, changed)


@operation("DELETE", "/nodes/{node}/attributes/{key}", needs=Permission.NODES, raises=[BadInput, NotFound])
async def delete_attribute(call: Call, node: str, key: str) -> types.NodeAttributes:
    """Take back what was said about a node."""
    return _attributes(
        call, await call.registry.set_attributes(call.actor, find_device(call, node).id, gone=[key])
    )


@operation("POST", "/nodes/{node}/ping", needs=Permission.NODES, raises=[BadInput, NotFound, Unavailable])
async def ping_node(call: Call, node: str, body: types.Ping) -> types.Pong:
    """Ask a node whether it is there, or have another node ping it. Takes up to 15 seconds."""
    target = call.snapshot.find_node(node)
    source = None if body.source is None else call.snapshot.find_node(body.source)
    if source is not None and source.id == target.id:
        raise BadInput(f"{target.name} cannot ping itself", cure="Name two nodes, or one.")
    return await call.context.ping(target, source)


def _waiting(snapshot: Snapshot, registration: Registration) -> types.Registration:
    return types.Registration(
        id=registration.id,
        hostname=registration.hostinfo.Hostname,
        os=registration.hostinfo.OS,
        client_version=registration.hostinfo.IPNVersion,
        node_key=registration.node_key.short(),
        ephemeral=registration.ephemeral,
        created=registration.created,
        expires=registration.expires,
        came_from="" if registration.came_from is None else str(registration.came_from),
        known_as=tuple(
            types.KnownAs(node=node.name, user=snapshot.owner_name(node))
            for node in snapshot.nodes_of_machine(registration.machine_key)
        ),
    )


@operation("GET", "/registrations", needs=Permission.READ)
async def list_registrations(call: Call) -> list[types.Registration]:
    """List the nodes that wait for approval, oldest first."""
    return [_waiting(call.snapshot, each) for each in await call.registry.list_registrations()]


@operation("POST", "/registrations/approve", needs=Permission.APPROVE, raises=[BadInput, NotFound])
async def approve_registration(call: Call, body: types.Approval) -> types.Node:
    """Let a waiting node in, as a node of a person."""
    user = body.user
    people = list(call.snapshot.users.values())
    if user is not None:
        call.principal.require_rank(find_user(call.snapshot, user).role)
    elif len(people) == 1:
        # The registry takes the only person there is; whoever asks must be allowed to speak for that one too.
        user = people[0].name
        call.principal.require_rank(people[0].role)
    node = await call.registry.approve(call.actor, body.link, user=user, by_administrator=True)
    return _changed(call, node)


@operation("POST", "/registrations/deny", needs=Permission.APPROVE, raises=[NotFound, Conflict])
async def deny_registration(call: Call, body: types.Denial) -> types.Registration:
    """Refuse a waiting node: its link is spent, and its client says so."""
    return _waiting(call.snapshot, await call.registry.deny(call.actor, body.link))


OPERATIONS = (
    list_nodes,
    get_node,
    change_node,
    delete_node,
    expire_node,
    suspend_node,
    restore_node,
    approve_node,
    change_routes,
    get_attributes,
    set_attribute,
    delete_attribute,
    ping_node,
    list_registrations,
    approve_registration,
    deny_registration,
)
