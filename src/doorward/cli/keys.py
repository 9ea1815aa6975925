"""``doorward keys``."""

from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.times import parse_duration, relative

app = App(
    name="keys",
    help="""Auth keys, which let nodes join without a person: `tailscale up --login-server URL --auth-key KEY`.

    A key admits one node unless it is made with --reusable. Its text is shown once, when it is made.
    """,
)


@app.command(name="list")
def list_keys(*, json: Flag = False, target: Target | None = None) -> None:
    """List the auth keys, oldest first, those that admit nobody any more among them.

    Example: `doorward keys list`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/keys", list[types.Key])
    if json:
        output.as_json(found)
        return
    output.table(
        ("ID", "KEY", "STATE", "FOR", "KIND", "EXPIRES", "LAST USED"),
        (
            (
                str(key.id),
                key.prefix + "...",
                key.state,
                " ".join(filter(None, (key.user, *key.tags))),
                ", ".join(_kind(key)),
                relative(key.expires),
                relative(key.used),
            )
            for key in found
        ),
        empty="There are no auth keys. Make one with `doorward keys create --user NAME`.",
    )


def _kind(key: types.Key) -> list[str]:
    facts = (("ephemeral", key.ephemeral), ("preapproved", key.preapproved))
    return ["reusable" if key.reusable else "single use", *(word for word, holds in facts if holds)]


@app.command(name="create")
def create_key(
    *,
    user: str | None = None,
    tag: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    reusable: Flag = False,
    ephemeral: Flag = False,
    preapproved: Flag = False,
    expires: str = "1h",
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Make an auth key and print it, alone, on stdout.

    Example: `tailscale up --login-server URL --auth-key "$(doorward keys create --user ann)"`

    Args:
        user: Whose the nodes become that the key admits.
        tag: Tags that the nodes get; a tagged node belongs to nobody. The policy must know them.
        reusable: The key admits any number of nodes.
        ephemeral: A node that the key admitted is removed soon after it goes offline.
        preapproved: What the key admits waits for no administrator (`doorward nodes approval`).
        expires: How long the key admits nodes: 30m, 12h, 90d.
        json: Print the key and what it is as an object.
        target: Which server.
    """
    body = types.NewKey(
        user=user,
        tags=tag,
        reusable=reusable,
        ephemeral=ephemeral,
        preapproved=preapproved,
        expires_in=parse_duration(expires),
    )
    made = (target or Target()).call("POST", "/keys", types.MadeKey, body=body)
    if json:
        output.as_json(made)
    else:
        output.line(made.secret)


@app.command(name="revoke")
def revoke_key(number: Annotated[int, Parameter(name="ID")], /, *, target: Target | None = None) -> None:
    """Revoke an auth key: it admits no further node. Those it admitted stay.

    Example: `doorward keys revoke 3`

    Args:
        number: The key's number in `doorward keys list`.
        target: Which server.
    """
    key = (target or Target()).call("DELETE", api_path("keys", number), types.Key)
    output.line(f"Revoked the auth key {key.id} ({key.prefix}...).")
