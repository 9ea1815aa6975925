"""``doorward policy reach``, ``who-can``, ``what-can``, ``diff`` and ``review``: what the policy means."""

import csv
import difflib
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from doorward.api import policy_types as types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, read_text

Source = Annotated[str, Parameter(name="SRC")]
Destination = Annotated[str, Parameter(name="DST[:PORT]")]


def reach(
    source: Source,
    destination: Destination,
    /,
    *,
    protocol: str = "tcp",
    json: Flag = False,
    target: Target | None = None,
) -> int:
    """Say whether one node or person reaches another node, and by which rule; or which rule came closest, and what is missing.

    Example: `doorward policy reach ann server:22`

    Exit codes: 0 it may, 1 it may not.

    Args:
        source: A node, by name, address or id; a person, or a tag or group, whose nodes are asked about.
        destination: A node, an address, or a host of the policy, perhaps with a port; without one, any port counts.
        protocol: tcp, udp, icmp or a number.
        json: Print an object: allowed, ways, closest, notes.
        target: Which server.
    """
    query = {"source": source, "destination": destination, "protocol": protocol}
    found = (target or Target()).call("GET", "/policy/reach", types.Reach, query=query)
    if json:
        output.as_json(found)
    elif found.allowed:
        output.line(f"{source} reaches {destination}.")
        _show_ways(found.ways)
    else:
        output.line(f"{source} does not reach {destination}.")
        if found.closest is not None:
            output.line(f"Closest is {_rule(found.closest.rule)}: {found.closest.missing}.")
        elif not found.notes:
            output.line("No rule comes close: none is about both of them.")
    if not json:
        for note in found.notes:
            output.line(note)
    return 0 if found.allowed else 1


def _rule(rule: types.RuleName) -> str:
    return f"{rule.name} (line {rule.line})"


def who_can(
    destination: Destination,
    /,
    *,
    protocol: str = "tcp",
    account: Annotated[str | None, Parameter(name="--as")] = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """List the nodes that reach a node, and by which rule; with --as, those that may also ssh there as that account.

    Example: `doorward policy who-can server --as root`

    Args:
        destination: A node, an address, or a host of the policy, perhaps with a port; without one, any port counts.
        protocol: tcp, udp, icmp or a number.
        account: An account of the node, such as root; the port is then 22 unless given.
        json: Print an object: allowed, ways.
        target: Which server.
    """
    query = {"destination": destination, "protocol": protocol, "account": account}
    found = (target or Target()).call("GET", "/policy/who-can", types.Reach, query=query)
    if json:
        output.as_json(found)
    elif found.allowed:
        _show_ways(found.ways)
    else:
        output.line(f"No node reaches {destination}{f' as {account}' if account else ''}.")


def _show_ways(ways: tuple[types.Way, ...]) -> None:
    output.table(
        ("NODE", "OWNER", "PORTS", "BY RULE"),
        ((way.source, way.owner, way.ports, _reasons(way)) for way in ways),
        empty="",
    )


def _reasons(way: types.Way) -> str:
    rules = [_rule(rule) for rule in way.rules]
    if way.ssh is not None:
        rules.append(_rule(way.ssh) + (", after a check" if way.check else ""))
    return ", ".join(rules)


def what_can(source: Source, /, *, json: Flag = False, target: Target | None = None) -> None:
    """List all that a node or person reaches in the whole tailnet, ssh included, and by which rules.

    Example: `doorward policy what-can ann`

    Args:
        source: A node, by name, address or id; a person, or a tag or group, whose nodes are asked about together.
        json: Print a list of objects.
        target: Which server.
    """
    found = (target or Target()).call(
        "GET", "/policy/what-can", list[types.Reachable], query={"source": source}
    )
    if json:
        output.as_json(found)
        return
    output.table(
        ("DESTINATION", "OWNER", "PORTS", "SSH AS", "BY RULE"),
        (
            (_where(each), each.owner, each.services, ", ".join(each.ssh), _names(each.rules))
            for each in found
        ),
        empty=f"{source} reaches nothing.",
    )


def _where(each: types.Reachable) -> str:
    return each.destination if each.router is None else f"{each.destination} (by {each.router})"


def _names(rules: Iterable[types.RuleName]) -> str:
    return ", ".join(map(_rule, rules))


def diff_policy(
    file: Annotated[Path, Parameter(name="FILE", allow_leading_hyphen=True)],
    /,
    *,
    text: Flag = False,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Show what a policy would change: what each node would give and get (+), and no longer (-). Changes nothing.

    Example: `doorward policy diff policy.hujson`

    Args:
        file: The policy; `-` reads stdin.
        text: Compare the texts instead.
        json: Print a list of objects.
        target: Which server.
    """
    server, name = target or Target(), "stdin" if str(file) == "-" else str(file)
    draft = types.PolicyDraft(text=read_text(file), filename=name)
    if text:
        current = server.call("GET", "/policy", types.PolicyText).text
        changes = difflib.unified_diff(
            current.splitlines(), draft.text.splitlines(), "in force", name, lineterm=""
        )
        for change in changes:
            output.line(change)
        return
    found = server.call("POST", "/policy/diff", list[types.NodeDiff], body=draft)
    if json:
        output.as_json(found)
        return
    if not found:
        output.line("Nothing changes for any node.")
    for each in found:
        output.line(f"{each.node}:")
        for mark, lines in (("-", each.lost), ("+", each.gained)):
            for line in lines:
                output.line(f"  {mark} {line}")


def review(
    source: Annotated[str | None, Parameter(name="SRC")] = None,
    /,
    *,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Print an access review as CSV: who may reach what, ssh included, by which rule; a line for each person and destination.

    Nodes with the same tags are one "who". People without a node reach nothing, and are not in it.

    Example: `doorward policy review > review.csv`

    Args:
        source: Only this person, tag, group or node.
        json: Print a list of objects instead.
        target: Which server.
    """
    found = (target or Target()).call(
        "GET", "/policy/review", list[types.Entitlement], query={"source": source}
    )
    if json:
        output.as_json(found)
        return
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(("who", "kind", "nodes", "destination", "router", "owner", "ports", "ssh as", "by rule"))
    for each in found:
        row = (
            each.who,
            "person" if each.person else "tags",
            " ".join(each.nodes),
            each.destination,
            each.router or "",
            each.owner,
            each.services,
            ", ".join(each.ssh),
            _names(each.rules),
        )
        writer.writerow(map(_cell, row))
    output.raw(page.getvalue())


def _cell(text: str) -> str:
    """A cell that no table program takes for a formula, and no terminal for a command."""
    text = output.clean(text)
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


COMMANDS: dict[str, Callable[..., int | None]] = {
    "diff": diff_policy,
    "reach": reach,
    "who-can": who_can,
    "what-can": what_can,
    "review": review,
}
