"""``doorward nodes``."""

import re
from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.nodes_access import (
    change_approval,
    change_key_lifetime,
    cut_nodes,
    list_cuts,
    restore_node,
    suspend_node,
    uncut_nodes,
)
from doorward.cli.nodes_hostkeys import change_host_keys
from doorward.cli.times import exact, parse_duration, relative
from doorward.errors import BadInput

_WHOLE = re.compile("-?[0-9]{1,19}")
# What `approve` takes for a link: an address with a path, the code at its end, or a number. No node is called like that.
_LINK = re.compile(r"/|^[a-z2-7]{32}$|^[0-9]+$")

app = App(
    name="nodes",
    help="""Nodes: list, show, approve, suspend, cut, rename, tag, route, attributes, host keys, ping, expire, delete.

    NODE is a node's name, its full DNS name, one of its addresses, its stable id or its number.
    """,
)

app.command(suspend_node, name="suspend")
app.command(restore_node, name="restore")
app.command(cut_nodes, name="cut")
app.command(list_cuts, name="cuts")
app.command(uncut_nodes, name="uncut")
app.command(change_approval, name="approval")
app.command(change_key_lifetime, name="key-lifetime")
app.command(change_host_keys, name="host-keys")


@app.command(name="list")
def list_nodes(*, all: Flag = False, json: Flag = False, target: Target | None = None) -> None:  # noqa: A002 - the option is --all
    """List the nodes, and below them those that wait for approval.

    Example: `doorward nodes list --json`

    Args:
        all: List doorward's own node, too.
        json: Print a list of objects instead of tables: id, name, user, tags, addresses, online, last_seen, routes,
            expiry and more. Nodes that wait are not in it: see `doorward nodes waiting`.
        target: Which server.
    """
    target = target or Target()
    found = target.call("GET", "/nodes", list[types.Node], query={"all": all or None})
    if json:
        output.as_json(found)
        return
    output.table(
        ("ID", "NAME", "OWNER", "ADDRESS", "STATE", "EXPIRES", "VERSION"),
        (
            (
                str(node.id),
                node.name,
                " ".join(node.tags) or node.user,
                node.addresses[0],
                _state(node),
                relative(node.expiry),
                _version(node.client_version),
            )
            for node in found
        ),
        empty="There are no nodes yet. `doorward keys create --user NAME` makes a key for the first.",
    )
    waiting = target.call("GET", "/registrations", list[types.Registration])
    if waiting:
        output.line()
        output.line("Waiting for approval:")
        _show_waiting(waiting)


def _show_waiting(waiting: list[types.Registration]) -> None:
    output.table(
        ("ID", "HOSTNAME", "SYSTEM", "NODE KEY", "FROM", "SINCE", "APPROVE WITH"),
        (
            (
                str(each.id),
                each.hostname,
                each.os,
                each.node_key,
                each.came_from or "-",
                relative(each.created),
                f"doorward nodes approve {each.id}",
            )
            for each in waiting
        ),
        empty="No node waits for approval.",
    )
    for each in waiting:
        for one in each.known_as:
            output.line(f"{each.id} is the machine that {one.node} of {one.user} is.")


def _state(node: types.Node) -> str:
    if node.suspended:
        return "suspended"
    if not node.approved:
        return "waits for approval"
    if node.expired:
        return "expired"
    if node.tab:
        first = "".join(f" on {entry}" for entry in _entries(node)[:1])
        more = f" and {len(node.tab_for) - 1} more" if len(node.tab_for) > 1 else ""
        return f"browser's tab{first}{more}{'' if node.online else ', away'}"
    if node.online:
        return "online"
    return "never seen" if node.last_seen is None else f"offline, seen {relative(node.last_seen)}"


def _entries(node: types.Node) -> tuple[str, ...]:
    """What a browser's tab is open for."""
    return tuple(f"{each.machine} as {each.account}" for each in node.tab_for)


