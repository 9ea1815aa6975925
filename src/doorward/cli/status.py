"""``doorward status`` and ``doorward doctor``."""

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target
from doorward.cli.times import exact


def status(*, json: Flag = False, target: Target | None = None) -> None:
    """Show what runs: addresses, counts, and each part of the server with the cure where it does not work.

    Example: `doorward status`

    Args:
        json: Print an object.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/status", types.Status)
    if json:
        output.as_json(found)
        return
    waiting = f", {found.waiting} waiting for approval" if found.waiting else ""
    output.fields(
        {
            "doorward": found.version,
            "Tailnet": found.domain,
            "Clients log in at": found.url,
            "The door": found.door,
            "Data directory": found.data_dir,
            "Running since": exact(found.started),
            "Users": str(found.users),
            "Nodes": f"{found.nodes}, {found.online} online{waiting}",
        }
    )
    output.line()
    output.table(
        ("PART", "STATE", ""), ((part.name, part.state, part.text) for part in found.parts), empty=""
    )
    for part in found.parts:
        if part.cure:
            output.line(f"{part.name}: {part.cure}")


def doctor(*, json: Flag = False, target: Target | None = None) -> int:
    """Find what is wrong with the server, and say how to mend it.

    Example: `doorward doctor`

    Exit codes: 0 when nothing is wrong but perhaps for warnings, 1 otherwise.

    Args:
        json: Print a list of objects.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/doctor", list[types.Finding])
    if json:
        output.as_json(found)
    else:
        for each in found:
            output.line(f"{each.level:8}{each.subject}: {each.message}")
            if each.cure:
                output.line(f"{'':8}  {each.cure}")
    return 1 if any(each.level == "error" for each in found) else 0
