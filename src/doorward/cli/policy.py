"""``doorward policy``."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import policy_types as types
from doorward.cli import offline, output
from doorward.cli.connection import Flag, Target, read_text
from doorward.cli.policy_answers import COMMANDS as ANSWERS
from doorward.cli.policy_edit import COMMANDS as EDITS
from doorward.cli.policy_history import IfVersion, Why, history, say_in_force
from doorward.cli.times import relative
from doorward.errors import BadInput

app = App(
    name="policy",
    help="""Who may reach what: read, check, set, ask.

    The policy is a text in HuJSON: JSON with comments and trailing commas. FILE may be `-` for stdin. A policy that is refused
    is refused as a whole; each fault is printed as FILE:LINE:COLUMN: MESSAGE.
    """,
)

app.command(history)
for _name, _command in (ANSWERS | EDITS).items():
    app.command(_command, name=_name)

File = Annotated[Path, Parameter(name="FILE", allow_leading_hyphen=True)]
OptionalFile = Annotated[Path | None, Parameter(name="FILE", allow_leading_hyphen=True)]


def _draft(file: Path, comment: str = "") -> types.PolicyDraft:
    filename = "stdin" if str(file) == "-" else str(file)
    return types.PolicyDraft(text=read_text(file), filename=filename, comment=comment)


@app.command(name="get")
def get_policy(*, json: Flag = False, target: Target | None = None) -> None:
    """Print the policy in force, comments and all; on stderr, which version it is.

    Example: `doorward policy get > policy.hujson`

    Args:
        json: Print an object: the text, its version, who set it when and why, and the file that owns the policy, if any.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/policy", types.PolicyText)
    if json:
        output.as_json(found)
        return
    output.raw(found.text)
    output.note(f"Version {found.version}, set by {found.actor} {relative(found.created)}.")
    if found.owner is not None:
        output.note(f"{found.owner} owns the policy: edit that file, and send doorward SIGHUP.")


@app.command(name="set")
def set_policy(
    file: File,
    /,
    *,
    comment: Why = "",
    if_version: IfVersion = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Put a policy in force. Nodes follow within a second.

    Example: `doorward policy set policy.hujson --comment "ops may use the printers"`

    Exit codes: 0 it is in force; 1 it is refused, and the old one stays.

    Args:
        file: The policy; `-` reads stdin.
        comment: Why, for the history.
        if_version: Only if this version is still in force, so that nobody's change is overwritten.
        json: Print the version as JSON.
        target: Which server.
    """
    server, draft = target or Target(), _draft(file, comment)
    version = server.call("PUT", "/policy", types.PolicyVersion, body=draft, if_match=if_version)
    if json:
        output.as_json(version)
        return
    found = server.call("POST", "/policy/check", types.PolicyCheck, body=draft)
    output.diagnostics(draft.filename, found.warnings, label="warning: ")
    say_in_force(version)


@app.command(name="check")
def check_policy(file: File, /, *, json: Flag = False, target: Target | None = None) -> int:
    """Check a policy against the users and nodes there are, and change nothing.

    Example: `doorward policy check policy.hujson`

    Exit codes: 0 it could be put in force, perhaps with warnings; 1 it would be refused.

    Args:
        file: The policy; `-` reads stdin.
        json: Print an object: ok, diagnostics, warnings.
        target: Which server.
    """
    draft = _draft(file)
    found = (target or Target()).call("POST", "/policy/check", types.PolicyCheck, body=draft)
    if json:
        output.as_json(found)
        return 0 if found.ok else 1
    output.diagnostics(draft.filename, found.diagnostics)
    output.diagnostics(draft.filename, found.warnings, label="warning: ")
    if found.ok:
        output.line(f"{draft.filename} can be put in force.")
    return 0 if found.ok else 1


@app.command(name="compile")
def compile_policy(
    file: OptionalFile = None,
    /,
    *,
    node: str | None = None,
    topology: Path | None = None,
    cases: Path | None = None,
    summary: Flag = False,
    json: Flag = False,
    target: Target | None = None,
) -> int:
    """Print what each node would be told under a policy: packet filter, SSH rules and the rest, as its client gets them.

    With --topology or --cases it needs no server: a topology is a JSON object with `users` (a list of objects with id, name,
    email and perhaps role) and `nodes` (by name: ipv4, ipv6, user or tags, routable_ips, approved_routes).

    Example: `doorward policy compile policy.hujson --node server`

    Example: `doorward policy compile policy.hujson --topology tailnet.json --json`

    Exit codes: 0 it compiles; 1 it is refused. With --cases always 0: refusals are among the answers.

    Args:
        file: The policy; `-` reads stdin.
        node: Only this node, by its name.
        topology: A file that says who and what there is.
        cases: A file of many cases, one JSON object a line with name, policy and topology; plain or .gz. Prints one line
            each: name, code (200 or 400), message, nodes.
        summary: With --topology, print a table instead of JSON: how many rules each node gets, and whom it sees.
        json: Print JSON, which is what this command does anyway.
        target: Which server.
    """
    if cases is not None:
        if file is not None or topology is not None or node is not None:
            raise BadInput("--cases goes with no other argument", cure="Leave out the rest.")
        offline.print_cases(cases)
        return 0
    if file is None:
        raise BadInput("no policy is given", cure="Name a file, or `-` for stdin.")
    if topology is not None:
        return offline.print_compiled(_draft(file), topology, node, summary=summary and not json)
    found = (target or Target()).call(
        "POST", "/policy/compile", list[types.CompiledNode], body=_draft(file), query={"node": node}
    )
    output.as_json(found)
    return 0


@app.command(name="rollback")
def rollback_policy(
    version: Annotated[int | None, Parameter(name="VERSION")] = None,
    /,
    *,
    comment: Why = "",
    if_version: IfVersion = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Put an earlier version of the policy in force again, as a new version. It is checked like any other.

    Example: `doorward policy rollback 3`

    Args:
        version: Its number in `doorward policy history`; left out, the one before the current.
        comment: Why, for the history.
        if_version: Only if this version is still in force.
        json: Print the version as JSON.
        target: Which server.
    """
    body = types.Rollback(version=version, comment=comment)
    found = (target or Target()).call(
        "POST", "/policy/rollback", types.PolicyVersion, body=body, if_match=if_version
    )
    if json:
        output.as_json(found)
    else:
        say_in_force(found)
