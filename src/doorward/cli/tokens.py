"""``doorward tokens``."""

from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.times import parse_duration, relative

app = App(
    name="tokens",
    help="""Tokens for the JSON API, which is described at /api/v1/openapi.json.

    A token is also what `doorward --server URL --token TOKEN` needs on another machine.
    """,
)


@app.command(name="list")
def list_tokens(*, json: Flag = False, target: Target | None = None) -> None:
    """List the API tokens, oldest first, revoked and expired ones among them.

    Example: `doorward tokens list`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/tokens", list[types.Token])
    if json:
        output.as_json(found)
        return
    output.table(
        ("ID", "TOKEN", "STATE", "ROLE", "MADE BY", "EXPIRES", "DESCRIPTION"),
        (
            (
                str(each.id),
                each.prefix + "...",
                each.state,
                each.role,
                each.user or "-",
                relative(each.expires),
                each.description,
            )
            for each in found
        ),
        empty="There are no API tokens. Make one with `doorward tokens create DESCRIPTION`.",
    )


@app.command(name="create")
def create_token(
    description: str,
    /,
    *,
    role: types.RoleName = "admin",
    expires: str = "90d",
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Make an API token and print it, alone, on stdout.

    Example: `doorward tokens create "backup script" --role auditor --expires 30d`

    Args:
        description: What it is for.
        role: What its holder may do; auditor can only read.
        expires: How long it is good: 12h, 90d, or `never`.
        json: Print the token and what it is as an object.
        target: Which server.
    """
    body = types.NewToken(
        description=description,
        role=role,
        expires_in=None if expires == "never" else parse_duration(expires),
    )
    made = (target or Target()).call("POST", "/tokens", types.MadeToken, body=body)
    if json:
        output.as_json(made)
    else:
        output.line(made.secret)


@app.command(name="revoke")
def revoke_token(number: Annotated[int, Parameter(name="ID")], /, *, target: Target | None = None) -> None:
    """Revoke an API token: it is refused from now on.

    Example: `doorward tokens revoke 2`

    Args:
        number: The token's number in `doorward tokens list`.
        target: Which server.
    """
    token = (target or Target()).call("DELETE", api_path("tokens", number), types.Token)
    output.line(f"Revoked the API token {token.id} ({token.description or token.prefix}).")