def _version(text: str) -> str:
    """The number alone: what follows names the build."""
    return text.partition("-")[0]


@app.command(name="waiting")
def list_waiting(*, json: Flag = False, target: Target | None = None) -> None:
    """List the nodes that wait for approval.

    Example: `doorward nodes waiting --json`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/registrations", list[types.Registration])
    if json:
        output.as_json(found)
    else:
        _show_waiting(found)


@app.command(name="show")
def show_node(node: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Show all that is known about a node.

    Example: `doorward nodes show laptop`

    Args:
        node: Name, address or id.
        json: Print an object.
        target: Which server.
    """
    found = (target or Target()).call("GET", api_path("nodes", node), types.Node)
    if json:
        output.as_json(found)
        return
    output.fields(
        {
            "Name": found.fqdn,
            "Id": f"{found.id} ({found.stable_id})",
            "Owner": " ".join(found.tags) or found.user,
            "Addresses": found.addresses,
            "State": _state(found),
            **({"Open for": _entries(found)} if found.tab_for else {}),
            "Last seen": "now" if found.online else exact(found.last_seen),
            "Key expiry": exact(found.expiry),
            "Routes": tuple(map(_route, found.routes)) or "-",
            "Hostname": found.hostname,
            "System": found.os or "-",
            "Client": f"{found.client_version or 'unknown'} (capability version {found.cap_version})",
            "SSH": "on" if found.ssh else "off",
            "Relay": found.relay or "-",
            "Endpoints": found.endpoints or "-",
            "Comes from": found.came_from or "-",
            "Ephemeral": "yes" if found.ephemeral else "no",
            "Created": exact(found.created),
        }
    )


def _route(route: types.Route) -> str:
    if not route.advertised:
        return f"{route.prefix} (approved, not advertised)"
    if not route.approved:
        return f"{route.prefix} (advertised, not approved)"
    return f"{route.prefix} ({'in use' if route.primary else 'approved'})"


def is_link(text: str) -> bool:
    """True for what `doorward nodes approve` takes for a link or its number, and not for a node's name or address."""
    return _LINK.search(text) is not None


