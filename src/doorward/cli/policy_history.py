"""``doorward policy history``, and what all commands that change the policy have in common."""

from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import policy_types as types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.times import exact, relative

Why = Annotated[str, Parameter(name="--comment", show_default=False)]
IfVersion = Annotated[int | None, Parameter(name="--if-version")]

history = App(
    name="history",
    help="""List the versions of the policy, newest first; show one; compare two.

    Example: `doorward policy history --limit 5`

    The newest thousand are kept (of very large ones fewer); the audit log names every version for good.
    """,
)


def say_in_force(version: types.PolicyVersion) -> None:
    """Say which version is in force after a change."""
    output.line(f"The policy is in force, as version {version.id}.")


def _lines(version: types.PolicyVersion) -> str:
    return "" if version.added is None else f"+{version.added} -{version.removed}"


@history.default
def list_versions(
    *,
    limit: int = 20,
    before: int | None = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """List the versions of the policy, newest first.

    Example: `doorward policy history`

    Args:
        limit: At most so many.
        before: Only versions with a smaller number.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call(
        "GET", "/policy/history", list[types.PolicyVersion], query={"limit": limit, "before": before}
    )
    if json:
        output.as_json(found)
        return
    output.table(
        ("VERSION", "SET", "BY", "LINES", "COMMENT", ""),
        (
            (
                str(each.id),
                relative(each.created),
                each.actor,
                _lines(each),
                each.comment,
                "in force" if each.current else "",
            )
            for each in found
        ),
        empty="There is no version yet." if before is None else "No older version is kept.",
    )


@history.command(name="show")
def show_version(
    version: Annotated[int, Parameter(name="VERSION")],
    /,
    *,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Print a version of the policy; on stderr, who set it, when and why.

    Example: `doorward policy history show 3 > policy.hujson`

    Args:
        version: Its number in `doorward policy history`.
        json: Print an object, the text in it.
        target: Which server.
    """
    path = api_path("policy", "versions", version)
    found = (target or Target()).call("GET", path, types.PolicyVersionText)
    if json:
        output.as_json(found)
        return
    output.raw(found.text)
    why = f": {found.comment}" if found.comment else ""
    output.note(f"Version {found.id}, set by {found.actor} at {exact(found.created)}{why}")


@history.command(name="diff")
def diff_versions(
    version: Annotated[int, Parameter(name="VERSION")],
    other: Annotated[int | None, Parameter(name="OTHER")] = None,
    /,
    *,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Print what a version changed; or, with two, what changed from the first to the second.

    Example: `doorward policy history diff 3 5`

    Args:
        version: A version; alone, it is compared with the one before it.
        other: Another one, which `version` is compared with.
        json: Print an object: the two versions, lines added and removed, the difference.
        target: Which server.
    """
    new, old = (version, None) if other is None else (other, version)
    found = (target or Target()).call(
        "GET", api_path("policy", "versions", new, "diff"), types.TextDiff, query={"against": old}
    )
    if json:
        output.as_json(found)
        return
    for line in found.diff.splitlines():
        output.line(line)
    if not found.diff:
        output.note("Their texts are the same.")
