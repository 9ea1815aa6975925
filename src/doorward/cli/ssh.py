"""``doorward ssh``."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import known_hosts, output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.times import exact, relative

app = App(name="ssh", help="Ssh: set up this machine for it; list, approve and deny what waits for approval.")
checks = App(
    name="checks",
    help="""Ssh that waits until somebody approves it.

    A rule of the policy with `"action": "check"` has people asked again. The terminal that waits shows a code; compare it
    before you approve.
    """,
)
app.command(checks)
app.command("doorward.cli.ssh_setup:setup", name="setup")
app.command("doorward.cli.ssh_browser:browser", name="browser")

Number = Annotated[int, Parameter(name="ID")]


@app.command(name="known-hosts")
def list_known_hosts(
    host: Annotated[str, Parameter(name="HOST")],
    /,
    *,
    socket: Path = Path(known_hosts.DEFAULT_SOCKET),
    port: int = known_hosts.PORT,
    quiet: Flag = False,
) -> int:
    """Print the host keys that a node published, as lines of a known_hosts file.

    `doorward ssh setup` has ssh run this at each connection. It asks the tailscaled of this machine.

    Example: `doorward ssh known-hosts server`

    Exit codes: 0 there are some, 1 there are none.

    Args:
        host: The node's name or address, or [NAME]:PORT.
        socket: Where tailscaled listens.
        port: The port that ssh connects to; only that of Tailscale SSH has these keys.
        quiet: Do not say why there are none.
    """
    return known_hosts.show(host, str(socket), str(port), quiet=quiet)


@checks.command(name="list")
def list_checks(*, json: Flag = False, target: Target | None = None) -> None:
    """List the ssh that wait for approval, oldest first.

    Example: `doorward ssh checks list`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/ssh/checks", list[types.Check])
    if json:
        output.as_json(found)
        return
    output.table(
        ("ID", "CODE", "USER", "FROM", "TO", "AS", "SINCE", "ENDS", "APPROVERS"),
        (
            (
                str(each.id),
                each.code,
                each.user,
                each.source,
                each.target,
                each.account,
                relative(each.since),
                relative(each.expires),
                " ".join(each.approvers),
            )
            for each in found
        ),
        empty="No ssh waits for approval.",
    )


@checks.command(name="approve")
def approve_check(number: Number, /, *, target: Target | None = None) -> None:
    """Let a waiting ssh go on.

    Example: `doorward ssh checks approve 3`

    Args:
        number: Its number, which the terminal and `doorward ssh checks list` show.
        target: Which server.
    """
    found = (target or Target()).call("POST", api_path("ssh", "checks", number, "approve"), types.Check)
    asked = "" if found.until is None else f" Nobody is asked again until {exact(found.until)}."
    output.line(f"Approved: {_what(found)}.{asked}")


@checks.command(name="deny")
def deny_check(number: Number, /, *, target: Target | None = None) -> None:
    """End a waiting ssh.

    Example: `doorward ssh checks deny 3`

    Args:
        number: Its number, which the terminal and `doorward ssh checks list` show.
        target: Which server.
    """
    found = (target or Target()).call("POST", api_path("ssh", "checks", number, "deny"), types.Check)
    output.line(f"Denied: {_what(found)}.")


def _what(check: types.Check) -> str:
    return f"{check.user} from {check.source} to {check.account}@{check.target}"
