"""``doorward users``."""

from pathlib import Path

from cyclopts import App

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, ServerRefusedError, Target, api_path
from doorward.cli.links import hand_over
from doorward.cli.times import exact, parse_duration, relative
from doorward.errors import BadInput

app = App(
    name="users",
    help="""People: create, invite, list, change, sign out, suspend, delete.

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
        ("NAME", "ROLE", "NODES", "SIGNS IN BY", "CODES", "EMAIL", "DISPLAY NAME"),
        (
            (
                user.name,
                _role(user),
                str(user.nodes),
                _means(user),
                str(user.recovery_codes),
                user.email,
                user.display_name,
            )
            for user in found
        ),
        empty="There is nobody yet. Create the first person with `doorward users create NAME`.",
    )


def _role(user: types.User) -> str:
    return f"{user.role} (suspended)" if user.suspended else user.role


def _means(user: types.User) -> str:
    """By what a person signs in: "2 passkeys, 1 provider"; else whether they were invited."""
    counts = {"passkey": user.passkeys, "provider": user.identities}
    found = [_count(number, name) for name, number in counts.items() if number]
    return ", ".join(found) or ("invited" if user.invited else "-")


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


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
            "Groups": user.groups,
            "Suspended": "yes" if user.suspended else "no",
            "Signs in by": _means(user),
            "Recovery codes": f"{user.recovery_codes} left" if user.recovery_codes else "-",
            "Signed in": _count(user.sessions, "browser") if user.sessions else "-",
            "Invited": f"until {exact(user.invited)}" if user.invited else "-",
            "Created": exact(user.created),
        }
    )


@app.command(name="invite")
def invite(
    name: str | None = None,
    /,
    *,
    email: str | None = None,
    role: types.RoleName | None = None,
    expires: str | None = None,
    first_owner: Flag = False,
    file_in: Path | None = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Make a link by which a person comes in and gets a passkey, and print it, alone, on stdout.

    Whom there is not yet is created. The link works once; making another makes it worth nothing, and so does another role.
    It is printed on a terminal only: elsewhere it goes into a file that only you may read, and the file's path is printed.

    Example: `doorward users invite ann@example.com --role it-admin`

    Args:
        name: Login name.
        email: Email address of a person who is created.
        role: What a person who is created may administer.
        expires: How long the link is good, up to 30d. Without it 3d; for the first owner 1h.
        first_owner: Make the link of the first owner, who says their own name: while nobody can sign in and administer.
        file_in: Folder for the file. Without it the data directory, or the working directory with --server.
        json: Print an object.
        target: Which server.
    """
    target = target or Target()
    if (name is None) is not first_owner or (first_owner and (email or role)):
        raise BadInput("who is invited?", cure="Give a NAME, or --first-owner alone.")
    seconds = None if expires is None else parse_duration(expires)
    user = None if name is None else _known_or_created(target, name, email, role)
    body = types.NewInvitation(user=user, expires_in=seconds)
    made = target.call("POST", "/invitations", types.MadeInvitation, body=body)
    folder = file_in if file_in is not None else target.folder() if target.is_local() else Path.cwd()
    hand_over(made, folder, json=json)


def _known_or_created(target: Target, name: str, email: str | None, role: types.RoleName | None) -> str:
    """The login name of a person who is there, now at the latest. Raises BadInput for one who is there and different."""
    lowered = name.strip().lower()
    try:
        known = target.call("GET", api_path("users", lowered), types.User)
    except ServerRefusedError as error:
        if error.kind != "not-found":
            raise
        new = types.NewUser(name=lowered, email=email or "", role=role or "member")
        return target.call("POST", "/users", types.User, body=new).name
    if role is not None and role != known.role:
        raise BadInput(
            f"{known.name} is there and has the role {known.role}",
            cure=f"Leave out --role, or change it first: `doorward users role {known.name} {role}`.",
        )
    if email is not None and email != known.email:
        raise BadInput(f"{known.name} is there, with another email address", cure="Leave out --email.")
    return known.name


@app.command(name="sign-in")
def sign_in(
    name: str, /, *, file_in: Path | None = None, json: Flag = False, target: Target | None = None
) -> None:
    """Make a link that signs in a browser on doorward's own machine, and print it, alone, on stdout.

    It works once, within an hour, at http://localhost:PORT and nowhere else; making another makes it worth nothing. Only who may read
    the data directory can make one. It is printed on a terminal only: elsewhere it goes into a file that only you may read, and
    the file's path is printed.

    Example: `doorward users sign-in ann`

    Args:
        name: Login name.
        file_in: Folder for the file. Without it the data directory.
        json: Print an object.
        target: Which server.
    """
    target = target or Target()
    body = types.NewSignInLink(user=name.strip().lower())
    made = target.call("POST", "/sign-in-links", types.MadeInvitation, body=body)
    folder = file_in if file_in is not None else target.folder() if target.is_local() else Path.cwd()
    hand_over(made, folder, json=json, kind="sign-in")


@app.command(name="uninvite")
def uninvite(name: str, /, *, target: Target | None = None) -> None:
    """Withdraw a person's invitation: its link is worth nothing from now on.

    Example: `doorward users uninvite ann`

    Args:
        name: Login name.
        target: Which server.
    """
    (target or Target()).call("DELETE", api_path("users", name, "invitation"), type(None))
    output.line(f"The invitation of {name} is withdrawn.")


@app.command(name="passkeys")
def passkeys(
    name: str,
    /,
    *,
    delete: int | None = None,
    yes: Flag = False,
    json: Flag = False,
    target: Target | None = None,
) -> int:
    """List a person's passkeys, or delete one and end what it was last used to sign in to.

    Asks before it deletes on a terminal; elsewhere --yes is needed.

    Example: `doorward users passkeys ann --delete 3`

    Args:
        name: Login name.
        delete: The number of the passkey to delete.
        yes: Do not ask.
        json: Print a list of objects instead of a table; with --delete what was ended.
        target: Which server.
    """
    target = target or Target()
    if delete is None:
        found = target.call("GET", api_path("users", name, "passkeys"), list[types.Passkey])
        if json:
            output.as_json(found)
            return 0
        output.table(
            ("ID", "NAME", "WORKS AT", "CREATED", "LAST USED"),
            (
                (str(each.id), each.name, each.place, relative(each.created), relative(each.used))
                for each in found
            ),
            empty=f"{name} has no passkeys. `doorward users invite {name}` makes a link to get one.",
        )
        return 0
    if not output.confirm(f"Delete the passkey {delete} of {name}?", yes=yes):
        output.note("Nothing was deleted.")
        return 1
    ended = target.call("DELETE", api_path("users", name, "passkeys", delete), types.SignedOut)
    if json:
        output.as_json(ended)
    else:
        output.line(f"Deleted the passkey {delete} of {name}, {_ended(ended)}.")
    return 0


def _ended(ended: types.SignedOut) -> str:
    return f"and signed them out in {_count(ended.sessions, 'browser')}"


@app.command(name="sessions")
def sessions(name: str | None = None, /, *, json: Flag = False, target: Target | None = None) -> None:
    """List the browsers in which people are signed in.

    Example: `doorward users sessions ann`

    Args:
        name: Login name. Without it everybody's.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    path = "/sessions" if name is None else api_path("users", name, "sessions")
    found = (target or Target()).call("GET", path, list[types.Session])
    if json:
        output.as_json(found)
        return
    output.table(
        ("ID", "USER", "SIGNED IN", "BY", "LAST PROOF", "LAST SEEN", "FROM", "BROWSER"),
        (
            (
                str(each.id),
                each.user,
                relative(each.created),
                each.method,
                relative(each.proven),
                relative(each.seen),
                each.address,
                each.agent,
            )
            for each in found
        ),
        empty="Nobody is signed in." if name is None else f"{name} is signed in nowhere.",
    )


@app.command(name="sign-out")
def sign_out(
    name: str, /, *, session: int | None = None, json: Flag = False, target: Target | None = None
) -> None:
    """Sign a person out, in every browser or in one. Their devices stay in the tailnet: see `doorward users suspend`.

    Example: `doorward users sign-out ann --session 3`

    Args:
        name: Login name.
        session: The number of one session in `doorward users sessions`.
        json: Print what was ended as an object.
        target: Which server.
    """
    parts = ("users", name, "sessions") if session is None else ("users", name, "sessions", str(session))
    ended = (target or Target()).call("DELETE", api_path(*parts), types.SignedOut)
    if json:
        output.as_json(ended)
    elif ended.sessions:
        output.line(f"Signed {name} out in {_count(ended.sessions, 'browser')}.")
    else:
        output.line(f"{name} was signed in nowhere.")


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

    Within a second no device of theirs reaches anything, what was open ends, forwards and multiplexed ssh included, and none
    signs in, until `doorward users restore`. Their browsers are signed out and their API tokens revoked for good. Devices
    with tags belong to nobody and stay.

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
def delete_user(
    name: str, /, *, with_nodes: Flag = False, yes: Flag = False, target: Target | None = None
) -> int:
    """Delete a person who has no nodes any more, and their auth keys, API tokens, sessions and passkeys.

    With --with-nodes their devices go too, and all that is open from and to them ends at once. Devices with tags belong to
    nobody and stay. Asks first on a terminal; elsewhere --yes is needed.

    Example: `doorward users delete ann --with-nodes --yes`

    Args:
        name: Login name.
        with_nodes: Delete their devices as well; without it, a person who has any is not deleted.
        yes: Do not ask.
        target: Which server.
    """
    server = target or Target()
    devices = ""
    if with_nodes:
        count = server.call("GET", api_path("users", name), types.User).nodes
        devices = f", with {'1 device' if count == 1 else f'{count} devices'}"
    if not output.confirm(f"Delete the person {name}{devices}, and all by which they get in?", yes=yes):
        output.note("Nothing was deleted.")
        return 1
    query = {"with_nodes": with_nodes or None}
    server.call("DELETE", api_path("users", name), type(None), query=query)
    output.line(f"Deleted {name}{devices}.")
    return 0


@app.command(name="identities")
def identities(name: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """List the accounts at outside providers by which a person signs in.

    Example: `doorward users identities ann`

    Args:
        name: Login name.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", api_path("users", name, "identities"), list[types.Identity])
    if json:
        output.as_json(found)
        return
    output.table(
        ("PROVIDER", "SUBJECT", "EMAIL", "GROUPS", "LAST USED"),
        (
            (
                each.provider,
                each.subject,
                each.email or "-",
                " ".join(each.groups) or "-",
                relative(each.used),
            )
            for each in found
        ),
        empty=f"{name} signs in at no outside provider.",
    )


@app.command(name="link")
def link(name: str, provider: str, subject: str, /, *, target: Target | None = None) -> None:
    """Say that an account at an outside provider is a person's: who has it signs in as them.

    The subject is what the provider calls `sub`. Whoever is refused there is told theirs, and so is the audit log
    (`doorward audit list --action signin.refuse`). An email address links nobody.

    Example: `doorward users link ann corp 248289761001`

    Args:
        name: Login name.
        provider: Name of the provider.
        subject: The account, as the provider numbers it.
        target: Which server.
    """
    body = types.NewIdentity(provider=provider, subject=subject)
    made = (target or Target()).call("POST", api_path("users", name, "identities"), types.Identity, body=body)
    output.line(f"{made.subject} at {made.provider} signs in as {name}.")


@app.command(name="unlink")
def unlink(name: str, provider: str, /, *, target: Target | None = None) -> None:
    """A person's accounts at an outside provider are theirs no more; where they signed in by them, they are signed out.

    Example: `doorward users unlink ann corp`

    Args:
        name: Login name.
        provider: Name of the provider.
        target: Which server.
    """
    path = api_path("users", name, "identities", provider)
    (target or Target()).call("DELETE", path, types.RemovedProvider)
    output.line(f"{name} does not sign in by {provider} any more.")
