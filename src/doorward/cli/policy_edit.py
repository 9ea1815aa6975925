"""``doorward policy edit`` and the commands that change one thing of the policy and leave the rest as it is written."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from doorward.api import policy_types as types
from doorward.cli import output
from doorward.cli.connection import Flag, ServerRefusedError, Target, read_text
from doorward.cli.policy_history import IfVersion, Why, say_in_force
from doorward.errors import BadInput, Unavailable

_HOW = Group("How to change it", sort_key=80)

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())]


@Parameter(name="*", group=_HOW)
@dataclass(frozen=True)
class Change:
    """What all these commands have in common.

    Args:
        comment: Why, for the history; left out, what is changed.
        if_version: Only if this version is still in force.
        dry_run: Only print what would change, and whether it would be accepted.
        json: Print an object: the version in force, whether anything changed, the difference.
    """

    comment: Why = ""
    if_version: IfVersion = None
    dry_run: Flag = False
    json: Flag = False


def _send(edits: list[types.PolicyEdit], change: Change | None, target: Target | None) -> None:
    if not edits:
        raise BadInput("nobody is named", cure="Name at least one, after the group or tag.")
    how = change or Change()
    body = types.PolicyEdits(edits=tuple(edits), comment=how.comment, dry_run=how.dry_run)
    found = (target or Target()).call(
        "POST", "/policy/edit", types.PolicyEdited, body=body, if_match=how.if_version
    )
    if how.json:
        output.as_json(found)
        return
    for line in found.diff.splitlines():
        output.line(line)
    if not found.changed:
        output.line(f"It is so already; version {found.version} of the policy stays in force.")
    elif how.dry_run:
        output.line("It can be put in force.")
    else:
        output.line(f"The policy is in force, as version {found.version}.")


def add_member(
    group: str, /, *users: str, change: Change | None = None, target: Target | None = None
) -> None:
    """Add people to a group of the policy; a group that there is not yet is made.

    Example: `doorward policy add-member group:ops alice bob`

    Args:
        group: Its name, `group:` and all.
        users: Who is to be in it.
        change: How.
        target: Which server.
    """
    _send([types.AddName(section="groups", key=group, name=user) for user in users], change, target)


def remove_member(
    group: str, /, *users: str, change: Change | None = None, target: Target | None = None
) -> None:
    """Take people out of a group of the policy. A comment at the end of a person's line goes with it.

    Example: `doorward policy remove-member group:ops alice`

    Args:
        group: Its name, `group:` and all.
        users: Who is to leave it.
        change: How.
        target: Which server.
    """
    _send([types.RemoveName(section="groups", key=group, name=user) for user in users], change, target)


def add_tag_owner(
    tag: str, /, *owners: str, change: Change | None = None, target: Target | None = None
) -> None:
    """Say who may give nodes a tag; a tag that there is not yet is made.

    Example: `doorward policy add-tag-owner tag:web group:ops`

    Args:
        tag: Its name, `tag:` and all.
        owners: People, groups, tags or autogroups of people.
        change: How.
        target: Which server.
    """
    _send([types.AddName(section="tagOwners", key=tag, name=owner) for owner in owners], change, target)


def remove_tag_owner(
    tag: str, /, *owners: str, change: Change | None = None, target: Target | None = None
) -> None:
    """Say who may no longer give nodes a tag. The tag stays.

    Example: `doorward policy remove-tag-owner tag:web alice`

    Args:
        tag: Its name, `tag:` and all.
        owners: Who is to lose it.
        change: How.
        target: Which server.
    """
    _send([types.RemoveName(section="tagOwners", key=tag, name=owner) for owner in owners], change, target)


def set_host(
    name: str, address: str | None = None, /, *, change: Change | None = None, target: Target | None = None
) -> None:
    """Give an address or a prefix a name in the policy; without an address, take the name away.

    Example: `doorward policy set-host office 192.168.1.0/24`

    Args:
        name: What rules call it.
        address: An address or a prefix.
        change: How.
        target: Which server.
    """
    _send([types.SetHost(name=name, address=address)], change, target)


def add_grant(
    *,
    src: Several,
    dst: Several,
    ip: Several = (),
    via: Several = (),
    app: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    change: Change | None = None,
    target: Target | None = None,
) -> None:
    """Add a grant at the end of the policy's grants.

    Example: `doorward policy add-grant --src group:ops --dst tag:web --ip tcp:443 icmp:*`

    Args:
        src: Who starts: people, groups, tags, autogroups, hosts, prefixes.
        dst: What is reached.
        ip: Ports, with a protocol before them where it matters: `22`, `tcp:443`, `*`.
        via: Only through routers with one of these tags.
        app: A JSON file with application capabilities, by their names; `-` reads stdin.
        change: How.
        target: Which server.
    """
    rule: dict[str, Any] = {"src": list(src), "dst": list(dst)}
    rule |= {name: list(value) for name, value in (("ip", ip), ("via", via)) if value}
    if app is not None:
        rule["app"] = _json(app)
    if not ip and app is None:
        raise BadInput("a grant allows ports, or application capabilities", cure="Give --ip, perhaps '*'.")
    _send([types.AddRule(section="grants", rule=rule)], change, target)


def add_ssh(
    *,
    src: Several,
    dst: Several,
    users: Several,
    check: Flag = False,
    change: Change | None = None,
    target: Target | None = None,
) -> None:
    """Add an SSH rule at the end of the policy's. A grant of port 22 has to stand beside it.

    Example: `doorward policy add-ssh --src group:ops --dst tag:web --users autogroup:nonroot root`

    Args:
        src: Who starts: people, groups, tags, autogroups.
        dst: Where they log in: tags, `autogroup:self`.
        users: As which accounts; `autogroup:nonroot` is every one but root.
        check: Ask again who they are.
        change: How.
        target: Which server.
    """
    rule = {
        "action": "check" if check else "accept",
        "src": list(src),
        "dst": list(dst),
        "users": list(users),
    }
    _send([types.AddRule(section="ssh", rule=rule)], change, target)


def remove_rule(rule: str, /, *, change: Change | None = None, target: Target | None = None) -> None:
    """Take a rule out of the policy. A comment at the end of its line goes with it, one above it stays.

    Example: `doorward policy remove-rule 'grants[2]' --if-version 7`

    Args:
        rule: As the answers of `doorward policy reach` name it: `grants[2]`, `acls[0]`, `ssh[1]`. The first is 0.
        change: How.
        target: Which server.
    """
    section, bracket, rest = rule.partition("[")
    number = rest.removesuffix("]")
    if section not in {"grants", "acls", "ssh"} or not bracket or not number.isdecimal() or len(number) > 9:
        raise BadInput(f"{rule!r} is no rule of the policy", cure="Write it like grants[2].")
    _send([types.RemoveRule(section=section, number=int(number))], change, target)  # type: ignore[arg-type]


def _json(file: Path) -> Any:
    import msgspec  # noqa: PLC0415 - only this option needs it

    try:
        return msgspec.json.decode(read_text(file))
    except (ValueError, RecursionError) as error:  # msgspec and UTF-8 say the first, depth the second
        raise BadInput(f"{file} is not JSON: {error}") from None


def edit_policy(*, comment: Why = "", target: Target | None = None) -> int:
    """Open the policy in your editor ($VISUAL, $EDITOR, else vi), and put in force what you save.

    What somebody else changes meanwhile is not overwritten: you are told, and your text is kept. So it is when the policy is
    refused and you do not want to go on.

    Example: `doorward policy edit --comment "ops may use the printers"`

    Exit codes: 0 it is in force, or nothing was changed; 1 it is refused, and the old one stays.

    Args:
        comment: Why, for the history.
        target: Which server.
    """
    server = target or Target()
    now = server.call("GET", "/policy", types.PolicyText)
    if now.owner is not None:
        raise BadInput(f"the policy is owned by {now.owner}", cure="Edit that file and send doorward SIGHUP.")
    handle, name = tempfile.mkstemp(prefix=f"policy-{now.version}-", suffix=".hujson")
    file = Path(name)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as opened:
        opened.write(now.text)
    while True:
        _open_editor(file)
        text = read_text(file)
        if text == now.text:
            file.unlink()
            output.line(f"Nothing was changed; version {now.version} stays in force.")
            return 0
        draft = types.PolicyDraft(text=text, filename=name, comment=comment)
        try:
            version = server.call("PUT", "/policy", types.PolicyVersion, body=draft, if_match=now.version)
        except ServerRefusedError as error:
            if not (error.diagnostics and _goes_on(name, error)):
                output.note(f"Your text is kept in {name}.")
                raise
            continue
        file.unlink()
        say_in_force(version)
        return 0


def _goes_on(name: str, error: ServerRefusedError) -> bool:
    """Show what is wrong, and ask whether to open the editor again; nobody can be asked without a terminal."""
    if not sys.stdin.isatty():
        return False
    output.diagnostics(name, error.diagnostics)
    return output.confirm("Edit again?", yes=False)


def _open_editor(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        words = shlex.split(editor)
        code = subprocess.run(  # noqa: S603 - it is what the person's own environment names as their editor
            [*words, str(file)], check=False
        ).returncode
    except (OSError, ValueError) as error:
        file.unlink()
        raise Unavailable(
            f"the editor {editor!r} cannot be started: {error}", cure="Set EDITOR to the one you use."
        ) from None
    if code:
        raise Unavailable(
            f"the editor {editor!r} ended with exit code {code}; nothing was changed, and the text is in {file}",
            cure="Set EDITOR to the one you use.",
        )


COMMANDS: dict[str, Callable[..., int | None]] = {
    "edit": edit_policy,
    "add-member": add_member,
    "remove-member": remove_member,
    "add-tag-owner": add_tag_owner,
    "remove-tag-owner": remove_tag_owner,
    "set-host": set_host,
    "add-grant": add_grant,
    "add-ssh": add_ssh,
    "remove-rule": remove_rule,
}
