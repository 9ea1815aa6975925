"""``doorward nodes host-keys``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path, read_text
from doorward.cli.times import exact


def change_host_keys(
    node: str,
    /,
    *,
    pin: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    unpin: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Show the host keys by which terminals in the browser know a machine, or pin some.

    A machine whose Tailscale client serves ssh publishes its keys itself. Of any other each person is asked once whether what
    they are shown is its key; where keys are pinned nobody is asked, and a host with another key is refused.

    Example: `ssh-keyscan server | doorward nodes host-keys server --pin -`, over a network that you trust

    Args:
        node: Name, address or id.
        pin: A key (`ssh-ed25519 AAAA...`), a file with keys such as `/etc/ssh/ssh_host_ed25519_key.pub`, or `-` for stdin.
            May be given several times.
        unpin: One that is to be pinned no longer, in the same ways.
        json: Print all of them as JSON.
        target: Which server.
    """
    target = target or Target()
    path = api_path("nodes", node, "host-keys")
    if pin or unpin:
        body = types.HostKeyChange(pin=_keys(pin), unpin=_keys(unpin))
        found = target.call("POST", path, types.HostKeys, body=body)
    else:
        found = target.call("GET", path, types.HostKeys)
    if json:
        output.as_json(found)
        return
    for key in found.published:
        output.line(f"{found.node} publishes {key}")
    if found.published and found.pinned:
        output.line("What is pinned does not count as long as it does.")
    output.table(
        ("KIND", "FINGERPRINT", "PINNED", "BY"),
        ((one.key.split()[0], one.fingerprint, exact(one.created), one.actor) for one in found.pinned),
        empty=f"No key is pinned for {found.node}.",
    )


def _keys(given: tuple[str, ...]) -> tuple[str, ...]:
    """The keys themselves: of a file each line that is no comment."""
    found: list[str] = []
    for one in given:
        if " " in one.strip():
            found.append(one)
            continue
        lines = map(str.strip, read_text(Path(one)).splitlines())
        found += [line for line in lines if line and not line.startswith("#")]
    return tuple(found)
