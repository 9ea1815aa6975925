"""``doorward users``."""

from cyclopts import App

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path
from doorward.cli.times import exact

app = App(
    name="users",
    help="""People: create, list, change, suspend, delete.

    A person owns nodes and has a role. Roles: owner and admin may do everything, network-admin the network (policy, routes,
    keys), it-admin people and their nodes, billing-admin and auditor may look, member (the default) has nodes and nothing
    to administer.
    """,
)


@app.command(name="list")
def list_users(*, json: Flag = False, target: Target | None = None) -> None:
    """List the people.

    Example: `doorward users list --json`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/users", list[types.User])
    if json:
        output.as_json(found)
        return
    output.table(
        ("NAME", "ROLE", "NODES", "EMAIL", "DISPLAY NAME"),
        ((user.name, _role(user), str(user.nodes), user.email, user.display_name) for user in found),
        empty="There is nobody yet. Create the first person with `doorward users create NAME`.",
    )


def _role(user: types.User) -> str:
    return f"{user.role} (suspended)" if user.suspended else user.role


@app.command(name="create")
def create_user(
    name: str,
    /,
    *,
    email: str = "",
    display_name: str = "",
    role: types.RoleName = "member",
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Create a person.

    Example: `doorward users create ann@example.com --role admin`

    Args:
        name: Login name: lower-case letters, digits, `.`, `_`, `+`, `-`, perhaps `@` and a domain.
        email: Email address.
        display_name: What clients show.
        role: What they may administer.
        json: Print the person as JSON.
        target: Which server.
    """
    body = types.NewUser(name=name, email=email, display_name=display_name, role=role)
    user = (target or Target()).call("POST", "/users", types.User, body=body)
    if json:
        output.as_json(user)
    else:
        output.line(f"Created {user.name} with the role {user.role}.")


@app.command(name="show")
def show_user(name: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Show a person.

    Example: `doorward users show ann`

    Args:
        name: Login name.
        json: Print an object.
        target: Which server.
    """
    user = (target or Target()).call("GET", api_path("users", name), types.User)
    if json:
        output.as_json(user)
        return
    output.fields(
        {
            "Name": user.name,
            "Display name": user.display_name or "-",
            "Email": user.email or "-",
            "Role": user.role,
            "Nodes": str(user.nodes),
            "Suspended": "yes" if user.suspended else "no",
            "Created": exact(user.created),
        }
    )


@app.command(name="role")
def change_role(name: str, role: types.RoleName, /, *, target: Target | None = None) -> None:
    """Give a person another role.

    Example: `doorward users role ann network-admin`

    Args:
        name: Login name.
        role: What they may administer from now on.
        target: Which server.
    """
    body = types.UserChange(role=role)
    user = (target or Target()).call("PATCH", api_path("users", name), types.User, body=body)
    output.line(f"{user.name} has the role {user.role} now.")


@app.command(name="suspend")
def suspend_user(name: str, /, *, target: Target | None = None) -> None:
    """Shut a person out, with all their devices, and keep everything that is theirs.

    Within a second no device of theirs reaches anything, and none signs in, until `doorward users restore`. Devices with tags
    belong to nobody and stay.

    Example: `doorward users suspend ann`

    Args:
        name: Login name.
        target: Which server.
    """
    body = types.UserChange(suspended=True)
    user = (target or Target()).call("PATCH", api_path("users", name), types.User, body=body)
    devices = "1 device is" if user.nodes == 1 else f"{user.nodes} devices are"
    output.line(f"{user.name} is suspended; {devices} cut off.")


@app.command(name="restore")
def restore_user(name: str, /, *, target: Target | None = None) -> None:
    """Let a suspended person in again. Their devices come back by themselves within a minute or so.

    Example: `doorward users restore ann`

    Args:
        name: Login name.
        target: Which server.
    """
    body = types.UserChange(suspended=False)
    user = (target or Target()).call("PATCH", api_path("users", name), types.User, body=body)
    output.line(f"{user.name} is not suspended.")


@app.command(name="delete")
def delete_user(name: str, /, *, yes: Flag = False, target: Target | None = None) -> int:
    """Delete a person who has no nodes any more, and their auth keys.

    Asks first on a terminal; elsewhere --yes is needed.

    Example: `doorward users delete ann --yes`

    Args:
        name: Login name.
        yes: Do not ask.
        target: Which server.
    """
    if not output.confirm(f"Delete the person {name} and their auth keys?", yes=yes):
        output.note("Nothing was deleted.")
        return 1
    (target or Target()).call("DELETE", api_path("users", name), type(None))
    output.line(f"Deleted {name}.")
    return 0
