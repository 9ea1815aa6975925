"""The commands of ``doorward nodes`` that end access at once, and say who gets in."""

from typing import Annotated, Literal

from cyclopts import Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.times import exact, parse_duration, relative


def suspend_node(node: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Shut a node out at once, and keep everything that is its own.

    What is open ends, forwards and multiplexed ssh included: within a second nothing passes from or to it, and nobody sees
    it. It keeps its name and addresses, and no other node joins from the same machine, until `doorward nodes restore`.

    Example: `doorward nodes suspend laptop`

    Args:
        node: Name, address or id.
        json: Print the node as JSON.
        target: Which server.
    """
    found = (target or Target()).call("POST", api_path("nodes", node, "suspend"), types.Node)
    if json:
        output.as_json(found)
    else:
        output.line(f"{found.name} is suspended: nothing passes from or to it, and what was open is cut.")


def restore_node(node: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Let a suspended node in again. It comes back by itself within a minute or so.

    Example: `doorward nodes restore laptop`

    Args:
        node: Name, address or id.
        json: Print the node as JSON.
        target: Which server.
    """
    found = (target or Target()).call("POST", api_path("nodes", node, "restore"), types.Node)
    if json:
        output.as_json(found)
    else:
        output.line(f"{found.name} is not suspended.")


def cut_nodes(
    node: str,
    other: str,
    /,
    *,
    for_: Annotated[str | None, Parameter(name="--for")] = None,
    comment: str = "",
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Keep two nodes apart at once, whatever the policy says.

    All that is open between them ends, forwards and multiplexed ssh included: within a second neither sees the other. Each
    goes on with everybody else; what goes through a subnet router or another machine is traffic with that one.

    Example: `doorward nodes cut laptop server --for 1h`

    Args:
        node: Name, address or id.
        other: The other one.
        for_: How long: 30m, 12h, 90d. Left out, until `doorward nodes uncut`.
        comment: Why, for the list and the audit log.
        json: Print the cut as JSON.
        target: Which server.
    """
    body = types.NewCut(expires_in=None if for_ is None else parse_duration(for_), comment=comment)
    cut = (target or Target()).call("PUT", api_path("nodes", node, "cuts", other), types.Cut, body=body)
    if json:
        output.as_json(cut)
        return
    until = "until you lift it" if cut.expires is None else f"until {exact(cut.expires)}"
    output.line(
        f"{' and '.join(cut.nodes)} are kept apart {until}: nothing passes between them, and what was open is cut."
    )


def list_cuts(*, json: Flag = False, target: Target | None = None) -> None:
    """List the nodes that are kept apart.

    Example: `doorward nodes cuts --json`

    Args:
        json: Print a list of objects instead of a table: id, nodes, created, created_by, expires, comment.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/cuts", list[types.Cut])
    if json:
        output.as_json(found)
        return
    output.table(
        ("NODE", "KEPT FROM", "SINCE", "BY", "ENDS", "WHY"),
        (
            (*cut.nodes, relative(cut.created), cut.created_by, relative(cut.expires), cut.comment)
            for cut in found
        ),
        empty="No nodes are kept apart.",
    )


def uncut_nodes(node: str, other: str, /, *, target: Target | None = None) -> None:
    """Let two nodes see each other again, as the policy says.

    Example: `doorward nodes uncut laptop server`

    Args:
        node: Name, address or id.
        other: The other one.
        target: Which server.
    """
    cut = (target or Target()).call("DELETE", api_path("nodes", node, "cuts", other), types.Cut)
    output.line(f"{' and '.join(cut.nodes)} are not kept apart any more.")


def change_approval(
    switch: Annotated[Literal["on", "off"] | None, Parameter(name="on|off")] = None,
    /,
    *,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Show or change whether new devices wait for an administrator.

    While it is on, a device that a person lets in, or an auth key made without --preapproved, sees nobody until
    `doorward nodes approve NODE`. Devices that are in stay in; when it is turned off, those that wait go on waiting.

    Example: `doorward nodes approval on`

    Args:
        switch: What it is to be; left out, it is shown.
        json: Print an object: approval, key_lifetime.
        target: Which server.
    """
    _joining(
        None if switch is None else types.JoiningChange(approval=switch == "on"), json=json, target=target
    )


def change_key_lifetime(
    duration: str | None = None, /, *, json: Flag = False, target: Target | None = None
) -> None:
    """Show or change how long a person stays signed in on a device.

    It counts from the next time somebody signs in. Devices with tags stay signed in.

    Example: `doorward nodes key-lifetime 90d`

    Args:
        duration: 12h, 90d, 26w, or `never`; left out, it is shown.
        json: Print an object: approval, key_lifetime in seconds.
        target: Which server.
    """
    change = None
    if duration is not None:
        change = types.JoiningChange(key_lifetime=0 if duration == "never" else parse_duration(duration))
    _joining(change, json=json, target=target)


def _joining(change: types.JoiningChange | None, *, json: bool, target: Target | None) -> None:
    server = target or Target()
    if change is None:
        found = server.call("GET", "/joining", types.Joining)
    else:
        found = server.call("PATCH", "/joining", types.Joining, body=change)
    if json:
        output.as_json(found)
        return
    output.line(
        "New devices wait for an administrator: `doorward nodes approve NODE`."
        if found.approval
        else "New devices wait for nobody but the person who lets them in."
    )
    output.line(
        "Nobody has to sign in again on a device."
        if found.key_lifetime is None
        else f"People sign in again on a device after {_span(found.key_lifetime)}."
    )


def _span(seconds: int) -> str:
    """The largest unit that says it exactly."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if not seconds % unit:
            count = seconds // unit
            return f"{count} {name}{'' if count == 1 else 's'}"
    raise AssertionError("every number of seconds is one of seconds")
