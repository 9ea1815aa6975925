"""``doorward providers``."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Flag, Target, api_path, read_text
from doorward.cli.times import exact
from doorward.errors import BadInput

app = App(
    name="providers",
    help="""Outside OpenID providers at which people sign in: add, list, show, change, test, remove.

    Whoever is not known yet comes in by --domains, --users or --groups; any of the three is enough, and without them only those
    come in who were invited or linked (`doorward users link`). Groups that a provider tells stand in the policy as
    `group:NAME@DOMAIN`.
    """,
)

Words = Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True, negative=())]


@app.command(name="list")
def list_providers(*, json: Flag = False, target: Target | None = None) -> None:
    """List the outside providers, oldest first.

    Example: `doorward providers list`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/providers", list[types.Provider])
    if json:
        output.as_json(found)
        return
    output.table(
        ("NAME", "ISSUER", "DOMAINS", "USERS", "GROUPS"),
        (
            (
                each.name,
                each.issuer,
                *(" ".join(one) or "-" for one in (each.domains, each.users, each.groups)),
            )
            for each in found
        ),
        empty="There are no outside providers. Add one with `doorward providers add`.",
    )


@app.command(name="show")
def show_provider(name: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Show an outside provider, and the redirect URIs that it has to know.

    Example: `doorward providers show corp`

    Args:
        name: Name of the provider.
        json: Print an object.
        target: Which server.
    """
    found = (target or Target()).call("GET", api_path("providers", name), types.Provider)
    if json:
        output.as_json(found)
        return
    output.fields(
        {
            "Name": found.name,
            "Issuer": found.issuer,
            "Client ID": found.client_id,
            "Client secret": "set" if found.has_secret else "none",
            "Scopes": " ".join(found.scopes),
            "Domains": " ".join(found.domains) or "-",
            "Users": found.users or "-",
            "Groups": found.groups or "-",
            "Groups claim": found.groups_claim,
            "In the policy": [f"group:NAME@{domain}" for domain in found.group_domains],
            "Redirect URIs": found.redirect_uris,
            "Added": exact(found.created),
        }
    )


@app.command(name="add")
def add_provider(
    name: str,
    /,
    *,
    issuer: str,
    client_id: str,
    client_secret_file: Path | None = None,
    domains: Words = None,
    users: Words = None,
    groups: Words = None,
    groups_claim: str = "groups",
    scopes: Words = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Let people sign in at another provider.

    It prints the redirect URIs to enter there. `doorward providers test` says what is wrong.

    Example: `doorward providers add corp --issuer https://sso.example.com --client-id doorward --client-secret-file secret.txt --domains example.com`

    Args:
        name: What people call it, and read on the button: lower-case letters, digits, `-`.
        issuer: Its address, exactly as it gives it.
        client_id: What it knows doorward as.
        client_secret_file: File with the client secret; `-` reads stdin. Without it doorward is a public client.
        domains: Who has a verified email address in one of these comes in.
        users: Whoever has one of these verified email addresses comes in.
        groups: Whoever it says is in one of these groups comes in.
        groups_claim: The claim in which it tells groups.
        scopes: What to ask for; openid, email and profile where nothing is said.
        json: Print an object.
        target: Which server.
    """
    body = types.NewProvider(
        name=name,
        issuer=issuer,
        client_id=client_id,
        client_secret=_secret(client_secret_file) or "",
        scopes=("openid", "email", "profile") if scopes is None else scopes,
        domains=domains or (),
        users=users or (),
        groups=groups or (),
        groups_claim=groups_claim,
    )
    made = (target or Target()).call("POST", "/providers", types.Provider, body=body)
    if json:
        output.as_json(made)
        return
    output.line(f"Added {made.name}. It has to know these redirect URIs:")
    for uri in made.redirect_uris:
        output.line(f"  {uri}")
    if not (made.domains or made.users or made.groups):
        output.line("Only those come in by it who were invited or linked: no --domains, --users or --groups.")


@app.command(name="change")
def change_provider(
    name: str,
    /,
    *,
    client_id: str | None = None,
    client_secret_file: Path | None = None,
    domains: Words = None,
    users: Words = None,
    groups: Words = None,
    groups_claim: str | None = None,
    scopes: Words = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Change an outside provider. A list replaces the one before; `""` empties it.

    The issuer stays: another one is another provider.

    Example: `doorward providers change corp --client-secret-file secret.txt`

    Args:
        name: Name of the provider.
        client_id: What it knows doorward as.
        client_secret_file: File with the new client secret; `-` reads stdin.
        domains: Who has a verified email address in one of these comes in.
        users: Whoever has one of these verified email addresses comes in.
        groups: Whoever it says is in one of these groups comes in.
        groups_claim: The claim in which it tells groups.
        scopes: What to ask for.
        json: Print an object.
        target: Which server.
    """
    body = types.ProviderChange(
        client_id=client_id,
        client_secret=_secret(client_secret_file),
        scopes=_listed(scopes),
        domains=_listed(domains),
        users=_listed(users),
        groups=_listed(groups),
        groups_claim=groups_claim,
    )
    found = (target or Target()).call("PATCH", api_path("providers", name), types.Provider, body=body)
    if json:
        output.as_json(found)
    else:
        output.line(f"Changed {found.name}.")


@app.command(name="test")
def examine_provider(name: str, /, *, json: Flag = False, target: Target | None = None) -> int:
    """Ask a provider what it is asked when somebody signs in, and say what is wrong.

    Exit codes: 0 when nothing is wrong but perhaps for warnings, 1 otherwise.

    Example: `doorward providers test corp`

    Args:
        name: Name of the provider.
        json: Print a list of objects.
        target: Which server.
    """
    found = (target or Target()).call("POST", api_path("providers", name, "test"), list[types.Finding])
    if json:
        output.as_json(found)
    else:
        for each in found:
            output.line(f"{each.level:8}{each.subject}: {each.message}")
            if each.cure:
                output.line(f"{'':8}{each.cure}")
    return 1 if any(each.level == "error" for each in found) else 0


@app.command(name="remove")
def remove_provider(name: str, /, *, yes: Flag = False, target: Target | None = None) -> int:
    """Forget an outside provider, and whose accounts there are whose. The people and their devices stay.

    Whoever signed in by it is signed out, and without a passkey needs an invitation to sign in again. Asks first on a terminal;
    elsewhere --yes is needed.

    Example: `doorward providers remove corp --yes`

    Args:
        name: Name of the provider.
        yes: Do not ask.
        target: Which server.
    """
    if not output.confirm(f"Forget the provider {name}, and whose accounts there are whose?", yes=yes):
        output.note("Nothing was removed.")
        return 1
    gone = (target or Target()).call("DELETE", api_path("providers", name), types.RemovedProvider)
    accounts = "1 account" if gone.identities == 1 else f"{gone.identities} accounts"
    output.line(f"Removed {name}; {accounts} there signed in here.")
    return 0


def _secret(file: Path | None) -> str | None:
    """The secret in a file, without the line end that editors put behind it. Raises BadInput where there is none."""
    if file is None:
        return None
    secret = read_text(file).strip()
    if not secret:  # it would make doorward a public client, which nobody means by naming a file
        raise BadInput(
            f"there is no client secret in {file}", cure="Put it into the file, or leave the option out."
        )
    return secret


def _listed(words: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """A list as it was given, where an empty word stands for none."""
    return None if words is None else tuple(word for word in words if word)