@app.command(name="approve")
def approve_node(
    link: Annotated[str, Parameter(name="LINK-OR-ID")],
    /,
    *,
    user: str | None = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Let a waiting node in: by its link, as a node of a person, or by its name, where it waits for an administrator.

    Approve only a link that you, or a person you talk to, got from `tailscale up` just now: whoever sent it gets in.

    Example: `doorward nodes approve 2 --user ann`

    Example: `doorward nodes approve laptop`

    Args:
        link: The link that the client shows, the code at its end, or the number in `doorward nodes waiting`; or the name or
            address of a node that a person has let in already.
        user: Whose node it becomes; may be left out while there is only one person.
        json: Print the node as JSON.
        target: Which server.
    """
    server = target or Target()
    if is_link(link):
        body = types.Approval(link=link, user=user)
        node = server.call("POST", "/registrations/approve", types.Node, body=body)
    else:
        if user is not None:
            raise BadInput(f"{link} is no link: whose it is, is known", cure="Leave out --user.")
        node = server.call("POST", api_path("nodes", link, "approve"), types.Node)
    if json:
        output.as_json(node)
    else:
        output.line(f"Approved {node.name} ({node.addresses[0]}) as a node of {node.user}.")


@app.command(name="deny")
def deny_node(link: Annotated[str, Parameter(name="LINK-OR-ID")], /, *, target: Target | None = None) -> None:
    """Refuse a waiting node. Its link is spent, and `tailscale up` on it says that it was denied.

    Example: `doorward nodes deny 2`

    Args:
        link: The link that the client shows, the code at its end, or the number in `doorward nodes waiting`.
        target: Which server.
    """
    body = types.Denial(link=link)
    found = (target or Target()).call("POST", "/registrations/deny", types.Registration, body=body)
    output.line(f"Denied {found.hostname or 'a device'} ({found.node_key}).")


@app.command(name="rename")
def rename_node(node: str, name: str, /, *, target: Target | None = None) -> None:
    """Give a node another name. It keeps it, whatever its host calls itself later.

    Example: `doorward nodes rename laptop ann-laptop`

    Args:
        node: Name, address or id.
        name: The new name: the first label of its DNS name.
        target: Which server.
    """
    body = types.NodeChange(name=name)
    found = (target or Target()).call("PATCH", api_path("nodes", node), types.Node, body=body)
    output.line(f"The node is {found.fqdn} now.")


@app.command(name="expire")
def expire_node(node: str, /, *, yes: Flag = False, target: Target | None = None) -> int:
    """Expire a node's key now: it is cut off until somebody signs in on it again.

    Asks first on a terminal; elsewhere --yes is needed.

    Example: `doorward nodes expire laptop --yes`

    Args:
        node: Name, address or id.
        yes: Do not ask.
        target: Which server.
    """
    if not output.confirm(f"Cut {node} off until somebody signs in on it again?", yes=yes):
        output.note("Nothing was changed.")
        return 1
    found = (target or Target()).call("POST", api_path("nodes", node, "expire"), types.Node)
    output.line(f"{found.name} is cut off. `tailscale up --force-reauth` on it signs in again.")
    return 0


@app.command(name="delete")
def delete_node(node: str, /, *, yes: Flag = False, target: Target | None = None) -> int:
    """Delete a node. Its client is signed out; it may join again, as a new node.

    Asks first on a terminal; elsewhere --yes is needed.

    Example: `doorward nodes delete laptop --yes`

    Args:
        node: Name, address or id.
        yes: Do not ask.
        target: Which server.
    """
    if not output.confirm(f"Delete the node {node}?", yes=yes):
        output.note("Nothing was deleted.")
        return 1
    (target or Target()).call("DELETE", api_path("nodes", node), type(None))
    output.line(f"Deleted {node}.")
    return 0


@app.command(name="tags")
def tag_node(
    node: str, /, *tags: str, clear: Flag = False, json: Flag = False, target: Target | None = None
) -> None:
    """Show a node's tags, or give it others: those named replace all it has.

    A tagged node belongs to nobody and its key does not expire. The policy must know the tags.

    Example: `doorward nodes tags server tag:web tag:prod`

    Args:
        node: Name, address or id.
        tags: The tags it is to have.
        clear: Take all its tags away, which gives it back to the person who brought it in.
        json: Print the node as JSON.
        target: Which server.
    """
    target, path = target or Target(), api_path("nodes", node)
    if tags or clear:
        body = types.NodeChange(tags=() if clear else tags)
        found = target.call("PATCH", path, types.Node, body=body)
    else:
        found = target.call("GET", path, types.Node)
    if json:
        output.as_json(found)
    elif found.tags:
        output.line(f"{found.name}: {' '.join(found.tags)}")
    else:
        output.line(f"{found.name} has no tags and belongs to {found.user}.")


def _said_by(attribute: types.NodeAttribute) -> str:
    if attribute.custom:
        return "an administrator"
    return "doorward" if attribute.key.startswith("ip:") else "the node"


@app.command(name="attributes")
def show_attributes(
    node: str,
    /,
    *said: Annotated[str, Parameter(name="KEY=VALUE")],
    remove: Annotated[tuple[str, ...], Parameter(name="--remove", negative=())] = (),
    expires: str | None = None,
    comment: str = "",
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Show what postures judge a node by and which it meets, or say things about it.

    Rules of the policy that ask for a posture follow within a second, also when an attribute ends.

    Example: `doorward nodes attributes laptop`

    Example: `doorward nodes attributes laptop custom:oncall=true --expires 8h`

    Args:
        node: Name, address or id.
        said: What to say: `custom:` and a name, then true, false, a whole number or a short text.
        remove: Take back what was said; may be given several times.
        expires: How long it counts: 30m, 12h, 90d. Left out, until it is taken back.
        comment: Why, for the audit log.
        json: Print an object: node, attributes, postures.
        target: Which server.
    """
    server = target or Target()
    path = api_path("nodes", node, "attributes")
    for key in remove:
        server.call("DELETE", api_path("nodes", node, "attributes", key), types.NodeAttributes)
    ends = None if expires is None else parse_duration(expires)
    for each in said:
        key, equals, value = each.partition("=")
        if not equals:
            raise BadInput(f"{each!r} gives no value", cure="Write it like custom:tier=prod.")
        body = types.AttributeChange(value=_value(value), expires_in=ends, comment=comment)
        server.call("PUT", api_path("nodes", node, "attributes", key), types.NodeAttributes, body=body)
    found = server.call("GET", path, types.NodeAttributes)
    if json:
        output.as_json(found)
        return
    output.table(
        ("ATTRIBUTE", "VALUE", "SAID BY", "ENDS"),
        (
            (
                one.key,
                str(one.value).lower() if isinstance(one.value, bool) else str(one.value),
                _said_by(one),
                relative(one.expires) if one.expires else "",
            )
            for one in found.attributes
        ),
        empty=f"Nothing is known about {found.node}.",
    )
    for posture in found.postures:
        missing = "" if posture.met else f": {', '.join(posture.failing)} does not hold"
        output.line(f"{posture.name} {'is met' if posture.met else 'is not met'}{missing}")


def _value(text: str) -> str | int | bool:
    """What a person means: true and false are no texts, nor are whole numbers."""
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if _WHOLE.fullmatch(text) else text


@app.command(name="routes")
def route_node(
    node: str,
    /,
    *,
    approve: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    reject: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Show the routes of a node, or approve and reject some.

    A node routes what it advertises (`tailscale set --advertise-routes`, `--advertise-exit-node`) and an administrator,
    or the policy's autoApprovers, approved. An exit node is approved as 0.0.0.0/0, which stands for ::/0 as well.

    Example: `doorward nodes routes router --approve 10.0.0.0/24`

    Args:
        node: Name, address or id.
        approve: Prefixes it may route.
        reject: Prefixes it may route no longer.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    target = target or Target()
    if approve or reject:
        body = types.RouteChange(approve=approve, reject=reject)
        found = target.call("POST", api_path("nodes", node, "routes"), types.Node, body=body)
    else:
        found = target.call("GET", api_path("nodes", node), types.Node)
    if json:
        output.as_json(found.routes)
        return
    output.table(
        ("PREFIX", "ADVERTISED", "APPROVED", "IN USE"),
        (
            (
                each.prefix,
                *("yes" if fact else "no" for fact in (each.advertised, each.approved, each.primary)),
            )
            for each in found.routes
        ),
        empty=f"{found.name} has no routes.",
    )


@app.command(name="ping")
def ping_node(
    node: str,
    /,
    *,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Ask a node whether it is there, or have another node ping it through the tailnet.

    Example: `doorward nodes ping server --from laptop`

    Exit codes: 0 it answered, 1 it did not.

    Args:
        node: Name, address or id.
        source: The node that is to ping it. Without one, doorward asks the node itself.
        json: Print an object: node, source, seconds, endpoint, relay.
        target: Which server.
    """
    body = types.Ping(source=source)
    found = (target or Target()).call("POST", api_path("nodes", node, "ping"), types.Pong, body=body)
    if json:
        output.as_json(found)
        return
    took = f"in {found.seconds * 1000:.0f} ms"
    if not found.source:
        output.line(f"{found.node} answered {took}.")
        return
    path = f"directly at {found.endpoint}" if found.endpoint else f"through the relay {found.relay}"
    output.line(f"{found.source} reaches {found.node} {path}, {took}.")
